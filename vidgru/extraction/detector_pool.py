"""The detector and its threads: frames of any recordings in, batches through the network, detections out.

Batches hold frames of several recordings with one input shape, so a folder of short clips runs at the speed of one long
file. All queues are bounded: a slow consumer holds up the detector, and a busy detector the decoders.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.detector.motion import Flow, object_motion
from vidgru.detector.preprocess import PAD_VALUE, Letterbox
from vidgru.extraction.results import ExtractionStoppedError
from vidgru.types import Array, FrameSequence
from vidgru.video.reader import ResumePoint

if TYPE_CHECKING:  # PyTorch takes seconds to import, and a run that finds every recording in the cache needs none of it
    from vidgru.detector.yolo import Detections, Detector

Item = TypeVar("Item")

CPU_BATCH, DEVICE_BATCH = 4, 32
_BATCHES_WAITING = 2  # per detector thread
_OPEN_SHAPES = 4  # input shapes whose frames wait for their batch to fill
_POLL_S = 0.05
_VERSIONS = ("vidgru", "ultralytics", "torch", "torchvision", "openvino", "av", "opencv-python", "numpy")


def count_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_threads(run: RuntimeSettings) -> int:
    """Return the number of decoders of a run, which is also its number of detector threads on a CPU."""
    return run.threads or count_cores()


# --- what passes through ----------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class FrameRef:
    """A sampled frame on its way through the detector, without its image, which is in a batch.

    Attributes:
        number: Position among the recording's samples, from 0.
        time_s: Seconds from the start of the container.
        index: Position among the decoded frames of the source.
        size_px: Width and height of the upright frame.
        flow: Motion since the previous sample; dropped once it has been used.
        scene_motion: float16 [len(SCENE_MOTION_COLUMNS)].
        segment: The segment of a recording it was decoded from; None for live sources.
        resume_point: How to resume decoding after this sample; None for most.
    """

    number: int
    time_s: float
    index: int
    size_px: tuple[int, int]
    flow: Flow | None
    scene_motion: Array
    segment: Any = None
    resume_point: ResumePoint | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectedFrame:
    """A sampled frame with its detections.

    Attributes:
        frame: The frame.
        detections: Its M objects and scene vector.
        motion: float16 [M, len(MOTION_COLUMNS)].
        tracks: int32 [M]; None until the frame has been tracked.
    """

    frame: FrameRef
    detections: Detections
    motion: Array
    tracks: Array | None = None

    @property
    def segment(self) -> Any:
        """The segment it was decoded from, see `FrameRef`."""
        return self.frame.segment


@dataclass(kw_only=True, eq=False)
class FrameBatch:
    """Frames of one input shape, of any recordings.

    Attributes:
        images: uint8 [B, H, W, 3], always of the full batch size; rows beyond `frames` are grey.
        frames: The frames in the first rows.
        letterboxes: Where each of them is in its row.
    """

    images: Array
    frames: list[FrameRef] = field(default_factory=list)
    letterboxes: list[Letterbox] = field(default_factory=list)


def to_sequence(
    rows: list[DetectedFrame],
    fps: float,
    size_px: tuple[int, int],
    names: tuple[str, ...],
    flip_idx: tuple[int, ...] = (),
    *,
    adaptive: bool = False,
) -> FrameSequence:
    """Join tracked frames of one recording into a piece of its sequence; an adaptive one has the tensor `still`."""
    frames, detections = [row.frame for row in rows], [row.detections for row in rows]
    angles = [frame.angle for frame in detections if frame.angle is not None]
    keypoints = [frame.keypoints for frame in detections if frame.keypoints is not None]
    return FrameSequence(
        time_s=np.array([frame.time_s for frame in frames], np.float64),
        frame_index=np.array([frame.index for frame in frames], np.int64),
        offsets=np.cumsum([0, *(len(frame.boxes) for frame in detections)], dtype=np.int64),
        boxes=np.concatenate([frame.boxes for frame in detections]),
        scores=np.concatenate([frame.scores for frame in detections]),
        classes=np.concatenate([frame.classes for frame in detections]),
        tracks=np.concatenate([row.tracks for row in rows]),
        motion=np.concatenate([row.motion for row in rows]),
        appearance=np.concatenate([frame.appearance for frame in detections]),
        colour=np.concatenate([frame.colour for frame in detections]),
        angle=np.concatenate(angles) if angles else None,
        keypoints=np.concatenate(keypoints) if keypoints else None,
        scene=np.stack([frame.scene for frame in detections]),
        scene_motion=np.stack([frame.scene_motion for frame in frames]),
        still=np.zeros(len(frames), bool) if adaptive else None,
        fps=fps,
        size_px=size_px,
        names=names,
        flip_idx=flip_idx,
    )


def share_objects(frame: FrameRef, last: DetectedFrame | FrameSequence) -> DetectedFrame:
    """Copy the objects of the last frame to a frame that looks like it; their motion is measured anew.

    Args:
        frame: The frame.
        last: The last frame, or a sequence of it alone.
    """
    if isinstance(last, DetectedFrame):
        detections = last.detections
    else:
        from vidgru.detector.yolo import Detections  # the detector is loaded, and PyTorch with it

        assert last.scene is not None
        tensors = {name: getattr(last, name) for name in Detections.__dataclass_fields__}
        detections = Detections(**tensors | {"scene": last.scene[0]})
    motion = object_motion(frame.flow, detections.boxes)
    frame.flow = None  # large, and no longer needed
    return DetectedFrame(frame=frame, detections=detections, motion=motion)


def repeat_frame(frame: FrameSequence, time_s: Array, frame_index: Array) -> FrameSequence:
    """Repeat the objects of a frame in the still frames that follow it.

    Args:
        frame: The frame, M objects.
        time_s: float64 [T], times of the still frames.
        frame_index: int64 [T], their indices in the source.
    """
    count, objects = len(time_s), len(frame.boxes)
    tensors: dict[str, Any] = {
        name: np.tile(value, (count, *(1,) * (value.ndim - 1))) for name, value in frame.tensors().items()
    }
    for name in ("motion", "scene_motion"):
        tensors[name] = np.zeros_like(tensors[name])
    tensors |= {"time_s": time_s, "frame_index": frame_index, "still": np.ones(count, bool)}
    tensors["offsets"] = np.arange(count + 1, dtype=np.int64) * objects
    return replace(frame, **tensors)


# --- threads and queues -----------------------------------------------------------------------------------------------


class Channel(Generic[Item]):
    """A bounded queue between threads whose ends stop waiting when the run stops.

    Args:
        size: Capacity; `put` waits while the queue is full.
        stop: Set when the run has ended.
    """

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[Item] = queue.Queue(size)
        self._stop = stop

    def put(self, item: Item) -> None:
        """Add an item. Raises ExtractionStoppedError."""
        while not self._stop.is_set():
            with suppress(queue.Full):
                return self._queue.put(item, timeout=_POLL_S)
        raise ExtractionStoppedError

    def get(self) -> Item:
        """Take the oldest item. Raises ExtractionStoppedError."""
        while not self._stop.is_set():
            with suppress(queue.Empty):
                return self._queue.get(timeout=_POLL_S)
        raise ExtractionStoppedError

    def poll(self) -> Item | None:
        """Take the oldest item, or None if none arrives within a moment. Raises ExtractionStoppedError."""
        if self._stop.is_set():
            raise ExtractionStoppedError
        with suppress(queue.Empty):
            return self._queue.get(timeout=_POLL_S)
        return None

    def is_empty(self) -> bool:
        """Whether nothing is waiting in the queue now."""
        return self._queue.empty()


class WorkerThreads:
    """The threads of one run; `close` stops and joins them.

    Args:
        stop: Set by `close`; the threads end when they next wait on a `Channel`.
        on_error: Called in a thread with the error that ended it.
    """

    def __init__(self, stop: threading.Event, on_error: Callable[[BaseException], None]) -> None:
        self._stop, self._on_error = stop, on_error
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[], object]) -> None:
        """Run `work` in a new thread."""

        def guarded() -> None:
            try:
                work()
            except ExtractionStoppedError:
                pass
            except BaseException as error:  # a bug must not leave the run waiting for a dead thread
                with suppress(ExtractionStoppedError):  # another thread failed first
                    self._on_error(error)

        thread = threading.Thread(target=guarded, name=f"vidgru-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Stop all threads and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


# --- the detector -----------------------------------------------------------------------------------------------------


class DetectorPool:
    """A detector that is loaded, and its threads started, when it is first needed.

    On a CPU each thread runs the network on one core: several batches at once are faster than one batch on all cores,
    and the output does not depend on the number of cores.

    Args:
        weights: The detector's weights file.
        weights_sha256: Hash of the file, in hex.
        detect: What to compute.
        run: How to run.
        threads: The run's threads, which the detector's are added to.
        stop: Set when the run has ended.
        on_detected: Called in a detector thread with the frames of each batch.
        log: Called with a line for the user that names the detector.

    Attributes:
        run_info: Backend, precision, device, batch, threads and versions; empty until the detector is loaded.
    """

    def __init__(
        self,
        weights: Path,
        weights_sha256: str,
        detect: DetectorSettings,
        run: RuntimeSettings,
        threads: WorkerThreads,
        stop: threading.Event,
        on_detected: Callable[[list[DetectedFrame]], None],
        log: Callable[[str], None],
    ) -> None:
        self._weights, self._weights_sha256 = weights, weights_sha256
        self._detect, self._run = detect, run
        self._threads, self._stop, self._on_detected, self._log = threads, stop, on_detected, log
        self._load_lock, self._batch_lock = threading.Lock(), threading.Lock()
        self._is_loading = self._has_failed = False
        self._detector: Detector | None = None
        self._batches: Channel[FrameBatch] | None = None
        self._batch_size = 0
        self._open: dict[tuple[int, int], FrameBatch] = {}  # batches being filled, by input shape
        self._is_flushing = False
        self._torch_threads: int | None = None
        self.run_info: dict[str, Any] = {}

    def start_loading(self) -> None:
        """Load the detector in a thread of its own, while frames are decoded. If that fails, the run ends."""
        if not self._is_loading:
            self._is_loading = True
            self._threads.start("load", self.load)

    def load(self) -> Detector:
        """Load the detector and start its threads, or wait for another thread that does.

        Raises:
            WeightsError, SettingsError, MissingDependencyError: The detector cannot run as asked.
        """
        with self._load_lock:
            if self._stop.is_set() or self._has_failed:  # another thread reports why
                raise ExtractionStoppedError
            if self._detector is None:
                self._has_failed = True  # until it has succeeded
                import torch

                from vidgru.detector.backends import open_backend
                from vidgru.detector.yolo import Detector

                self._torch_threads = torch.get_num_threads()
                backend = open_backend(self._weights, self._weights_sha256, self._run, count_threads(self._run))
                on_cpu = backend.device.type == "cpu"
                threads = count_threads(self._run) if on_cpu else 1
                self._batch_size = self._run.detector_batch or (CPU_BATCH if on_cpu else DEVICE_BATCH)
                self._batches = Channel(_BATCHES_WAITING * threads, self._stop)
                self.run_info = {
                    "backend": backend.name,
                    "precision": backend.precision,
                    "device": str(backend.device),
                    "batch": self._batch_size,
                    "threads": threads,
                    "versions": _versions(),
                }
                share = f", {threads} threads" if on_cpu else ""
                self._log(
                    f"detector: {self._weights.name}, {backend.name} {backend.precision} on {backend.device}{share}"
                )
                detector = Detector(backend, self._detect)
                for number in range(threads):
                    self._threads.start(f"detector-{number}", partial(self._detect_batches, detector, self._batches))
                self._detector, self._has_failed = detector, False
            return self._detector

    def add(self, frame: FrameRef, image: Array) -> None:
        """Copy a frame into the batch of its input shape. Waits while the detector is busy or not yet loaded.

        Args:
            frame: The frame.
            image: uint8 [h, w, 3] RGB, scaled to the network's input but without padding.
        """
        letterbox = Letterbox.fit(frame.size_px, self._detect.imgsz, self.load().stride)
        assert self._batches is not None
        shape, ready = letterbox.input_hw, None
        with self._batch_lock:
            batch = self._open.pop(shape, None)
            if batch is None:
                batch = FrameBatch(images=np.full((self._batch_size, *shape, 3), PAD_VALUE, np.uint8))
            letterbox.content(batch.images[len(batch.frames)])[:] = image  # grey around it already
            batch.frames.append(frame)
            batch.letterboxes.append(letterbox)
            if len(batch.frames) == self._batch_size:
                ready = batch
            else:
                self._open[shape] = batch  # reinserted last: the shape used least recently is first
                if len(self._open) > _OPEN_SHAPES:
                    ready = self._open.pop(next(iter(self._open)))
        if ready is not None:
            self._batches.put(ready)

    def flush(self) -> None:
        """Have the detector, once it is idle, take the frames that are waiting for their batch to fill.

        Returns at once, so that the thread that consumes the detections can call it.
        """
        with self._batch_lock:
            self._is_flushing = bool(self._open)

    def is_idle(self) -> bool:
        """Whether no batch is waiting: decoding, not detection, limits the run."""
        return self._batches is not None and self._batches.is_empty()

    def _take_unfilled(self) -> FrameBatch | None:
        """Take a batch that is not full, if they are being flushed."""
        with self._batch_lock:
            if not self._is_flushing or not self._open:
                return None
            batch = self._open.pop(next(iter(self._open)))
            self._is_flushing = bool(self._open)
            return batch

    def restore_torch_threads(self) -> None:
        """Give PyTorch the number of threads it had before the detector was loaded."""
        if self._torch_threads is not None:
            import torch

            torch.set_num_threads(self._torch_threads)

    def _detect_batches(self, detector: Detector, batches: Channel[FrameBatch]) -> None:
        import torch

        torch.set_num_threads(1)  # this thread's own loops, whatever OMP_NUM_THREADS says
        while True:
            batch = batches.poll() or self._take_unfilled()
            if batch is None:
                continue
            detections = detector.detect(batch.images, batch.letterboxes)
            rows = []
            for frame, objects in zip(batch.frames, detections, strict=True):
                motion = object_motion(frame.flow, objects.boxes)
                rows.append(DetectedFrame(frame=frame, detections=objects, motion=motion))
                frame.flow = None  # a hundred times as large as the rest, and frames may wait for their turn
            self._on_detected(rows)


def _versions() -> dict[str, str]:
    versions = {}
    for name in _VERSIONS:
        with suppress(PackageNotFoundError):  # an extra, or OpenCV under another name
            versions[name] = version(name)
    return versions
