"""The parent's side of decoder processes: start, request, watch, restart. `decode_worker.py` runs in them."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.detector.motion import SCENE_MOTION_COLUMNS, Flow
from vidgru.errors import RecordingError
from vidgru.extraction.decode_worker import HEADER
from vidgru.types import Array
from vidgru.video.container import VideoInfo
from vidgru.video.reader import ResumePoint
from vidgru.video.stillness import StillPlan

COMMAND = [sys.executable, "-m", "vidgru.extraction.decode_worker"]
HANG_S = 60.0  # a decoder that sends nothing for this long while it is waited for has hung
WATCH_S = 1.0
_EXIT_S = 10.0
_PIPE_BYTES = 1 << 20  # a frame passes in one or two pieces; the most that Linux grants users
# glibc puts ever larger blocks into its heap, which then keeps the memory of those that are freed, such as the index of
# a long MP4 file. A limit that is given stays.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(8 << 20)}
_SCENE_BYTES = 2 * len(SCENE_MOTION_COLUMNS)


class DecoderDiedError(Exception):
    """A decoder process crashed or hung; the message says how.

    Attributes:
        crashed: Whether a signal or a hang ended it; otherwise it exited by itself.
        killed_from_outside: Whether it was killed by somebody else, such as a system that is out of memory.
    """

    def __init__(self, message: str, *, crashed: bool = False, killed_from_outside: bool = False) -> None:
        super().__init__(message)
        self.crashed, self.killed_from_outside = crashed, killed_from_outside


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedSample:
    """A sampled frame as it arrives.

    Attributes:
        number: Position among the recording's samples.
        time_s: Seconds from the start of the container.
        index: Position among the decoded frames.
        resume_point: How to resume after it; None for most.
        image: uint8 [h, w, 3], scaled, without padding; overwritten by the next sample. None: as the last sample's.
        scene_motion: float16 [len(SCENE_MOTION_COLUMNS)].
        flow: Motion since the previous sample; None at the first.
    """

    number: int
    time_s: float
    index: int
    resume_point: ResumePoint | None
    image: Array | None
    scene_motion: Array
    flow: Flow | None


class DecoderProcess:
    """A process that decodes one segment after another. It is started by the first request, and again after a death.

    One thread sends requests and stops it; any thread may watch and close it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting_since: float | None = None
        self._has_hung = self._is_closed = False
        self._lock = threading.Lock()

    def request(self, request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], DecodedSample | None]]:
        """Send a request and yield the messages of its answer, including the last; samples with their arrays.

        Raises:
            DecoderDiedError: The process crashed or hung.
        """
        self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        image: Array | None = None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._reap() from None
        while True:
            message, payload_bytes = self._read_message()
            match message["kind"]:
                case "opened":
                    image = np.empty((*message["image_hw"], 3), np.uint8)
                    yield message, None
                case "sample":
                    assert image is not None
                    self._read(image.reshape(-1))
                    rest = np.empty(payload_bytes - image.nbytes, np.uint8)
                    self._read(rest)
                    yield message, _decoded_sample(message, image, rest)
                case "unchanged":
                    rest = np.empty(payload_bytes, np.uint8)
                    self._read(rest)
                    yield message, _decoded_sample(message, None, rest)
                case "end" | "failed" | "lost":
                    yield message, None
                    return
                case "split":
                    yield message, None
                case "plan":
                    payload = np.empty(payload_bytes, np.uint8)
                    self._read(payload)
                    yield message | {"plan": _still_plan(message, payload)}, None

    def probe(self, path: Path) -> VideoInfo:
        """Return what a recording's container says.

        Raises:
            RecordingError: It is not a readable video.
            DecoderDiedError: The process crashed or hung.
        """
        for message, _ in self.request({"kind": "probe", "path": str(path)}):
            if message["kind"] == "end":
                return to_video_info(message["info"])
            if message["kind"] == "failed":
                raise RecordingError(message["reason"])
        raise AssertionError("an answer ends with one of the two")

    def share_still(self, path: Path, fps: float) -> tuple[float | None, float]:
        """Return the share of a recording's samples that are still as far as packets show, and its length in seconds.

        The share is None if packets do not show it.

        Raises:
            RecordingError: It is not a readable video.
            DecoderDiedError: The process crashed or hung.
        """
        for message, _ in self.request({"kind": "share_still", "path": str(path), "fps": fps}):
            if message["kind"] == "end":
                return message["share"], message["end_s"]
            if message["kind"] == "failed":
                raise RecordingError(message["reason"])
        raise AssertionError("an answer ends with one of the two")

    def kill_if_hung(self) -> None:
        """Kill the process if it has sent nothing for HANG_S while it was waited for."""
        with self._lock:
            since = self._waiting_since
            if self._process is not None and since is not None and time.monotonic() - since > HANG_S:
                self._has_hung = True
                self._process.kill()

    def close(self) -> None:
        """Kill the process for good; a thread that waits for it gets DecoderDiedError."""
        self._is_closed = True
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def stop(self) -> None:
        """End the process, if there is one, and wait for it; the next request starts another."""
        if self._process is not None:
            self._reap()

    def _start(self) -> None:
        with self._lock:
            if self._is_closed:
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
                env=_MALLOC | os.environ | {"PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        if sys.platform == "linux":
            import fcntl

            assert self._process.stdout is not None
            with suppress(OSError):  # the user's share of pipe memory is used up: smaller pieces then
                fcntl.fcntl(self._process.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._read_message(is_watched=False)  # "ready": imports may take their time on a slow disk
        except DecoderDiedError as error:
            if self._is_closed or error.crashed:
                raise
            raise RuntimeError(f"decoder processes cannot be started: {error}") from None

    def _read_message(self, *, is_watched: bool = True) -> tuple[dict[str, Any], int]:
        """Read the next message and return it with the number of bytes that follow."""
        header = np.empty(HEADER.size, np.uint8)
        self._read(header, is_watched=is_watched)
        text_bytes, payload_bytes = HEADER.unpack(header.tobytes())
        text = np.empty(text_bytes, np.uint8)
        self._read(text)
        message: dict[str, Any] = json.loads(text.tobytes())
        return message, payload_bytes

    def _read(self, target: Array, *, is_watched: bool = True) -> None:
        """Fill an array with bytes from the process."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._waiting_since = time.monotonic() if is_watched else None
        count = self._process.stdout.readinto(target.data)  # type: ignore[attr-defined]
        self._waiting_since = None
        if count < target.nbytes:
            raise self._reap()

    def _reap(self) -> DecoderDiedError:
        """Kill the process unless it has ended, wait for it, and describe how it ended."""
        with self._lock:
            process, self._process = self._process, None
        assert process is not None
        process.kill()
        code = None
        with suppress(subprocess.TimeoutExpired):  # one that waits for a dead disk cannot even be killed
            code = process.wait(_EXIT_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # unsent bytes
                    pipe.close()
        has_hung, self._has_hung = self._has_hung, False
        if has_hung:
            return DecoderDiedError(f"its decoder hung (silent for {HANG_S:.0f} s)", crashed=True)
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            is_kill = -code == signal.SIGKILL
            return DecoderDiedError(f"its decoder crashed ({name})", crashed=True, killed_from_outside=is_kill)
        return DecoderDiedError(f"its decoder ended with exit code {code}")


@contextmanager
def watch_for_hangs(decoders: Sequence[DecoderProcess]) -> Iterator[None]:
    """Kill the processes that hang, as long as the `with` block lasts."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(WATCH_S):
            for decoder in decoders:
                decoder.kill_if_hung()

    thread = threading.Thread(target=watch, name="vidgru-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def to_video_info(values: dict[str, Any]) -> VideoInfo:
    """Restore a `VideoInfo` from JSON."""
    return VideoInfo(**values | {"size_px": tuple(values["size_px"]), "others": tuple(values["others"])})


def _still_plan(message: dict[str, Any], payload: Array) -> StillPlan | None:
    """Restore a plan from its arrays, one after the other; None if there is none."""
    if message["reason"]:
        return None
    samples, keys = message["samples"], message["keys"]
    ends = np.cumsum([8 * samples] * 3 + [8 * keys] * 2)
    time_s, pts, frame_index, key_pts, key_index, still = np.split(payload, ends)
    return StillPlan(
        time_s=time_s.view(np.float64),
        pts=pts.view(np.int64),
        frame_index=frame_index.view(np.int64),
        still=still.view(bool),
        key_pts=key_pts.view(np.int64),
        key_index=key_index.view(np.int64),
        blind=message["blind"],
        starts_late=message["starts_late"],
        ends_early=message["ends_early"],
    )


def _decoded_sample(message: dict[str, Any], image: Array | None, rest: Array) -> DecodedSample:
    flow = None
    if message["flow"] is not None:
        height, width = message["flow"]
        rate_end = _SCENE_BYTES + height * width * 8
        flow = Flow(
            rate=rest[_SCENE_BYTES:rate_end].view(np.float32).reshape(height, width, 2),
            camera=tuple(message["camera"]),
            grey_change=rest[rate_end:].reshape(height, width),
        )
    return DecodedSample(
        number=message["number"],
        time_s=message["time_s"],
        index=message["index"],
        resume_point=None if message["resume_point"] is None else ResumePoint(**message["resume_point"]),
        image=image,
        scene_motion=rest[:_SCENE_BYTES].view(np.float16),
        flow=flow,
    )
