import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.prediction.live_recording import BEGAN, FEATURE_SETTINGS, RUN_INFO, URL, record
from tests.sequences import make_sequence, sequences_equal
from vidgru.cache import SequenceCache
from vidgru.cache.writer import PART_SAMPLES
from vidgru.locks import Locks
from vidgru.prediction.live import finish_killed_recordings


def test_recorder_writes_entry(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    recorder = record(cache, 20)
    recorder.finish(2.5, "2024-05-01T11:59:59.000+00:00", {"gaps": 1, "gap_s": 0.5})
    entry = cache.entry(recorder.key)
    assert entry is not None
    assert sequences_equal(cache.read(recorder.key), make_sequence(20, 1))
    assert (entry.duration_s, entry.fps, entry.feature_settings) == (2.5, 8.0, FEATURE_SETTINGS)
    assert (entry.status, entry.damage) == ("partial", {"gaps": 1, "gap_s": 0.5})
    assert entry.recorded_at == "2024-05-01T11:59:59.000+00:00"
    assert entry.run_info == {"device": "cpu", "live": URL}
    assert cache.incomplete_entries() == []
    assert not cache.lock_folder.exists()


def test_recorder_makes_one_entry_per_start(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    keys = set()
    for began in (BEGAN, "2024-05-01T12:00:01.000+00:00"):
        recorder = record(cache, 3, began=began)
        recorder.finish(1.0, began, {})
        keys.add(recorder.key)
    assert {entry.key for entry in cache.entries()} == keys
    assert len(keys) == 2


def test_recorder_writes_full_parts(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    recorder = record(cache, PART_SAMPLES + 1)
    ((key, folder),) = cache.incomplete_entries()
    assert key == recorder.key
    assert [path.name for path in sorted(folder.glob("part-*"))] == ["part-00000.safetensors"]
    recorder.close()


@pytest.mark.slow
def test_finish_killed_recordings(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from tests.prediction.live_recording import PART_SAMPLES, SequenceCache, record\n"
        "record(SequenceCache(Path(sys.argv[1])), PART_SAMPLES + 5)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    cache = SequenceCache(tmp_path)
    assert list(cache.entries()) == []
    (key,) = finish_killed_recordings(cache)
    entry = cache.entry(key)
    assert entry is not None
    assert entry.samples == PART_SAMPLES
    assert entry.duration_s == pytest.approx(PART_SAMPLES / 8)
    assert entry.recorded_at == BEGAN
    assert sequences_equal(cache.read(key), make_sequence(PART_SAMPLES + 5, 1).frames(0, PART_SAMPLES))
    assert finish_killed_recordings(cache) == []
    assert cache.incomplete_entries() == []


def test_finish_killed_recordings_skips_active(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    recorder = record(cache, PART_SAMPLES)
    assert finish_killed_recordings(cache) == []
    recorder.finish(256.0, BEGAN, {})
    assert cache.entry(recorder.key) is not None


def test_finish_killed_recordings_skips_files(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    key = "ab" * 32
    with Locks(cache.lock_folder) as locks, cache.writer(key, RUN_INFO) as writer:
        locks.acquire(key)
        writer.append(make_sequence(PART_SAMPLES, 1), {"samples": PART_SAMPLES})
    assert finish_killed_recordings(cache) == []
    ((left, folder),) = cache.incomplete_entries()
    assert left == key
    assert json.loads((folder / "resume.json").read_bytes())["run_info"] == RUN_INFO


def test_recorder_without_full_part_leaves_nothing(tmp_path: Path) -> None:
    cache = SequenceCache(tmp_path)
    record(cache, 5).close()
    assert cache.incomplete_entries() == []
    assert list(cache.entries()) == []
