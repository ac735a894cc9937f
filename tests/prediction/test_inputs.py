"""Caches and their entries as sources of a prediction."""

import shutil

import pytest

from tests.prediction.fake_project import World
from tests.sequences import make_sequence
from vidgru.cache import SequenceCache
from vidgru.errors import OutputError, SettingsMismatchError, SourceError
from vidgru.model.checkpoint import load_model
from vidgru.prediction.batch import predict
from vidgru.prediction.inputs import find_inputs
from vidgru.prediction.live import LiveRecorder
from vidgru.prediction.results import PredictionResult
from vidgru.types import Recording


def run(world: World, *sources: object, **settings: object) -> list[PredictionResult]:
    return predict(world.model, sources, world.config(**settings))


def names(predictions: list[PredictionResult]) -> list[tuple[str, str]]:
    return sorted((p.recording.name, p.status) for p in predictions)


def test_a_cache_is_predicted_without_its_recordings_or_the_detector(world: World) -> None:
    world.record("cam 1/a.mp4")
    world.record("cam 2/a.mp4", frames=16)
    expected = {p.recording.name: p.events for p in predict(world.model, [world.videos], world.config())}
    shutil.rmtree(world.videos)
    shutil.rmtree(world.out)
    world.weights.unlink()
    found = run(world, world.cache.root)
    assert names(found) == [("cam 1/a.mp4", "done"), ("cam 2/a.mp4", "done")]
    assert {p.recording.name: p.events for p in found} == expected
    assert names(run(world, world.cache.root)) == [("cam 1/a.mp4", "reused"), ("cam 2/a.mp4", "reused")]


def test_an_entry_beside_recordings(world: World) -> None:
    path = world.record("a.mp4")
    world.record("b.mp4")
    entry = world.cache.root / world.cache.key(world.cache.sha256(path), world.feature_settings)
    path.unlink()
    assert names(run(world, world.videos, entry)) == [("a.mp4", "done"), ("b.mp4", "done")]
    (world.cache.root / "index.jsonl").unlink()
    (unknown,) = run(world, entry)
    assert unknown.recording.name == entry.name[:16]
    assert [event.label for event in unknown.events] == ["fall", "walk"]


def test_an_entry_and_its_recording_are_one_name(world: World) -> None:
    world.record("a.mp4")
    with pytest.raises(OutputError, match=r"a\.mp4 and .*a\.mp4 would both be a\.mp4 in the output"):
        run(world, world.videos, world.cache.root)


def test_entries_of_other_settings(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    ours = world.feature_settings
    world.record("a.mp4")
    world.feature_settings = {**ours, "fps": 4.0}
    path = world.record("b.mp4")
    entry = world.cache.root / world.cache.key(world.cache.sha256(path), world.feature_settings)
    assert names(run(world, world.cache.root)) == [("a.mp4", "done")]
    assert "holds 1 more entries with other settings than the model's; they are skipped" in capsys.readouterr().err
    message = r"the features in .* differ from the model's: fps is 4\.0, the model's is 8\.0"
    with pytest.raises(SettingsMismatchError, match=message):
        run(world, entry)
    shutil.rmtree(world.cache.root / world.cache.key(world.cache.sha256(world.videos / "a.mp4"), ours))
    with pytest.raises(SettingsMismatchError, match=message):
        run(world, world.cache.root)


def test_what_is_no_entry(world: World) -> None:
    folder = world.root / "other"
    folder.mkdir()
    (folder / "entry.json").write_text("{}")
    with pytest.raises(SourceError, match=r"other is neither a recording nor a valid cache entry"):
        run(world, folder)
    path = world.record("a.mp4")
    shutil.rmtree(world.cache.root / world.cache.key(world.cache.sha256(path), world.feature_settings))
    with pytest.raises(SourceError, match=r"no features in .*features\n  give a folder that vidgru extract has filled"):
        run(world, world.cache.root)


def test_a_folder_of_recordings_may_hold_a_file_of_the_indexs_name(world: World) -> None:
    world.record("a.mp4")
    (world.videos / "index.jsonl").write_text('{"file": "a.mp4"}\n')
    assert names(run(world, world.videos)) == [("a.mp4", "done")]


def test_a_recording_that_was_extracted_anew_is_there_once(world: World) -> None:
    world.record("a.mp4")
    world.record("a.mp4", content="another take", frames=16)
    (found,) = run(world, world.cache.root)
    assert found.recording.name == "a.mp4"
    assert found.duration_s == 2.0


def test_features_of_bytes_that_are_gone_are_not_shown_on_others(world: World) -> None:
    path = world.record("a.mp4")
    path.write_text("another take, not extracted")
    (found,) = run(world, world.cache.root, report=True, clips=True)
    assert (found.recording.name, found.status) == ("a.mp4", "partial")
    assert found.reason == "no clips: its features are cached, but its video does not exist"
    assert "videos/a.mp4" not in (world.out / "a.mp4/report.html").read_text()


def test_what_a_camera_showed_is_named_for_it(world: World) -> None:
    recorder = LiveRecorder(
        world.cache, "rtsp://10.0.0.4:554/door", "2024-05-06T07:08:09.123+00:00", world.feature_settings, {}
    )
    recorder.append(make_sequence(40, seed=40))
    recorder.finish(5.0, "2024-05-06T07:08:09.123+00:00", {})
    (found,) = run(world, world.cache.root / recorder.key)
    assert found.recording.name == "rtsp-10.0.0.4-554-door-2024-05-06T07-08-09.123-00-00"
    assert [(e.label, e.start_time) for e in found.events] == [
        ("fall", "2024-05-06T07:08:09.123+00:00"),
        ("walk", "2024-05-06T07:08:09.123+00:00"),
    ]
    assert (world.out / found.recording.name / "events.jsonl").is_file()


def test_what_was_seen_under_other_settings_takes_no_name_away(world: World) -> None:
    """The same recording's detections, read under the model's settings first and under others later."""
    ours, keys = world.feature_settings, []
    for fps in (8.0, 4.0):
        world.feature_settings = {**ours, "fps": fps}
        path = world.record("a.mp4")
        keys.append(world.cache.key(world.cache.sha256(path), world.feature_settings))
    (world.cache.root / "index.jsonl").unlink()
    cache = SequenceCache(world.cache.root)
    for key in keys:
        cache.set_alias(world.root / "labels" / "a", key, "0" * 64, name="a.mp4", detections="labels", video=str(path))
    recordings, (found,) = find_inputs([cache.root], load_model(world.model))
    assert not recordings
    assert (found.entry.key, found.recording) == (keys[0], Recording(path=path, name="a.mp4"))
