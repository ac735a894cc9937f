"""Caches and their entries as sources of a prediction."""

import json
import shutil

import pytest

from tests.cache.entries import damage_entry
from tests.prediction.fake_project import FakeProject
from tests.sequences import make_sequence, with_still_frames
from vidgru.cache import SequenceCache
from vidgru.errors import OutputError, SettingsMismatchError, SourceError
from vidgru.model.checkpoint import load_model
from vidgru.prediction.batch import predict
from vidgru.prediction.inputs import find_inputs
from vidgru.prediction.live import LiveRecorder
from vidgru.prediction.results import PredictionResult
from vidgru.types import Recording


def run(project: FakeProject, *sources: object, **settings: object) -> list[PredictionResult]:
    return predict(project.model, sources, project.config(**settings))


def names(predictions: list[PredictionResult]) -> list[tuple[str, str]]:
    return sorted((p.recording.name, p.status) for p in predictions)


def test_cache_needs_no_recordings_or_detector(project: FakeProject) -> None:
    project.record("cam 1/a.mp4")
    project.record("cam 2/a.mp4", frames=16)
    expected = {p.recording.name: p.events for p in predict(project.model, [project.videos], project.config())}
    shutil.rmtree(project.videos)
    shutil.rmtree(project.out)
    project.weights.unlink()
    results = run(project, project.cache.root)
    assert names(results) == [("cam 1/a.mp4", "done"), ("cam 2/a.mp4", "done")]
    assert {p.recording.name: p.events for p in results} == expected
    assert names(run(project, project.cache.root)) == [("cam 1/a.mp4", "reused"), ("cam 2/a.mp4", "reused")]


def test_entry_together_with_recordings(project: FakeProject) -> None:
    path = project.record("a.mp4")
    project.record("b.mp4")
    entry = project.cache.root / project.cache.key(project.cache.sha256(path), project.feature_settings)
    path.unlink()
    assert names(run(project, project.videos, entry)) == [("a.mp4", "done"), ("b.mp4", "done")]
    (project.cache.root / "index.jsonl").unlink()
    (unknown,) = run(project, entry)
    assert unknown.recording.name == entry.name[:16]
    assert [event.label for event in unknown.events] == ["fall", "walk"]


def test_entry_and_its_recording_share_a_name(project: FakeProject) -> None:
    project.record("a.mp4")
    with pytest.raises(OutputError, match=r"a\.mp4 and .*a\.mp4 would both be a\.mp4 in the output"):
        run(project, project.videos, project.cache.root)


def test_entries_of_parts_of_recordings(project: FakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    whole = project.feature_settings
    project.record("a.mp4")
    project.feature_settings = {**whole, "span": [300, 720]}
    path = project.record("a.mp4")
    assert names(run(project, project.cache.root)) == [("a.mp4", "done")]
    assert "holds 1 entries of parts of recordings, made with --since or --until; they" in capsys.readouterr().err
    shutil.rmtree(project.cache.root / project.cache.key(project.cache.sha256(path), whole))
    with pytest.raises(SettingsMismatchError, match=r"the features in .* cover only 0:05:00-0:12:00 of the recording"):
        run(project, project.cache.root)


def test_entries_with_other_settings(project: FakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    ours = project.feature_settings
    project.record("a.mp4")
    project.feature_settings = {**ours, "fps": 4.0}
    path = project.record("b.mp4")
    entry = project.cache.root / project.cache.key(project.cache.sha256(path), project.feature_settings)
    assert names(run(project, project.cache.root)) == [("a.mp4", "done")]
    assert "holds 1 more entries with other settings than the model's; they are skipped" in capsys.readouterr().err
    message = r"the features in .* differ from the model's: fps is 4\.0, the model's is 8\.0"
    with pytest.raises(SettingsMismatchError, match=message):
        run(project, entry)
    shutil.rmtree(project.cache.root / project.cache.key(project.cache.sha256(project.videos / "a.mp4"), ours))
    with pytest.raises(SettingsMismatchError, match=message):
        run(project, project.cache.root)


def test_invalid_entries(project: FakeProject) -> None:
    folder = project.root / "other"
    folder.mkdir()
    (folder / "entry.json").write_text("{}")
    with pytest.raises(SourceError, match=r"other is neither a recording nor a valid cache entry"):
        run(project, folder)
    path = project.record("a.mp4")
    shutil.rmtree(project.cache.root / project.cache.key(project.cache.sha256(path), project.feature_settings))
    with pytest.raises(SourceError, match=r"no features in .*features\n  give a folder that vidgru extract has filled"):
        run(project, project.cache.root)


def test_broken_entries_fail_and_the_rest_is_predicted(project: FakeProject) -> None:
    """A truncated part, another byte of equal size, a broken entry.json, one marked earlier, one of other settings."""
    names_by_kind = ["bytes.mp4", "good.mp4", "json.mp4", "marked.mp4", "short.mp4"]
    folders = {}
    for frames, name in enumerate(names_by_kind, start=20):
        path = project.record(name, frames=frames)
        folders[name] = project.cache.root / project.cache.key(project.cache.sha256(path), project.feature_settings)
    ours, project.feature_settings = project.feature_settings, {**project.feature_settings, "fps": 4.0}
    path = project.record("good.mp4", frames=21)
    other = project.cache.root / project.cache.key(project.cache.sha256(path), project.feature_settings)
    project.feature_settings = ours
    for folder, kind in ((folders["json.mp4"], "entry"), (other, "entry"), (folders["marked.mp4"], "marked")):
        damage_entry(folder, kind)
    damage_entry(folders["short.mp4"], "short")
    damage_entry(folders["bytes.mp4"], "flipped")
    results = run(project, project.cache.root)
    assert names(results) == [(name, "done" if name == "good.mp4" else "failed") for name in names_by_kind]
    for result, reason in zip(results, ("bytes differ", "", "entry.json is", "earlier", "instead"), strict=True):
        assert reason in result.reason
    summary = (project.out / "summary.jsonl").read_text().splitlines()
    assert [json.loads(line)["video"] for line in summary] == names_by_kind
    in_shards = [run(project, project.cache.root, shard=f"{shard}/2") for shard in (1, 2)]
    assert sorted(result.recording.name for results in in_shards for result in results) == names_by_kind
    both = run(project, folders["json.mp4"], folders["good.mp4"])
    assert [result.status for result in both] == ["failed", "reused"]


def test_adaptive_entries_are_read_by_any_model(project: FakeProject) -> None:
    full, adaptive = project.feature_settings, {**project.feature_settings, "adaptive": True}
    project.feature_settings = adaptive
    sequence = with_still_frames(make_sequence(40), list(range(8, 40)))
    project.record("a.mp4", sequence=sequence)
    assert names(run(project, project.cache.root)) == [("a.mp4", "done")]
    # Recordings are extracted as --adaptive says: these features are found with it, and not without.
    assert names(run(project, project.videos, adaptive=True)) == [("a.mp4", "reused")]
    project.feature_settings = full
    project.record("a.mp4", sequence=sequence)
    assert names(run(project, project.videos, out=str(project.root / "other"))) == [("a.mp4", "done")]
    folder = project.cache.root / project.cache.key(project.cache.sha256(project.videos / "a.mp4"), full)
    shutil.rmtree(folder)
    assert names(run(project, project.videos, adaptive=True, out=str(project.root / "other"))) == [("a.mp4", "done")]


def test_folder_with_unrelated_index_file(project: FakeProject) -> None:
    project.record("a.mp4")
    (project.videos / "index.jsonl").write_text('{"file": "a.mp4"}\n')
    assert names(run(project, project.videos)) == [("a.mp4", "done")]


def test_reextracted_recording_is_listed_once(project: FakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    project.record("a.mp4")
    project.record("a.mp4", content="another take", frames=16)
    (result,) = run(project, project.cache.root)
    assert result.recording.name == "a.mp4"
    assert result.duration_s == 2.0
    assert "holds 1 entries of recordings that were extracted again since; they are skipped" in capsys.readouterr().err


def test_entry_of_changed_recording_has_no_video(project: FakeProject) -> None:
    path = project.record("a.mp4")
    path.write_text("another take, not extracted")
    (result,) = run(project, project.cache.root, report=True, clips=True)
    assert (result.recording.name, result.status) == ("a.mp4", "partial")
    assert result.reason == "no clips: its features are cached, but its video does not exist"
    assert "videos/a.mp4" not in (project.out / "a.mp4/report.html").read_text()


def test_entry_of_live_source_is_named_after_source(project: FakeProject) -> None:
    recorder = LiveRecorder(
        project.cache, "rtsp://10.0.0.4:554/door", "2024-05-06T07:08:09.123+00:00", project.feature_settings, {}
    )
    recorder.append(make_sequence(40, seed=40))
    recorder.finish(5.0, "2024-05-06T07:08:09.123+00:00", {})
    (result,) = run(project, project.cache.root / recorder.key)
    assert result.recording.name == "rtsp-10.0.0.4-554-door-2024-05-06T07-08-09.123-00-00"
    assert [(e.label, e.start_time) for e in result.events] == [
        ("fall", "2024-05-06T07:08:09.123+00:00"),
        ("walk", "2024-05-06T07:08:09.123+00:00"),
    ]
    assert (project.out / result.recording.name / "events.jsonl").is_file()


def test_imported_entry_with_other_settings_is_ignored(project: FakeProject) -> None:
    """Detections of one recording, imported with the model's settings and then with others."""
    ours, keys = project.feature_settings, []
    for fps in (8.0, 4.0):
        project.feature_settings = {**ours, "fps": fps}
        path = project.record("a.mp4")
        keys.append(project.cache.key(project.cache.sha256(path), project.feature_settings))
    (project.cache.root / "index.jsonl").unlink()
    cache = SequenceCache(project.cache.root)
    for key in keys:
        cache.set_alias(
            project.root / "labels" / "a", key, "0" * 64, name="a.mp4", detections="labels", video=str(path)
        )
    recordings, (item,) = find_inputs([cache.root], load_model(project.model))
    assert not recordings
    assert (item.entry.key, item.recording) == (keys[0], Recording(path=path, name="a.mp4"))
