"""`vidgru predict` over recordings: plan, extract, score, write, merge.

Recordings are scored and their files written in one thread, beside the extraction of those after them. Several runs may
share the output folder and the cache: each processes what no other has locked (see `Predictor`).
"""

from __future__ import annotations

import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from vidgru.cache.entry import span_settings
from vidgru.config import DetectorSettings, PredictConfig
from vidgru.errors import SettingsError, WeightsError
from vidgru.extraction.pipeline import extract_recordings
from vidgru.extraction.sharding import ShardItem, read_spans, select_shard, shard_recordings, summary_name
from vidgru.locks import Locks
from vidgru.model.checkpoint import check_feature_settings
from vidgru.prediction.inputs import CachedRecording, WorkItem, find_inputs, model_detector
from vidgru.prediction.predictor import NO_START_TIME, Predictor, scores_locally, span_to_read
from vidgru.prediction.results import PredictionResult, counted, failed
from vidgru.types import Recording

NOT_PREDICTED = "not predicted yet; run vidgru predict on it"
_MAX_QUEUED = 256  # items; extraction waits when scoring falls behind, so that memory stays bounded
_STOP_WAIT_S = 10.0
_MERGE_LOCK = "merge"
_RUN_LOCK = "run-"
_RETRY_S = 0.2  # between attempts to lock the merged files, which other runs rebuild within seconds

RemotePredict = Callable[[list[Recording], DetectorSettings], Generator[PredictionResult, None, None]]
"""Extracts and predicts recordings in other processes, which have a `Predictor` each; yields results as they come."""


def predict(
    model_path: str | Path,
    sources: Iterable[str | Path],
    config: PredictConfig,
    *,
    progress: bool = True,
    remote: RemotePredict | None = None,
) -> list[PredictionResult]:
    """Find the events of recordings and write them below `config.out`.

    Each recording is scored as soon as its features exist: in the cache, or extracted now with the detector and the
    sampling that the model was trained on. A recording that cannot be read is a failed result, and the run goes on.
    Other processes may write to the same folders at the same time; the last one to end merges the run's files.

    Args:
        model_path: A model file, or the folder of a training run.
        sources: Files, folders, globs, text lists, caches and cache entries.
        config: Settings.
        progress: Show a progress bar on stderr if that is a terminal, and print notices.
        remote: Processes the recordings that need extraction, instead of this process.

    Returns:
        One result per recording, in the order of the sources, cache entries last. `summary.jsonl` has them too.

    Raises:
        ModelError, SourceError, SettingsError: Before any recording is opened.
        WeightsError: Features are missing, and the detector to extract them does not exist.
        SettingsMismatchError: The detector is not the one that the model was trained on.
        OutputError: The output cannot be written, or two recordings would share a folder. Finished recordings stay.
    """
    for name in ("record", "once", "for_"):
        if getattr(config, name):
            raise SettingsError(f"{name.rstrip('_')} is for live sources, and these are recordings", "leave it out")
    with Predictor(model_path, config, _print if progress else None) as predictor:
        # Weights that were given are checked even if every recording turns out to be finished.
        detector = model_detector(predictor.model, predictor.cache, config.weights) if config.weights else None
        plan = _plan(predictor, *find_inputs(sources, predictor.model), progress)
        if plan.to_extract and detector is None:
            try:
                detector = model_detector(predictor.model, predictor.cache)
            except WeightsError as error:
                plan.to_score += _from_cache(predictor, plan.to_extract, error)
                plan.to_extract = []

        # Each run holds a lock of its own while it works. It releases that lock while holding the merge lock, so only
        # the last run sees no other run and merges.
        run_lock = _RUN_LOCK + secrets.token_hex(8)
        predictor.locks.acquire(run_lock)
        with ScoringThread(predictor) as scoring:
            for item in plan.to_score:
                scoring.submit(item)
            if plan.to_extract and detector is not None and remote is not None:
                with closing(remote(plan.to_extract, detector)) as remote_results:
                    for result in remote_results:
                        if result.status == "failed":
                            scoring.submit(result)  # a worker that died could not write why
                        else:
                            plan.finished[result.recording.name] = result
            elif plan.to_extract and detector is not None:
                extract_recordings(
                    plan.to_extract,
                    predictor.cache,
                    detector,
                    config.runtime,
                    shard=config.scale.shard_of_count,
                    progress=progress,
                    on_result=lambda outcome: scoring.submit(predictor.work_item(outcome)),
                )
        results = plan.ordered(scoring.results)
        predictor.out.write_summary(summary_name(config.scale.shard_of_count), results)
        with _merging(predictor.locks):
            predictor.locks.release(run_lock)
            if any(name.startswith(_RUN_LOCK) for name in predictor.locks.held_by_others()):
                predictor.say(
                    f"another run is writing to {config.out} and will update events.csv when it ends; "
                    "if it breaks off, run vidgru predict --merge-only"
                )
            else:
                predictor.merge()
        return results


def merge(
    model_path: str | Path, sources: Iterable[str | Path], config: PredictConfig, *, progress: bool = True
) -> list[PredictionResult]:
    """Merge the files of a run from those of its recordings, and report what is not predicted yet. Scores nothing.

    Args:
        model_path, sources, config, progress: As for `predict`.

    Returns:
        One result per recording: reused, or failed with the reason. `summary.jsonl` has them too.

    Raises:
        ModelError, SourceError, SettingsError, OutputError: As for `predict`.
    """
    with Predictor(model_path, config, _print if progress else None) as predictor:
        plan = _plan(predictor, *find_inputs(sources, predictor.model), progress)
        missing = [item for item in plan.to_score if isinstance(item, PredictionResult)]
        recordings = [item.recording for item in plan.to_score if isinstance(item, CachedRecording)] + plan.to_extract
        missing += [
            predictor.out.read_failure(recording) or failed(recording, NOT_PREDICTED, None, 0.0)
            for recording in recordings
        ]
        results = plan.ordered(missing)
        predictor.out.write_summary(summary_name(config.scale.shard_of_count), results)
        with _merging(predictor.locks):
            predictor.merge()
        return results


# --- plan -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Plan:
    """The recordings of a run.

    Attributes:
        names: All of them, in the order of the results.
        finished: Results of those that need no work, by name.
        to_score: Those with features, and those that fail before they have any.
        to_extract: Those that may need extraction.
    """

    names: list[str]
    finished: dict[str, PredictionResult] = field(default_factory=dict)
    to_score: list[WorkItem] = field(default_factory=list)
    to_extract: list[Recording] = field(default_factory=list)

    def ordered(self, results: Iterable[PredictionResult]) -> list[PredictionResult]:
        """Return the finished results and these, in order."""
        by_name = self.finished | {result.recording.name: result for result in results}
        return [by_name[name] for name in self.names]


def _plan(predictor: Predictor, recordings: list[Recording], cached: list[WorkItem], progress: bool) -> _Plan:
    """Select the recordings of this shard and time range, and separate the finished ones."""
    config = predictor.config
    without_time: dict[str, PredictionResult] = {}
    if predictor.time_range:
        recordings, without_time = _in_time_range(predictor, recordings)
        cached = [
            item
            for item in cached
            if isinstance(item, PredictionResult)
            or (at := predictor.recorded_at(item)) is None  # fails when it is processed
            or predictor.time_range.overlaps(at, 0.0, item.entry.duration_s)
        ]
    if config.scale.shard_of_count != (1, 1):
        recordings = shard_recordings(recordings, config.scale.shard_of_count, predictor.cache)
        identified = [(item, _shard_item(item)) for item in cached]
        cached = select_shard(identified, config.scale.shard_of_count)
    plan = _Plan(names=[recording.name for recording in (*recordings, *(item.recording for item in cached))])
    for recording in tqdm(recordings, "checking files", disable=not (progress and sys.stderr.isatty())):
        if recording.name in without_time:
            plan.to_score.append(without_time[recording.name])
        elif result := predictor.existing_result(recording):
            plan.finished[recording.name] = result
        else:
            plan.to_extract.append(recording)
    for item in cached:
        if result := predictor.existing_result(item):
            plan.finished[item.recording.name] = result
        else:
            plan.to_score.append(item)
    return plan


def _shard_item(item: WorkItem) -> ShardItem:
    if isinstance(item, PredictionResult):  # an entry that cannot be opened
        return ShardItem(item.recording.path.name, 0.0)
    return ShardItem(item.entry.key, item.entry.duration_s)


def _in_time_range(
    predictor: Predictor, recordings: list[Recording]
) -> tuple[list[Recording], dict[str, PredictionResult]]:
    """Select recordings that overlap the time range, with the part to read of each.

    Those whose time is unknown also get a failed result, by name.
    """
    config, model = predictor.config, predictor.model
    may_cut = scores_locally(model) and not config.save_video
    selected: list[Recording] = []
    without_time: dict[str, PredictionResult] = {}
    is_whole = False
    for recording, (recorded_at, duration_s) in read_spans(recordings, predictor.cache, config.runtime.start_time):
        if duration_s is None:
            selected.append(recording)  # extraction reports what is wrong with it, or finds out how long it is
        elif recorded_at is None:
            selected.append(recording)
            without_time[recording.name] = failed(recording, NO_START_TIME, duration_s, 0.0)
        elif predictor.time_range.overlaps(recorded_at, 0.0, duration_s):
            span = span_to_read(model, predictor.time_range, recorded_at, duration_s)
            is_whole |= span is not None and not may_cut
            selected.append(replace(recording, span=span if may_cut else None))
    if is_whole:
        reason = "--save-video is given" if config.save_video else "this model does not score parts of recordings"
        predictor.say(f"recordings are read completely, not only the time range: {reason}")
    if skipped := len(recordings) - len(selected):
        predictor.say(f"skipped {counted(skipped, 'recording')} outside --since and --until")
    return selected, without_time


def _from_cache(predictor: Predictor, recordings: list[Recording], error: WeightsError) -> list[CachedRecording]:
    """Look up the features of all recordings, when the detector is missing. Raises its error if any are missing."""
    cache, items = predictor.cache, []
    for recording in recordings:
        settings = predictor.model.feature_settings
        entry = cache.lookup(recording.path, settings)
        if entry is None and recording.span is not None:
            entry = cache.lookup(recording.path, span_settings(settings, recording.span))
        if entry is None:
            # Features with other settings are the likelier cause, so name what differs.
            if other := cache.last_entry(recording.path):
                where = f"the features of {recording.name} in {cache.root}"
                check_feature_settings(predictor.model, other.feature_settings, where)
            raise error
        sha256 = cache.sha256(recording.path)
        items.append(CachedRecording(recording=recording, cache=cache, entry=entry, sha256=sha256))
    return items


# --- plumbing -------------------------------------------------------------------------------------------------------


class ScoringThread:
    """Process work items in one thread, in order, as many together as are waiting.

    Leaving the `with` block waits until all is done. An error ends the work, and the next call here raises it. If the
    block itself fails, for example on Ctrl-C, the work is stopped and waited for briefly, because a process that exits
    while one of its threads is inside FFmpeg or PyTorch is aborted.

    Args:
        predictor: Processes the items.

    Attributes:
        results: Results so far.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.results: list[PredictionResult] = []
        self._predictor = predictor
        self._queue: queue.Queue[WorkItem | None] = queue.Queue(_MAX_QUEUED)
        self._error: BaseException | None = None
        # Not Thread.join, which until Python 3.12 considers a thread ended if Ctrl-C interrupts it.
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vidgru-scoring", daemon=True)

    def __enter__(self) -> ScoringThread:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is None:
                self.submit(None)
                while not self._ended.wait(0.1):  # in slices, because some platforms deliver Ctrl-C only between waits
                    pass
                if self._error is not None:
                    raise self._error
        finally:
            if not self._ended.is_set():
                self._predictor.stop()
                with suppress(queue.Full):  # then the thread is not waiting for an item
                    self._queue.put_nowait(None)
                self._ended.wait(_STOP_WAIT_S)

    def submit(self, item: WorkItem | None) -> None:
        """Queue an item, waiting if the queue is full; None is the last."""
        while self._error is None:
            with suppress(queue.Full):
                return self._queue.put(item, timeout=0.1)
        raise self._error

    def _run(self) -> None:
        locked: list[WorkItem] = []
        try:
            more = True
            while more:
                batch = [self._queue.get()]
                with suppress(queue.Empty):
                    while True:
                        batch.append(self._queue.get_nowait())
                more = None not in batch
                results, skipped = self._predictor.process(item for item in batch if item is not None)
                self.results += results
                locked += skipped
            self.results += self._predictor.process_all(locked)
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()


@contextmanager
def _merging(locks: Locks) -> Iterator[None]:
    """Hold the lock of the merged files, waiting for other processes that hold it."""
    while not locks.acquire(_MERGE_LOCK):
        time.sleep(_RETRY_S)
    try:
        yield
    finally:
        locks.release(_MERGE_LOCK)


def _print(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
