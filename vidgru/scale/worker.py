"""The Ray actor that processes recordings, several at a time, with one `Extractor`.

`WorkerPool` calls `start` once, then `process` per recording, from as many threads as recordings are in progress, and
concurrently `take_progress` and `close`.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
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
class WorkerTask:
    """Settings of all workers of a run. Paths are absolute, on disks that all nodes share.

    Attributes:
        cache: Folder of the sequence cache.
        detect: What to compute.
        run: How to run.
        model: Model to predict with; None to extract only.
        predict: Settings of prediction.
        markers: Files written by the driver, by which a worker checks that it sees the same folders.
    """

    cache: Path
    detect: DetectorSettings
    run: RuntimeSettings
    model: Path | None = None
    predict: PredictConfig | None = None
    markers: Sequence[Path] = ()


@dataclass(kw_only=True)
class RecordingProgress:
    """Progress of a recording since the last report: new samples, seconds they cover, and the share done so far."""

    samples: int = 0
    seconds: float = 0.0
    share: float = 0.0


@dataclass(kw_only=True)
class WorkerProgress:
    """Progress of a worker since its last report: of recordings by number, and messages for the user."""

    recordings: dict[int, RecordingProgress] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


class RayWorker:
    """Processes recordings, several at a time, in a process that Ray starts.

    Args:
        task: Settings of the run.
    """

    def __init__(self, task: WorkerTask) -> None:
        self._task = task
        self._progress = _ProgressRecorder()
        self._futures: dict[int, Future[ExtractionResult]] = {}  # of the recordings in progress
        self._error: BaseException | None = None  # that ended extraction
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._extractor: Extractor | None = None
        self._predictor: Predictor | None = None

    def start(self) -> str:
        """Load what the run needs. Returns the node's name.

        Raises:
            OutputError: A folder is not the driver's, but another one at the same path.
            WeightsError, ModelError: There is no such file on this node.
        """
        for marker in self._task.markers:
            if not marker.exists():
                raise OutputError(
                    f"{marker.parent} on {platform.node()}, a node of the Ray cluster, is not the same folder as here",
                    "choose a folder on a disk that all nodes of the cluster share, at the same path",
                )
        task = self._task
        if task.model is not None and task.predict is not None:
            self._predictor = self._stack.enter_context(Predictor(task.model, task.predict, self._progress.log))
        cache = self._predictor.cache if self._predictor else SequenceCache(task.cache)  # share the hashes of files
        self._extractor = self._stack.enter_context(Extractor(cache, task.detect, task.run, self._progress))
        threading.Thread(target=self._read_results, name="results", daemon=True).start()
        return platform.node()

    def process(self, number: int, recording: Recording) -> ExtractionResult | PredictionResult:
        """Extract a recording, and predict if the run does; return when it has ended.

        Args:
            number: Number of the recording in the run.
            recording: Its path is absolute.
        """
        result = self._extract(number, recording) if recording.path.is_file() else _missing(recording)
        return result if self._predictor is None else self._predictor.process_extracted(result)

    def take_progress(self) -> WorkerProgress:
        """Return the progress since the last call."""
        return self._progress.take()

    def close(self) -> None:
        """Stop all work and release its locks, so that other processes need not wait for them to expire."""
        self._stack.close()

    def _extract(self, number: int, recording: Recording) -> ExtractionResult:
        assert self._extractor is not None
        future: Future[ExtractionResult] = Future()
        with self._lock:
            if self._error is not None:
                raise self._error
            self._futures[number] = future
        self._extractor.submit(number, recording)
        return future.result()

    def _read_results(self) -> None:
        assert self._extractor is not None
        try:
            for number, result in self._extractor.results():
                self._futures.pop(number).set_result(result)
            error: BaseException = ExtractionStoppedError()
        except BaseException as failure:
            error = failure
        with self._lock:  # from here on no future is added
            self._error = error
        for future in self._futures.values():
            future.set_exception(error)


def _missing(recording: Recording) -> ExtractionResult:
    """Return the result of a recording that this node does not see, naming the node."""
    reason = f"{recording.path} does not exist on {platform.node()}: the nodes of a Ray cluster must share the disk"
    return ExtractionResult(
        recording=recording, status="failed", key=None, samples=0, duration_s=None, reason=reason, seconds=0.0
    )


class _ProgressRecorder:
    """Collects progress until the driver asks for it; an `extraction.results.ProgressListener`."""

    def __init__(self) -> None:
        self._progress = WorkerProgress()
        self._lock = threading.Lock()

    def advance(self, number: int, seconds: float, share: float, samples: int = 1) -> None:
        with self._lock:
            recording = self._progress.recordings.setdefault(number, RecordingProgress())
            recording.samples += samples
            recording.seconds += seconds
            recording.share = share

    def end(self, number: int, *, reused: bool) -> None:
        """Do nothing: the driver gets the result itself."""

    def log(self, line: str) -> None:
        with self._lock:
            self._progress.messages.append(line)

    def take(self) -> WorkerProgress:
        with self._lock:
            progress, self._progress = self._progress, WorkerProgress()
        return progress
