"""Extract features from a live source frame by frame, the same features as from its recording.

reading thread          calling thread           detector threads
scaled samples    ──▶   motion              ──▶  objects, scene
                        tracks, in order    ◀──
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
    """Features of one sampled frame of a live source.

    Attributes:
        sequence: Frame sequence of one frame.
        decoded_s: Monotonic clock time at which the frame had been decoded.
    """

    sequence: FrameSequence
    decoded_s: float


class LiveExtractor:
    """A live source and its detector. Use it as a context manager; reading starts when it is entered.

    Args:
        source: URL of a stream, or number of a local camera.
        detect: What to compute.
        run: How to run it; the batch is always one frame, because waiting for others to fill it would add delay.
        reconnect: When to retry a source that cannot be opened or is lost.
        notify: Shows the user a line; called by several threads.

    Attributes:
        name: Name of the source without credentials.
        run_info: Backend, precision, device and versions.
        source: The source, with what is known about it.

    Raises:
        WeightsError, SettingsError, MissingDependencyError: On entering, if the detector cannot run as asked.
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
        self._error: BaseException | None = None  # of a detector thread
        self._sent = self._returned = 0  # samples sent to the detector, and returned by `read`
        self._in_detector: dict[int, LiveFrame] = {}  # by number
        self._detected: dict[int, DetectedFrame] = {}  # by number, until it is their turn
        self._preprocessor: tuple[tuple[int, int], FramePreprocessor] | None = None  # with the frame size it is for
        self._tracker: Tracker | None = None
        self._stack = ExitStack()

    def __enter__(self) -> LiveExtractor:
        weights = find_weights(self._detect.weights)
        # One frame is too little work to share: threads that wait for one another cost more than they save.
        self._stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        threads = WorkerThreads(self._stop, self._on_error)
        self._stack.callback(threads.close)
        self._pool = DetectorPool(
            weights, sha256_file(weights), self._detect, self._run, threads, self._stop, self._on_detected, self._notify
        )
        with ExitStack() as on_error:
            on_error.callback(self._stack.close)
            detector = self._pool.load()
            on_error.pop_all()
        self._detector, self.run_info = detector, self._pool.run_info
        self.source = LiveSource(self._address, self._detect.fps, self._detect.imgsz, self._reconnect, self._notify)
        self._condition = self.source.condition
        self._stack.callback(self.source.close)
        self.source.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def is_finished(self) -> bool:
        """Whether `read` will return no more samples. False after an error, which `read` raises."""
        return (
            self.source.error is None
            and self._error is None
            and self.source.is_finished
            and not self.source.has_frames()
            and self._sent == self._returned
        )

    def silence_s(self) -> float:
        """Return for how many seconds the source has been silent; 0 while samples wait or are in the detector."""
        # The queue is checked first: a frame that arrives meanwhile has already ended the silence.
        is_busy = self._sent != self._returned or self.source.has_frames()
        return 0.0 if is_busy else self.source.silence_s()

    def read(self, timeout_s: float) -> LiveSample | None:
        """Return the next sample, in order.

        Returns:
            None if there is no new sample within `timeout_s` seconds, or none will follow.

        Raises:
            SourceError: The source cannot be opened.
        """
        deadline_s = time.monotonic() + timeout_s
        max_in_detector = int(self._pool.run_info["threads"])
        while True:
            frame: LiveFrame | None = None
            with self._condition:
                while True:
                    if error := self._error or self.source.error:
                        raise error
                    detected = self._detected.pop(self._returned, None)
                    if detected is None and self._sent - self._returned < max_in_detector:
                        frame = self.source.take(is_idle=self._sent == self._returned)
                    remaining_s = deadline_s - time.monotonic()
                    if detected is not None or frame is not None or self.is_finished or remaining_s <= 0:
                        break
                    self._condition.wait(remaining_s)
            if detected is not None:
                return self._track(detected)
            if frame is None:
                return None
            self._send(frame)

    def _send(self, frame: LiveFrame) -> None:
        """Preprocess a sample and send it to the detector."""
        if self._preprocessor is None or self._preprocessor[0] != frame.size_px:
            preprocess = FramePreprocessor(frame.size_px, self._detect.imgsz, self._polygons)
            self._preprocessor = (frame.size_px, preprocess)
        preprocess = self._preprocessor[1]
        image, flow = preprocess(frame.image, frame.time_s)
        frame_ref = FrameRef(
            number=self._sent,
            time_s=frame.time_s,
            index=frame.index,
            size_px=frame.size_px,
            flow=flow,
            scene_motion=scene_motion(flow),
        )
        self._in_detector[self._sent] = frame
        self._sent += 1
        self._pool.add(frame_ref, image)

    def _track(self, detected: DetectedFrame) -> LiveSample:
        """Track the objects of the next sample and make it a sequence."""
        frame = self._in_detector.pop(detected.frame.number)
        self._returned += 1
        self._tracker = self._tracker or Tracker(self._detect.tracker, frame.size_px)
        objects = detected.detections
        tracks = self._tracker.update(objects.boxes, objects.scores, objects.classes)
        sequence = to_sequence(
            [replace(detected, tracks=tracks)],
            self._detect.fps,
            frame.size_px,
            self._detector.names,
            self._detector.flip_idx,
        )
        return LiveSample(sequence=sequence, decoded_s=frame.decoded_s)

    # --- called by detector threads ---------------------------------------------------------------------------------

    def _on_detected(self, frames: list[DetectedFrame]) -> None:
        with self._condition:
            self._detected |= {detected.frame.number: detected for detected in frames}
            self._condition.notify_all()

    def _on_error(self, error: BaseException) -> None:
        self._error = error
        with self._condition:
            self._condition.notify_all()
