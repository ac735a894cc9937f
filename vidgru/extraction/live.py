"""What a live source shows, frame by frame, as sequences of one frame: the same features that extraction makes.

the feed's thread       the calling thread        detector threads
samples, scaled    ──▶  motion, letterbox    ──▶  objects, scene
                        in order: tracks     ◀──
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType

import torch

from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.detector.motion import scene_motion
from vidgru.detector.preprocess import FramePreprocessor
from vidgru.detector.tracker import Tracker
from vidgru.detector.weights import find_weights
from vidgru.extraction.detector_pool import DetectedFrame, DetectorPool, FrameRef, WorkerThreads, to_sequence
from vidgru.storage import sha256_file
from vidgru.types import FrameSequence
from vidgru.video.live_connection import LiveAddress
from vidgru.video.live_source import LiveFrame, LiveSource, ReconnectPolicy

__all__ = ["LiveExtractor", "LiveSample", "ReconnectPolicy"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LiveSample:
    """What was seen in one sample.

    Attributes:
        sequence: of one frame.
        decoded_s: when the frame had been decoded, by the monotonic clock.
    """

    sequence: FrameSequence
    decoded_s: float


class LiveExtractor:
    """A live source and a detector that looks at it. Use it in a `with` block, which it is read in.

    Args:
        source: a URL, or the number of a camera of this machine.
        detect: what is computed.
        run: how; frames are not held back to fill a batch.
        patience: with a source that is not there.
        say: tells the user something; called by several threads.

    Attributes:
        name: of the source, without credentials.
        names: the detector's class names.
        run_info: settings and versions that are only recorded.
        feed: where frames come from, and what is known of the source.

    Raises:
        WeightsError, SettingsError, MissingDependencyError: when entered: the detector is not there, or cannot run
            as asked.
    """

    def __init__(
        self,
        source: str,
        detect: DetectorSettings,
        run: RuntimeSettings,
        *,
        reconnect: ReconnectPolicy | None = None,
        notify: Callable[[str], None],
    ) -> None:
        self._address = LiveAddress(source)
        self.name = self._address.name
        self._detect, self._reconnect, self._notify = detect, reconnect or ReconnectPolicy(), notify
        self._run = replace(run, detector_batch=1)
        self._polygons = json.loads(detect.mask or "[]")
        self._stop = threading.Event()
        self._crash: BaseException | None = None
        self._sent = self._handled = 0
        self._pending: dict[int, LiveFrame] = {}  # with the detector, by number
        self._rows: dict[int, DetectedFrame] = {}  # back from it, and not yet their turn
        self._preparation: tuple[tuple[int, int], FramePreprocessor] | None = None
        self._tracker: Tracker | None = None
        self._stack = ExitStack()

    def __enter__(self) -> LiveExtractor:
        weights = find_weights(self._detect.weights)
        self._stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)  # one frame is little work: threads that wait for one another cost more than they save
        threads = WorkerThreads(self._stop, self._on_crash)
        self._stack.callback(threads.close)
        self._pool = DetectorPool(
            weights, sha256_file(weights), self._detect, self._run, threads, self._stop, self._on_seen, self._notify
        )
        with ExitStack() as on_error:
            on_error.callback(self._stack.close)
            detector = self._pool.load()
            on_error.pop_all()
        self.names, self.run_info = detector.names, self._pool.run_info
        self.source = LiveSource(self._address, self._detect.fps, self._detect.imgsz, self._reconnect, self._notify)
        self._news = self.source.condition
        self._stack.callback(self.source.close)
        self.source.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is to be seen. Not where something went wrong: `see` tells what."""
        return (
            self.source.error is None
            and self._crash is None
            and self.source.is_finished
            and not self.source.waiting()
            and self._sent == self._handled
        )

    def read(self, timeout_s: float) -> LiveSample | None:
        """What is seen next, in the order of the samples.

        Returns:
            None where there is nothing new for so long, or never will be.

        Raises:
            SourceError: the source cannot be opened.
        """
        until = time.monotonic() + timeout_s
        most = int(self._pool.run_info["threads"])
        while True:
            frame: LiveFrame | None = None
            with self._news:
                while True:
                    if error := self._crash or self.source.error:
                        raise error
                    row = self._rows.pop(self._handled, None)
                    if row is None and self._sent - self._handled < most:
                        frame = self.source.take(idle=self._sent == self._handled)
                    rest_s = until - time.monotonic()
                    if row is not None or frame is not None or self.is_finished or rest_s <= 0:
                        break
                    self._news.wait(rest_s)
            if row is not None:
                return self._follow(row)
            if frame is None:
                return None
            self._send(frame)

    def _send(self, frame: LiveFrame) -> None:
        """Hand a sample to the detector."""
        if self._preparation is None or self._preparation[0] != frame.size_px:
            stride = self._pool.load().stride
            prepare = FramePreprocessor(frame.size_px, self._detect.imgsz, stride, self._polygons)
            self._preparation = (frame.size_px, prepare)
        prepare = self._preparation[1]
        canvas, flow = prepare(frame.image, frame.time_s)
        sample = FrameRef(
            number=self._sent,
            time_s=frame.time_s,
            index=frame.index,
            letterbox=prepare.letterbox,
            flow=flow,
            scene_motion=scene_motion(flow),
        )
        self._pending[self._sent] = frame
        self._sent += 1
        self._pool.add(sample, canvas)

    def _follow(self, row: DetectedFrame) -> LiveSample:
        """Follow the objects of the next sample, and make a sequence of it."""
        frame = self._pending.pop(row.frame.number)
        self._handled += 1
        self._tracker = self._tracker or Tracker(self._detect.tracker, frame.size_px)
        tracks = self._tracker.update(row.detections.boxes, row.detections.scores, row.detections.classes)
        sequence = to_sequence([replace(row, tracks=tracks)], self._detect.fps, frame.size_px, self.names)
        return LiveSample(sequence=sequence, decoded_s=frame.decoded_s)

    # --- detector threads -------------------------------------------------------------------------------------------

    def _on_seen(self, rows: list[DetectedFrame]) -> None:
        with self._news:
            self._rows |= {row.frame.number: row for row in rows}
            self._news.notify_all()

    def _on_crash(self, error: BaseException) -> None:
        self._crash = error
        with self._news:
            self._news.notify_all()
