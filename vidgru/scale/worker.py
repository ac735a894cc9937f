"""What runs in a Ray worker process: an `Extractor` that several recordings pass through side by side.

The driver (`foreman.py`) calls `open` once, then `work` for each recording, from as many threads as recordings are
under way, and beside them `news` and `close`.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, PredictConfig, RuntimeSettings
from vidgru.errors import OutputError
from vidgru.extraction.pipeline import Extractor
from vidgru.extraction.results import ExtractionResult, ExtractionStoppedError
from vidgru.prediction.predictor import Predictor
from vidgru.prediction.results import PredictionResult
from vidgru.types import Recording


@dataclass(frozen=True, kw_only=True)
class Task:
    """What workers are to do. Paths are absolute, on disks that all machines share.

    Attributes:
        cache: folder of the sequence cache.
        detect: what is computed.
        run: how.
        model: to predict with; None where features are all that is wanted.
        predict: its settings.
        marks: files that the driver has written, to see whether the disk is shared.
    """

    cache: Path
    detect: DetectorSettings
    run: RuntimeSettings
    model: Path | None = None
    predict: PredictConfig | None = None
    marks: Sequence[Path] = ()


@dataclass(kw_only=True)
class Step:
    """How far a recording has come since it was last asked for: samples, their seconds, and the share that is done."""

    samples: int = 0
    seconds: float = 0.0
    share: float = 0.0


@dataclass(kw_only=True)
class News:
    """What has happened in a worker since it was last asked: steps by number of the recording, and what it says."""

    steps: dict[int, Step] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


class Worker:
    """Works on recordings, several at a time; made by Ray, in a process of its own.

    Args:
        task: what is to be done with each.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._listener = _Listener()
        self._waiting: dict[int, Future[ExtractionResult]] = {}
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._extractor: Extractor | None = None
        self._predictor: Predictor | None = None

    def open(self) -> str:
        """Get ready. Returns the machine's name.

        Raises:
            OutputError: a folder is not the driver's, but another of the same name.
            WeightsError, ModelError: there is no such file here.
        """
        for mark in self._task.marks:
            if not mark.exists():
                raise OutputError(
                    f"{mark.parent} on {platform.node()}, in the Ray cluster, is not the folder of that name here",
                    "choose a folder on a disk that all machines of the cluster share, under one path",
                )
        task = self._task
        if task.model is not None and task.predict is not None:
            self._predictor = self._stack.enter_context(Predictor(task.model, task.predict, self._listener.log))
        cache = self._predictor.cache if self._predictor else SequenceCache(task.cache)  # one knows what it has hashed
        extractor = Extractor(cache, task.detect, task.run, self._listener)
        self._extractor = self._stack.enter_context(extractor)
        threading.Thread(target=self._read, name="outcomes", daemon=True).start()
        return platform.node()

    def work(self, number: int, recording: Recording) -> ExtractionResult | PredictionResult:
        """Extract a recording, and predict if that is wanted; returns when it has ended.

        Args:
            number: by which the driver knows it.
            recording: its path is absolute.
        """
        assert self._extractor is not None
        outcome = self._missing(recording) or self._extract(self._extractor, number, recording)
        return outcome if self._predictor is None else self._predictor.finish(outcome)

    def news(self) -> News:
        """What has happened since the last call."""
        return self._listener.take()

    def close(self) -> None:
        """Give up what is being worked on, and everything that other processes may be waiting for."""
        self._stack.close()

    def _extract(self, extractor: Extractor, number: int, recording: Recording) -> ExtractionResult:
        waiting: Future[ExtractionResult] = Future()
        with self._lock:
            if self._error is not None:
                raise self._error
            self._waiting[number] = waiting
        extractor.submit(number, recording)
        return waiting.result()

    def _read(self) -> None:
        assert self._extractor is not None
        try:
            for number, outcome in self._extractor.results():
                self._waiting.pop(number).set_result(outcome)
            error: BaseException = ExtractionStoppedError()
        except BaseException as end:
            error = end
        with self._lock:  # from here on none is added
            self._error = error
        for waiting in self._waiting.values():
            waiting.set_exception(error)

    def _missing(self, recording: Recording) -> ExtractionResult | None:
        """A recording that this machine does not see has failed, which says little without the machine's name."""
        if recording.path.is_file():
            return None
        reason = f"{recording.path} is not there on {platform.node()}: machines of a Ray cluster must share the disk"
        return ExtractionResult(
            recording=recording, status="failed", key=None, samples=0, duration_s=None, reason=reason, seconds=0.0
        )


class _Listener:
    """Notes what the driver will ask for."""

    def __init__(self) -> None:
        self._news = News()
        self._lock = threading.Lock()

    def advance(self, number: int, seconds: float, share: float) -> None:
        with self._lock:
            step = self._news.steps.get(number, Step())
            self._news.steps[number] = replace(
                step, samples=step.samples + 1, seconds=step.seconds + seconds, share=share
            )

    def end(self, number: int, *, reused: bool) -> None:
        """The driver sees that by itself."""

    def log(self, line: str) -> None:
        with self._lock:
            self._news.said.append(line)

    def take(self) -> News:
        with self._lock:
            news, self._news = self._news, News()
        return news
