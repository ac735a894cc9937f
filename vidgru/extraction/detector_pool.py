"""The detector with its threads: frames in, batches through the network, what was seen out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.detector.backends import open_backend
from vidgru.detector.motion import object_motion
from vidgru.detector.yolo import Detector
from vidgru.extraction.queues import Batch, Batcher, Channel, ExtractionStoppedError, Row, Sample, Threads
from vidgru.types import Array

CPU_BATCH, DEVICE_BATCH = 4, 32
_BATCHES_WAITING = 2  # a detector thread
_VERSIONS = ("vidgru", "ultralytics", "torch", "torchvision", "openvino", "av", "opencv-python", "numpy")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(run: RuntimeSettings) -> int:
    """Cores that a run is to use: as many decoders, and on a CPU as many threads of the detector."""
    return run.threads or cores()


class DetectorPool:
    """A detector that is loaded, with its threads, when it is first needed.

    On a CPU each thread runs the network on one core: several batches at once are faster than one batch shared among
    the cores, and what comes out does not depend on the number of cores.

    Args:
        weights, weights_sha256: the detector.
        detect, run: its settings.
        threads: where its threads belong.
        stop: set when the run is over.
        on_seen: takes what was seen in the frames of a batch, in a detector thread.
        say: tells the user what runs.
    """

    def __init__(
        self,
        weights: Path,
        weights_sha256: str,
        detect: DetectorSettings,
        run: RuntimeSettings,
        threads: Threads,
        stop: threading.Event,
        on_seen: Callable[[list[Row]], None],
        say: Callable[[str], None],
    ) -> None:
        self._weights, self._weights_sha256 = weights, weights_sha256
        self._detect, self._run = detect, run
        self._threads, self._stop, self._on_seen, self._say = threads, stop, on_seen, say
        self._lock = threading.Lock()
        self._detector: Detector | None = None
        self._batches: Channel[Batch] | None = None
        self._batcher: Batcher | None = None
        self.run_info: dict[str, Any] = {}

    def ready(self) -> Detector:
        """The detector; loaded, and its threads started, by the first call."""
        with self._lock:
            if self._stop.is_set():  # another thread has failed at it
                raise ExtractionStoppedError
            if self._detector is None:
                backend = open_backend(self._weights, self._weights_sha256, self._run, workers(self._run))
                on_cpu = backend.device.type == "cpu"
                threads = workers(self._run) if on_cpu else 1
                size = self._run.detector_batch or (CPU_BATCH if on_cpu else DEVICE_BATCH)
                self._batches = Channel(_BATCHES_WAITING * threads, self._stop)
                self._batcher = Batcher(size, self._batches.put)
                self.run_info = {
                    "backend": backend.name,
                    "precision": backend.precision,
                    "device": str(backend.device),
                    "batch": size,
                    "threads": threads,
                    "versions": _versions(),
                }
                share = f", {threads} threads" if on_cpu else ""
                self._say(
                    f"detector: {self._weights.name}, {backend.name} {backend.precision} on {backend.device}{share}"
                )
                detector = Detector(backend, self._detect)
                for number in range(threads):
                    self._threads.start(f"detector-{number}", partial(self._detect_all, detector, self._batches))
                self._detector = detector
            return self._detector

    @property
    def loaded(self) -> bool:
        """Whether `ready` has been called."""
        return self._detector is not None

    def add(self, sample: Sample, canvas: Array) -> None:
        """Hand in a letterboxed frame, uint8 [H, W, 3]; it is copied. Waits while the detectors are busy."""
        assert self._batcher is not None
        self._batcher.add(sample, canvas)

    def flush(self) -> None:
        """Detect in the frames that wait for others to fill their batch."""
        if self._batcher is not None:
            self._batcher.flush()

    def starving(self) -> bool:
        """Whether the detectors have nothing to do."""
        return self._batches is not None and self._batches.empty()

    def _detect_all(self, detector: Detector, batches: Channel[Batch]) -> None:
        torch.set_num_threads(1)  # of this thread's own loops, whatever OMP_NUM_THREADS says
        while True:
            batch = batches.get()
            detections = detector.detect(batch.images, [sample.letterbox for sample in batch.samples])
            rows = []
            for sample, seen in zip(batch.samples, detections, strict=True):
                rows.append(Row(sample=sample, seen=seen, motion=object_motion(sample.flow, seen.boxes)))
                sample.flow = None  # it is a hundred times as large as the rest, and samples may wait for their turn
            self._on_seen(rows)


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an extra, or OpenCV under one of its other names
            continue
    return found
