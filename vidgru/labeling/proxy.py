"""Videos for browsers: which ones they play, proxies of the others, and single frames.

A proxy is H.264 in MP4, at most 1280 pixels wide or high, with the times of its source. It is made by a process of its
own, `python -m vidgru.labeling.proxy SOURCE TARGET`, which prints the share that is done.
"""

from __future__ import annotations

import hashlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from vidgru.errors import RecordingError, VidgruError
from vidgru.labeling.child import ChildProcess, end_with_parent
from vidgru.types import Array
from vidgru.video.display_frames import AudioReader, DisplayFrameReader
from vidgru.video.frame_times import packet_times
from vidgru.video.writer import VideoWriter, fit_video_size

_MAX_SIDE_PX = 1280
_MIN_SIDE_PX = 16
_MAX_PLAYED_PX = 4096  # longest side that browsers decode on any machine
_SETTINGS = "h264 1280 v1"  # to be changed with anything that changes proxies
_PROGRESS_S = 0.25
# Codecs by FFmpeg's name of the container. Firefox plays no Matroska other than WebM.
_PLAYED = {"mov,mp4,m4a,3gp,3g2,mj2": ("h264", "vp9", "av1"), "matroska,webm": ("vp8", "vp9", "av1")}
_PLAYED_FORMATS = ("yuv420p", "yuvj420p")

ProxyState = Literal["none", "queued", "running", "ready", "failed"]


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """Properties of a video for browsers.

    Attributes:
        duration_s: Duration in seconds.
        fps: Average frames per second; None if unknown.
        size_px: Width and height as players show it.
        is_playable: Whether browsers play the file as it is.
    """

    duration_s: float
    fps: float | None
    size_px: tuple[int, int]
    is_playable: bool


def read_media_info(path: Path) -> MediaInfo:
    """Read the properties of a video that browsers need.

    Raises:
        RecordingError: The video cannot be read.
    """
    with DisplayFrameReader(path) as reader:
        info, size_px, pixel_format = reader.info, reader.size_px, reader.pixel_format
    is_webm = info.container != "matroska,webm" or path.suffix.lower() == ".webm"
    is_playable = (
        info.codec in _PLAYED.get(info.container, ())
        and pixel_format in _PLAYED_FORMATS
        and max(size_px) <= _MAX_PLAYED_PX
        and is_webm
    )
    duration_s = info.duration_s or packet_times(path)[2]
    return MediaInfo(duration_s=duration_s, fps=info.fps, size_px=size_px, is_playable=is_playable)


def read_frame_times(path: Path) -> Array | None:
    """Read the time of each frame in seconds, float64 [S]; None if the packets have no usable timestamps.

    They are the times of a proxy's frames, too.
    """
    try:
        return packet_times(path)[0]
    except RecordingError:
        return None


def is_evenly_spaced(time_s: Array, fps: float | None) -> bool:
    """Whether frame k of a video is at k / fps, up to a hundredth of a frame."""
    return fps is not None and bool(np.abs(time_s * fps - np.arange(len(time_s))).max(initial=0) < 0.01)


def read_frame_jpeg(path: Path, time: Fraction) -> bytes:
    """Read the frame that is on the screen at a time in seconds, as JPEG in the size that players show.

    Raises:
        RecordingError: The video cannot be read, or has no frame at that time.
    """
    with DisplayFrameReader(path) as reader:
        for frame in reader.frames(reader.size_px, [(time, time + Fraction(1, 1_000_000))]):
            _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
            return jpeg.tobytes()
    raise RecordingError(f"has no frame at {float(time):g} s")


class ProxyVideos:
    """Make proxies, one after the other, and keep their progress.

    Args:
        folder: Folder of the finished ones, where later sessions find them.
        on_change: Called when the state of one changes, from any thread.
    """

    def __init__(self, folder: Path, on_change: Callable[[], None]) -> None:
        self._folder, self._on_change = folder, on_change
        self._lock = threading.Lock()
        self._states: dict[Path, tuple[ProxyState, float, str]] = {}  # by source
        self._queue: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._child = ChildProcess()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="proxies", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a proxy that is not finished is discarded."""
        self._is_closed = True
        self._child.close()
        self._queue.put(None)
        self._thread.join()

    def find(self, source: Path) -> Path | None:
        """Return the finished proxy of a recording; None if there is none."""
        try:
            path = self._path(source)
        except OSError:
            return None
        return path if path.is_file() else None

    def start(self, source: Path) -> None:
        """Make a proxy, unless there is one or it is being made."""
        with self._lock:
            if self.find(source) is None and self._states.get(source, ("none",))[0] not in ("queued", "running"):
                self._states[source] = "queued", 0.0, ""
                self._queue.put(source)

    def status(self, source: Path) -> dict[str, Any]:
        """Return state, progress from 0 to 1, and the reason of a failure."""
        with self._lock:
            state, progress, reason = self._states.get(source, ("none", 0.0, ""))
        if self.find(source) is not None:
            state, progress, reason = "ready", 1.0, ""
        return {"state": state, "progress": progress, "reason": reason}

    def _path(self, source: Path) -> Path:
        status = source.stat()
        identity = f"{os.path.realpath(source)}\n{status.st_size}\n{status.st_mtime_ns}\n{_SETTINGS}"
        digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()
        return self._folder / f"{digest[:32]}.mp4"

    def _run(self) -> None:
        while (source := self._queue.get()) is not None:
            if self._is_closed:
                return
            try:
                reason = self._make(source, self._path(source))
            except OSError as error:
                reason = f"cannot make a proxy: {error.strerror or error}"
            self._set(source, "failed" if reason else "ready", 1.0, reason)

    def _make(self, source: Path, target: Path) -> str:
        """Run the process that makes a proxy; return why it failed, empty if it did not."""
        module, paths = "vidgru.labeling.proxy", (str(source.absolute()), str(target.absolute()))
        reason = ""
        with self._child.run(module, *paths, output=subprocess.PIPE) as process:
            if process is None:
                return "stopped"
            assert process.stdout is not None
            for line in process.stdout:
                try:
                    self._set(source, "running", float(line), "")
                except ValueError:  # the last line of another kind is the error
                    reason = line.decode(errors="replace").strip() or reason
        return "" if process.returncode == 0 else reason or f"the encoder ended with exit code {process.returncode}"

    def _set(self, source: Path, state: ProxyState, progress: float, reason: str) -> None:
        with self._lock:
            self._states[source] = state, progress, reason
        self._on_change()


def make_proxy(source: Path, target: Path, on_progress: Callable[[float], None]) -> None:
    """Write a proxy of a recording.

    Args:
        source: The recording.
        target: File to write.
        on_progress: Called with the share that is done, a few times per second.

    Raises:
        RecordingError: The recording cannot be read.
        OutputError: The proxy cannot be written.
    """
    with DisplayFrameReader(source) as reader, AudioReader(source) as audio:
        size_px = fit_video_size(reader.size_px, min_px=_MIN_SIDE_PX, max_px=_MAX_SIDE_PX)
        duration_s = reader.info.duration_s
        reported = time.monotonic()
        last = Fraction(-1)
        with VideoWriter(target, size_px=size_px, fps=reader.info.fps, audio=audio) as writer:
            for frame in reader.frames(size_px):
                writer.write(frame.image, frame.time, frame.end)
                last = frame.time
                if duration_s and time.monotonic() - reported > _PROGRESS_S:
                    reported = time.monotonic()
                    on_progress(min(float(frame.time) / duration_s, 1.0))
            if last < 0:
                raise RecordingError("has no frame that can be decoded")


def _main(source: str, target: str) -> int:
    end_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the unfinished file is deleted
    try:
        make_proxy(Path(source), Path(target), lambda share: print(f"{share:.3f}", flush=True))
    except VidgruError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
