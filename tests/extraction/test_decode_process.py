"""Decoder processes that crash, hang or cannot start, and their end."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.extraction.extraction_runs import entry_files, extract
from tests.videos import write_video
from vidgru.config import DetectorSettings
from vidgru.extraction import decode_process
from vidgru.extraction.decode_worker import DecodeWorker
from vidgru.video.container import file_identity


@pytest.mark.parametrize("kind", ["crash", pytest.param("hang", marks=pytest.mark.slow)])
def test_dying_decoder_ends_only_its_recording(
    tmp_path: Path, settings: DetectorSettings, faults: None, kind: str
) -> None:
    write_video(tmp_path / "v" / "good.mp4", 30)
    write_video(tmp_path / "v" / f"{kind}.mp4", 40)
    write_video(tmp_path / "v" / "other.mp4", 20)
    results = {o.recording.path.stem: o for o in extract(tmp_path / "v", tmp_path / "f", settings)}
    assert {name: o.status for name, o in results.items()} == {"good": "done", "other": "done", kind: "partial"}
    assert results[kind].samples == 5
    assert results[kind].reason == "last 3.2 s missing, the decoder crashed or hung"


def test_decoder_restarts_where_it_died(tmp_path: Path, settings: DetectorSettings, faults: None) -> None:
    for kind in ("crash_once", "hang_once"):
        write_video(tmp_path / "v" / f"{kind}.mp4", 40, draw=lambda n, w, h: np.full((h, w, 3), n * 5, np.uint8))
    results = extract(tmp_path / "v", tmp_path / "f", settings)
    # they are of the same bytes: whichever comes first is decoded, and the other shares its entry
    assert sorted((o.status, o.samples, o.reason) for o in results) == [("done", 20, ""), ("reused", 20, "")]
    for mark in (tmp_path / "v").glob("*.mark"):
        mark.unlink()
    write_video(tmp_path / "w" / "good.mp4", 40, draw=lambda n, w, h: np.full((h, w, 3), n * 5, np.uint8))
    extract(tmp_path / "w", tmp_path / "g", settings)
    assert entry_files(tmp_path / "f") == entry_files(tmp_path / "g")


def test_decoder_dying_before_the_first_frame_fails(tmp_path: Path, settings: DetectorSettings, faults: None) -> None:
    write_video(tmp_path / "v" / "early.mp4", 20)
    result = extract(tmp_path / "v", tmp_path / "f", settings)[0]
    assert result.status == "failed"
    assert result.reason == "its decoder crashed (SIGSEGV) before the first frame; convert the file with ffmpeg"


def test_file_changed_in_the_last_segment_of_a_span_fails(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20)

    class TouchingStream(io.BytesIO):
        """Changes the recording when its first sample is written."""

        def write(self, data: Any) -> int:
            if b'"kind": "sample"' in bytes(data):
                os.utime(path, ns=(5, 5))
            return super().write(data)

    out = TouchingStream()
    request = {"kind": "decode", "path": str(path), "fps": 5, "imgsz": 64, "mask": [], "resume_from": None, "first": 0}
    request |= {"identity": [*file_identity(path)], "stop_after": 3, "resume_point_every": 0, "split_every": 0}
    DecodeWorker(out).serve({**request, "is_planned": True, "sample_pts": None})
    assert out.getvalue().endswith(b'"reason": "changed while it was read; run again when it is complete"}')
    assert b'"kind": "end"' not in out.getvalue()


def test_decoder_killed_at_start_is_restarted(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system does when memory runs out."""
    code = (
        f"import os, pathlib; mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
        "if not mark.exists(): mark.touch(); os.kill(os.getpid(), 9)\n"
        "from vidgru.extraction import decode_worker; decode_worker.main()"
    )
    monkeypatch.setattr(decode_process, "COMMAND", [sys.executable, "-c", code])
    write_video(tmp_path / "v" / "a.mp4", 20)
    assert extract(tmp_path / "v", tmp_path / "f", settings)[0].status == "done"
    assert (tmp_path / "mark").exists()


def test_interrupted_run_leaves_no_process_or_lock(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(decode_process, "subprocess", _RecordingSubprocess(subprocess.Popen, started))
    write_video(tmp_path / "v" / "a.mp4", 200)
    write_video(tmp_path / "v" / "b.mp4", 5)

    def interrupt(result: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path / "v", tmp_path / "f", settings, on_result=interrupt)
    assert started
    assert all(process.poll() is not None for process in started)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vidgru")]
    assert not (tmp_path / "f" / ".locks").exists()


class _RecordingSubprocess:
    """The subprocess module, which records what is started."""

    def __init__(self, popen: Any, started: list[Any]) -> None:
        self._popen, self._started = popen, started

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)

    def Popen(self, *arguments: Any, **options: Any) -> Any:  # noqa: N802
        self._started.append(self._popen(*arguments, **options))
        return self._started[-1]


def test_decoder_process_exits_with_its_parent() -> None:
    process = subprocess.Popen(
        decode_process.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    assert b"ready" in process.stdout.read(8 + len('{"kind": "ready"}'))
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()


def test_bug_in_a_decoder_process_fails_its_recording(
    tmp_path: Path, settings: DetectorSettings, faults: None, capfd: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "v" / "bug.mp4", 30)
    write_video(tmp_path / "v" / "good.mp4", 20)
    bug, good = extract(tmp_path / "v", tmp_path / "f", settings)
    assert (bug.status, good.status) == ("failed", "done")
    assert bug.reason == "hit a bug in vidgru, please report it: KeyError('a bug')"
    assert "Traceback" in capfd.readouterr().err


def test_decoder_processes_that_cannot_start_end_the_run(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    monkeypatch.setattr(decode_process, "COMMAND", ["false"])
    with pytest.raises(RuntimeError, match="decoder processes cannot be started: its decoder ended with exit code 1"):
        extract(tmp_path / "v", tmp_path / "f", settings)
