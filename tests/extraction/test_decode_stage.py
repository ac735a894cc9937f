"""Decoders that die, runs that are killed, recordings that several decoders or several processes share."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.extraction.test_pipeline import parts, run, small_parts
from tests.videos import write_video
from vidgru import cli
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.extraction import decode_process as decoder
from vidgru.extraction import decode_task, pipeline
from vidgru.locks import Locks

Weights = Callable[[str], Path]
GOP = {"g": "10", "sc_threshold": "0"}


@pytest.fixture
def settings(tiny_weights: Weights) -> DetectorSettings:
    return DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5, conf=0.2, max_objects=6)


def entries(cache: Path) -> dict[str, bytes]:
    return {str(p.relative_to(cache)): p.read_bytes() for p in sorted(cache.rglob("*")) if p.parent.parent == cache}


# --- decoders that die ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["crash", "hang"])
def test_a_decoder_that_dies_costs_its_own_file_only(
    tmp_path: Path, settings: DetectorSettings, faults: None, kind: str
) -> None:
    write_video(tmp_path / "v" / "good.mp4", 30)
    write_video(tmp_path / "v" / f"{kind}.mp4", 40)
    write_video(tmp_path / "v" / "other.mp4", 20)
    outcomes = {o.recording.path.stem: o for o in run(tmp_path / "v", tmp_path / "f", settings)}
    assert {name: o.status for name, o in outcomes.items()} == {"good": "done", "other": "done", kind: "partial"}
    assert outcomes[kind].samples == 5
    assert outcomes[kind].reason == "last 3.2 s missing, the decoder crashed or hung"


def test_a_decoder_that_dies_once_is_started_again_where_it_was(
    tmp_path: Path, settings: DetectorSettings, faults: None
) -> None:
    for kind in ("crash_once", "hang_once"):
        write_video(tmp_path / "v" / f"{kind}.mp4", 40, draw=lambda n, w, h: np.full((h, w, 3), n * 5, np.uint8))
    outcomes = run(tmp_path / "v", tmp_path / "f", settings)
    # they are of the same bytes: whichever comes first is decoded, and the other shares its entry
    assert sorted((o.status, o.samples, o.reason) for o in outcomes) == [("done", 20, ""), ("reused", 20, "")]
    for mark in (tmp_path / "v").glob("*.mark"):
        mark.unlink()
    write_video(tmp_path / "w" / "good.mp4", 40, draw=lambda n, w, h: np.full((h, w, 3), n * 5, np.uint8))
    run(tmp_path / "w", tmp_path / "g", settings)
    assert entries(tmp_path / "f") == entries(tmp_path / "g")


def test_a_decoder_that_dies_before_the_first_frame_fails(
    tmp_path: Path, settings: DetectorSettings, faults: None
) -> None:
    write_video(tmp_path / "v" / "early.mp4", 20)
    outcome = run(tmp_path / "v", tmp_path / "f", settings)[0]
    assert outcome.status == "failed"
    assert outcome.reason == "its decoder crashed (SIGSEGV) before it gave a frame; convert the file with ffmpeg"


def test_a_decoder_that_is_killed_while_it_starts_is_started_again(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system does when memory runs out."""
    code = (
        f"import os, pathlib; mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "if not mark.exists(): mark.touch(); os.kill(os.getpid(), 9)\n"
        "from vidgru.extraction import decode_worker; decode_worker.main()"
    )
    monkeypatch.setattr(decoder, "COMMAND", [sys.executable, "-c", code])
    write_video(tmp_path / "v" / "a.mp4", 20)
    assert run(tmp_path / "v", tmp_path / "f", settings)[0].status == "done"
    assert (tmp_path / "mark").exists()


def test_no_decoder_process_is_left(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(decoder, "subprocess", _Recording(subprocess.Popen, started))
    write_video(tmp_path / "v" / "a.mp4", 200)
    write_video(tmp_path / "v" / "b.mp4", 5)

    def interrupt(outcome: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "v", tmp_path / "f", settings, on_result=interrupt)
    assert started
    assert all(process.poll() is not None for process in started)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vidgru")]
    assert not (tmp_path / "f" / ".leases").exists()


class _Recording:
    """The subprocess module, but that it notes what is started."""

    def __init__(self, popen: Any, started: list[Any]) -> None:
        self._popen, self._started = popen, started

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, *arguments: Any, **options: Any) -> Any:  # noqa: N802
        self._started.append(self._popen(*arguments, **options))
        return self._started[-1]


def test_decoder_processes_leave_with_their_parent() -> None:
    process = subprocess.Popen(
        decoder.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    assert b"ready" in process.stdout.read(8 + len('{"kind": "ready"}'))
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()


# --- runs that are killed ---------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing is tidied up behind it."""


def requests(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What decoders are asked to decode from now on."""
    asked: list[dict[str, Any]] = []
    ask = decoder.DecoderProcess.request

    def noted(self: decoder.DecoderProcess, request: dict[str, Any]) -> Any:
        if "probe" not in request:
            asked.append(request)
        return ask(self, request)

    monkeypatch.setattr(decoder.DecoderProcess, "request", noted)
    return asked


def kill_after(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    """The next runs end when so many samples have been worked off."""
    seen = iter(range(samples))

    def sampled(*arguments: Any) -> None:
        if next(seen, None) is None:
            raise Killed

    monkeypatch.setattr("vidgru.extraction.results.ProgressBar.advance", sampled)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_killed_run_goes_on_inside_the_recording(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    small_parts(monkeypatch, 10)
    write_video(tmp_path / "v" / f"a.{suffix}", 160, options=GOP)
    run(tmp_path / "v", tmp_path / "whole", settings)
    asked = requests(monkeypatch)
    with monkeypatch.context() as killing:
        kill_after(killing, 33)
        with pytest.raises(Killed):
            run(tmp_path / "v", tmp_path / "cut", settings)
    left = SequenceCache(tmp_path / "cut").incomplete_entries()
    assert len(left) == 1
    assert len(list(left[0][1].glob("part-*"))) == 3
    asked.clear()
    outcome = run(tmp_path / "v", tmp_path / "cut", settings)[0]
    assert (outcome.status, outcome.samples) == ("done", 80)
    assert (asked[0]["resume_from"]["samples"], asked[0]["resume_from"]["index"]) == (30, 58)
    assert asked[0]["resume_from"]["key_index"] == 50, "decoding restarts at the key frame before"
    assert len(asked) == 1, "and comes by the same frame"
    assert entries(tmp_path / "cut") == entries(tmp_path / "whole")


@pytest.mark.parametrize("wrong", [{"key_pts": 7}, {"image": "0"}])
def test_a_place_that_is_not_found_again_is_looked_for_from_the_start(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    small_parts(monkeypatch, 10)
    write_video(tmp_path / "v" / "a.mp4", 100, options=GOP)
    run(tmp_path / "v", tmp_path / "whole", settings)
    with monkeypatch.context() as killing:
        kill_after(killing, 33)
        with pytest.raises(Killed):
            run(tmp_path / "v", tmp_path / "cut", settings)
    place = decode_task.ResumePoint
    misled = lambda **facts: replace(place(**facts), **(wrong if facts["samples"] == 30 else {}))  # noqa: E731
    monkeypatch.setattr(decode_task, "ResumePoint", misled)
    run(tmp_path / "v", tmp_path / "cut", settings)
    assert entries(tmp_path / "cut") == entries(tmp_path / "whole")


def test_a_damaged_recording_goes_on_too(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_parts(monkeypatch, 10)
    path = write_video(tmp_path / "v" / "a.mkv", 160, options=GOP)
    data = bytearray(path.read_bytes())
    for position in np.random.default_rng(3).integers(len(data) // 10, len(data) // 3, 8):
        data[position] ^= 0xFF
    path.write_bytes(data)
    assert run(tmp_path / "v", tmp_path / "whole", settings)[0].status == "partial"
    with monkeypatch.context() as killing:
        kill_after(killing, 43)
        with pytest.raises(Killed):
            run(tmp_path / "v", tmp_path / "cut", settings)
    run(tmp_path / "v", tmp_path / "cut", settings)
    assert entries(tmp_path / "cut") == entries(tmp_path / "whole")


# --- recordings that are shared ---------------------------------------------------------------------------------------


def sharing(monkeypatch: pytest.MonkeyPatch, decoders: int = 3) -> list[dict[str, Any]]:
    """Let several decoders share every recording; returns what they were asked for."""
    monkeypatch.setattr(pipeline, "count_threads", lambda run: decoders)
    monkeypatch.setattr(decode_task, "SEGMENT_SAMPLES", 10)
    monkeypatch.setattr("vidgru.extraction.detector_pool.DetectorPool.is_idle", lambda self: True)
    return requests(monkeypatch)


def stretches(asked: list[dict[str, Any]]) -> list[tuple[int, int | None]]:
    """The sample after which each begins, and with which it ends."""
    return sorted(
        (request["resume_from"]["samples"] if request["resume_from"] else 0, request["stop_after"]) for request in asked
    )


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("bframes", ["0", "2"])
def test_a_shared_recording_gives_the_same_bytes(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch, suffix: str, bframes: str
) -> None:
    write_video(tmp_path / "v" / f"a.{suffix}", 200, options={**GOP, "bf": bframes})
    run(tmp_path / "v", tmp_path / "whole", settings)
    asked = sharing(monkeypatch)
    assert run(tmp_path / "v", tmp_path / "cut", settings)[0].status == "done"
    assert stretches(asked) == [
        (0, None),
        (11, 21),
        (21, 31),
        (31, 41),
        (41, 51),
        (51, 61),
        (61, 71),
        (71, 81),
        (81, 91),
        (91, None),
    ]
    assert entries(tmp_path / "cut") == entries(tmp_path / "whole")


@pytest.mark.parametrize(
    "where", [pytest.param(0.1, marks=pytest.mark.slow), 0.5, pytest.param(0.9, marks=pytest.mark.slow)]
)
def test_a_shared_recording_that_turns_out_damaged_gives_the_same_bytes(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch, where: float
) -> None:
    path = write_video(tmp_path / "v" / "a.mp4", 200, options=GOP)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat")
    middle = start + int((data.index(b"moov") - start) * where)
    for position in np.random.default_rng(3).integers(middle - 1500, middle + 1500, 6):
        data[position] ^= 0xFF
    path.write_bytes(data)
    assert run(tmp_path / "v", tmp_path / "whole", settings)[0].status == "partial"
    asked = sharing(monkeypatch)
    run(tmp_path / "v", tmp_path / "cut", settings)
    assert len(asked) > 1
    assert entries(tmp_path / "cut") == entries(tmp_path / "whole")


def test_a_shared_recording_that_changes_fails_once(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v" / "a.mp4", 200, options=GOP)
    asked = sharing(monkeypatch)
    ask = decoder.DecoderProcess.request

    def touched(self: decoder.DecoderProcess, request: dict[str, Any]) -> Any:
        if len(asked) == 2:
            os.utime(path, ns=(5, 5))
        return ask(self, request)

    monkeypatch.setattr(decoder.DecoderProcess, "request", touched)
    ended: list[str] = []
    outcome = run(tmp_path / "v", tmp_path / "f", settings, on_result=lambda one: ended.append(one.reason))[0]
    assert outcome.status == "failed"
    assert ended == ["changed while it was read; run again when it is complete"]


@pytest.mark.slow
def test_two_processes_share_a_folder(tmp_path: Path, settings: DetectorSettings) -> None:
    for number in range(6):
        write_video(tmp_path / "v" / f"slow{number}.mp4", 30 + number)
    code = (
        "import sys; from tests import fault_injection; from vidgru.extraction import decode_process as decoder\n"
        "from vidgru.cli import run\n"
        "decoder.COMMAND = [sys.executable, '-m', 'tests.fault_injection']\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "extract", str(tmp_path / "v"), "--weights", settings.weights]
    command += ["--out", str(tmp_path / "f"), "--imgsz", "64", "--fps", "5", "--conf", "0.2", "--max-objects", "6"]
    command += ["--backend", "torch", "--precision", "fp32", "--threads", "1"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    made = [int(line.split(" done")[0]) if " done" in line else 0 for line in said]
    assert sum(made) == 6, said
    assert min(made) > 0, said
    run(tmp_path / "v", tmp_path / "alone", settings)
    assert entries(tmp_path / "f") == entries(tmp_path / "alone")
    assert not SequenceCache(tmp_path / "f").incomplete_entries()


def test_a_recording_that_another_process_works_on_is_waited_for(tmp_path: Path, settings: DetectorSettings) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / "v" / f"{name}.mp4", 20 if name == "a" else 25)
    run(tmp_path / "v" / "a.mp4", tmp_path / "ready", settings)
    cache = SequenceCache(tmp_path / "f")
    key = SequenceCache(tmp_path / "ready").lookup(tmp_path / "v" / "a.mp4", pipeline.feature_settings_for(settings))
    assert key is not None
    other = Locks(cache.lock_folder)
    assert other.acquire(key.key)
    ended: list[str] = []

    def finish(outcome: Any) -> None:
        ended.append(outcome.recording.name)
        if outcome.recording.name == "b.mp4":
            (tmp_path / "ready" / key.key).rename(tmp_path / "f" / key.key)
            other.close()

    outcomes = run(tmp_path / "v", tmp_path / "f", settings, on_result=finish)
    assert ended == ["b.mp4", "a.mp4"]
    assert [o.status for o in outcomes] == ["reused", "done"]


def test_an_unsound_entry_is_made_again(tmp_path: Path, settings: DetectorSettings) -> None:
    write_video(tmp_path / "v" / "a.mp4", 20)
    key = str(run(tmp_path / "v", tmp_path / "f", settings)[0].key)
    whole = parts(tmp_path / "f")
    part = tmp_path / "f" / key / "part-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-10])
    assert run(tmp_path / "v", tmp_path / "f", settings)[0].status == "done"
    assert parts(tmp_path / "f") == whole


def test_threads_are_the_runs_own(tmp_path: Path, settings: DetectorSettings) -> None:
    """Frameworks that set OMP_NUM_THREADS for their workers do not change the bytes."""
    write_video(tmp_path / "v" / "a.mp4", 30)
    words = ["extract", str(tmp_path / "v"), "--weights", settings.weights, "--imgsz", "64", "--fps", "5"]
    words += ["--backend", "torch", "--precision", "fp32", "--threads", "2", "--out"]
    assert os.environ["OMP_NUM_THREADS"] == "1", "as tests are run"
    assert cli.run([*words, str(tmp_path / "1")]) == 0
    command = [sys.executable, "-m", "vidgru", *words, str(tmp_path / "4")]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "4"})
    assert entries(tmp_path / "1") == entries(tmp_path / "4")
