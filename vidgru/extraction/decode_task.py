"""What decoder threads do: open a recording (look it up, lock it, resume it), and decode one segment of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Literal

from vidgru.cache import Entry, EntryWriter, SequenceCache
from vidgru.cache.writer import PART_SAMPLES
from vidgru.config import DetectorSettings
from vidgru.detector.tracker import Tracker
from vidgru.errors import CacheError, RecordingError
from vidgru.extraction.decode_process import DecodedSample, DecoderDiedError, DecoderProcess, to_video_info
from vidgru.extraction.detector_pool import DetectedFrame, DetectorPool, FrameRef
from vidgru.extraction.results import ExtractionStoppedError
from vidgru.locks import Locks
from vidgru.types import Recording
from vidgru.video.container import VideoInfo, file_identity
from vidgru.video.damage import Damage
from vidgru.video.reader import ResumePoint, ResumePointNotFoundError

SEGMENT_SAMPLES = 128  # least samples per segment of a recording that several decoders share


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

        segments: Its segments in order, without those whose frames have all been tracked.
        end: How decoding ended; None until it has.
        arrived: Frames waiting for their turn, by number.
        tracker: Gives track ids; None before the first frame.
        tracked: Frames tracked and not yet written.
        samples: Samples tracked, including those of earlier runs.
        time_s: Time of the last of them.
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

    segments: list[Segment] = field(default_factory=list)
    end: DecodedEnd | None = None
    arrived: dict[int, DetectedFrame] = field(default_factory=dict)
    tracker: Tracker | None = None
    tracked: list[DetectedFrame] = field(default_factory=list)
    samples: int = 0
    time_s: float = 0.0

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
    """

    state: RecordingState
    number: int = 0
    resume_from: ResumePoint | None = None
    end: ResumePoint | None = None
    status: Literal["waiting", "running", "done", "lost"] = "waiting"
    is_superseded: bool = False
    passed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentSplit:
    """A running segment ends at the first of `points`; the rest can be decoded by others."""

    segment: Segment
    points: list[ResumePoint]


# How a decoding task ended. "locked": try again later. "complete": the segment was decoded up to its planned end.
# "overrun": decoding did not arrive at the planned end as planned.
TaskResult = Entry | DecodedEnd | Literal["locked", "complete", "overrun"] | Exception


class SegmentDecoder:
    """Open recordings and decode their segments. Decoder threads share it.

    Args:
        cache: Where entries are looked up and resumed.
        detect: What to compute.
        feature_settings: The same as part of cache keys.
        pool: The detector, which samples are given to.
        locks: Keep other processes from the recordings of this one.
        is_last: Tells whether no more recordings are waiting to be started; only then one is split.
        can_split: Whether there are several decoders to share a recording.
        on_split: Called when the rest of a segment can be decoded by others.
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
        can_split: bool,
        on_split: Callable[[SegmentSplit], None],
        stop: threading.Event,
        limit: int | None,
        log: Callable[[str], None],
    ) -> None:
        self._cache, self._detect, self._feature_settings = cache, detect, feature_settings
        self._pool, self._locks, self._is_last = pool, locks, is_last
        self._can_split, self._on_split = can_split and limit is None, on_split
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
                return self._open(segment) or self._decode(segment, decoder)
            except DecoderDiedError as death:
                self._raise_if_stopped()
                if segment.is_superseded or segment.passed == passed_at_death:
                    return death
                passed_at_death = segment.passed
            except (RecordingError, ResumePointNotFoundError) as error:
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
            state.key = self._cache.key(self._cache.sha256(path, self._raise_if_stopped), self._feature_settings)
        except OSError as error:
            raise RecordingError(f"cannot be read: {error.strerror}") from None
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
            segment.passed = state.samples
        state.is_open = True
        return None

    def _replay(self, state: RecordingState) -> ResumePoint | None:
        """Bring the tracker to where an earlier run left off; returns where decoding resumes."""
        writer = state.writer
        assert writer is not None
        try:
            state.tracker, state.samples, state.time_s = None, writer.samples, 0.0
            resume_point = ResumePoint(**writer.state) if writer.state else None
            for part in writer.resumed_parts():
                state.tracker = state.tracker or Tracker(self._detect.tracker, part.size_px)
                for first, last in pairwise(part.offsets):
                    self._raise_if_stopped()
                    state.tracker.update(part.boxes[first:last], part.scores[first:last], part.classes[first:last])
                state.time_s = float(part.time_s[-1])
        except (CacheError, TypeError):  # corrupted since the writer checked it, or of another layout
            writer.restart()
            return self._replay(state)
        return resume_point

    def _decode(self, segment: Segment, decoder: DecoderProcess) -> TaskResult:
        """Decode a segment from where it is, and give its samples to the detector.

        Raises:
            RecordingError: The recording cannot be read.
            ResumePointNotFoundError: The frame to resume from does not come out as it was.
            DecoderDiedError: The decoder process crashed or hung.
        """
        state = segment.state
        may_split = self._can_split and segment.end is None and not state.was_split and self._is_last()
        state.was_split = True  # a split that did not hold is not tried again
        request = {
            "path": str(state.recording.path),
            "fps": self._detect.fps,
            "imgsz": self._detect.imgsz,
            "mask": self._polygons,
            "identity": state.identity,
            "resume_from": None if segment.resume_from is None else asdict(segment.resume_from),
            "stop_after": segment.end.samples if segment.end else self._limit,
            "resume_point_every": PART_SAMPLES,
            "split_every": SEGMENT_SAMPLES if may_split else 0,
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
                    self._on_split(SegmentSplit(segment=segment, points=points))
                case "sample":
                    assert sample is not None
                    self._pass_on(segment, sample)
                case "failed":
                    raise RecordingError(message["reason"])
                case "lost":
                    raise ResumePointNotFoundError
                case "end" if segment.end is not None:
                    return "complete" if segment.passed == segment.end.samples else "overrun"
                case "end":
                    if not segment.passed:
                        raise RecordingError("has no frame at or after the start of the container")
                    damage = Damage(**message["damage"])
                    return DecodedEnd(samples=segment.passed, damage=damage, end_s=message["end_s"])
        raise AssertionError("the last message of an answer is one of those above")

    def _pass_on(self, segment: Segment, sample: DecodedSample) -> None:
        """Give a sample to the detector."""
        assert segment.state.info is not None
        number, resume_point = sample.number, sample.resume_point
        if number < segment.passed:
            return  # decoded once more after a decoder's death
        if segment.end is not None and number + 1 == segment.end.samples:
            # The split was planned from packet timestamps. It holds if decoding arrives at the same frame undamaged;
            # else this sample is left for when the segment is decoded on beyond its end.
            if resume_point is None or resume_point.key_pts is None or resume_point.index != segment.end.index:
                return
        elif resume_point is not None:
            segment.resume_from = resume_point
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
        self._pool.add(frame, sample.image)
        segment.passed = number + 1

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise ExtractionStoppedError
