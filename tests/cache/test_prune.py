"""What pruning deletes from a cache, and what it keeps."""

import os
import time
from pathlib import Path

import pytest

from tests.prediction.fake_project import FakeProject, flip_bit
from tests.prediction.live_recording import BEGAN, PART_SAMPLES, record
from vidgru.cache import SequenceCache
from vidgru.cache.entry import UNFINISHED
from vidgru.cache.prune import prune_cache
from vidgru.errors import CacheError
from vidgru.info import inspect_path
from vidgru.locks import Locks


@pytest.fixture
def project(tmp_path: Path) -> FakeProject:
    return FakeProject(tmp_path)


def keys(project: FakeProject) -> set[str]:
    return {path.name for path in project.cache.root.glob("[!.]*") if path.is_dir()}


def listed(project: FakeProject) -> list[str]:
    return [Path(record["path"]).name for record in SequenceCache(project.cache.root).records()]


def test_prune_deletes_unneeded_entries(project: FakeProject) -> None:
    gone, changed, kept = (project.record(name) for name in ("gone.mp4", "changed.mp4", "kept.mp4"))
    folders = [project.entry_folder(path) for path in (gone, changed, kept)]
    size = sum(file.stat().st_size for file in folders[0].iterdir())
    gone.unlink()
    changed.write_text("and other bytes")
    lines = prune_cache(project.cache.root)
    why = "its recording is gone or has changed"
    assert any(
        line.startswith(f"removed {folders[0].name}, of {gone}: {why}, ") and line.endswith(f"{size / 1000:.1f} kB")
        for line in lines
    )
    assert any(line.startswith(f"removed {folders[1].name}, of {changed}: {why}, ") for line in lines)
    assert lines[-1].startswith("removed 2 entries and 0 incomplete, ")
    assert lines[-1].endswith(" kB freed; 1 entry kept")
    assert keys(project) == {folders[2].name}
    assert listed(project) == ["kept.mp4"]
    assert prune_cache(project.cache.root) == ["removed 0 entries and 0 incomplete, 0 bytes freed; 1 entry kept"]


def test_prune_survives_endless_nesting(project: FakeProject) -> None:
    (project.entry_folder(project.record("a.mp4")) / "entry.json").write_text("[" * 100_000)
    lines = prune_cache(project.cache.root)
    assert any(line.startswith("removed ") and ": corrupt, " in line for line in lines)


def test_prune_keeps_every_entry_of_a_recording(project: FakeProject) -> None:
    project.record("a.mp4")
    project.feature_settings = {**project.feature_settings, "fps": 4.0}
    project.record("a.mp4", frames=16)
    prune_cache(project.cache.root)
    assert len(keys(project)) == 2
    assert listed(project) == ["a.mp4", "a.mp4"]


def test_prune_keeps_entries_of_equal_recordings(project: FakeProject) -> None:
    one, _ = project.record("one.mp4", content="same"), project.record("other.mp4", content="same")
    one.unlink()
    prune_cache(project.cache.root)
    assert len(keys(project)) == 1
    assert listed(project) == ["other.mp4"]


def test_prune_keeps_touched_and_unmounted_recordings(project: FakeProject) -> None:
    touched, far = project.record("touched.mp4"), project.record("far.mp4", folder=project.root / "disk")
    os.utime(touched, (time.time(),) * 2)
    far.parent.rename(project.root / "unmounted")
    prune_cache(project.cache.root)
    assert len(keys(project)) == 2
    assert listed(project) == ["touched.mp4", "far.mp4"]


def test_prune_keeps_live_recordings(project: FakeProject) -> None:
    """There is no file to make it again from."""
    project.record("a.mp4")
    finished, left = (
        record(project.cache, 5),
        record(project.cache, PART_SAMPLES, began="2024-05-02T12:00:00.000+00:00"),
    )
    finished.finish(1.0, BEGAN, {})
    left.close()
    lines = prune_cache(project.cache.root)
    assert lines == ["removed 0 entries and 0 incomplete, 0 bytes freed; 2 entries kept"]
    assert finished.key in keys(project)
    assert [key for key, _ in project.cache.incomplete_entries()] == [left.key]


def test_prune_deletes_corrupt_and_incomplete_entries(project: FakeProject) -> None:
    paths = {name: project.record(name) for name in ("a.mp4", "flipped.mp4", "c.mp4")}
    flip_bit(project.entry_folder(paths["flipped.mp4"]))
    (project.entry_folder(paths["c.mp4"]) / "entry.json").write_text("{")
    left = project.cache.root / UNFINISHED / f"{project.entry_folder(paths['c.mp4']).name}.00000000"
    left.mkdir()
    (left / "part-00000.safetensors").write_bytes(b"1234")
    project.record("gone.mp4").unlink()
    lines = prune_cache(project.cache.root)
    assert f"removed {left.name}, of {paths['c.mp4']}: incomplete, 4 bytes" in lines
    assert any(
        line.startswith(f"removed {project.entry_folder(paths['c.mp4']).name}, of {paths['c.mp4']}: corrupt")
        for line in lines
    )
    assert lines[-1].startswith("removed 2 entries and 1 incomplete, ")
    assert lines[-1].endswith("; 2 entries kept")
    report = inspect_path(project.cache.root, verify=True, prune=True)
    assert not report.is_valid
    assert any(line.startswith("CORRUPT") for line in report.lines)
    assert any(f"of {paths['flipped.mp4']}: corrupt" in line for line in report.lines)
    assert keys(project) == {project.entry_folder(paths["a.mp4"]).name}
    assert listed(project) == ["a.mp4"]


def test_prune_keeps_locked_entries(project: FakeProject) -> None:
    path = project.record("a.mp4")
    key = project.entry_folder(path).name
    path.unlink()
    project.record("b.mp4").unlink()
    left = project.cache.root / UNFINISHED / f"{'ab' * 32}.00000000"
    left.mkdir(parents=True)
    with Locks(project.cache.lock_folder) as other:
        assert other.acquire(key)
        assert other.acquire("ab" * 32)
        lines = prune_cache(project.cache.root)
        assert f"kept {key}, of {path}: locked by another process" in lines
        assert f"kept {left.name}, of an unknown recording: locked by another process" in lines
        assert lines[-1].startswith("removed 1 entry and 0 incomplete, ")
        assert keys(project) == {key}
        assert left.is_dir()
        assert listed(project) == ["a.mp4", "b.mp4"]
    prune_cache(project.cache.root)
    assert keys(project) == set()
    assert not left.exists()
    assert listed(project) == []


def test_prune_clears_locks_of_dead_processes(project: FakeProject) -> None:
    project.record("a.mp4")
    project.cache.lock_folder.mkdir()
    lock = project.cache.lock_folder / f"{'ab' * 32}.lock"
    lock.touch()
    os.utime(lock, (0, 0))
    prune_cache(project.cache.root)
    assert not project.cache.lock_folder.exists()


def test_prune_needs_an_index(project: FakeProject) -> None:
    project.record("a.mp4")
    before = keys(project)
    for text in (None, "", '{"path":'):
        (project.cache.root / "index.jsonl").unlink()
        if text is not None:
            (project.cache.root / "index.jsonl").write_text(text)
        with pytest.raises(CacheError, match=r"index\.jsonl lists no recordings, .*\n  run vidgru extract"):
            prune_cache(project.cache.root)
        (project.cache.root / "index.jsonl").touch()
    assert keys(project) == before
