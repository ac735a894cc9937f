"""From recordings and a model to events in files, and which of them are made again."""

import csv
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.prediction.fake_project import World, make_model
from vidgru.cache import SequenceCache
from vidgru.datasets.annotations import load_dataset
from vidgru.errors import (
    ModelError,
    OutputError,
    SettingsError,
    SettingsMismatchError,
    SourceError,
    WeightsError,
)
from vidgru.model.checkpoint import load_model
from vidgru.prediction.batch import predict
from vidgru.prediction.event_files import read_jsonl
from vidgru.prediction.results import PredictionResult, summary_table
from vidgru.types import Event, Recording


def run(world: World, *sources: Path, **settings: object) -> list[PredictionResult]:
    return predict(world.model, sources or [world.videos], world.config(**settings))


def states(predictions: list[PredictionResult]) -> dict[str, str]:
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


# --- what is written ------------------------------------------------------------------------------------------------


def test_each_recording_has_its_folder_and_the_run_its_files(world: World) -> None:
    world.record("a.mp4")
    world.record("cam 1/b.mp4", frames=24)
    predictions = run(world)
    assert states(predictions) == {"a.mp4": "done", "cam 1/b.mp4": "done"}
    folders = {
        f"{name}/{file}"
        for name in ("a.mp4", "cam 1/b.mp4")
        for file in ("events.jsonl", "events.srt", "events.vtt", "fingerprint.json")
    }
    assert files(world.out).keys() == folders | {"activitynet.json", "events.csv", "events.jsonl", "summary.jsonl"}

    assert read_jsonl(world.out / "cam 1/b.mp4/events.jsonl") == list(predictions[1].events)
    assert [(e.video, e.start_s, e.end_s, e.label) for e in predictions[1].events] == [
        ("cam 1/b.mp4", 0.0, 3.0, "fall"),
        ("cam 1/b.mp4", 0.0, 3.0, "walk"),
    ]
    assert [e.score for e in predictions[1].events] == [pytest.approx(0.9), pytest.approx(0.6)]
    assert (
        (world.out / "cam 1/b.mp4/events.vtt")
        .read_text()
        .startswith("WEBVTT\n\n00:00:00.000 --> 00:00:03.000\nfall 90%\n")
    )
    assert (world.out / "cam 1/b.mp4/events.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:03,000\nfall 90%\n")

    together = (world.out / "a.mp4/events.jsonl").read_text() + (world.out / "cam 1/b.mp4/events.jsonl").read_text()
    assert (world.out / "events.jsonl").read_text() == together
    assert [(row["video"], row["label"], row["end"]) for row in rows(world.out / "events.csv")] == [
        ("a.mp4", "fall", "5.000"),
        ("a.mp4", "walk", "5.000"),
        ("cam 1/b.mp4", "fall", "3.000"),
        ("cam 1/b.mp4", "walk", "3.000"),
    ]
    results = json.loads((world.out / "activitynet.json").read_text())["results"]
    assert [(r["label"], r["segment"]) for r in results["a.mp4"]] == [("fall", [0.0, 5.0]), ("walk", [0.0, 5.0])]
    summary = lines(world.out / "summary.jsonl")
    assert [(row["video"], row["status"], row["events"], row["duration_s"]) for row in summary] == [
        ("a.mp4", "done", 2, 5.0),
        ("cam 1/b.mp4", "done", 2, 3.0),
    ]


@pytest.mark.parametrize("frames", [1, 2, 15, 16, 17])
def test_recordings_about_as_short_as_a_window_and_shorter(world: World, frames: int) -> None:
    world.record("short.mp4", frames=frames)
    (prediction,) = run(world)
    assert prediction.status == "done"
    assert {(e.start_s, e.end_s) for e in prediction.events} == {(0.0, frames / 8)}


def test_a_recording_without_events_is_finished_too(world: World) -> None:
    world.record("quiet.mp4")
    (prediction,) = run(world, min_score=0.95)
    assert (prediction.status, prediction.events) == ("done", ())
    assert (world.out / "quiet.mp4/events.vtt").read_text() == "WEBVTT\n"
    assert (world.out / "events.jsonl").read_text() == ""
    assert rows(world.out / "events.csv")[0]["video"] == "quiet.mp4"
    assert json.loads((world.out / "activitynet.json").read_text())["results"] == {"quiet.mp4": []}
    assert states(run(world, min_score=0.95)) == {"quiet.mp4": "reused"}


def test_start_time_where_the_recording_says_when_it_was_made(world: World) -> None:
    world.record("a.mp4", recorded_at="2024-05-01T23:59:59+00:00")
    world.record("b.mp4")
    predictions = run(world)
    assert [[e.start_time for e in p.events] for p in predictions] == [
        ["2024-05-01T23:59:59.000+00:00"] * 2,
        [None] * 2,
    ]
    assert [row["start_time"] for row in rows(world.out / "events.csv")] == ["2024-05-01T23:59:59.000+00:00"] * 2 + [
        ""
    ] * 2
    assert "start_time" not in lines(world.out / "b.mp4/events.jsonl")[0]


def test_the_events_file_is_an_annotation_file(world: World) -> None:
    world.record("a.mp4")
    world.record("cam/b.mp4")
    run(world, labels=("fall",))
    shutil.copy(world.out / "events.csv", world.videos / "annotations.csv")
    dataset = load_dataset(world.videos / "annotations.csv")
    assert [(a.video, a.start_s, a.end_s, a.label) for a in dataset.annotations] == [
        ("a.mp4", 0.0, 5.0, "fall"),
        ("cam/b.mp4", 0.0, 5.0, "fall"),
    ]


def test_only_events_that_are_asked_for(world: World) -> None:
    world.record("a.mp4")
    assert [e.label for e in run(world)[0].events] == ["fall", "walk"]
    assert [e.label for e in run(world, min_score=0.7)[0].events] == ["fall"]
    assert [e.label for e in run(world, labels=("walk", "run"))[0].events] == ["walk"]
    assert [e.label for e in run(world, labels=("walk",), min_score=0.7)[0].events] == []
    assert [e.label for e in read_jsonl(world.out / "events.jsonl")] == []
    assert [e.label for e in run(world)[0].events] == ["fall", "walk"]


def test_labels_that_the_model_does_not_know(world: World) -> None:
    world.record("a.mp4")
    with pytest.raises(
        SettingsError, match=r"labels holds 'fal', which the model does not have\n  its labels are fall, run, walk"
    ):
        run(world, labels=("fal", "walk"))


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_min_score_out_of_range(world: World, value: float) -> None:
    with pytest.raises(SettingsError, match=rf"min_score is {value}; it must be between 0 and 1"):
        world.config(min_score=value)


# --- what is made again ---------------------------------------------------------------------------------------------


def test_finished_recordings_are_left_alone(world: World) -> None:
    world.record("a.mp4")
    world.record("cam/b.mp4")
    first = run(world)
    before = files(world.out)
    shutil.rmtree(world.cache.root)
    world.weights.unlink()  # neither features nor the detector are needed any more
    second = run(world)
    assert states(second) == {"a.mp4": "reused", "cam/b.mp4": "reused"}
    assert [(p.duration_s, [e.label for e in p.events]) for p in second] == [
        (p.duration_s, [e.label for e in p.events]) for p in first
    ]
    after = files(world.out)
    assert {name: data for name, (data, _) in after.items() if name != "summary.jsonl"} == {
        name: data for name, (data, _) in before.items() if name != "summary.jsonl"
    }
    assert all(after[name] == before[name] for name in before if "/" in name)


def test_another_model_makes_them_again(world: World) -> None:
    world.record("a.mp4")
    run(world)
    make_model(world.model, world.feature_settings, weights=str(world.weights), fall=0.9, sit=0.8)
    (prediction,) = run(world)
    assert (prediction.status, [e.label for e in prediction.events]) == ("done", ["fall", "sit"])
    assert [e.label for e in read_jsonl(world.out / "events.jsonl")] == ["fall", "sit"]


def test_other_settings_make_them_again_and_equal_ones_do_not(world: World) -> None:
    world.record("a.mp4")
    run(world, labels=("walk", "fall"))
    assert states(run(world, labels=("fall", "walk"), device="cpu", detector_batch=3)) == {"a.mp4": "reused"}
    assert states(run(world, labels=("fall",))) == {"a.mp4": "done"}
    assert states(run(world, labels=("fall",), min_score=0.1)) == {"a.mp4": "done"}


def test_a_recording_that_changed_is_made_again(world: World) -> None:
    world.record("a.mp4")
    world.record("b.mp4")
    run(world)
    world.record("a.mp4", content="another take", frames=16)
    predictions = run(world)
    assert states(predictions) == {"a.mp4": "done", "b.mp4": "reused"}
    assert predictions[0].events[0].end_s == 2.0


@pytest.mark.parametrize("left", ["", '{"video": "a.mp4"', "[]\n"])
def test_spoilt_files_are_made_again(world: World, left: str) -> None:
    world.record("a.mp4")
    run(world)
    before = (world.out / "events.jsonl").read_bytes()
    if left:
        (world.out / "a.mp4/events.jsonl").write_text(left)
    else:
        (world.out / "a.mp4/events.jsonl").unlink()
    assert states(run(world)) == {"a.mp4": "done"}
    assert (world.out / "events.jsonl").read_bytes() == before


@pytest.mark.parametrize("left", [None, "", "[]", "{}"])
def test_without_its_fingerprint_a_recording_is_not_finished(world: World, left: str | None) -> None:
    world.record("a.mp4")
    run(world)
    mark = world.out / "a.mp4/fingerprint.json"
    before = mark.read_bytes()
    mark.unlink() if left is None else mark.write_text(left)
    assert states(run(world)) == {"a.mp4": "done"}
    assert mark.read_bytes() == before


def test_a_kill_between_the_files_leaves_no_mark_on_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.record("a.mp4")
    run(world)

    def stop(events: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vidgru.prediction.event_files.to_vtt", stop)
        with pytest.raises(KeyboardInterrupt):
            run(world, min_score=0.7)
    assert not (world.out / "a.mp4/fingerprint.json").exists()
    assert states(run(world)) == {"a.mp4": "done"}


# --- what adds up ---------------------------------------------------------------------------------------------------


def test_runs_over_one_folder_after_another_add_up(world: World) -> None:
    one, two = world.root / "one", world.root / "two"
    world.record("a.mp4", folder=one)
    world.record("b.mp4", folder=two)
    run(world, one)
    run(world, two)
    (one / "a.mp4").unlink()  # as cameras do with their old recordings
    assert states(run(world, two)) == {"b.mp4": "reused"}
    assert [row["video"] for row in rows(world.out / "events.csv")] == ["a.mp4", "a.mp4", "b.mp4", "b.mp4"]
    assert [row["video"] for row in lines(world.out / "summary.jsonl")] == ["b.mp4"]


def test_events_of_another_model_are_not_mixed_in(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = world.root / "one", world.root / "two"
    world.record("a.mp4", folder=one)
    world.record("b.mp4", folder=two)
    run(world, one)
    assert "more recordings" not in capsys.readouterr().err
    run(world, two, min_score=0.7)
    assert [row["video"] for row in rows(world.out / "events.csv")] == ["b.mp4"]
    assert (
        "holds 1 more recordings, from another model, other settings or with corrupt files" in capsys.readouterr().err
    )
    run(world, one, two, min_score=0.7)
    assert [row["video"] for row in rows(world.out / "events.csv")] == ["a.mp4", "b.mp4"]


def test_two_recordings_of_one_name_in_a_run(world: World) -> None:
    one, two = world.root / "one", world.root / "two"
    world.record("a.mp4", folder=one)
    world.record("a.mp4", folder=two, content="other")
    with pytest.raises(
        OutputError, match=r"one/a\.mp4 and .*two/a\.mp4 would both be a\.mp4 in the output\n  give the folder above"
    ):
        run(world, one, two)
    assert not world.out.exists()
    assert states(run(world, world.root)) == {"one/a.mp4": "done", "two/a.mp4": "done"}


def test_a_recording_does_not_overwrite_one_of_its_name_from_elsewhere(world: World) -> None:
    one, two = world.root / "one", world.root / "two"
    world.record("a.mp4", folder=one)
    world.record("a.mp4", folder=two, content="other", frames=16)
    run(world, one)
    before = files(world.out)
    with pytest.raises(
        OutputError, match=r"events/a\.mp4 holds the events of .*one/a\.mp4, not of .*two/a\.mp4\n  choose another"
    ):
        run(world, two)
    assert files(world.out) == before
    (one / "a.mp4").unlink()
    assert states(run(world, two)) == {"a.mp4": "done"}  # it was moved and cut anew


def test_a_copied_recording_is_the_same_recording(world: World) -> None:
    one, two = world.root / "one", world.root / "two"
    world.record("a.mp4", folder=one)
    run(world, one)
    shutil.copytree(one, two)
    assert states(run(world, two)) == {"a.mp4": "reused"}


def test_out_is_a_file(world: World) -> None:
    world.record("a.mp4")
    world.out.write_text("")
    with pytest.raises(OutputError, match=r"events is a file, not a folder\n  choose another folder with --out"):
        run(world)


def test_a_file_in_the_way_of_a_recording(world: World) -> None:
    world.record("cam/a.mp4")
    world.out.mkdir()
    (world.out / "cam").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*events/cam/a\.mp4"):
        run(world)


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_failed_recording_is_a_row_and_the_run_goes_on(world: World) -> None:
    world.record("a.mp4")
    world.record("c.mp4")
    (world.videos / "b.mp4").touch()
    predictions = run(world)
    assert states(predictions) == {"a.mp4": "done", "b.mp4": "failed", "c.mp4": "done"}
    assert predictions[1].reason == "is empty (0 bytes); copy it again"
    assert [path.name for path in (world.out / "b.mp4").iterdir()] == ["failure.json"]
    assert lines(world.out / "summary.jsonl")[1]["reason"] == "is empty (0 bytes); copy it again"
    assert {row["video"] for row in rows(world.out / "events.csv")} == {"a.mp4", "c.mp4"}
    assert states(run(world)) == {"a.mp4": "reused", "b.mp4": "failed", "c.mp4": "reused"}


def test_a_recording_that_fails_now_does_not_count_as_finished(world: World) -> None:
    world.record("a.mp4")
    world.record("b.mp4")
    run(world)
    (world.videos / "b.mp4").write_bytes(b"")
    assert states(run(world)) == {"a.mp4": "reused", "b.mp4": "failed"}
    assert {row["video"] for row in rows(world.out / "events.csv")} == {"a.mp4"}
    assert (world.out / "b.mp4/events.jsonl").exists()


def test_features_that_are_not_sound_are_made_again(world: World) -> None:
    """These recordings are no videos, so that it fails; without reaching for the detector, which is none either."""
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        world.record(name)
    broken = [
        world.cache.root / world.cache.key(world.cache.sha256(world.videos / n), world.feature_settings)
        for n in ("a.mp4", "b.mp4")
    ]
    (broken[0] / "part-00000.safetensors").unlink()
    (broken[1] / "part-00000.safetensors").write_bytes(b"nothing of the kind")
    predictions = run(world)
    assert states(predictions) == {"a.mp4": "failed", "b.mp4": "failed", "c.mp4": "done"}
    assert all("is not a readable video" in prediction.reason for prediction in predictions[:2])


@pytest.mark.parametrize("detector", [True, False])
def test_a_damaged_recording_is_partial(world: World, detector: bool) -> None:
    world.record("a.mp4", status="partial", damage={"corrupt_frames": 3})
    if not detector:
        world.weights.unlink()
    (prediction,) = run(world)
    assert prediction.status == "partial"
    assert prediction.reason == "3 corrupt frames"
    assert len(prediction.events) == 2
    (again,) = run(world)
    assert (again.status, again.reason) == ("reused", prediction.reason)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such names cannot be")
def test_a_name_that_is_not_utf8(world: World) -> None:
    path = world.record("caf.mp4")
    world.weights.unlink()
    os.rename(path, os.fsencode(world.videos) + b"/caf\xe9.mp4")
    (prediction,) = run(world)
    assert prediction.status == "done"
    assert read_jsonl(world.out / "events.jsonl") == list(prediction.events)
    assert states(run(world)) == {"caf\udce9.mp4": "reused"}
    assert rows(world.out / "events.csv")[0]["video"] == "caf\\udce9.mp4"


def test_there_is_no_model(world: World) -> None:
    with pytest.raises(ModelError, match="there is no model"):
        predict(world.root / "none.safetensors", [world.videos], world.config())


def test_there_are_no_recordings(world: World) -> None:
    with pytest.raises(SourceError, match="no recordings in"):
        run(world)


def test_a_run_folder_stands_for_its_best_model(world: World) -> None:
    world.record("a.mp4")
    shutil.copy(world.model, world.root / "best.safetensors")
    run(world)
    assert states(predict(world.root, [world.videos], world.config())) == {"a.mp4": "reused"}


# --- the detector ---------------------------------------------------------------------------------------------------


def test_without_the_detector_cached_features_do(world: World) -> None:
    world.record("a.mp4")
    world.record("b.mp4")
    world.weights.unlink()
    assert states(run(world)) == {"a.mp4": "done", "b.mp4": "done"}


def test_without_the_detector_missing_features_cannot_be_made(world: World) -> None:
    world.record("a.mp4")
    (world.videos / "b.mp4").write_text("not seen yet")
    world.weights.unlink()
    sha256 = world.feature_settings["weights_sha256"]
    with pytest.raises(
        WeightsError, match=rf"no such weights file: .*detector\.pt\n  pass --weights .*SHA-256 {sha256}"
    ):
        run(world)


def test_without_the_detector_features_of_other_settings_are_named(world: World) -> None:
    ours = world.feature_settings
    world.feature_settings = {**ours, "fps": 4.0}
    world.record("a.mp4")
    world.feature_settings = ours
    world.weights.unlink()
    message = r"the features of a\.mp4 in .* differ from the model's: fps is 4\.0, the model's is 8\.0"
    with pytest.raises(SettingsMismatchError, match=message):
        run(world)


def test_the_detector_may_lie_elsewhere_but_must_be_the_same(world: World) -> None:
    world.record("a.mp4")
    moved = world.weights.rename(world.root / "moved.pt")
    assert states(run(world, weights=str(moved))) == {"a.mp4": "done"}
    other = world.root / "other.pt"
    other.write_bytes(b"another detector")
    with pytest.raises(
        SettingsMismatchError, match=r"other\.pt is not the detector that the model was trained on: its SHA-256 is "
    ):
        run(world, weights=str(other))
    with pytest.raises(WeightsError, match=r"no such weights file: .*nowhere\.pt"):
        run(world, weights=str(world.root / "nowhere.pt"))


def test_a_file_of_the_detectors_name_that_is_another(world: World) -> None:
    world.record("a.mp4")
    world.weights.write_bytes(b"another detector")
    with pytest.raises(SettingsMismatchError, match=r"detector\.pt is not the detector that the model was trained on"):
        run(world)


def test_features_that_this_version_cannot_make(world: World) -> None:
    world.record("a.mp4")
    replace(load_model(world.model), feature_settings={**world.feature_settings, "schema": 0}).save(world.model)
    with pytest.raises(
        SettingsMismatchError, match="this version of vidgru cannot compute the model's features: schema differs"
    ):
        run(world)


def test_features_come_from_the_models_settings(world: World) -> None:
    world.record("a.mp4")
    replace(load_model(world.model), feature_settings={**world.feature_settings, "fps": 4.0}).save(world.model)
    (prediction,) = run(world)  # those at 8 a second do not serve, and the file cannot be decoded
    assert prediction.status == "failed"
    assert "is not a readable video" in prediction.reason


# --- the summary ----------------------------------------------------------------------------------------------------


def test_summary_table(world: World) -> None:
    world.record("a.mp4")
    world.record("b.mp4", frames=24)
    world.record("c.mp4", frames=16, status="partial", damage={"corrupt_frames": 3})
    (world.videos / "d.mp4").touch()
    assert summary_table(run(world)).splitlines() == [
        "partial  c.mp4: 3 corrupt frames",
        "failed   d.mp4: is empty (0 bytes); copy it again",
        "      events  recordings      seconds",
        "fall       3           3         10.0",
        "walk       3           3         10.0",
        "2 done, 1 partial, 1 failed: 0.00 hours of video, 6 events",
    ]


def test_summary_table_without_events(world: World) -> None:
    world.record("a.mp4")
    assert summary_table(run(world, min_score=1.0)) == "1 done: 0.00 hours of video, 0 events"


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


def test_progress_stays_off_stdout(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.record("a.mp4")
    run(world)
    assert capsys.readouterr().out == ""


def test_predictions_hold_events(world: World) -> None:
    world.record("a.mp4")
    (prediction,) = run(world)
    assert all(isinstance(event, Event) for event in prediction.events)
    assert SequenceCache(world.cache.root).sources()


# --- wall-clock time ------------------------------------------------------------------------------------------------


def test_only_events_of_a_period(world: World) -> None:
    for name, at in (("a.mp4", "2024-05-06T08:00:00+00:00"), ("b.mp4", "2024-05-06T09:00:00+00:00")):
        world.record(name, recorded_at=at)
    world.record("c.mp4")
    since = {"since": "2024-05-06T08:30:00+00:00"}
    predictions = run(world, world.cache.root, **since)
    assert states(predictions) == {"b.mp4": "done", "c.mp4": "failed"}
    assert predictions[1].reason == "its recording time is unknown; pass --start-time"
    assert {row["video"] for row in rows(world.out / "events.csv")} == {"b.mp4"}
    until = {"until": "2024-05-06T08:00:05+00:00"}
    assert [len(p.events) for p in run(world, world.cache.root, **until)] == [2, 0]
    assert states(run(world, world.cache.root, **until, start_time="2024-05-06T08:00:00+00:00")) == {
        "a.mp4": "reused", "b.mp4": "done", "c.mp4": "done",
    }  # fmt: skip


# --- what is made beside the events ---------------------------------------------------------------------------------


def test_pages_that_are_wanted_are_made_and_not_made_again(world: World) -> None:
    world.record("cam/a.mp4")
    run(world)
    assert not (world.out / "index.html").exists()
    assert states(run(world, report=True)) == {"cam/a.mp4": "done"}
    page = (world.out / "cam/a.mp4/report.html").read_text()
    assert "cam/a.mp4" in page
    assert "fall" in (world.out / "index.html").read_text()
    before = files(world.out)
    assert states(run(world, report=True)) == {"cam/a.mp4": "reused"}
    assert states(run(world)) == {"cam/a.mp4": "reused"}
    after = files(world.out)
    assert all(after[name] == before[name] for name in before if "/" in name)
    (world.videos / "b.mp4").touch()
    run(world)
    assert "b.mp4" in (world.out / "index.html").read_text(), "an index that is there is kept up to date"


def test_what_does_not_hold_any_more_is_deleted(world: World) -> None:
    world.record("a.mp4")
    run(world, report=True)
    page = world.out / "a.mp4/report.html"
    (world.out / "a.mp4/clips").mkdir()
    run(world, min_score=0.8)
    assert not page.exists()
    assert not (world.out / "a.mp4/clips").exists()
    run(world, report=True, min_score=0.8)
    before = page.stat().st_mtime_ns
    assert states(run(world, report=True, clips=True, min_score=0.8)) == {"a.mp4": "partial"}
    assert page.stat().st_mtime_ns == before, "what holds is not made again"


def test_a_page_leads_to_where_the_recording_is(world: World) -> None:
    path = world.record("a.mp4")
    run(world, report=True)
    assert "videos/a.mp4" in (world.out / "a.mp4/report.html").read_text()
    moved = world.root / "moved"
    moved.mkdir()
    path.rename(moved / "a.mp4")
    assert states(run(world, moved)) == {"a.mp4": "reused"}
    assert states(run(world, moved, report=True)) == {"a.mp4": "done"}
    assert "moved/a.mp4" in (world.out / "a.mp4/report.html").read_text()


def test_a_name_is_part_of_what_is_finished(world: World) -> None:
    """Each camera was predicted into a folder of its own below the one that now takes both."""
    for camera in ("cam1", "cam2"):
        world.record(f"{camera}/a.mp4")
        run(world, world.videos / camera, out=str(world.out / camera))
    assert states(run(world)) == {"cam1/a.mp4": "done", "cam2/a.mp4": "done"}
    assert {row["video"] for row in rows(world.out / "events.csv")} == {"cam1/a.mp4", "cam2/a.mp4"}


def test_another_time_makes_them_again(world: World) -> None:
    path = world.record("a.mp4")
    first, second = "2024-05-01T12:00:00", "2024-05-02T12:00:00"
    run(world, start_time=first)
    assert states(run(world, start_time=first)) == {"a.mp4": "reused"}
    world.cache.set_last_entry(path, world.cache.key(world.cache.sha256(path), world.feature_settings), second)
    (prediction,) = run(world)
    assert prediction.status == "done"
    assert prediction.events[0].start_time == "2024-05-02T12:00:00.000"


def test_a_label_that_somebody_else_wrote(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.record("a.mp4")
    world.record("b.mp4")
    run(world)
    path = world.out / "a.mp4/events.jsonl"
    path.write_text(path.read_text().replace("fall", "tumble"))
    run(world, report=True)
    assert "tumble" not in (world.out / "index.html").read_text()
    path.write_text(path.read_text().replace("fall", "tumble"))
    run(world, world.videos / "b.mp4", report=True)
    assert {row["video"] for row in rows(world.out / "events.csv")} == {"b.mp4"}
    assert "with corrupt files" in capsys.readouterr().err


def test_record_is_for_live_sources(world: World) -> None:
    world.record("a.mp4")
    with pytest.raises(SettingsError, match="record is for live sources, and these are recordings\n  leave it out"):
        run(world, record=True)


def test_clips_of_a_recording_that_cannot_be_read(world: World) -> None:
    world.record("a.mp4")
    (prediction,) = run(world, clips=True, save_video=True)
    assert prediction.status == "partial"
    assert prediction.reason.count("is not a readable video") == 2
    assert prediction.reason.startswith("no clips: ")
    assert "; no video: " in prediction.reason
    assert len(read_jsonl(world.out / "a.mp4/events.jsonl")) == 2
    assert states(run(world, clips=True)) == {"a.mp4": "partial"}, "it is tried again"
    assert states(run(world)) == {"a.mp4": "reused"}
