import csv
import json
import re
from pathlib import Path

import pytest

from tests.training.synthetic import FakeDataset, crossing, order_data
from vidgru import cli
from vidgru.config import CompareConfig, TrainConfig
from vidgru.datasets.formats.csv_reader import unescape_cell
from vidgru.errors import SettingsError
from vidgru.flags import from_settings
from vidgru.training import compare as module
from vidgru.training.compare import ComparisonRow, compare, comparison_table, parse_variants
from vidgru.training.run import train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FakeDataset:
    return order_data(tmp_path_factory.mktemp("orders"), train=8, val=4)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure speed on few frames, once."""
    monkeypatch.setattr(module, "_TIMED_FRAMES", 1)
    monkeypatch.setattr(module, "_ROUNDS", 1)


def config(data: FakeDataset, out: Path, **changes: object) -> CompareConfig:
    return from_settings(CompareConfig, **data.train_settings(out=str(out), epochs=2, **changes))


def test_compare_cells_and_variants(data: FakeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config(
        data, tmp_path, cells=("gru", "lstm", "rnn", "none"), variants=("hidden=32 drop_features=speed+class",)
    )
    rows = {row.name: row for row in compare(data.root, settings)}
    assert list(rows) == ["gru", "lstm", "rnn", "none", "hidden=32 drop_features=speed+class"]
    # nn.GRU(64, 128): 3 gates, each 128 x (64 + 128) weights and two biases; an LSTM has 4, a plain cell 1
    gate = 128 * (64 + 128) + 2 * 128
    assert [rows[name].cell_parameters for name in ("gru", "lstm", "rnn", "none")] == [3 * gate, 4 * gate, gate, 0]
    # 128 outputs go to the two labels; without memory the 64 of the encoder do
    assert rows["gru"].parameters - rows["none"].parameters == 3 * gate + 2 * (128 - 64)
    last = rows["hidden=32 drop_features=speed+class"]
    assert last.cell_parameters == 3 * (32 * (64 + 32) + 2 * 32)
    for row in rows.values():
        assert row.epoch_s > 0
        assert row.cell_frames_per_s > row.frames_per_s > 0
        assert row.best_epoch in (1, 2)
        assert 0 <= row.metrics["accuracy"] <= 1
        assert row.spread == {}
    shown = capsys.readouterr().out
    assert all(re.search(rf"^{re.escape(name)} .*[\d,]+", shown, re.MULTILINE) for name in rows)
    assert "validation split" in shown
    stored = json.loads((tmp_path / "compare.json").read_text())
    assert stored["evaluated"] == "validation split"
    assert [row["name"] for row in stored["rows"]] == list(rows)
    lines = list(csv.DictReader((tmp_path / "compare.csv").read_text().splitlines()))
    assert [float(line["accuracy"]) for line in lines] == [row.metrics["accuracy"] for row in rows.values()]
    assert {path.name for path in tmp_path.iterdir()} == {"compare.json", "compare.csv"}


@pytest.mark.parametrize("name", ["=1+1", "+a", "-2+3", "@cmd", "\ta", "'=1", "hidden=32"])
def test_compare_csv_holds_no_formulas(name: str) -> None:
    facts = {"parameters": 1, "cell_parameters": 1, "epoch_s": 0.5, "frames_per_s": 1.0, "cell_frames_per_s": 1.0}
    row = ComparisonRow(name=name, **facts, best_epoch=1, metrics={name: -0.5, "ece": -1e-05}, spread={})
    header, cells = csv.reader(module._csv([row]).decode().splitlines())
    assert header[-2][:1] not in tuple("=+-@\t\r")
    assert header[-2] == cells[0] != ""
    assert unescape_cell(cells[0]) == name
    assert cells[-2:] == ["-0.5", "-1e-05"]


@pytest.mark.slow
def test_compare_is_reproducible(data: FakeDataset, tmp_path: Path) -> None:
    changes = {"cells": ("gru",), "folds": 2}
    one, other = (compare(data.root, config(data, tmp_path / name, **changes)) for name in ("one", "other"))
    assert [(row.metrics, row.spread, row.best_epoch) for row in one] == [
        (row.metrics, row.spread, row.best_epoch) for row in other
    ]
    models = json.loads((tmp_path / "one" / "compare.json").read_text())
    assert models["evaluated"] == "mean and spread over 2 folds"
    assert one[0].spread.keys() == one[0].metrics.keys() >= {"accuracy", "macro_f1"}
    assert "accuracy_spread" in (tmp_path / "one" / "compare.csv").read_text().splitlines()[0]


def test_compare_trains_like_train(data: FakeDataset, tmp_path: Path) -> None:
    (row,) = compare(data.root, config(data, tmp_path / "compared", cells=("lstm",)))
    alone = train(
        data.root, from_settings(TrainConfig, **data.train_settings(out=str(tmp_path / "alone"), epochs=2, cell="lstm"))
    )
    metrics = json.loads((alone / "metrics.json").read_text())
    assert row.best_epoch == metrics["epoch"]
    assert row.metrics == {name: metrics[name] for name in row.metrics}


def test_compare_ignores_test_split(data: FakeDataset, tmp_path: Path) -> None:
    rows = [row for row in data.rows if not row.endswith("test")]
    (data.root / "some.csv").write_text("video,start,end,label,description,split\n" + "\n".join(rows) + "\n")
    (data.root / "some.yaml").write_text("annotations: some.csv\nvideos: videos\n")
    (row,) = compare(data.root, config(data, tmp_path / "a", cells=("gru",)))
    (without,) = compare(data.root / "some.yaml", config(data, tmp_path / "b", cells=("gru",)))
    assert (row.metrics, row.best_epoch) == (without.metrics, without.best_epoch)


@pytest.mark.slow
def test_compare_on_timed_events(tmp_path: Path) -> None:
    data = FakeDataset(tmp_path / "data")
    for seed in range(16):
        split, sequence = ("train", "train", "train", "val")[seed % 4], crossing("person", "car", seed)
        data.add(f"{seed}.mp4", sequence, "person", split, times="0,1")
        data.add(f"{seed}.mp4", sequence, "car", split, times="1,2")
    (row,) = compare(data.root, config(data, tmp_path / "out", cells=("gru",), lookahead=0.25))
    assert {"event_f1", "map_50", "frame_map"} <= row.metrics.keys()


def test_variants_change_common_settings() -> None:
    given = from_settings(CompareConfig,
        cells=("gru", "none"),
        variants=("hidden=64", "drop_features=appearance+scene lr=0.001", "cell=lstm augment=false",
                  "group-dropout=0.1"),
        layers=2, epochs=7, folds=3,
    )  # fmt: skip
    common = {"layers": 2, "epochs": 7, "folds": 3, "out": "runs/compare", "captions": False}
    assert parse_variants(given) == {
        "gru": from_settings(TrainConfig, **common),
        "none": from_settings(TrainConfig, **common, cell="none"),
        "hidden=64": from_settings(TrainConfig, **common, hidden=64),
        "drop_features=appearance+scene lr=0.001": from_settings(
            TrainConfig, **common, drop_features=("appearance", "scene"), lr=0.001
        ),
        "cell=lstm augment=false": from_settings(TrainConfig, **common, cell="lstm", augment=False),
        "group-dropout=0.1": from_settings(TrainConfig, **common, group_dropout=0.1),
    }


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("hiden=64", "variant 'hiden=64': unknown setting 'hiden'\n  did you mean hidden?"),
        ("zzz=1", "unknown setting 'zzz'\n  vidgru train --help lists the settings"),
        ("captions=true", "captions is shared by all rows\n  pass it as --captions"),
        ("hidden", "'hidden' is not a setting\n  write name=value"),
        ("hidden=many", "hidden is 'many'; it must be a whole number"),
        ("hidden=0", "variant 'hidden=0': hidden is 0; it must be from 1 to 8192"),
        ("lr=fast", "lr is 'fast'; it must be a number"),
        ("cell=gpt", "cell is 'gpt'; it must be one of gru, lstm, rnn, none"),
        ("drop_features=scene+smell", "drop_features is 'smell'; it must be one of geometry, angle"),
        ("augment=1", "augment is '1'; it must be one of true, false"),
        ("fps=4", "fps is shared by all rows\n  pass it as --fps"),
        ("allow_missing=true", "allow_missing is shared by all rows\n  pass it as --allow-missing"),
    ],
)
def test_invalid_variants_are_refused(variant: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        compare(tmp_path / "is not even looked at", CompareConfig(variants=(variant,)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resume": True}, "resume is True; it must be left out"),
        ({"cells": ()}, "cells is (); it must be at least one"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
    ],
)
def test_invalid_compare_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        from_settings(CompareConfig, **settings)


def test_compare_cli(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--cells", "gru,none", "--variants", "drop_features=scene+time lr=0.01,hidden=64"]
    assert cli.run(["compare", "data", *words, "--print-config"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "cells:\n- gru\n- none\n", "variants:\n- drop_features=scene+time lr=0.01\n- hidden=64\n",
    ):  # fmt: skip
        assert text in shown


def test_table_of_unequal_rows() -> None:
    facts = {
        "parameters": 1000, "cell_parameters": 500, "epoch_s": 0.5, "frames_per_s": 1e5, "cell_frames_per_s": 2e5,
        "best_epoch": 3.5,
    }  # fmt: skip
    rows = [
        ComparisonRow(
            name="gru", **facts, metrics={"accuracy": 0.5, "map": 0.25}, spread={"accuracy": 0.125, "map": 0.0}
        ),
        ComparisonRow(name="init=$x_{日本}$.safetensors", **facts, metrics={"accuracy": 1.0}, spread={"accuracy": 0.0}),
    ]
    text = comparison_table(rows, "mean and spread over 2 folds").splitlines()
    assert re.search(r"^gru +500 +1,000 +0\.50 +100,000 +200,000 +3\.5 +0\.500 \+- 0\.125 +0\.250 \+- 0\.000$", text[1])
    assert re.search(r"3\.5 +1\.000 \+- 0\.000 +-$", text[2])
    assert text[-1] == "accuracy, map: mean and spread over 2 folds."
