"""Decoder processes as the run sees them: started, asked, watched, ended. `worker.py` is what runs in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidgru.detector.motion import SCENE_MOTION_COLUMNS, Flow
from vidgru.errors import RecordingError
from vidgru.extraction.decode_worker import HEADER
from vidgru.types import Array
from vidgru.video.container import VideoInfo

COMMAND = [sys.executable, "-m", "vidgru.extraction.decode_worker"]
HANG_S = 60.0  # a decoder that gives no sign for so long while it is waited for has hung
WATCH_S = 1.0
_DEATH_S = 10.0
_PIPE_BYTES = 1 << 20  # a frame passes in one piece or two; Linux' limit for users
_SCENE_BYTES = 2 * len(SCENE_MOTION_COLUMNS)


class DecoderDiedError(Exception):
    """A decoder process crashed or hung; the message says how.

    Attributes:
        crashed: by a signal, or it hung; else it ended by itself.
        outside: it was killed by somebody else, such as a system that has no memory left.
    """

    def __init__(self, message: str, *, crashed: bool = False, outside: bool = False) -> None:
        super().__init__(message)
        self.crashed, self.outside = crashed, outside


class Sampled(NamedTuple):
    """A sample as it arrives.

    Attributes:
        facts: its number, time, index and place.
        canvas: uint8 [H, W, 3], letterboxed; overwritten by the next one.
        scene_motion: float16 [len(SCENE_MOTION_COLUMNS)].
        flow: motion since the sample before; None at the first.
    """

    facts: dict[str, Any]
    canvas: Array
    scene_motion: Array
    flow: Flow | None


class DecoderProcess:
    """A process that decodes one recording after the other. It is started when first asked, and again after a death.

    One thread asks, and ends it; any may watch and close.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting_since: float | None = None
        self._hung = self._closed = False
        self._lock = threading.Lock()

    def ask(self, request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Sampled | None]]:
        """Send a request and yield the messages of its answer, the last one included; samples with their arrays.

        Raises:
            DecoderDiedError: the process crashed or hung meanwhile.
        """
        self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        canvas: Array | None = None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._bury() from None
        while True:
            facts, length = self._header()
            if facts["kind"] == "opened":
                canvas = np.empty((*facts["letterbox"]["input_hw"], 3), np.uint8)
            if facts["kind"] == "sample":
                assert canvas is not None
                self._read(canvas.reshape(-1))
                rest = np.empty(length - canvas.nbytes, np.uint8)
                self._read(rest)
                yield facts, Sampled(facts, canvas, rest[:_SCENE_BYTES].view(np.float16), _flow(facts, rest))
            elif facts["kind"] != "beat":
                yield facts, None
            if facts["kind"] in ("end", "failed", "lost"):
                return

    def probe(self, path: Path) -> VideoInfo:
        """What a recording's container says.

        Raises:
            RecordingError: it is not a video that can be read.
            DecoderDiedError: the process crashed over it.
        """
        for facts, _ in self.ask({"probe": str(path)}):
            if facts["kind"] == "end":
                return video_info(facts["info"])
            if facts["kind"] == "failed":
                raise RecordingError(facts["reason"])
        raise AssertionError("an answer ends with one of the two")

    def watch(self) -> None:
        """Kill the process if it has hung."""
        with self._lock:
            since = self._waiting_since
            if self._process is not None and since is not None and time.monotonic() - since > HANG_S:
                self._hung = True
                self._process.kill()

    def close(self) -> None:
        """Kill the process for good; a thread that waits for it gets DecoderDiedError."""
        self._closed = True
        self._kill()

    def end(self) -> None:
        """End the process, if there is one, and wait for it; the next request starts another."""
        if self._process is not None:
            self._bury()

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise DecoderDiedError("closed")
            if self._process is not None:
                return
            package = str(Path(__file__).parents[2])
            path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=1 << 16,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        if sys.platform == "linux":
            import fcntl

            assert self._process.stdout is not None
            with suppress(OSError):  # the user's share of pipe memory is used up: smaller pieces then
                fcntl.fcntl(self._process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._header(watched=False)  # "ready": imports may take their time on a slow disk
        except DecoderDiedError as error:
            if self._closed or error.crashed:
                raise
            raise RuntimeError(f"decoder processes cannot be started: {error}") from None

    def _header(self, *, watched: bool = True) -> tuple[dict[str, Any], int]:
        """The next message's facts, and how many bytes follow."""
        head = np.empty(HEADER.size, np.uint8)
        self._read(head, watched=watched)
        text, payload = HEADER.unpack(head.tobytes())
        body = np.empty(text, np.uint8)
        self._read(body)
        facts: dict[str, Any] = json.loads(body.tobytes())
        return facts, payload

    def _read(self, target: Array, *, watched: bool = True) -> None:
        """Fill an array of bytes from the process."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._waiting_since = time.monotonic() if watched else None
        count = self._process.stdout.readinto(target.data)  # type: ignore[attr-defined]
        self._waiting_since = None
        if count < target.nbytes:
            raise self._bury()

    def _kill(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def _bury(self) -> DecoderDiedError:
        """Forget a process that has ended, or end it; says how it did."""
        with self._lock:
            process, self._process = self._process, None
        assert process is not None
        process.kill()
        code = None
        with suppress(subprocess.TimeoutExpired):  # one that waits for a dead disk cannot even be killed
            code = process.wait(_DEATH_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what was still to be sent
                    pipe.close()
        hung, self._hung = self._hung, False
        if hung:
            return DecoderDiedError(f"its decoder hung (no sign of life for {HANG_S:.0f} s)", crashed=True)
        if code is not None and code < 0:
            outside = -code == signal.SIGKILL
            return DecoderDiedError(
                f"its decoder crashed ({signal.Signals(-code).name})", crashed=True, outside=outside
            )
        return DecoderDiedError(f"its decoder ended with exit code {code}")


@contextmanager
def watching(decoders: Sequence[DecoderProcess]) -> Iterator[None]:
    """Meanwhile, kill those that hang."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            for decoder in decoders:
                decoder.watch()

    thread = threading.Thread(target=watch, name="vidgru-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def video_info(facts: dict[str, Any]) -> VideoInfo:
    """A `VideoInfo` that has been through JSON."""
    return VideoInfo(**facts | {"size_px": tuple(facts["size_px"])})


def _flow(facts: dict[str, Any], rest: Array) -> Flow | None:
    if facts["flow"] is None:
        return None
    height, width = facts["flow"]
    end = _SCENE_BYTES + height * width * 8
    return Flow(
        rate=rest[_SCENE_BYTES:end].view(np.float32).reshape(height, width, 2),
        camera=tuple(facts["camera"]),
        grey_change=rest[end:].reshape(height, width),
    )
