"""Score recordings whose features are cached, caption their events, and write their files."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

import torch

from vidgru.cache import SequenceCache
from vidgru.cache.entry import span_settings
from vidgru.config import PredictConfig
from vidgru.detector.tracker import TRACK_BUFFER
from vidgru.errors import CacheError, RecordingError
from vidgru.extraction.pipeline import ExtractionResult, describe_damage, recorded_at, user_start_time
from vidgru.flags import parse_time
from vidgru.locks import Locks
from vidgru.model.attribution import explain_events, explain_moments
from vidgru.model.captioner import caption_events
from vidgru.model.checkpoint import EventModel, model_file
from vidgru.model.scoring import EncodedRecording, encode_recording
from vidgru.model.stream import ScoredRecording, load_predictor, score_encoded, score_recording
from vidgru.model.summaries import SETTLED_S
from vidgru.prediction.annotate_video import save_video
from vidgru.prediction.clips import cut_clips
from vidgru.prediction.event_files import rounded
from vidgru.prediction.inputs import CachedRecording, WorkItem
from vidgru.prediction.outputs import Extra, OutputFolder
from vidgru.prediction.report.packing import choose_moments
from vidgru.prediction.report.page import write_page
from vidgru.prediction.results import PredictionResult, failed
from vidgru.storage import sha256_file, user_path
from vidgru.types import Array, Event, FrameSequence, Recording, Span, format_span

NO_START_TIME = "its recording time is unknown; pass --start-time"
_SETTLING_S = 60.0  # before an event begins: see docs/prediction.md for how much scores still differ then
_EVENT_S = 60.0  # an event that begins or ends so far outside of a time range is found completely
_SPAN_STEP_S = 60
_BATCH_FRAMES = 1 << 17  # frames of recordings that are scored together; a longer recording is scored as a stream
_BATCH_RECORDINGS = 32  # at most; other processes find all of them locked
_RETRY_S = 0.5  # between attempts to lock what other processes work on
_MAX_EXPLAINED = 40  # events per report with an explanation, best scored first

PreparedItem = tuple[CachedRecording, Iterable[FrameSequence], EncodedRecording | ScoredRecording]


class PredictionStoppedError(Exception):
    """The `with` block of a `Predictor` ended while another thread was using it."""


class _LockLostError(Exception):
    """Another process has taken over a recording's lock, because this one was suspended."""


class TimeRange:
    """Wall-clock time from `since` until `until` (exclusive); either may be open. Falsy if both are open.

    Args:
        since, until: ISO 8601 times; empty if open. Without an offset they are in this machine's time zone, like the
            times of recordings.
    """

    def __init__(self, since: str, until: str) -> None:
        self._since, self._until = parse_time("since", since), parse_time("until", until)

    def __bool__(self) -> bool:
        return self._since is not None or self._until is not None

    def overlaps(self, recorded_at: str, start_s: float, end_s: float) -> bool:
        """Whether an interval in seconds of a recording that starts at `recorded_at` (ISO 8601) overlaps the range."""
        recording_start = datetime.fromisoformat(recorded_at).astimezone()
        start, end = (recording_start + timedelta(seconds=seconds) for seconds in (start_s, end_s))
        return (self._until is None or start < self._until) and (self._since is None or end > self._since)

    def seconds(self, recorded_at: str) -> tuple[float, float]:
        """Start and end of the range in seconds of a recording that starts at `recorded_at`; infinite where open."""
        recording_start = datetime.fromisoformat(recorded_at).astimezone()
        since_s = -math.inf if self._since is None else (self._since - recording_start).total_seconds()
        return since_s, math.inf if self._until is None else (self._until - recording_start).total_seconds()


def span_to_read(model: EventModel, time_range: TimeRange, recorded_at: str, duration_s: float) -> Span | None:
    """Return the part of a recording that has to be read to find its events in a time range; None if that is all of it.

    It begins before the range, so that an event that is under way when the range begins is found with its start, and
    so that by then tracks, summaries and the recurrent state are those of the whole recording, nearly. It ends after
    the range, so that an event that is under way when the range ends is found with its end. It is rounded outwards to
    whole minutes, so that similar ranges share an entry.

    Args:
        model: Model that reads the recording; `scores_locally` is true of it.
        time_range: The time range; it overlaps the recording.
        recorded_at: ISO 8601 time of the recording's start.
        duration_s: Length of the recording in seconds.
    """
    decode = model.decode
    settling_s = _SETTLING_S + TRACK_BUFFER / model.fps + SETTLED_S
    ahead_s = model.lookahead / model.fps + decode.smooth_s + decode.min_s + decode.merge_s
    since_s, until_s = time_range.seconds(recorded_at)
    start_s = max(since_s - _EVENT_S - settling_s - decode.smooth_s, 0.0)
    end_s = until_s + _EVENT_S + ahead_s
    start = int(start_s // _SPAN_STEP_S) * _SPAN_STEP_S
    end = None if end_s >= duration_s else math.ceil(end_s / _SPAN_STEP_S) * _SPAN_STEP_S
    if end is not None and end >= duration_s:
        end = None
    return None if (start, end) == (0, None) else (start, end)


def scores_locally(model: EventModel) -> bool:
    """Whether the scores of a frame depend on what precedes it by a minute or so only.

    Windows are counted from the start of a recording, and a bidirectional network reads it from its end.
    """
    architecture = model.network.architecture
    return model.task.frame_head is not None and not architecture.bidirectional


def event_start_time(event: Event, recorded_at: str) -> str:
    """ISO 8601 wall-clock time of an event's start, to the millisecond.

    Args:
        event: The event.
        recorded_at: ISO 8601 time of its recording's start.
    """
    recording_start, offset = datetime.fromisoformat(recorded_at), timedelta(seconds=event.start_s)
    if recording_start.tzinfo is None:  # local time, whose offset may change during the recording
        start = (recording_start.astimezone() + offset).astimezone().replace(tzinfo=None)
    else:
        start = recording_start + offset
    return start.isoformat(timespec="milliseconds")


def requested_labels(model: EventModel, labels: Iterable[str]) -> frozenset[str]:
    """Return the requested labels, or all of the model's if none are.

    Raises:
        SettingsError: The model does not have one of them.
    """
    labels = frozenset(labels)
    model.check_labels("labels", labels)
    return labels or frozenset(model.labels)


def lock_name(recording: Recording) -> str:
    """Name of a recording's lock, which must be valid as a file name."""
    return hashlib.sha256(recording.name.encode(errors="surrogatepass")).hexdigest()[:32]


class Predictor:
    """Predict recordings whose features are cached, and write their files below `config.out`.

    Use it in a `with` block, which releases its locks. Threads may share one, and several processes may each have one
    over the same folders: whoever holds a recording's lock processes it.

    Args:
        model_path: A model file, or the folder of a training run.
        config: Settings.
        say: Prints a message to the user; None prints none.

    Raises:
        ModelError, SettingsError: The model cannot be loaded, or not used with these settings.
        OutputError: `config.out` is a file.
    """

    def __init__(self, model_path: str | Path, config: PredictConfig, say: Callable[[str], None] | None = None) -> None:
        self._file = model_file(model_path).absolute()
        self.model = load_predictor(self._file).with_thresholds(config.threshold).with_adaptive(config.adaptive)
        sha256 = sha256_file(self._file)
        self.config, self.say = config, say or (lambda text: None)
        self.time_range = TimeRange(config.since, config.until)
        self._labels = requested_labels(self.model, config.labels)
        settings = {"high": list(self.model.decode.high), "labels": sorted(self._labels)}
        settings |= {"since": config.since, "until": config.until} if self.time_range else {}
        settings |= {"beam": config.beam} if self.model.caption else {}
        extras = {
            Extra("report"): config.report,
            Extra("clips", f"{config.context:g}"): config.clips,
            Extra("video"): config.save_video,
        }
        self.out = OutputFolder(
            user_path(config.out),
            {"model_sha256": sha256, "settings": settings},
            tuple(extra for extra, is_requested in extras.items() if is_requested),
        )
        self.cache = SequenceCache(config.features)
        self.locks = Locks(self.out.lock_folder)
        self._stop = threading.Event()
        detector = f"detector {self.model.weights}" if self.model.weights else "imported detections"
        self._details = f"vidgru {version('vidgru')}, model {sha256}, {detector}"

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.locks.close()

    def stop(self) -> None:
        """End `process` and `process_all` in other threads: they raise PredictionStoppedError."""
        self._stop.set()

    def existing_result(self, item: Recording | WorkItem) -> PredictionResult | None:
        """Return the result of a recording whose files are up to date with this model, settings and its bytes.

        None if they are not.
        """
        started = time.monotonic()
        if isinstance(item, CachedRecording):
            recording, cache, sha256, key = item.recording, item.cache, item.sha256, item.entry.key
        else:
            recording = item if isinstance(item, Recording) else item.recording
            cache = self.cache
            if not self.out.folder(recording).is_dir():
                return None  # saves hashing the file
            try:
                sha256 = cache.sha256(recording.path)
            except OSError:
                return None  # extraction reports why the file cannot be read
            key = cache.key(sha256, self.model.feature_settings)
            if recording.span is not None and cache.valid_entry(key) is None:  # an entry of all of it comes first
                key = cache.key(sha256, span_settings(self.model.feature_settings, recording.span))
        start_time = user_start_time(cache, recording.path, self.config.runtime.start_time)
        result = self.out.existing_result(recording, sha256, key, start_time)
        seconds, entry = time.monotonic() - started, cache.root.absolute() / key
        return result and replace(result, seconds=seconds, model=self._file, entry=entry)

    def work_item(self, outcome: ExtractionResult) -> WorkItem:
        """Convert the result of extracting a recording into `config.features`."""
        recording = outcome.recording
        entry = self.cache.entry(outcome.key) if outcome.key else None
        if entry is None:
            return failed(recording, outcome.reason, outcome.duration_s, outcome.seconds)
        try:
            sha256 = self.cache.sha256(recording.path)
        except OSError as error:
            reason = f"can no longer be read: {error.strerror}"
            return failed(recording, reason, outcome.duration_s, outcome.seconds)
        return CachedRecording(
            recording=recording, cache=self.cache, entry=entry, sha256=sha256, seconds=outcome.seconds
        )

    def recorded_at(self, item: CachedRecording) -> str | None:
        """ISO 8601 time of a recording's start; None if unknown."""
        return recorded_at(item.cache, item.entry, item.recording.path, self.config.runtime.start_time)

    def process_extracted(self, outcome: ExtractionResult) -> PredictionResult:
        """Process one recording after its extraction, in any thread. Raises as `process` does."""
        (result,) = self.process_all([self.work_item(outcome)])
        return result

    def process_all(self, items: list[WorkItem]) -> list[PredictionResult]:
        """Process recordings, waiting for those that other processes have locked. Raises as `process` does."""
        results, locked = self.process(items)
        announced = False
        while locked:
            more_results, still_locked = self.process(locked)
            results += more_results
            if len(still_locked) == len(locked):
                if not announced:
                    others = f" and {len(locked) - 1} more" if len(locked) > 1 else ""
                    self.say(f"waiting for {locked[0].recording.name}{others}: locked by another process")
                    announced = True
                self._stop.wait(_RETRY_S)
            locked = still_locked
        return results

    def process(self, items: Iterable[WorkItem]) -> tuple[list[PredictionResult], list[WorkItem]]:
        """Score recordings and write their files, unless another process has done so meanwhile.

        Short recordings are scored together, because a step of the network for several costs little more than for one.

        Returns:
            Results, and the items that were skipped because another process holds their lock.

        Raises:
            OutputError: A file cannot be written.
            PredictionStoppedError: `stop` was called.
        """
        torch.set_num_threads(1)  # for this thread: the steps are so small that synchronising threads costs more
        results: list[PredictionResult] = []
        locked: list[WorkItem] = []
        for batch in _batches(items):
            started = time.monotonic()
            held: list[str] = []  # locks
            ready: list[PreparedItem] = []
            try:
                for item in batch:
                    self._raise_if_stopped()
                    lock = lock_name(item.recording)
                    if not self.locks.acquire(lock):
                        locked.append(item)
                        continue
                    held.append(lock)
                    # Another process may have finished it after this run looked and before it got the lock.
                    prepared = self.existing_result(item) or self._prepare(item)
                    if isinstance(prepared, PredictionResult):
                        results.append(prepared)
                        self._release(held, lock)
                    else:
                        ready.append(prepared)
                inputs = [
                    (frames, item.recording.name, item.entry.duration_s)
                    for item, _, frames in ready
                    if isinstance(frames, EncodedRecording)
                ]
                scored = iter(score_encoded(self.model, inputs, gates=self.config.report))
                seconds = (time.monotonic() - started) / max(len(ready), 1)
                for item, parts, frames in ready:
                    self._raise_if_stopped()
                    scores = next(scored) if isinstance(frames, EncodedRecording) else frames
                    item = replace(item, seconds=item.seconds + seconds)
                    try:
                        results.append(self._write(item, parts, scores))
                    except _LockLostError:
                        locked.append(item)
                    except CacheError as error:  # deleted or corrupted since `_prepare` read it
                        results.append(self._fail(item, error.message))
                    self._release(held, lock_name(item.recording))
            finally:
                for lock in held:  # after an error
                    self.locks.release(lock)
        return results, locked

    def merge(self) -> None:
        """Rebuild the merged files of the output folder from those of the recordings."""
        self.out.merge(self.model.labels, self._details)

    # --- one recording, while its lock is held ----------------------------------------------------------------------

    def _prepare(self, item: WorkItem) -> PredictionResult | PreparedItem:
        """Read a recording's features, and encode them as the recurrent layer reads them; or write why that fails.

        Long recordings are scored here, as streams, and so are those with still stretches, most of whose frames a
        stream does not encode.
        """
        if isinstance(item, PredictionResult):
            self.out.write_failure(item)
            return item
        if self.time_range and self.recorded_at(item) is None:
            return self._fail(item, NO_START_TIME)
        try:
            parts = item.parts()
            if item.entry.samples <= _BATCH_FRAMES and not item.entry.still:
                return item, parts, encode_recording(self.model, parts)
            name, duration_s = item.recording.name, item.entry.duration_s
            gates = self.config.report
            return item, parts, score_recording(self.model, parts, video=name, duration_s=duration_s, gates=gates)
        except (CacheError, OSError, ValueError) as error:
            return self._fail(item, error.message if isinstance(error, CacheError) else str(error))

    def _fail(self, item: CachedRecording, reason: str) -> PredictionResult:
        """Write why a recording with features cannot be predicted."""
        failure = failed(item.recording, reason, item.entry.duration_s, item.seconds)
        self.out.write_failure(failure)
        return failure

    def _write(
        self, item: CachedRecording, parts: Iterable[FrameSequence], scored: ScoredRecording
    ) -> PredictionResult:
        """Caption a recording's events, and write all of its files, the fingerprint last.

        Raises:
            _LockLostError: Another process has taken over the recording; nothing was written after that.
        """
        started = time.monotonic() - item.seconds
        recording, entry, at = item.recording, item.entry, self.recorded_at(item)
        events = [event for event in scored.events if self._is_requested(event, at)]
        self._say_cut(item, scored.time_s, events)
        events = caption_events(self.model, parts, events, beam=self.config.beam, progress=self._raise_if_stopped)
        events = [rounded(event) for event in events]
        if at is not None:
            events = [replace(event, start_time=event_start_time(event, at)) for event in events]
        damage = describe_damage(entry)
        self._check_lock(recording)
        extras = self.out.begin(recording, entry.key, at)
        self.out.write_events(recording, events)
        problems = [damage] if damage else []
        for extra in self.out.extras:
            if extra in extras:
                continue
            self._raise_if_stopped()
            self._check_lock(recording)
            try:
                self._write_extra(extra, item, parts, scored, events)
                extras.append(extra)
            except RecordingError as error:
                problems.append(f"no {extra.name}: {error.message}")
        facts = {
            "sha256": item.sha256,
            "key": entry.key,
            "duration_s": entry.duration_s,
            "recorded_at": at,
            "reason": damage,
            "span": entry.span,
        }
        self._check_lock(recording)
        self.out.finish(recording, extras, facts)
        return PredictionResult(
            recording=recording,
            status="partial" if problems else "done",
            events=tuple(events),
            duration_s=entry.duration_s,
            reason="; ".join(problems),
            seconds=time.monotonic() - started,
            span=entry.span,
            model=self._file,
            entry=item.cache.root.absolute() / entry.key,
        )

    def _say_cut(self, item: CachedRecording, time_s: Array, events: Sequence[Event]) -> None:
        """Say which events may be longer, because only a part of the recording was read."""
        if (span := item.entry.span) is None or not len(time_s):
            return
        first_s = time_s[0] if span[0] else -math.inf
        last_s = math.inf if span[1] is None else time_s[-1]
        for event in events:
            label = self.model.labels.index(event.label)
            start_s, end_s = self.model.decode.untrim(label, event.start_s, event.end_s)
            if start_s - 1e-3 <= first_s or end_s + 1e-3 > last_s:  # times are rounded
                self.say(
                    f"{event.label} at {event.start_s:.1f} s in {item.recording.name} may be longer: only "
                    f"{format_span(span)} was read"
                )

    def _write_extra(
        self,
        extra: Extra,
        item: CachedRecording,
        parts: Iterable[FrameSequence],
        scored: ScoredRecording,
        events: list[Event],
    ) -> None:
        path, source = self.out.path(item.recording, extra), item.recording.path

        def check_stopped(seconds: float) -> None:
            self._raise_if_stopped()

        if extra.name == "report":
            best = sorted(events, key=lambda event: -event.score)[:_MAX_EXPLAINED]
            write_page(
                path,
                model=self.model,
                recording=item.recording,
                entry=item.entry,
                parts=parts,
                scored=scored,
                events=events,
                recorded_at=self.recorded_at(item),
                damage=describe_damage(item.entry),
                given_thresholds=self._given_thresholds(),
                explanations={why.event: why for why in explain_events(self.model, parts, scored, best)},
                moments=explain_moments(self.model, parts, scored.time_s, choose_moments(self.model, scored)),
            )
        elif not source.is_file():
            raise RecordingError("its features are cached, but its video does not exist")
        elif extra.name == "video":
            save_video(
                path,
                source=source,
                parts=parts,
                attention=scored.attention,
                events=events,
                names=item.entry.names,
                labels=self.model.labels,
                progress=check_stopped,
            )
        else:
            cut_clips(path, source=source, events=events, context_s=self.config.context, progress=check_stopped)

    def _given_thresholds(self) -> Iterable[str]:
        threshold = self.config.threshold
        return () if threshold is None else threshold if isinstance(threshold, Mapping) else self.model.labels

    def _is_requested(self, event: Event, recorded_at: str | None) -> bool:
        if event.label not in self._labels:
            return False
        if recorded_at is None or not self.time_range:
            return True
        return self.time_range.overlaps(recorded_at, event.start_s, event.end_s)

    def _check_lock(self, recording: Recording) -> None:
        """Call before writing anything that other processes read. Raises _LockLostError."""
        if not self.locks.holds(lock_name(recording)):
            raise _LockLostError

    def _release(self, held: list[str], lock: str) -> None:
        held.remove(lock)
        self.locks.release(lock)

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise PredictionStoppedError


def _batches(items: Iterable[WorkItem]) -> Iterator[list[WorkItem]]:
    """Group items in order, so that the frames of each group fit into one scoring batch."""
    batch: list[WorkItem] = []
    frames = 0
    for item in items:
        samples = item.entry.samples if isinstance(item, CachedRecording) else 0
        if batch and (len(batch) == _BATCH_RECORDINGS or frames + samples > _BATCH_FRAMES):
            yield batch
            batch, frames = [], 0
        batch.append(item)
        frames += samples
    if batch:
        yield batch
