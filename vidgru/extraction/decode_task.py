"""What decoder threads do: open a recording (look it up, lock it, resume it), and decode one segment of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from vidgru.cache import Entry, EntryWriter, SequenceCache
from vidgru.cache.entry import span_settings
from vidgru.cache.writer import PART_SAMPLES
from vidgru.config import DetectorSettings
from vidgru.detector.tracker import TRACK_BUFFER, Tracker
from vidgru.errors import CacheError, RecordingError
from vidgru.extraction.decode_process import DecodedSample, DecoderDiedError, DecoderProcess, to_video_info
from vidgru.extraction.detector_pool import DetectedFrame, DetectorPool, FrameRef
from vidgru.extraction.results import ExtractionStoppedError
from vidgru.locks import Locks
from vidgru.types import Array, FrameSequence, Recording
from vidgru.video.container import VideoInfo, file_identity
from vidgru.video.damage import Damage
from vidgru.video.keyframe_split import resume_point_at
from vidgru.video.reader import ResumePoint, ResumePointNotFoundError
from vidgru.video.stillness import StillPlan

SEGMENT_SAMPLES = 128  # least samples per segment of a recording that several decoders share
# Times that the tracker gets the objects of a still stretch. Then it has given up those that were lost before, as in
# the samples that were not decoded.
_STILL_UPDATES = TRACK_BUFFER + 1


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedEnd:
    """How decoding a recording ended.

    Attributes:
        samples: Samples of the recording, including those of earlier runs.
        damage: What was damaged.
        end_s: End of the last frame in seconds; None where a decoder died before it.
    """

    samples: int
    damage: Damage
    end_s: float | None


@dataclass(kw_only=True, eq=False)
class RecordingState:
    """A recording that is being extracted.

    A decoder thread fills in the first group while it opens the recording, before any frame of it is on its way; the
    rest belongs to the ordering loop.

    Attributes:
        number, recording: The recording and its number in the run.
        started: When work on it started, by the monotonic clock.
        key: Key of its cache entry.
        identity: The file's size and modification time.
        info: What its container says.
        writer: Writes its entry; None until there is something to write or to resume.
        cleanup: Closes the writer and releases the lock.
        is_open: Whether it has been looked up, locked and, where possible, resumed.
        was_split: Whether sharing it among decoders has been considered.
        plan: Which samples are decoded, of a span or with still stretches; None if all are.
        adaptive_note: What kept an adaptive extraction from skipping still stretches.

        segments: Its segments in order, without those whose frames have all been tracked.
        end: How decoding ended; None until it has.
        arrived: Frames waiting for their turn, by number; a FrameRef shares the objects of the one before.
        tracker: Gives track ids; None before the first frame.
        tracked: Frames tracked and not yet written.
        samples: Samples tracked, including those of earlier runs.
        time_s: Time of the last of them.
        last: The last of them that was written, of an adaptive extraction.
        still_samples: How many of the last samples were still.
    """

    number: int
    recording: Recording
    started: float = 0.0
    key: str = ""
    identity: tuple[int, int] = (0, 0)
    info: VideoInfo | None = None
    writer: EntryWriter | None = None
    cleanup: ExitStack = field(default_factory=ExitStack)
    is_open: bool = False
    was_split: bool = False
    plan: StillPlan | None = None
    adaptive_note: str = ""

    segments: list[Segment] = field(default_factory=list)
    end: DecodedEnd | None = None
    arrived: dict[int, DetectedFrame | FrameRef] = field(default_factory=dict)
    tracker: Tracker | None = None
    tracked: list[DetectedFrame] = field(default_factory=list)
    samples: int = 0
    time_s: float = 0.0
    last: FrameSequence | None = None
    still_samples: int = 0

    @property
    def next_is_still(self) -> bool:
        """Whether the next sample repeats the last one."""
        return self.plan is not None and self.samples < len(self.plan.still) and bool(self.plan.still[self.samples])

    @property
    def still_end(self) -> int:
        """The first sample after the next one that is not still. The last sample of a recording never is."""
        assert self.plan is not None
        return self.samples + int(np.argmin(self.plan.still[self.samples :]))

    def track(self, kind: str, size_px: tuple[int, int], boxes: Array, scores: Array, classes: Array) -> Array:
        """Return the track ids of the next sample's objects; see `Tracker`."""
        self.tracker = self.tracker or Tracker(kind, size_px)
        self.still_samples = 0
        return self.tracker.update(boxes, scores, classes)

    def track_still(self, boxes: Array, scores: Array, classes: Array, samples: int) -> None:
        """Have the tracker follow still samples that repeat these objects."""
        assert self.tracker is not None
        for _ in range(min(samples, _STILL_UPDATES - self.still_samples)):
            self.tracker.update(boxes, scores, classes)
        self.still_samples += samples

    def reset(self) -> None:
        """Forget all samples."""
        self.tracker, self.samples, self.time_s, self.last, self.still_samples = None, 0, 0.0, None, 0

    def restart(self) -> None:
        """Forget all samples, and drop what has been written of them."""
        if self.writer is not None:
            self.writer.restart()
        self.reset()

    def drop_plan(self, note: str) -> None:
        """Give up the plan of an adaptive extraction, and what has been extracted by it: decode completely."""
        for segment in self.segments:
            segment.is_superseded = True
        self.restart()
        self.plan, self.adaptive_note, self.end, self.arrived, self.tracked = None, note, None, {}, []
        self.segments, self.was_split = [Segment(state=self)], False

    @property
    def unfinished(self) -> Iterator[Segment]:
        """Segments still to be decoded or being decoded, in order."""
        return (segment for segment in self.segments if segment.status != "done" and not segment.is_superseded)


@dataclass(kw_only=True, eq=False)
class Segment:
    """One decoding task: a recording, or a part of it.

    Attributes:
        state: The recording.
        number: Position among the segments of the recording.
        resume_from: The last sample before it; None is the start of the recording.
        end: Its last sample, as planned from packets alone; None is the end of the recording.
        status: waiting for a decoder, running, done, or lost: the frame to resume from was not found.
        is_superseded: Whether its frames no longer count, because an earlier segment decodes them.
        passed: Samples of the recording up to the last one that was given to the detector.
        first: Number of its first sample: the one after `resume_from`, or that one itself after a still stretch.
        sample_pts: PTS of the samples from `resume_from` to its end; None without a plan.
    """

    state: RecordingState
    number: int = 0
    resume_from: ResumePoint | None = None
    end: ResumePoint | None = None
    status: Literal["waiting", "running", "done", "lost"] = "waiting"
    is_superseded: bool = False
    passed: int = 0
    first: int = 0
    sample_pts: list[int] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentSplit:
    """A running segment ends at the first of `points`; the rest can be decoded by others."""

    segment: Segment
    points: list[ResumePoint]


class SpanRefusedError(Exception):
    """A span of a recording cannot be read on its own; the message says why."""


# How a decoding task ended. "locked": try again later. "complete": the segment was decoded up to its planned end.
# "overrun": decoding did not arrive at the planned end as planned.
TaskResult = Entry | StillPlan | DecodedEnd | Literal["locked", "complete", "overrun"] | Exception


def planned_segments(state: RecordingState, plan: StillPlan) -> list[Segment]:
    """Return the segments of a plan, without those whose samples are all in the cache, except the last.

    The last one is decoded again even then: only a decoder that gets there knows how the recording ends.
    A stretch that is decoded starts at a key frame, whose first sample has no motion, as those before it. Long ones are
    cut at key frames into segments of SEGMENT_SAMPLES or more. All of this depends on the plan alone.
    """
    point_at = partial(resume_point_at, sample_index=plan.frame_index, key_pts=plan.key_pts, key_index=plan.key_index)
    first_samples = np.searchsorted(plan.frame_index, plan.key_index)
    edges = np.flatnonzero(np.diff(plan.still, prepend=True, append=True))
    segments: list[Segment] = []
    for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        starts = [first]
        for number in np.unique(first_samples[(first_samples > first) & (first_samples < end - 1)]).tolist():
            if number + 1 - starts[-1] >= SEGMENT_SAMPLES:
                starts.append(number + 1)
        for start, stop in zip(starts, [*starts[1:], end], strict=True):
            if stop <= state.samples and stop < len(plan.still):
                continue
            is_last = stop == len(plan.still)
            last_before = start if start == first else start - 1
            segments.append(
                Segment(
                    state=state,
                    number=len(segments) + 1,
                    resume_from=point_at(last_before) if start or plan.starts_late else None,
                    end=None if is_last and not plan.ends_early else point_at(stop - 1),
                    passed=max(start, state.samples),
                    first=start,
                    sample_pts=plan.pts[last_before if start else 0 : stop].tolist(),
                )
            )
    return segments


class SegmentDecoder:
    """Open recordings and decode their segments. Decoder threads share it.

    Args:
        cache: Where entries are looked up and resumed.
        detect: What to compute.
        feature_settings: The same as part of cache keys.
        pool: The detector, which samples are given to.
        locks: Keep other processes from the recordings of this one.
        is_last: Tells whether no more recordings are waiting to be started; only then one is split.
        decoders: Number of decoders that can share a recording.
        send: Called when the rest of a segment can be decoded by others, and with frames that look like the one before.
        stop: Set when the run has ended.
        limit: Samples after which a recording counts as complete; None is no limit.
        log: Called with lines for the user.
    """

    def __init__(
        self,
        cache: SequenceCache,
        detect: DetectorSettings,
        feature_settings: dict[str, Any],
        pool: DetectorPool,
        locks: Locks,
        *,
        is_last: Callable[[], bool],
        decoders: int,
        send: Callable[[SegmentSplit | FrameRef], None],
        stop: threading.Event,
        limit: int | None,
        log: Callable[[str], None],
    ) -> None:
        self._cache, self._detect, self._feature_settings = cache, detect, feature_settings
        self._pool, self._locks, self._is_last = pool, locks, is_last
        self._decoders, self._send = decoders if limit is None else 1, send
        self._stop, self._limit, self._log = stop, limit, log
        self._polygons = json.loads(detect.mask or "[]")
        self._claims: dict[str, RecordingState] = {}  # by key: recordings of equal content share an entry
        self._has_logged_lock = False

    def run(self, segment: Segment, decoder: DecoderProcess) -> TaskResult:
        """Decode a segment, after opening its recording if that has not been done. Samples go to the detector.

        If the decoder process dies, another continues where it was; if that one dies before it has got any further,
        `DecoderDiedError` is the result.

        Raises:
            ExtractionStoppedError: The run has ended.
        """
        passed_at_death: int | None = None
        while True:
            try:
                return self._open(segment) or self._plan(segment.state, decoder) or self._decode(segment, decoder)
            except DecoderDiedError as death:
                self._raise_if_stopped()
                if segment.is_superseded or segment.passed == passed_at_death:
                    return death
                passed_at_death = segment.passed
            except (RecordingError, ResumePointNotFoundError, SpanRefusedError) as error:
                return error

    def release_claim(self, state: RecordingState) -> None:
        """Let another recording of equal content be extracted: this one has ended, or its content has changed."""
        if self._claims.get(state.key) is state:
            del self._claims[state.key]

    def _open(self, segment: Segment) -> Entry | Literal["locked"] | None:
        """Look a recording up in the cache, lock it, and load what an earlier run left of it.

        Returns:
            Its entry if there is one; "locked" if it has to wait; None if it is to be decoded.
        """
        state, path = segment.state, segment.state.recording.path
        if state.is_open:
            return None
        state.started = state.started or time.monotonic()
        self.release_claim(state)
        state.identity = file_identity(path)
        try:
            sha256 = self._cache.sha256(path, self._raise_if_stopped)
        except OSError as error:
            raise RecordingError(f"cannot be read: {error.strerror}") from None
        state.key = self._cache.key(sha256, self._feature_settings)
        if entry := self._cache.valid_entry(state.key):
            return entry
        if state.recording.span is not None:  # no entry of all of it
            state.key = self._cache.key(sha256, span_settings(self._feature_settings, state.recording.span))
            if entry := self._cache.valid_entry(state.key):
                return entry
        if self._claims.setdefault(state.key, state) is not state:
            return "locked"  # by a recording of equal content in this run
        if not self._locks.acquire(state.key):
            if not self._has_logged_lock:
                self._has_logged_lock = True  # once per run, not once per recording
                self._log(f"{state.recording.name} is waiting: locked by another process")
            return "locked"
        state.cleanup.callback(self._locks.release, state.key)
        if entry := self._cache.valid_entry(state.key):
            return entry  # another process finished it before the lock was acquired
        state.started = time.monotonic()
        if any(key == state.key for key, _ in self._cache.incomplete_entries()):
            self._pool.load()  # only what ran as this run does can be resumed
            state.writer = state.cleanup.enter_context(self._cache.writer(state.key, self._pool.run_info))
            segment.resume_from = self._replay(state)
            if segment.resume_from is not None:  # else a plan says what is decoded
                segment.passed = segment.first = state.samples
        state.is_open = True
        return None

    def _replay(self, state: RecordingState) -> ResumePoint | None:
        """Bring the tracker to where an earlier run left off; returns where decoding resumes."""
        writer = state.writer
        assert writer is not None
        try:
            state.reset()
            state.samples = writer.samples
            saved = dict(writer.state or {})
            state.adaptive_note = str(saved.pop("adaptive_note", ""))
            resume_point = ResumePoint(**saved) if saved else None  # none if a plan says what is decoded
            for part in writer.resumed_parts():
                for t, (first, last) in enumerate(pairwise(part.offsets)):
                    self._raise_if_stopped()
                    objects = part.boxes[first:last], part.scores[first:last], part.classes[first:last]
                    if part.still is not None and part.still[t]:
                        state.track_still(*objects, samples=1)
                    else:
                        state.track(self._detect.tracker, part.size_px, *objects)
                state.time_s = float(part.time_s[-1])
                state.last = part.frames(len(part) - 1, len(part))
        except (CacheError, TypeError):  # corrupted since the writer checked it, or of another layout
            writer.restart()
            return self._replay(state)
        return resume_point

    def _plan(self, state: RecordingState, decoder: DecoderProcess) -> StillPlan | None:
        """Return which samples are decoded; None if all are, or if this has been decided before.

        Raises:
            RecordingError: The recording cannot be read.
            SpanRefusedError: A span of it was to be read, and cannot be read on its own.
            DecoderDiedError: The decoder process was ended from outside.
        """
        span = state.recording.span
        is_adaptive = self._detect.adaptive and not state.adaptive_note
        if state.plan is not None or self._limit is not None or not (is_adaptive or span):
            return None
        request = {
            "kind": "plan",
            "path": str(state.recording.path),
            "fps": self._detect.fps,
            "mask": self._polygons,
            "identity": state.identity,
            "span": span,
            "adaptive": self._detect.adaptive,
            "threads": self._decoders if self._is_last() else 1,
        }
        plan: StillPlan | None = None
        reason = ""
        try:
            for message, _ in decoder.request(request):
                match message["kind"]:
                    case "opened":
                        state.info = to_video_info(message["info"])
                        self._pool.start_loading()
                    case "plan":
                        plan = message["plan"]
                        reason = message["reason"]
                        state.adaptive_note = message["note"] if plan else f"decoded completely: {reason}"
                    case "failed":
                        raise RecordingError(message["reason"])
        except DecoderDiedError as death:
            if not death.crashed or death.killed_from_outside:
                raise
            reason = f"{death} at its packets or key frames"
            state.adaptive_note = f"decoded completely: {reason}"
        if plan is None and span is not None:
            raise SpanRefusedError(reason)
        if plan is None:
            state.restart()  # an earlier run may have followed a plan, and an entry is written with one or without
        return plan

    def _decode(self, segment: Segment, decoder: DecoderProcess) -> TaskResult:
        """Decode a segment from where it is, and give its samples to the detector.

        Raises:
            RecordingError: The recording cannot be read.
            ResumePointNotFoundError: The frame to resume from does not come out as it was.
            DecoderDiedError: The decoder process crashed or hung.
        """
        state = segment.state
        can_split = self._decoders > 1 and segment.end is None and state.plan is None
        may_split = can_split and not state.was_split and self._is_last()
        state.was_split = True  # a split that did not hold is not tried again
        request = {
            "kind": "decode",
            "path": str(state.recording.path),
            "fps": self._detect.fps,
            "imgsz": self._detect.imgsz,
            "mask": self._polygons,
            "identity": state.identity,
            "resume_from": None if segment.resume_from is None else asdict(segment.resume_from),
            "stop_after": segment.end.samples if segment.end else self._limit,
            "resume_point_every": PART_SAMPLES,
            "split_every": SEGMENT_SAMPLES if may_split else 0,
            "first": segment.first,
            "is_planned": state.plan is not None,
            "sample_pts": segment.sample_pts if self._detect.adaptive else None,
        }
        for message, sample in decoder.request(request):
            if segment.is_superseded:
                decoder.stop()
                return "complete"
            match message["kind"]:
                case "opened":
                    state.info = to_video_info(message["info"])
                    self._pool.start_loading()  # only now: where no recording can be read, no detector is needed
                case "split" if message["points"]:
                    points = [ResumePoint(**point) for point in message["points"]]
                    segment.end = points[0]
                    self._send(SegmentSplit(segment=segment, points=points))
                case "sample" | "unchanged":
                    assert sample is not None
                    self._pass_on(segment, sample)
                case "failed":
                    raise RecordingError(message["reason"])
                case "lost":
                    raise ResumePointNotFoundError
                case "end" if segment.end is not None:
                    if segment.passed != segment.end.samples:
                        return "overrun"
                    if state.plan is not None and segment.passed == len(state.plan.still):
                        # A segment that arrives at its end had no damage; what follows the span has not been read.
                        return DecodedEnd(samples=segment.passed, damage=Damage(), end_s=message["end_s"])
                    return "complete"
                case "end":
                    if not segment.passed:
                        raise RecordingError("has no frame at or after the start of the container")
                    damage = Damage(**message["damage"])
                    return DecodedEnd(samples=segment.passed, damage=damage, end_s=message["end_s"])
        raise AssertionError("the last message of an answer is one of those above")

    def _pass_on(self, segment: Segment, sample: DecodedSample) -> None:
        """Give a sample to the detector, or to the ordering loop if it looks like the one before."""
        assert segment.state.info is not None
        number, resume_point = sample.number, sample.resume_point
        if number < segment.passed:
            return  # decoded once more after a decoder's death
        if segment.end is not None and number + 1 == segment.end.samples:
            # The split was planned from packet timestamps. It holds if decoding arrives at the same frame undamaged;
            # else this sample is left for when the segment is decoded on beyond its end.
            if resume_point is None or resume_point.key_pts is None or resume_point.index != segment.end.index:
                return
        elif resume_point is not None and segment.state.plan is None:
            segment.resume_from, segment.first = resume_point, number + 1
        frame = FrameRef(
            number=number,
            time_s=sample.time_s,
            index=sample.index,
            size_px=segment.state.info.size_px,
            flow=sample.flow,
            scene_motion=sample.scene_motion,
            segment=segment,
            resume_point=resume_point,
        )
        if sample.image is None:
            self._send(frame)
        else:
            self._pool.add(frame, sample.image)
        segment.passed = number + 1

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise ExtractionStoppedError
