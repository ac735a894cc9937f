"""Extract recordings: decode, detect, measure motion, track and cache, several recordings side by side.

    decoder threads, a process each       detector threads            the ordering loop
    segments to sampled frames, flow ──▶  batches to objects    ──▶   per recording, in order:
                                          scene, motion               tracks, cache entry

A segment is a recording, or a part of it from one key frame to another: decoding the last recordings, or a single one,
is shared among idle decoders. `Extractor.results` is the ordering loop. It runs in the thread that reads the results
and alone decides what is decoded, tracked, written and finished; other threads only send it messages. An entry's bytes
do not depend on what ran beside it.

An adaptive extraction (`vidgru/video/stillness.py`) first plans which samples are decoded; their segments are those of
the plan. The loop repeats the last objects in the samples between. If decoding does not give the frames that the plan
expects, the recording is decoded completely, from its start.

Of a recording with a span, only the samples of that span are extracted, to an entry of their own. They are planned as
well. If that is not possible, the whole recording is extracted instead, unless the cache has all of it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from msgspec import convert

from vidgru.cache import Entry, SequenceCache
from vidgru.cache.entry import span_settings
from vidgru.cache.writer import PART_SAMPLES
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.detector.weights import find_weights
from vidgru.errors import LockLostError, OutputError, RecordingError
from vidgru.extraction.decode_process import DecoderDiedError, DecoderProcess, watch_for_hangs
from vidgru.extraction.decode_task import (
    DecodedEnd,
    RecordingState,
    Segment,
    SegmentDecoder,
    SegmentSplit,
    SpanRefusedError,
    TaskResult,
    planned_segments,
)
from vidgru.extraction.detector_pool import (
    Channel,
    DetectedFrame,
    DetectorPool,
    FrameRef,
    WorkerThreads,
    count_threads,
    repeat_frame,
    share_objects,
    to_sequence,
)
from vidgru.extraction.results import (
    ExtractionResult,
    ProgressBar,
    ProgressListener,
    Status,
    print_result,
    summary_table,
    summary_writer,
)
from vidgru.extraction.sharding import summary_name
from vidgru.locks import Locks
from vidgru.storage import sha256_file
from vidgru.types import Recording, Span
from vidgru.video.damage import Damage
from vidgru.video.reader import ResumePoint, ResumePointNotFoundError
from vidgru.video.stillness import StillPlan
from vidgru.video.timestamps import StartTimes

__all__ = [
    "ExtractionResult",
    "Extractor",
    "describe_damage",
    "extract_recordings",
    "feature_settings_for",
    "print_result",
    "recorded_at",
    "summary_table",
    "user_start_time",
]

_CHUNK_SAMPLES = 256  # samples given to the writer at a time
_RETRY_S = 0.5  # how often a recording that another process has locked is tried again
_MAX_MESSAGES = 256
_MIN_BLIND_NOTED = 0.05  # from this share on, a note says that packets do not show motion


def extract_recordings(
    recordings: Sequence[Recording],
    cache: SequenceCache,
    detect: DetectorSettings,
    run: RuntimeSettings,
    *,
    shard: tuple[int, int] = (1, 1),
    progress: bool = True,
    on_result: Callable[[ExtractionResult], None] | None = None,
    limit: int | None = None,
) -> list[ExtractionResult]:
    """Run the detector on every sampled frame of the recordings and cache the features.

    Recordings that are in the cache are not decoded, and recordings of equal content share one entry. A recording that
    cannot be read ends as failed and the run continues. Several processes may work on one cache: each takes what no
    other has locked and waits for the rest. Recordings that a killed run left incomplete are resumed.

    Args:
        recordings: What to extract.
        cache: Where entries are looked up and written.
        detect: What to compute.
        run: How to run.
        shard: Number of the shard that `recordings` are, from 1, and the number of shards; names the summary file.
        progress: Name the detector on stderr, and show a progress bar if that is a terminal.
        on_result: Called in this thread with the result of each recording as it ends.
        limit: Samples after which each recording counts as complete, to try a run out.

    Returns:
        One result per recording, in their order. They are also written to `summary.jsonl` in the cache's folder.

    Raises:
        WeightsError, SettingsError, MissingDependencyError: A recording needs the detector, which is missing or cannot
            run as asked.
        OutputError: The cache cannot be written; finished recordings are kept.
    """
    paths = [recording.path for recording in recordings]
    with (
        summary_writer(cache.root / summary_name(shard)) as results,
        ProgressBar(paths, progress) as bar,
        Extractor(cache, detect, run, bar, limit=limit) as extractor,
    ):
        for number, recording in enumerate(recordings):
            extractor.submit(number, recording)
        extractor.finish()
        for number, result in extractor.results():
            results[number] = result
            if on_result is not None:
                on_result(result)
    return [results[number] for number in sorted(results)]


def feature_settings_for(detect: DetectorSettings) -> dict[str, Any]:
    """Return the settings that decide the features, with the hash of the weights.

    Raises:
        WeightsError: There is no such weights file.
    """
    return detect.feature_settings(sha256_file(find_weights(detect.weights)))


def describe_damage(entry: Entry) -> str:
    """Describe the damage of an entry's recording as its result did; empty if there was none."""
    return str(convert(entry.damage, Damage))


def recorded_at(cache: SequenceCache, entry: Entry, path: Path, start_time: str) -> str | None:
    """Return the ISO 8601 time at which a recording starts; None if unknown.

    `start_time` (see `RuntimeSettings`) comes first, then what it was when the recording was extracted, then the
    container.
    """
    return user_start_time(cache, path, start_time) or entry.recorded_at


def user_start_time(cache: SequenceCache, path: Path, start_time: str) -> str | None:
    """As `recorded_at`, without the container's time."""
    return StartTimes(start_time).of(path) or cache.recorded_at(path)


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentDone:
    """A decoder has finished a task."""

    segment: Segment
    result: TaskResult


Message = list[DetectedFrame] | FrameRef | SegmentDone | SegmentSplit | BaseException


class Extractor:
    """Extract recordings as they are submitted. Use it in a `with` block; the detector stays loaded meanwhile.

    Any thread may submit. One thread reads `results`, which is where recordings are ordered, tracked and written:
    nothing ends unless it is read. Leaving the block stops all work; what is unfinished stays in the cache and is
    resumed by the next run.

    Args:
        cache: Where entries are looked up and written.
        detect: What to compute.
        run: How to run.
        listener: Follows the progress of recordings.
        limit: Samples after which each recording counts as complete, to try a run out.

    Raises:
        WeightsError: There is no such weights file.
    """

    def __init__(
        self,
        cache: SequenceCache,
        detect: DetectorSettings,
        run: RuntimeSettings,
        listener: ProgressListener,
        *,
        limit: int | None = None,
    ) -> None:
        self._cache, self._detect, self._listener = cache, detect, listener
        self._start_times = StartTimes(run.start_time)
        weights = find_weights(detect.weights)
        weights_sha256 = sha256_file(weights)
        self._feature_settings = detect.feature_settings(weights_sha256)
        if limit is not None:
            self._feature_settings["limit"] = limit  # so that such an entry is never taken for a complete one

        self._stop = threading.Event()
        self._messages: Channel[Message] = Channel(_MAX_MESSAGES, self._stop)
        self._threads = WorkerThreads(self._stop, self._messages.put)
        self._pool = DetectorPool(
            weights, weights_sha256, detect, run, self._threads, self._stop, self._messages.put, listener.log
        )
        self._decoders = [DecoderProcess() for _ in range(count_threads(run))]
        self._tasks: Channel[Segment] = Channel(2 * len(self._decoders), self._stop)
        self._unfinished_tasks = 0  # queued or running
        self._locks = Locks(cache.lock_folder)

        self._states: dict[int, RecordingState] = {}  # submitted and not ended
        self._new: deque[RecordingState] = deque()  # of those, not yet started
        self._preferred: RecordingState | None = None  # started before the others
        self._started: list[RecordingState] = []
        self._locked: deque[tuple[float, RecordingState]] = deque()  # by another process; with the time to try again
        self._is_finished = False  # nothing more will be submitted
        self._results: deque[tuple[int, ExtractionResult]] = deque()
        self._segment_decoder = SegmentDecoder(
            cache,
            detect,
            self._feature_settings,
            self._pool,
            self._locks,
            is_last=self._is_last,
            decoders=len(self._decoders),
            send=self._messages.put,
            stop=self._stop,
            limit=limit,
            log=listener.log,
        )
        self._stack = ExitStack()

    def __enter__(self) -> Extractor:
        with ExitStack() as stack:  # unwound in reverse order whatever fails, also if Ctrl-C comes twice
            stack.callback(self._pool.restore_torch_threads)
            stack.callback(self._locks.close)
            stack.callback(self._abandon)
            stack.callback(self._threads.close)
            for decoder in self._decoders:
                stack.callback(decoder.close)
            stack.callback(self._stop.set)
            stack.enter_context(watch_for_hangs(self._decoders))
            for number, decoder in enumerate(self._decoders):
                self._threads.start(f"decoder-{number}", partial(self._run_decoder, decoder))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def submit(self, number: int, recording: Recording) -> None:
        """Extract a recording after those submitted before it.

        Args:
            number: Identifies it among the recordings of this extractor.
            recording: The recording; one that cannot be read ends as failed.
        """
        self._states[number] = state = RecordingState(number=number, recording=recording)
        self._new.append(state)

    def prefer(self, number: int) -> None:
        """Start a recording before the others that wait. May be called from any thread."""
        self._preferred = self._states.get(number)

    def finish(self) -> None:
        """Submit nothing more: `results` ends with the last recording."""
        self._is_finished = True

    def _is_last(self) -> bool:
        """Whether no more recordings are waiting to be started. May be called from any thread."""
        return not self._new and self._tasks.is_empty()

    def _run_decoder(self, decoder: DecoderProcess) -> None:
        """Work on decoding tasks, in a thread of its own, until the run stops."""
        try:
            while True:
                segment = self._tasks.get()
                result = self._segment_decoder.run(segment, decoder)
                self._messages.put(SegmentDone(segment=segment, result=result))
        finally:
            decoder.stop()

    # --- the ordering loop ------------------------------------------------------------------------------------------

    def results(self) -> Iterator[tuple[int, ExtractionResult]]:
        """Yield the number and result of each recording as it ends.

        Raises:
            WeightsError, SettingsError, MissingDependencyError: A recording needs the detector, which cannot run as
                asked.
            OutputError: The cache cannot be written.
            ExtractionStoppedError: The `with` block was left, in another thread.
        """
        while not self._is_finished or self._states:
            while segment := self._next_segment():
                segment.status = "running"
                self._unfinished_tasks += 1
                self._tasks.put(segment)
            if not self._unfinished_tasks:
                self._pool.flush()  # no frames are on their way to fill its batches
            try:
                match self._messages.poll():
                    case list(rows):
                        for state in self._collect(rows):
                            self._advance(state)
                    case FrameRef(segment=segment) as frame if not segment.is_superseded:
                        segment.state.arrived[frame.number] = frame
                        self._advance(segment.state)
                    case SegmentSplit(segment=segment, points=points):
                        self._share(segment, points)
                    case SegmentDone(segment=segment, result=result):
                        self._unfinished_tasks -= 1
                        segment.status = "done"
                        if not segment.is_superseded:
                            self._end_segment(segment, result)
                    case BaseException() as error:  # a bug, or a detector that cannot run
                        raise error
            finally:  # also if handling the event failed: recordings that ended before are reported
                while self._results:
                    yield self._results.popleft()

    def _next_segment(self) -> Segment | None:
        """Choose what is decoded next; None if there is nothing now."""
        if self._unfinished_tasks == 2 * len(self._decoders):
            return None  # one task per decoder is queued, so that none waits while this loop writes to the disk
        # Frames decoded ahead of their turn wait in memory, so a segment that others wait for comes first.
        for state in self._started:
            first = next(state.unfinished, None)
            if first is not None and first.status == "waiting":
                return first
        if self._new:
            preferred = self._preferred
            if preferred is not None and preferred in self._new:
                self._new.remove(preferred)
                self._new.appendleft(preferred)
            return self._start(self._new.popleft())
        if self._unfinished_tasks >= len(self._decoders):
            return None
        # Splitting pays only while decoders are idle and decoding limits the run: the detector is waiting for frames.
        for state in self._started if self._pool.is_idle() else ():
            first = next(state.unfinished, None)
            waiting = next((segment for segment in state.unfinished if segment.status == "waiting"), None)
            if first and waiting and waiting.number - first.number < 2 * len(self._decoders):
                return waiting
        if self._locked and self._locked[0][0] < time.monotonic():
            return self._start(self._locked.popleft()[1])
        return None

    def _start(self, state: RecordingState) -> Segment:
        state.segments = [Segment(state=state)]
        self._started.append(state)
        return state.segments[0]

    def _collect(self, rows: list[DetectedFrame]) -> list[RecordingState]:
        """Sort detected frames into their recordings, and return these."""
        states: dict[int, RecordingState] = {}
        for row in rows:
            segment: Segment = row.segment
            if not segment.is_superseded:
                segment.state.arrived[row.frame.number] = row
                states[segment.state.number] = segment.state
        return list(states.values())

    def _advance(self, state: RecordingState) -> None:
        """Track and write the frames of a recording whose turn it is, and finish it after the last."""
        try:
            assert state.info is not None
            while True:
                if state.next_is_still:
                    self._repeat_last(state)
                elif row := state.arrived.pop(state.samples, None):
                    if isinstance(row, FrameRef):
                        last = state.tracked[-1] if state.tracked else state.last
                        assert last is not None  # the first sample of a recording has its own objects
                        row = share_objects(row, last)
                    objects = row.detections
                    tracks = state.track(
                        self._detect.tracker, state.info.size_px, objects.boxes, objects.scores, objects.classes
                    )
                    state.tracked.append(replace(row, tracks=tracks))
                    self._count(state, 1, row.frame.time_s)
                    if len(state.tracked) == _CHUNK_SAMPLES or state.samples % PART_SAMPLES == 0:
                        self._write(state)
                else:
                    break
            while state.segments and state.segments[0].status == "done" and state.segments[0].passed <= state.samples:
                state.segments.pop(0)
            if state.end is not None and state.samples == state.end.samples:
                self._finish_entry(state, state.end)
        except LockLostError:  # this process was suspended until its lock expired
            self._fail(state, "was taken over by another process while this one was suspended; run again to reuse it")

    def _count(self, state: RecordingState, samples: int, time_s: float) -> None:
        """Count more samples of a recording, the last of them at `time_s`."""
        assert state.info is not None
        start_s, end_s = state.recording.span or (0, None)
        length_s = (end_s or state.info.duration_s or 0.0) - start_s
        share = (time_s - start_s) / length_s if length_s > 0 else 0.0
        self._listener.advance(state.number, time_s - state.time_s, min(share, 1.0), samples)
        state.samples, state.time_s = state.samples + samples, time_s

    def _repeat_last(self, state: RecordingState) -> None:
        """Repeat the objects of the last sample in the still ones that follow, up to the end of the part."""
        self._write(state)
        plan, last = state.plan, state.last
        assert plan is not None
        assert last is not None  # the first sample of a plan is never still
        assert state.writer is not None
        first = state.samples
        end = min(state.still_end, (first // PART_SAMPLES + 1) * PART_SAMPLES)
        state.track_still(last.boxes, last.scores, last.classes, end - first)
        state.writer.append(repeat_frame(last, plan.time_s[first:end], plan.frame_index[first:end]), {})
        self._count(state, end - first, float(plan.time_s[end - 1]))

    def _write(self, state: RecordingState) -> None:
        """Give the tracked frames to the writer, with the point from which a later run can resume."""
        assert state.info is not None
        if state.writer is None:  # the detector has been loaded by now: `run_info` says how it runs
            state.writer = state.cleanup.enter_context(self._cache.writer(state.key, self._pool.run_info))
        if state.tracked:
            resume_point = state.tracked[-1].frame.resume_point
            detector = self._pool.load()
            sequence = to_sequence(
                state.tracked,
                self._detect.fps,
                state.info.size_px,
                detector.names,
                detector.flip_idx,
                adaptive=self._detect.adaptive,
            )
            state.tracked = []
            if self._detect.adaptive:
                state.last = sequence.frames(len(sequence) - 1, len(sequence))
            if state.plan is not None:
                state.writer.append(sequence, {})  # without a resume point: the next run makes its plan again
            else:
                note = {"adaptive_note": state.adaptive_note} if state.adaptive_note else {}
                state.writer.append(sequence, None if resume_point is None else asdict(resume_point) | note)

    def _finish_entry(self, state: RecordingState, end: DecodedEnd) -> None:
        """Write what is left of a recording's entry, which makes it valid."""
        assert state.info is not None
        duration_s = state.info.duration_s or end.end_s or state.time_s
        damage = end.damage
        if end.end_s is None:
            damage = replace(damage, missing_tail_s=max(duration_s - state.time_s, 0.0))
        self._write(state)
        assert state.writer is not None
        status: Literal["done", "partial"] = "partial" if damage.facts() else "done"
        entry = state.writer.finish(
            status=status,
            duration_s=duration_s,
            fps=self._detect.fps,
            size_px=state.info.size_px,
            names=self._pool.load().names,
            feature_settings=span_settings(self._feature_settings, state.recording.span),
            damage=damage.facts(),
            recorded_at=state.info.recorded_at,
            adaptive_note=state.adaptive_note,
        )
        others = f"other video streams not read: {', '.join(state.info.others)}" if state.info.others else ""
        reason = "; ".join(filter(None, (str(damage), others, state.adaptive_note)))
        self._end(state, status, state.samples, duration_s, reason, entry.still, entry.span)

    def _share(self, segment: Segment, points: list[ResumePoint]) -> None:
        """Split what follows a running segment, which ends at the first point, into segments for other decoders."""
        for number, (start, end) in enumerate(zip(points, [*points[1:], None], strict=True), segment.number + 1):
            segment.state.segments.append(
                Segment(
                    state=segment.state,
                    number=number,
                    resume_from=start,
                    end=end,
                    passed=start.samples,
                    first=start.samples,
                )
            )

    def _end_segment(self, segment: Segment, result: TaskResult) -> None:
        """Act on how a decoding task ended."""
        state = segment.state
        match result:
            case Entry() as entry:
                reason = "; ".join(filter(None, (describe_damage(entry), entry.adaptive_note)))
                self._end(state, "reused", entry.samples, entry.duration_s, reason, entry.still, entry.span)
            case StillPlan() as plan:
                self._start_plan(state, plan)
            case "locked":
                self._started.remove(state)
                self._locked.append((time.monotonic() + _RETRY_S, state))
            case DecodedEnd() as end:
                state.end = end
                if self._is_last():
                    self._pool.flush()  # few frames are left to fill the batch of its last ones
                self._advance(state)  # all its frames may have been tracked already
            case SpanRefusedError() as refusal:
                self._read_whole(state, str(refusal))
            case "overrun" | ResumePointNotFoundError() if state.plan is not None:
                reason = "damage, or other frames than in its packets"
                if state.recording.span is not None:
                    self._read_whole(state, reason)
                else:
                    state.drop_plan(f"decoded completely: {reason}")
            case "overrun":
                self._extend(segment)
                segment.status = "waiting"
            case RecordingError(message=reason):
                self._fail(state, reason)
            case DecoderDiedError() as death:
                self._end_at_death(segment, death)
            case ResumePointNotFoundError():
                self._resume_earlier(segment)
        first = next(state.unfinished, None)
        if first is not None and first.status == "lost":  # no earlier one has been extended over it
            self._fail(state, "does not decode to the same frames twice; convert it with ffmpeg")

    def _start_plan(self, state: RecordingState, plan: StillPlan) -> None:
        """Split a recording into the segments that a plan decodes."""
        state.plan = plan
        if not state.samples:
            state.time_s = float(plan.time_s[0])
        if plan.blind >= _MIN_BLIND_NOTED:
            state.adaptive_note = f"packets do not show motion in {plan.blind:.0%} of it, which costs time"
        state.segments = planned_segments(state, plan)
        if state.samples:
            self._advance(state)  # a still stretch may follow what an earlier run left

    def _read_whole(self, state: RecordingState, reason: str) -> None:
        """Extract all of a recording of which a span was to be read: as another recording, with another entry."""
        self._listener.log(f"{state.recording.name} is read completely, not only the time range: {reason}")
        for segment in state.segments:
            segment.is_superseded = True
        state.restart()
        state.cleanup.close()  # unlocks its entry
        self._segment_decoder.release_claim(state)
        recording = replace(state.recording, span=None)
        whole = RecordingState(number=state.number, recording=recording, started=state.started)
        whole.segments = [Segment(state=whole)]
        self._states[state.number] = whole
        self._started[self._started.index(state)] = whole

    def _extend(self, segment: Segment) -> None:
        """Have a segment continue to the end of the recording: what later ones decoded does not count."""
        segment.end = None
        state = segment.state
        for other in state.segments:
            other.is_superseded = other.is_superseded or other.number > segment.number
        state.end = None
        state.arrived = {n: row for n, row in state.arrived.items() if not row.segment.is_superseded}

    def _end_at_death(self, segment: Segment, death: DecoderDiedError) -> None:
        """End a recording where decoders die: two have, at the same place. What precedes it is kept.

        Damage that crashes a decoder, or makes it hang, thus costs only the rest of its own recording.
        """
        state = segment.state
        if death.killed_from_outside:
            self._fail(state, f"{death} twice at one place: out of memory? Run again to resume it")
        elif state.recording.span is not None:
            self._read_whole(state, str(death))
        elif not segment.passed or state.info is None:
            self._fail(state, f"{death} before the first frame; convert the file with ffmpeg")
        elif state.plan is not None:
            state.drop_plan(f"decoded completely: {death}")
        else:
            self._extend(segment)
            state.end = DecodedEnd(samples=segment.passed, damage=Damage(decoder_deaths=1), end_s=None)
            self._advance(state)

    def _resume_earlier(self, segment: Segment) -> None:
        """Find the frame to resume from by decoding from the start; if that fails too, decode everything again."""
        state, resume_from = segment.state, segment.resume_from
        assert resume_from is not None
        if segment.number:
            self._extend(segment)
        segment.status = "waiting"
        if resume_from.key_pts is not None:
            segment.resume_from = replace(resume_from, key_pts=None)
        elif not segment.number and state.writer is not None and segment.passed == state.writer.samples:
            state.restart()  # nothing has been added to what an earlier run left
            segment.resume_from, segment.passed, segment.first = None, 0, 0
        else:
            segment.status = "lost"

    def _fail(self, state: RecordingState, reason: str) -> None:
        self._end(state, "failed", 0, None, reason)

    def _end(
        self,
        state: RecordingState,
        status: Status,
        samples: int,
        duration_s: float | None,
        reason: str,
        still: int = 0,
        span: Span | None = None,
    ) -> None:
        """End a recording, and drop what is still on its way."""
        for segment in state.segments:
            segment.is_superseded = True
        self._started.remove(state)
        self._listener.end(state.number, reused=status == "reused")
        result = ExtractionResult(
            recording=state.recording,
            status=status,
            key=None if status == "failed" else state.key,
            samples=samples,
            duration_s=duration_s,
            reason=reason,
            seconds=time.monotonic() - state.started,
            still=still,
            span=span,
        )
        if result.key:
            path = state.recording.path
            # A cache that is only read may be read-only.
            with suppress(OutputError) if status == "reused" else nullcontext():
                self._cache.set_last_entry(path, result.key, self._start_times.of(path))
        state.cleanup.close()  # unlock last: pruning removes entries that are neither locked nor in the index
        self._segment_decoder.release_claim(state)
        del self._states[state.number]
        self._results.append((state.number, result))

    def _abandon(self) -> None:
        """Give up the recordings that have not ended; the next run resumes them."""
        with ExitStack() as stack:
            for state in self._states.values():
                stack.callback(state.cleanup.close)
