"""The threads of a run and what passes between them: bounded queues, and batches that fill across recordings."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from vidgru.detector.motion import Flow
from vidgru.detector.preprocess import PAD_VALUE, Letterbox
from vidgru.detector.yolo import Detections
from vidgru.types import Array, FrameSequence
from vidgru.video.reader import ResumePoint

Item = TypeVar("Item")

_POLL_S = 0.1
_OPEN_SHAPES = 4  # input shapes whose frames wait for their batch to fill


class ExtractionStoppedError(Exception):
    """The run is over: raised in its threads wherever they wait."""


class Channel(Generic[Item]):
    """A bounded queue whose ends give up when the run stops.

    Args:
        size: items it holds; `put` waits while it is full.
        stop: set when the run is over.
    """

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[Item] = queue.Queue(size)
        self._stop = stop

    def put(self, item: Item) -> None:
        """Add an item. Raises ExtractionStoppedError."""
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
        raise ExtractionStoppedError

    def empty(self) -> bool:
        """Whether nothing waits in it now."""
        return self._queue.empty()

    def get(self) -> Item:
        """Take the oldest item. Raises ExtractionStoppedError."""
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        raise ExtractionStoppedError


@dataclass(kw_only=True, eq=False)
class Sample:
    """A sampled frame on its way, without its image, which lies in a batch.

    Attributes:
        stretch: what it was decoded from.
        number: its place among the recording's samples.
        time_s, index: of the frame.
        letterbox: where it lies in the network's input.
        flow: motion since the sample before; dropped when it has been read.
        scene_motion: float16 [len(SCENE_MOTION_COLUMNS)].
        place: how to go on after it; None for most.
    """

    stretch: Any
    number: int
    time_s: float
    index: int
    letterbox: Letterbox
    flow: Flow | None
    scene_motion: Array
    place: ResumePoint | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """A sample and what was seen in it; `motion` is float16 [M, len(MOTION_COLUMNS)], `tracks` int32 [M]."""

    sample: Sample
    seen: Detections
    motion: Array
    tracks: Array | None = None


@dataclass(kw_only=True, eq=False)
class Batch:
    """Frames of one input shape, of any recordings.

    Attributes:
        images: uint8 [B, H, W, 3], always of the full batch size; what is beyond `samples` is grey.
        samples: one for each frame that is there.
    """

    images: Array
    samples: list[Sample] = field(default_factory=list)


class Batcher:
    """Collects frames of several recordings into batches of one input shape. Any thread may add.

    Args:
        size: frames a batch.
        put: takes full batches; it may wait.
    """

    def __init__(self, size: int, put: Callable[[Batch], None]) -> None:
        self._size, self._put = size, put
        self._open: dict[tuple[int, int], Batch] = {}
        self._lock = threading.Lock()

    def add(self, sample: Sample, canvas: Array) -> None:
        """Copy a letterboxed frame, uint8 [H, W, 3], into the batch of its shape."""
        shape, ready = sample.letterbox.input_hw, None
        with self._lock:
            batch = self._open.pop(shape, None)
            if batch is None:
                batch = Batch(images=np.full((self._size, *shape, 3), PAD_VALUE, np.uint8))
            batch.images[len(batch.samples)] = canvas
            batch.samples.append(sample)
            if len(batch.samples) == self._size:
                ready = batch
            else:
                self._open[shape] = batch  # the shape used last stands last
                if len(self._open) > _OPEN_SHAPES:
                    ready = self._open.pop(next(iter(self._open)))
        if ready is not None:
            self._put(ready)

    def flush(self) -> None:
        """Pass on what waits."""
        with self._lock:
            waiting, self._open = list(self._open.values()), {}
        for batch in waiting:
            self._put(batch)


class Threads:
    """Threads of one run. What goes wrong in one of them is handed to `crashed`; `close` ends them all."""

    def __init__(self, stop: threading.Event, crashed: Callable[[BaseException], None]) -> None:
        self._stop, self._crashed = stop, crashed
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own."""

        def guarded() -> None:
            try:
                work()
            except ExtractionStoppedError:
                pass
            except BaseException as error:  # a bug must not leave the run waiting for a dead thread
                with suppress(ExtractionStoppedError):  # another one was first
                    self._crashed(error)

        thread = threading.Thread(target=guarded, name=f"vidgru-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Stop all threads and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def assemble(rows: list[Row], fps: float, size_px: tuple[int, int], names: tuple[str, ...]) -> FrameSequence:
    """Samples with their detections, tracks and motion as a piece of a sequence."""
    samples, seen = [row.sample for row in rows], [row.seen for row in rows]
    angles = [one.angle for one in seen if one.angle is not None]
    keypoints = [one.keypoints for one in seen if one.keypoints is not None]
    return FrameSequence(
        time_s=np.array([sample.time_s for sample in samples], np.float64),
        frame_index=np.array([sample.index for sample in samples], np.int64),
        offsets=np.cumsum([0, *(len(one.boxes) for one in seen)], dtype=np.int64),
        boxes=np.concatenate([one.boxes for one in seen]),
        scores=np.concatenate([one.scores for one in seen]),
        classes=np.concatenate([one.classes for one in seen]),
        tracks=np.concatenate([row.tracks for row in rows]),
        motion=np.concatenate([row.motion for row in rows]),
        appearance=np.concatenate([one.appearance for one in seen]),
        colour=np.concatenate([one.colour for one in seen]),
        angle=np.concatenate(angles) if angles else None,
        keypoints=np.concatenate(keypoints) if keypoints else None,
        scene=np.stack([one.scene for one in seen]),
        scene_motion=np.stack([sample.scene_motion for sample in samples]),
        fps=fps,
        size_px=size_px,
        names=names,
    )
