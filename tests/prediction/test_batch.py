"""`predict` over recordings: files, and which of them are reused or recomputed."""

import contextlib
import csv
import json
import os
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import vidgru.prediction.predictor
from tests.prediction.fake_project import FakeProject, make_model
from tests.sequences import make_sequence, with_still_frames
from vidgru.cache import SequenceCache
from vidgru.datasets.annotations import load_dataset
from vidgru.errors import (
    CacheError,
    MissingDependencyError,
    ModelError,
    OutputError,
    SettingsError,
    SettingsMismatchError,
    SourceError,
    WeightsError,
)
from vidgru.model.checkpoint import entry_digest, load_model
from vidgru.model.stream import ScoredRecording, score_recording
from vidgru.prediction.batch import predict
from vidgru.prediction.event_files import read_jsonl
from vidgru.prediction.results import PredictionResult, count_trained_on, summary_table
from vidgru.types import Event, Recording


def run(project: FakeProject, *sources: Path, **settings: object) -> list[PredictionResult]:
    return predict(project.model, sources or [project.videos], project.config(**settings))


def statuses(predictions: list[PredictionResult]) -> dict[str, str]:
    return {p.recording.name: p.status for p in predictions}


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        p.relative_to(folder).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- files ----------------------------------------------------------------------------------------------------------


def test_predict_writes_recording_and_run_files(project: FakeProject) -> None:
    project.record("a.mp4")
    project.record("cam 1/b.mp4", frames=24)
    predictions = run(project)
    assert statuses(predictions) == {"a.mp4": "done", "cam 1/b.mp4": "done"}
    folders = {
        f"{name}/{file}"
        for name in ("a.mp4", "cam 1/b.mp4")
        for file in ("events.jsonl", "events.srt", "events.vtt", "fingerprint.json")
    }
    assert files(project.out).keys() == folders | {"activitynet.json", "events.csv", "events.jsonl", "summary.jsonl"}

    assert read_jsonl(project.out / "cam 1/b.mp4/events.jsonl") == list(predictions[1].events)
    assert [(e.video, e.start_s, e.end_s, e.label) for e in predictions[1].events] == [
        ("cam 1/b.mp4", 0.0, 3.0, "fall"),
        ("cam 1/b.mp4", 0.0, 3.0, "walk"),
    ]
    assert [e.score for e in predictions[1].events] == [pytest.approx(0.9), pytest.approx(0.6)]
    assert (
        (project.out / "cam 1/b.mp4/events.vtt")
        .read_text()
        .startswith("WEBVTT\n\n00:00:00.000 --> 00:00:03.000\nfall 90%\n")
    )
    assert (
        (project.out / "cam 1/b.mp4/events.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:03,000\nfall 90%\n")
    )

    together = (project.out / "a.mp4/events.jsonl").read_text() + (project.out / "cam 1/b.mp4/events.jsonl").read_text()
    assert (project.out / "events.jsonl").read_text() == together
    assert [(row["video"], row["label"], row["end"]) for row in rows(project.out / "events.csv")] == [
        ("a.mp4", "fall", "5.000"),
        ("a.mp4", "walk", "5.000"),
        ("cam 1/b.mp4", "fall", "3.000"),
        ("cam 1/b.mp4", "walk", "3.000"),
    ]
    results = json.loads((project.out / "activitynet.json").read_text())["results"]
    assert [(r["label"], r["segment"]) for r in results["a.mp4"]] == [("fall", [0.0, 5.0]), ("walk", [0.0, 5.0])]
    summary = lines(project.out / "summary.jsonl")
    assert [(row["video"], row["status"], row["events"], row["duration_s"]) for row in summary] == [
        ("a.mp4", "done", 2, 5.0),
        ("cam 1/b.mp4", "done", 2, 3.0),
    ]


def test_predict_scores_long_and_still_recordings(project: FakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(project.model, project.feature_settings, weights=str(project.weights), timed=True)
    for name, still in (("a.mp4", []), ("b.mp4", range(5, 130)), ("c.mp4", [])):
        project.record(name, sequence=with_still_frames(make_sequence(150), [*still]))
    project.record("d.mp4")
    predictions = run(project)
    assert {tuple((e.start_s, e.end_s, e.label) for e in p.events) for p in predictions[:3]} == {
        ((0.0, 18.75, "fall"), (0.0, 18.75, "walk"))
    }
    expected = rows(project.out / "events.csv")
    shutil.rmtree(project.out)
    monkeypatch.setattr(vidgru.prediction.predictor, "_BATCH_FRAMES", 100)  # all but d.mp4 are long
    run(project)
    assert rows(project.out / "events.csv") == expected


def test_features_deleted_meanwhile_fail_their_recording(project: FakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(project.model, project.feature_settings, weights=str(project.weights), timed=True)
    path = project.record("a.mp4", sequence=with_still_frames(make_sequence(40), [*range(5, 30)]))
    project.record("b.mp4")

    def score_and_delete(*args: Any, **options: Any) -> ScoredRecording:
        entry = project.cache.lookup(path, project.feature_settings)
        assert entry is not None
        scored = score_recording(*args, **options)
        (project.cache.root / entry.key / "part-00000.safetensors").unlink()
        return scored

    monkeypatch.setattr(vidgru.prediction.predictor, "score_recording", score_and_delete)
    predictions = run(project, report=True)
    assert statuses(predictions) == {"a.mp4": "failed", "b.mp4": "done"}
    assert predictions[0].reason.endswith("part-00000.safetensors is missing")


@pytest.mark.parametrize("frames", [1, 2, 15, 16, 17])
def test_predict_recordings_shorter_than_a_window(project: FakeProject, frames: int) -> None:
    project.record("short.mp4", frames=frames)
    (prediction,) = run(project)
    assert prediction.status == "done"
    assert {(e.start_s, e.end_s) for e in prediction.events} == {(0.0, frames / 8)}


def test_predict_recording_without_events(project: FakeProject) -> None:
    project.record("quiet.mp4")
    (prediction,) = run(project, threshold=0.95)
    assert (prediction.status, prediction.events) == ("done", ())
    assert (project.out / "quiet.mp4/events.vtt").read_text() == "WEBVTT\n"
    assert (project.out / "events.jsonl").read_text() == ""
    assert rows(project.out / "events.csv")[0]["video"] == "quiet.mp4"
    assert json.loads((project.out / "activitynet.json").read_text())["results"] == {"quiet.mp4": []}
    assert statuses(run(project, threshold=0.95)) == {"quiet.mp4": "reused"}


def test_events_have_start_time_if_recording_has(project: FakeProject) -> None:
    project.record("a.mp4", recorded_at="2024-05-01T23:59:59+00:00")
    project.record("b.mp4")
    predictions = run(project)
    assert [[e.start_time for e in p.events] for p in predictions] == [
        ["2024-05-01T23:59:59.000+00:00"] * 2,
        [None] * 2,
    ]
    assert [row["start_time"] for row in rows(project.out / "events.csv")] == ["2024-05-01T23:59:59.000+00:00"] * 2 + [
        ""
    ] * 2
    assert "start_time" not in lines(project.out / "b.mp4/events.jsonl")[0]


def test_events_csv_is_an_annotation_file(project: FakeProject) -> None:
    project.record("a.mp4")
    project.record("cam/b.mp4")
    run(project, labels=("fall",))
    shutil.copy(project.out / "events.csv", project.videos / "annotations.csv")
    dataset = load_dataset(project.videos / "annotations.csv")
    assert [(a.video, a.start_s, a.end_s, a.label) for a in dataset.annotations] == [
        ("a.mp4", 0.0, 5.0, "fall"),
        ("cam/b.mp4", 0.0, 5.0, "fall"),
    ]


def test_predict_filters_labels_and_sets_thresholds(project: FakeProject) -> None:
    project.record("a.mp4")
    assert [e.label for e in run(project)[0].events] == ["fall", "walk"]
    assert [e.label for e in run(project, threshold=0.7)[0].events] == ["fall"]
    assert [e.label for e in run(project, labels=("walk", "run"))[0].events] == ["walk"]
    assert [e.label for e in run(project, labels=("walk",), threshold=0.7)[0].events] == []
    assert [e.label for e in read_jsonl(project.out / "events.jsonl")] == []
    lower = run(project, threshold={"run": 0.1, "fall": 0.95})
    assert [e.label for e in lower[0].events] == ["run", "walk"]
    assert statuses(run(project, threshold={"fall": 0.95, "run": 0.1, "walk": 0.5})) == {"a.mp4": "reused"}
    assert [e.label for e in run(project)[0].events] == ["fall", "walk"]


def test_predict_rejects_unknown_labels(project: FakeProject) -> None:
    project.record("a.mp4")
    with pytest.raises(
        SettingsError, match=r"labels holds 'fal', which the model does not have\n  its labels are fall, run, walk"
    ):
        run(project, labels=("fal", "walk"))
    with pytest.raises(
        SettingsError, match=r"threshold holds 'fal', which the model does not have\n  its labels are fall, run, walk"
    ):
        run(project, threshold={"fal": 0.5, "walk": 0.5})


# --- reuse ----------------------------------------------------------------------------------------------------------


def test_finished_recordings_are_reused(project: FakeProject) -> None:
    project.record("a.mp4")
    project.record("cam/b.mp4")
    first = run(project)
    before = files(project.out)
    shutil.rmtree(project.cache.root)
    project.weights.unlink()  # neither features nor the detector are needed any more
    second = run(project)
    assert statuses(second) == {"a.mp4": "reused", "cam/b.mp4": "reused"}
    assert [(p.duration_s, [e.label for e in p.events]) for p in second] == [
        (p.duration_s, [e.label for e in p.events]) for p in first
    ]
    after = files(project.out)
    assert {name: data for name, (data, _) in after.items() if name != "summary.jsonl"} == {
        name: data for name, (data, _) in before.items() if name != "summary.jsonl"
    }
    assert all(after[name] == before[name] for name in before if "/" in name)


def test_another_model_recomputes(project: FakeProject) -> None:
    project.record("a.mp4")
    run(project)
    make_model(project.model, project.feature_settings, weights=str(project.weights), fall=0.9, sit=0.8)
    (prediction,) = run(project)
    assert (prediction.status, [e.label for e in prediction.events]) == ("done", ["fall", "sit"])
    assert [e.label for e in read_jsonl(project.out / "events.jsonl")] == ["fall", "sit"]


def test_only_other_settings_recompute(project: FakeProject) -> None:
    project.record("a.mp4")
    run(project, labels=("walk", "fall"))
    assert statuses(run(project, labels=("fall", "walk"), device="cpu", detector_batch=3)) == {"a.mp4": "reused"}
    assert statuses(run(project, labels=("fall",))) == {"a.mp4": "done"}
    assert statuses(run(project, labels=("fall",), threshold=0.1)) == {"a.mp4": "done"}


def test_changed_recording_is_recomputed(project: FakeProject) -> None:
    project.record("a.mp4")
    project.record("b.mp4")
    run(project)
    project.record("a.mp4", content="another take", frames=16)
    predictions = run(project)
    assert statuses(predictions) == {"a.mp4": "done", "b.mp4": "reused"}
    assert predictions[0].events[0].end_s == 2.0


@pytest.mark.parametrize("left", ["", '{"video": "a.mp4"', "[]\n"])
def test_corrupt_events_file_is_recomputed(project: FakeProject, left: str) -> None:
    project.record("a.mp4")
    run(project)
    before = (project.out / "events.jsonl").read_bytes()
    if left:
        (project.out / "a.mp4/events.jsonl").write_text(left)
    else:
        (project.out / "a.mp4/events.jsonl").unlink()
    assert statuses(run(project)) == {"a.mp4": "done"}
    assert (project.out / "events.jsonl").read_bytes() == before


@pytest.mark.parametrize("left", [None, "", "[]", "{}"])
def test_recording_without_fingerprint_is_recomputed(project: FakeProject, left: str | None) -> None:
    project.record("a.mp4")
    run(project)
    mark = project.out / "a.mp4/fingerprint.json"
    before = mark.read_bytes()
    mark.unlink() if left is None else mark.write_text(left)
    assert statuses(run(project)) == {"a.mp4": "done"}
    assert mark.read_bytes() == before


def test_kill_between_files_leaves_no_fingerprint(project: FakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project.record("a.mp4")
    run(project)

    def stop(events: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vidgru.prediction.event_files.to_vtt", stop)
        with pytest.raises(KeyboardInterrupt):
            run(project, threshold=0.7)
    assert not (project.out / "a.mp4/fingerprint.json").exists()
    assert statuses(run(project)) == {"a.mp4": "done"}


# --- several runs ---------------------------------------------------------------------------------------------------


def test_runs_over_several_folders_add_up(project: FakeProject) -> None:
    first, second = project.root / "first", project.root / "second"
    project.record("a.mp4", folder=first)
    project.record("b.mp4", folder=second)
    run(project, first)
    run(project, second)
    (first / "a.mp4").unlink()  # as cameras do with their old recordings
    assert statuses(run(project, second)) == {"b.mp4": "reused"}
    assert [row["video"] for row in rows(project.out / "events.csv")] == ["a.mp4", "a.mp4", "b.mp4", "b.mp4"]
    assert [row["video"] for row in lines(project.out / "summary.jsonl")] == ["b.mp4"]


def test_events_of_other_settings_are_not_merged(project: FakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = project.root / "first", project.root / "second"
    project.record("a.mp4", folder=first)
    project.record("b.mp4", folder=second)
    run(project, first)
    assert "more recordings" not in capsys.readouterr().err
    run(project, second, threshold=0.7)
    assert [row["video"] for row in rows(project.out / "events.csv")] == ["b.mp4"]
    assert (
        "holds 1 more recordings, from another model, other settings or with corrupt files" in capsys.readouterr().err
    )
    run(project, first, second, threshold=0.7)
    assert [row["video"] for row in rows(project.out / "events.csv")] == ["a.mp4", "b.mp4"]


def test_predict_rejects_duplicate_names(project: FakeProject) -> None:
    first, second = project.root / "first", project.root / "second"
    project.record("a.mp4", folder=first)
    project.record("a.mp4", folder=second, content="other")
    with pytest.raises(
        OutputError,
        match=r"first/a\.mp4 and .*second/a\.mp4 would both be a\.mp4 in the output\n  give the folder above",
    ):
        run(project, first, second)
    assert not project.out.exists()
    assert statuses(run(project, project.root)) == {"first/a.mp4": "done", "second/a.mp4": "done"}


def test_predict_does_not_overwrite_other_recording(project: FakeProject) -> None:
    first, second = project.root / "first", project.root / "second"
    project.record("a.mp4", folder=first)
    project.record("a.mp4", folder=second, content="other", frames=16)
    run(project, first)
    before = files(project.out)
    with pytest.raises(
        OutputError, match=r"events/a\.mp4 holds the events of .*first/a\.mp4, not of .*second/a\.mp4\n  choose another"
    ):
        run(project, second)
    assert files(project.out) == before
    (first / "a.mp4").unlink()
    assert statuses(run(project, second)) == {"a.mp4": "done"}  # it was moved and cut anew


def test_copied_recording_is_reused(project: FakeProject) -> None:
    first, second = project.root / "first", project.root / "second"
    project.record("a.mp4", folder=first)
    run(project, first)
    shutil.copytree(first, second)
    assert statuses(run(project, second)) == {"a.mp4": "reused"}


def test_predict_into_a_file(project: FakeProject) -> None:
    project.record("a.mp4")
    project.out.write_text("")
    with pytest.raises(OutputError, match=r"events is a file, not a folder\n  choose another folder with --out"):
        run(project)


def test_predict_with_file_in_place_of_folder(project: FakeProject) -> None:
    project.record("cam/a.mp4")
    project.out.mkdir()
    (project.out / "cam").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*events/cam/a\.mp4"):
        run(project)


# --- errors ---------------------------------------------------------------------------------------------------------


def test_failed_recording_does_not_end_the_run(project: FakeProject) -> None:
    project.record("a.mp4")
    project.record("c.mp4")
    (project.videos / "b.mp4").touch()
    predictions = run(project)
    assert statuses(predictions) == {"a.mp4": "done", "b.mp4": "failed", "c.mp4": "done"}
    assert predictions[1].reason == "is empty (0 bytes); copy it again"
    assert [path.name for path in (project.out / "b.mp4").iterdir()] == ["failure.json"]
    assert lines(project.out / "summary.jsonl")[1]["reason"] == "is empty (0 bytes); copy it again"
    assert {row["video"] for row in rows(project.out / "events.csv")} == {"a.mp4", "c.mp4"}
    assert statuses(run(project)) == {"a.mp4": "reused", "b.mp4": "failed", "c.mp4": "reused"}


def test_failure_invalidates_finished_recording(project: FakeProject) -> None:
    project.record("a.mp4")
    project.record("b.mp4")
    run(project)
    (project.videos / "b.mp4").write_bytes(b"")
    assert statuses(run(project)) == {"a.mp4": "reused", "b.mp4": "failed"}
    assert {row["video"] for row in rows(project.out / "events.csv")} == {"a.mp4"}
    assert (project.out / "b.mp4/events.jsonl").exists()


def test_corrupt_features_are_extracted_again(project: FakeProject) -> None:
    """These recordings are not videos, so extraction fails, before it loads the detector, which is a text file."""
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        project.record(name)
    broken = [
        project.cache.root / project.cache.key(project.cache.sha256(project.videos / n), project.feature_settings)
        for n in ("a.mp4", "b.mp4")
    ]
    (broken[0] / "part-00000.safetensors").unlink()
    (broken[1] / "part-00000.safetensors").write_bytes(b"nothing of the kind")
    predictions = run(project)
    assert statuses(predictions) == {"a.mp4": "failed", "b.mp4": "failed", "c.mp4": "done"}
    assert all("is not a readable video" in prediction.reason for prediction in predictions[:2])


@pytest.mark.parametrize("detector", [True, False])
def test_damaged_recording_is_partial(project: FakeProject, detector: bool) -> None:
    project.record("a.mp4", status="partial", damage={"corrupt_frames": 3})
    if not detector:
        project.weights.unlink()
    (prediction,) = run(project)
    assert prediction.status == "partial"
    assert prediction.reason == "3 corrupt frames"
    assert len(prediction.events) == 2
    (again,) = run(project)
    assert (again.status, again.reason) == ("reused", prediction.reason)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such names cannot be")
def test_predict_name_that_is_not_utf8(project: FakeProject) -> None:
    path = project.record("caf.mp4")
    project.weights.unlink()
    os.rename(path, os.fsencode(project.videos) + b"/caf\xe9.mp4")
    (prediction,) = run(project)
    assert prediction.status == "done"
    assert read_jsonl(project.out / "events.jsonl") == list(prediction.events)
    assert statuses(run(project)) == {"caf\udce9.mp4": "reused"}
    assert rows(project.out / "events.csv")[0]["video"] == "caf\\udce9.mp4"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such files cannot be")
def test_predict_what_is_no_file_fails_by_itself(project: FakeProject) -> None:
    project.record("good.mp4")
    os.mkfifo(project.videos / "pipe.mp4")
    (project.videos / "loop.mp4").symlink_to("loop.mp4")
    (project.videos / "zero.mp4").symlink_to("/dev/zero")
    (project.videos / "folder.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as unix, contextlib.chdir(project.videos):  # such paths are at most 108 long
        unix.bind("socket.mp4")
    results = {result.recording.name: result for result in run(project)}
    assert results.pop("good.mp4").status == "done"
    assert {(name, result.status) for name, result in results.items()} == {
        (f"{name}.mp4", "failed") for name in ("folder", "loop", "pipe", "socket", "zero")
    }
    reasons = {result.reason for result in results.values()}
    assert reasons == {"cannot be read: not a regular file", "cannot be opened: Too many levels of symbolic links"}


def test_predict_without_model(project: FakeProject) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        predict(project.root / "none.safetensors", [project.videos], project.config())


def test_predict_without_recordings(project: FakeProject) -> None:
    with pytest.raises(SourceError, match="no recordings in"):
        run(project)


def test_predict_with_run_folder(project: FakeProject) -> None:
    project.record("a.mp4")
    shutil.copy(project.model, project.root / "best.safetensors")
    run(project)
    assert statuses(predict(project.root, [project.videos], project.config())) == {"a.mp4": "reused"}


# --- the detector ---------------------------------------------------------------------------------------------------


def test_cached_features_need_no_detector(project: FakeProject) -> None:
    project.record("a.mp4")
    project.record("b.mp4")
    project.weights.unlink()
    assert statuses(run(project)) == {"a.mp4": "done", "b.mp4": "done"}


def test_missing_features_need_detector(project: FakeProject) -> None:
    project.record("a.mp4")
    (project.videos / "b.mp4").write_text("not seen yet")
    project.weights.unlink()
    sha256 = project.feature_settings["weights_sha256"]
    with pytest.raises(
        WeightsError, match=rf"no such weights file: .*detector\.pt\n  pass --weights .*SHA-256 {sha256}"
    ):
        run(project)


def test_detector_that_only_the_model_names_is_refused(project: FakeProject) -> None:
    (project.videos / "a.mp4").write_text("of the model's author, beside the model and its detector")
    sha256 = project.feature_settings["weights_sha256"]
    message = (
        rf"names the detector .*detector\.pt, which has made no features in .*\n  pass it with --weights.*{sha256}"
    )
    with pytest.raises(WeightsError, match=message):
        run(project)
    assert statuses(run(project, weights=str(project.weights))) == {"a.mp4": "failed"}  # opened, and no video
    project.record("b.mp4")
    assert statuses(run(project)) == {"a.mp4": "failed", "b.mp4": "done"}


def test_missing_detector_names_differing_settings(project: FakeProject) -> None:
    ours = project.feature_settings
    project.feature_settings = {**ours, "fps": 4.0}
    project.record("a.mp4")
    project.feature_settings = ours
    project.weights.unlink()
    message = r"the features of a\.mp4 in .* differ from the model's: fps is 4\.0, the model's is 8\.0"
    with pytest.raises(SettingsMismatchError, match=message):
        run(project)


def test_missing_detector_is_named_after_a_time_range(project: FakeProject) -> None:
    ours = project.feature_settings
    project.feature_settings = {**ours, "span": [60, 120]}
    project.record("a.mp4")
    project.feature_settings = ours
    project.weights.unlink()
    with pytest.raises(WeightsError, match=r"no such weights file: .*detector\.pt"):
        run(project)


def test_weights_may_move_but_must_be_the_same(project: FakeProject) -> None:
    project.record("a.mp4")
    moved = project.weights.rename(project.root / "moved.pt")
    assert statuses(run(project, weights=str(moved))) == {"a.mp4": "done"}
    other = project.root / "other.pt"
    other.write_bytes(b"another detector")
    with pytest.raises(
        SettingsMismatchError, match=r"other\.pt is not the detector that the model was trained on: its SHA-256 is "
    ):
        run(project, weights=str(other))
    with pytest.raises(WeightsError, match=r"no such weights file: .*nowhere\.pt"):
        run(project, weights=str(project.root / "nowhere.pt"))


def test_replaced_detector_is_rejected(project: FakeProject) -> None:
    project.record("a.mp4")
    project.weights.write_bytes(b"another detector")
    with pytest.raises(SettingsMismatchError, match=r"detector\.pt is not the detector that the model was trained on"):
        run(project)


def test_unsupported_features_are_rejected(project: FakeProject) -> None:
    project.record("a.mp4")
    replace(load_model(project.model), feature_settings={**project.feature_settings, "schema": 0}).save(project.model)
    with pytest.raises(
        SettingsMismatchError, match="this version of vidgru cannot compute the model's features: schema differs"
    ):
        run(project)


def test_features_use_the_models_settings(project: FakeProject) -> None:
    project.record("a.mp4")
    replace(load_model(project.model), feature_settings={**project.feature_settings, "fps": 4.0}).save(project.model)
    (prediction,) = run(project)  # those at 8 a second do not serve, and the file cannot be decoded
    assert prediction.status == "failed"
    assert "is not a readable video" in prediction.reason


# --- the summary ----------------------------------------------------------------------------------------------------


def test_summary_table(project: FakeProject) -> None:
    project.record("a.mp4")
    project.record("b.mp4", frames=24)
    project.record("c.mp4", frames=16, status="partial", damage={"corrupt_frames": 3})
    (project.videos / "d.mp4").touch()
    assert summary_table(run(project)).splitlines() == [
        "partial  c.mp4: 3 corrupt frames",
        "failed   d.mp4: is empty (0 bytes); copy it again",
        "      events  recordings      seconds",
        "fall       3           3         10.0",
        "walk       3           3         10.0",
        "2 done, 1 partial, 1 failed: 0.00 hours of video, 6 events",
    ]


def test_summary_table_without_events(project: FakeProject) -> None:
    project.record("a.mp4")
    assert summary_table(run(project, threshold=1.0)) == "1 done: 0.00 hours of video, 0 events"


def test_summary_table_fits_a_screen() -> None:
    recordings = [Recording(path=Path(f"{n:02}.mp4"), name=f"{n:02}.mp4") for n in range(30)]
    events = [Event(video="00.mp4", start_s=n, end_s=n + 1, label=f"label {n:02}", score=1.0) for n in range(25)]
    results = [
        PredictionResult(recording=each, status="failed", reason=f"reason of {each.name}") for each in recordings
    ]
    lines = summary_table([*results, PredictionResult(recording=recordings[0], status="done", events=tuple(events))])
    assert "... and 20 more in summary.jsonl" in lines.splitlines()
    assert "... and 15 more labels in events.csv" in lines.splitlines()
    assert len(lines.splitlines()) == 10 + 1 + 1 + 10 + 1 + 1


def test_predict_prints_nothing_on_stdout(project: FakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    project.record("a.mp4")
    run(project)
    assert capsys.readouterr().out == ""


def test_results_hold_events(project: FakeProject) -> None:
    project.record("a.mp4")
    (prediction,) = run(project)
    assert all(isinstance(event, Event) for event in prediction.events)
    assert SequenceCache(project.cache.root).sources()


# --- wall-clock time ------------------------------------------------------------------------------------------------


def test_predict_selects_time_range(project: FakeProject) -> None:
    for name, at in (("a.mp4", "2024-05-06T08:00:00+00:00"), ("b.mp4", "2024-05-06T09:00:00+00:00")):
        project.record(name, recorded_at=at)
    project.record("c.mp4")
    since = {"since": "2024-05-06T08:30:00+00:00"}
    predictions = run(project, project.cache.root, **since)
    assert statuses(predictions) == {"b.mp4": "done", "c.mp4": "failed"}
    assert predictions[1].reason == "its recording time is unknown; pass --start-time"
    assert {row["video"] for row in rows(project.out / "events.csv")} == {"b.mp4"}
    until = {"until": "2024-05-06T08:00:05+00:00"}
    assert [len(p.events) for p in run(project, project.cache.root, **until)] == [2, 0]
    assert statuses(run(project, project.cache.root, **until, start_time="2024-05-06T08:00:00+00:00")) == {
        "a.mp4": "reused", "b.mp4": "done", "c.mp4": "done",
    }  # fmt: skip


# --- extras ---------------------------------------------------------------------------------------------------------


def test_reports_are_written_once(project: FakeProject) -> None:
    project.record("cam/a.mp4")
    run(project)
    assert not (project.out / "index.html").exists()
    assert statuses(run(project, report=True)) == {"cam/a.mp4": "done"}
    page = (project.out / "cam/a.mp4/report.html").read_text()
    assert "cam/a.mp4" in page
    assert "fall" in (project.out / "index.html").read_text()
    before = files(project.out)
    assert statuses(run(project, report=True)) == {"cam/a.mp4": "reused"}
    assert statuses(run(project)) == {"cam/a.mp4": "reused"}
    after = files(project.out)
    assert all(after[name] == before[name] for name in before if "/" in name)
    (project.videos / "b.mp4").touch()
    run(project)
    assert "b.mp4" in (project.out / "index.html").read_text(), "an existing index is kept up to date"


def test_outdated_extras_are_deleted(project: FakeProject) -> None:
    project.record("a.mp4")
    run(project, report=True)
    page = project.out / "a.mp4/report.html"
    (project.out / "a.mp4/clips").mkdir()
    run(project, threshold=0.8)
    assert not page.exists()
    assert not (project.out / "a.mp4/clips").exists()
    run(project, report=True, threshold=0.8)
    before = page.stat().st_mtime_ns
    assert statuses(run(project, report=True, clips=True, threshold=0.8)) == {"a.mp4": "partial"}
    assert page.stat().st_mtime_ns == before, "valid extras are kept"


def test_report_follows_moved_recording(project: FakeProject) -> None:
    path = project.record("a.mp4")
    run(project, report=True)
    assert "videos/a.mp4" in (project.out / "a.mp4/report.html").read_text()
    moved = project.root / "moved"
    moved.mkdir()
    path.rename(moved / "a.mp4")
    assert statuses(run(project, moved)) == {"a.mp4": "reused"}
    assert statuses(run(project, moved, report=True)) == {"a.mp4": "done"}
    assert "moved/a.mp4" in (project.out / "a.mp4/report.html").read_text()


def test_finished_recording_depends_on_name(project: FakeProject) -> None:
    """Each camera was predicted into its own folder, below the folder that now holds both."""
    for camera in ("cam1", "cam2"):
        project.record(f"{camera}/a.mp4")
        run(project, project.videos / camera, out=str(project.out / camera))
    assert statuses(run(project)) == {"cam1/a.mp4": "done", "cam2/a.mp4": "done"}
    assert {row["video"] for row in rows(project.out / "events.csv")} == {"cam1/a.mp4", "cam2/a.mp4"}


def test_another_start_time_recomputes(project: FakeProject) -> None:
    path = project.record("a.mp4")
    first, second = "2024-05-01T12:00:00", "2024-05-02T12:00:00"
    run(project, start_time=first)
    assert statuses(run(project, start_time=first)) == {"a.mp4": "reused"}
    project.cache.set_last_entry(path, project.cache.key(project.cache.sha256(path), project.feature_settings), second)
    (prediction,) = run(project)
    assert prediction.status == "done"
    assert prediction.events[0].start_time == "2024-05-02T12:00:00.000"


def test_edited_labels_are_not_merged(project: FakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    project.record("a.mp4")
    project.record("b.mp4")
    run(project)
    path = project.out / "a.mp4/events.jsonl"
    path.write_text(path.read_text().replace("fall", "tumble"))
    run(project, report=True)
    assert "tumble" not in (project.out / "index.html").read_text()
    path.write_text(path.read_text().replace("fall", "tumble"))
    run(project, project.videos / "b.mp4", report=True)
    assert {row["video"] for row in rows(project.out / "events.csv")} == {"b.mp4"}
    assert "with corrupt files" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("record", True), ("once", True), ("for_", "2h")])
def test_predict_rejects_settings_of_live_sources(project: FakeProject, name: str, value: object) -> None:
    project.record("a.mp4")
    message = f"{name.rstrip('_')} is for live sources, and these are recordings\n  leave it out"
    with pytest.raises(SettingsError, match=message):
        run(project, **{name: value})


def test_clips_of_unreadable_recording(project: FakeProject) -> None:
    project.record("a.mp4")
    (prediction,) = run(project, clips=True, save_video=True)
    assert prediction.status == "partial"
    assert prediction.reason.count("is not a readable video") == 2
    assert prediction.reason.startswith("no clips: ")
    assert "; no video: " in prediction.reason
    assert len(read_jsonl(project.out / "a.mp4/events.jsonl")) == 2
    assert statuses(run(project, clips=True)) == {"a.mp4": "partial"}, "clips are tried again"
    assert statuses(run(project)) == {"a.mp4": "reused"}


def test_results_have_scores(project: FakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project.record("a.mp4")
    (done,) = run(project)
    (reused,) = run(project)
    assert (done.status, reused.status) == ("done", "reused")
    for result in (done, reused):
        scores = result.scores
        assert scores.labels == load_model(project.model).labels
        assert len(scores.time_s) == len(scores.raw) == len(scores.smoothed) > 0
        assert scores.smoothed.shape[1] == len(scores.labels)
    assert done.scores is done.scores, "computed once"
    assert count_trained_on([done]) == 0
    assert done.entry is not None
    model = replace(load_model(project.model), trained_on=(entry_digest(done.entry.name),))
    model.save(str(project.model))
    assert count_trained_on([done, failed_result(done)]) == 1
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"to_pandas needs pandas.*\n  pip install pandas"):
        done.to_pandas()
    pandas = SimpleNamespace(DataFrame=lambda rows, columns: SimpleNamespace(rows=rows, columns=columns))
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert [row["label"] for row in done.to_pandas().rows] == [event.label for event in done.events]
    assert "start_s" in done.to_pandas().columns
    with pytest.raises(CacheError, match=r"a\.mp4 has no scores: it is broken\n  predict it again"):
        _ = failed_result(done).scores


def failed_result(result: PredictionResult) -> PredictionResult:
    return PredictionResult(recording=result.recording, status="failed", reason="it is broken")
