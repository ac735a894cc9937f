"""The person that `scripts/bench_labels.py` plays, and a run on a tiny dataset."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.datasets.annotation_files import csv_set
from tests.training.synthetic import order_data
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import event_timelines
from vidgru.labeling.suggest import LabelledTime

SCRIPTS = Path(__file__).parents[1] / "scripts"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(SCRIPTS)
    bench: Any = importlib.import_module("bench_labels")


def result(**values: Any) -> dict[str, Any]:
    row = {"set": "yoga", "weights": "a.pt", "fps": 8.0, "imgsz": 640, "strategy": "random", "seed": 0, "full": 0.9}
    return {**row, "minutes": 2.0, "labels": 5, "curve": [(2.0, 5, 0.88), (4.0, 9, 0.9)], **values}


def test_table_tells_features_apart_and_names_gaps() -> None:
    rows = [result(), result(seed=1, minutes=3.0, labels=7), result(weights="b.pt", imgsz=320, strategy="suggestions")]
    assert bench.table(rows).splitlines()[2:] == [
        "| yoga | a.pt, 8 fps, 640 px | 0.90 after 4.0 min, 9 labels "
        "| not run | 2.5 min (2.0 to 3.0), 6 labels (5 to 7) |",
        "| yoga | b.pt, 8 fps, 320 px | 0.90 after 4.0 min, 9 labels | 2.0 min, 5 labels | not run |",
    ]
    assert len(bench.draw(rows).axes) == 2


def test_runs_on_other_features_are_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float | None] = []

    def simulate(data: Any, config: Any, shares: Any, seed: int, full: float | None, saving: Any) -> dict[str, Any]:
        given.append(full)
        return {"full": 0.9, "minutes": 2.0, "labels": 5, "curve": [(2.0, 5, 0.88), (4.0, 9, 0.9)]}

    monkeypatch.setattr(bench, "prepare", lambda path, config: None)
    monkeypatch.setattr(bench, "simulate", simulate)
    monkeypatch.setattr(bench, "draw", lambda rows: Figure())
    for flags in (["--weights", "a.pt"], ["--weights", "b.pt"], ["--weights", "b.pt", "--fps", "4"]) * 2:
        argv = ["bench_labels.py", "yoga", "--seeds", "1", "--strategies", "suggestions,random", "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", [*argv, *flags])
        bench.main()
    assert given == [None, 0.9] * 3, "the figure with all labels is that of the same features"


def test_rows_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "labels.json").write_text(json.dumps([{"set": "yoga", "strategy": "random", "seed": 0, "full": 0.9}]))
    monkeypatch.setattr(sys, "argv", ["bench_labels.py", "yoga", "--weights", "a.pt", "--out", str(tmp_path)])
    with pytest.raises(
        SystemExit, match=r"labels\.json has rows without fps, imgsz, weights, .*\n  delete it, or write"
    ):
        bench.main()


def test_person_watches_events_to_their_end(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,4,8,fall,,train", "a.mp4,20,21,sit,,train", "b.mp4,,,,,train")
    person = bench.Person(dataset, {"a.mp4": 30.0, "b.mp4": 10.0})
    person.watch("a.mp4", 0.0, 6.0)
    assert (person.watched_s, person.labels) == (8.0, 1)
    person.watch("a.mp4", 7.0, 12.0)
    assert (person.watched_s, person.labels) == (12.0, 1), "what is known is not watched again"
    assert person.labelled["a.mp4"] == LabelledTime(known=((0, 12),), events=((4, 8, "fall"),))
    person.watch("b.mp4", 0.0, 10.0)
    (a, b) = event_timelines(person.annotations())
    assert (a.events, a.unwatched) == (((4, 8, 0),), ((12, np.inf),))
    assert (b.events, b.unwatched) == ((), ((10, np.inf),))


def test_person_labels_whole_clips(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,,,walk,,train", "b.mp4,,,run,,train", "c.mp4,,,,,train")
    person = bench.Person(dataset, dict.fromkeys(dataset.recordings, 5.0))
    person.watch("b.mp4", 0.0, 2.0)
    person.watch("c.mp4", 0.0, 5.0)
    assert (person.watched_s, person.labels) == (7.0, 2)
    assert [(row.annotation.video, row.annotation.label) for row in person.annotations().rows] == [
        ("b.mp4", "run"), ("c.mp4", None),
    ]  # fmt: skip


@pytest.mark.slow
def test_bench_labels_finds_minutes_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = order_data(tmp_path / "set", train=4, val=1)
    monkeypatch.setattr(bench, "_ROUNDS", 2)
    monkeypatch.chdir(tmp_path)  # videos of saved labels are found from any folder
    flags = ["--features", str(data.features), "--weights", str(data.weights), "--seeds", "1", "--out", "out"]
    argv = ["bench_labels.py", data.root.name, *flags, "--strategies", "suggestions,random", "--save-at", "0.1,100"]
    monkeypatch.setattr(sys, "argv", argv)
    bench.main()
    rows = json.loads((tmp_path / "out/labels.json").read_text())
    assert [row["strategy"] for row in rows] == ["suggestions", "random"]
    for row in rows:
        *_, (all_minutes, all_labels, full) = row["curve"]
        assert full == row["full"]
        assert 0 < row["minutes"] <= all_minutes
        assert 0 < row["labels"] <= all_labels
    pool, test = {}, {}
    for minutes in ("0.1", "100"):
        dataset = load_dataset(tmp_path / f"out/set-suggestions-0-{minutes}min.csv")
        pool[minutes], test[minutes] = (
            {row.annotation.video for row in dataset.rows if row.split == split} for split in ("train", "test")
        )
    assert pool["0.1"] < pool["100"]
    assert test["0.1"] == test["100"]
    assert not pool["100"] & test["100"]
    assert len(pool["100"] | test["100"]) == len(load_dataset(data.root).recordings), "all that can be watched, was"
    assert (tmp_path / "out/labels.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out/labels.md").read_text().count("|") > 10
    shown = capsys.readouterr().out
    bench.main()
    assert "min" in shown
    assert capsys.readouterr().out == "", "runs that are there are not repeated"
