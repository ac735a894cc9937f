"""The way in, which decoder threads walk: identity, what is there already, lease, decoding, frames to the detector.

Every thread has a decoder process of its own. A process that dies is replaced, and goes on where the last one was; if
that one dies too before it gets any further, the recording ends there.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any, Protocol

from vidgru.cache import Entry, SequenceCache
from vidgru.cache.writer import PART_SAMPLES
from vidgru.config import DetectorSettings
from vidgru.detector.preprocess import Letterbox
from vidgru.detector.tracker import Tracker
from vidgru.errors import CacheError, RecordingError
from vidgru.extraction.decode_process import DecoderDiedError, DecoderProcess, Sampled, video_info
from vidgru.extraction.detector_pool import DetectorPool, FrameRef
from vidgru.extraction.job import Ending, Job
from vidgru.extraction.results import ExtractionStoppedError
from vidgru.extraction.schedule import Schedule, Segment
from vidgru.locks import Locks
from vidgru.video.container import file_identity
from vidgru.video.integrity import Damage
from vidgru.video.reader import ResumePoint

_POLL_S = 0.1
CUT_SAMPLES = 128  # of a segment, where several decoders share a recording


class Receiver(Protocol):
    """Takes what becomes of recordings; called by decoder threads."""

    def reused(self, job: Job, entry: Entry) -> None:
        """Its features are there already."""

    def failed(self, job: Job, reason: str) -> None:
        """It cannot be read."""

    def decoded(self, job: Job, ending: Ending) -> None:
        """All its samples are on their way."""


class Intake:
    """Works off a schedule, in as many threads as call `work`.

    Args:
        cache: where features are, and go.
        detect: what is computed.
        feature_settings: the same with the hash of the weights.
        pool: the detector.
        schedule: what to decode.
        locks: keeps other processes from the recordings that this one works on.
        receiver: takes what becomes of recordings.
        stop: set when the run is over.
        limit: samples after which a recording counts as done; None is no limit.
        say: tells the user something.
    """

    def __init__(
        self,
        cache: SequenceCache,
        detect: DetectorSettings,
        feature_settings: dict[str, Any],
        pool: DetectorPool,
        schedule: Schedule[Job],
        locks: Locks,
        receiver: Receiver,
        stop: threading.Event,
        limit: int | None,
        say: Callable[[str], None],
    ) -> None:
        self._cache, self._detect, self._feature_settings, self._pool = cache, detect, feature_settings, pool
        self._schedule, self._locks, self._receiver, self._stop = schedule, locks, receiver, stop
        self._limit, self._say, self._waited = limit, say, False
        self._polygons = json.loads(detect.mask or "[]")
        self._claimed: dict[str, Job] = {}
        self._lock = threading.Lock()

    def work(self, decoder: DecoderProcess) -> None:
        """Decode until nothing is left. Raises ExtractionStoppedError."""
        while True:
            with self._schedule.draw() as segment:
                if segment is None:
                    return
                try:
                    if not segment.job.over and (segment.order or self._begin(segment, decoder)):
                        self._decode(segment, decoder)
                except RecordingError as error:
                    self._schedule.reclaim(segment)
                    if not segment.superseded:
                        self._receiver.failed(segment.job, error.message)

    # --- before decoding --------------------------------------------------------------------------------------------

    def _begin(self, segment: Segment[Job], decoder: DecoderProcess) -> bool:
        """Find out whether a recording is to be decoded here and now, and from where."""
        job = segment.job
        job.started = job.started or time.monotonic()
        self.unclaim(job)
        job.identity = file_identity(job.recording.path)
        try:
            job.key = self._cache.key(
                self._cache.sha256(job.recording.path, self._give_up_if_stopped), self._feature_settings
            )
        except OSError as error:
            raise RecordingError(f"cannot be read: {error.strerror}") from None
        if self._is_there(job):
            return False
        with self._lock:
            first = self._claimed.setdefault(job.key, job)
        if first is not job:  # the same content: it is there when the first of them is done
            self._schedule.requeue(job)
            return False
        if not self._pool.is_loaded:
            self._try(job, decoder)
        if not self._locks.acquire(job.key):
            self._wait_for_others(job)
            return False
        job.stack.callback(self._locks.release, job.key)
        if self._is_there(job):  # finished by another process between the two looks
            return False
        job.started = time.monotonic()
        self._pool.load()
        job.writer = job.stack.enter_context(self._cache.writer(job.key, self._pool.run_info))
        self._replay(job)
        segment.after = job.after
        return True

    def unclaim(self, job: Job) -> None:
        """Let another recording of the same content be worked on: this one failed, or has other content by now."""
        with self._lock:
            if self._claimed.get(job.key) is job:
                del self._claimed[job.key]

    def _wait_for_others(self, job: Job) -> None:
        if not self._waited:
            self._waited = True
            self._say(f"{job.recording.name} is worked on by another process; it is waited for, as others may be")
        self._schedule.requeue(job)

    def _is_there(self, job: Job) -> bool:
        entry = self._cache.valid_entry(job.key)
        if entry is not None:
            self._receiver.reused(job, entry)
        return entry is not None

    def _try(self, job: Job, decoder: DecoderProcess) -> None:
        """Open a recording once before the detector is loaded: where none can be read, it is not needed."""
        with suppress(DecoderDiedError):  # which is then looked into when it is decoded
            decoder.probe(job.recording.path)
        self._give_up_if_stopped()

    def _replay(self, job: Job) -> None:
        """Bring the tracker to where an earlier run left it."""
        assert job.writer is not None
        try:
            job.tracker, job.handled = None, job.writer.samples
            job.after = ResumePoint(**job.writer.state) if job.writer.state else None
            for part in job.writer.resumed_parts():
                job.tracker = job.tracker or Tracker(self._detect.tracker, part.size_px)
                for first, last in pairwise(part.offsets):
                    self._give_up_if_stopped()
                    job.tracker.update(part.boxes[first:last], part.scores[first:last], part.classes[first:last])
                job.time_s = float(part.time_s[-1])
        except (CacheError, TypeError):  # spoilt since it was adopted, or of another layout
            job.writer.restart()
            self._replay(job)

    def _give_up_if_stopped(self) -> None:
        if self._stop.is_set():
            raise ExtractionStoppedError

    # --- decoding ---------------------------------------------------------------------------------------------------

    def _decode(self, segment: Segment[Job], decoder: DecoderProcess) -> None:
        """Decode a segment, with another process if one dies."""
        segment.passed = segment.after.samples if segment.after else 0
        reached = -1
        over = False
        while not over:
            try:
                over = self._ask(segment, decoder)
            except DecoderDiedError as death:
                self._give_up_if_stopped()
                if segment.superseded:
                    return
                if segment.passed == reached:
                    return self._end_there(segment, death)
                reached = segment.passed

    def _ask(self, segment: Segment[Job], decoder: DecoderProcess) -> bool:
        """Have a segment decoded from where it is. Returns False where it has to be asked for once more.

        Raises:
            DecoderDiedError: the process did.
        """
        job = segment.job
        bounded = segment.last is not None
        may_cut = job.may_cut and not bounded and self._limit is None and self._schedule.may_cut
        job.may_cut = False  # a cut that did not hold is not made again
        request = {
            "path": str(job.recording.path),
            "fps": self._detect.fps,
            "imgsz": self._detect.imgsz,
            "stride": self._pool.load().stride,
            "mask": self._polygons,
            "identity": job.identity,
            "after": None if segment.after is None else asdict(segment.after),
            "until": segment.last.samples if segment.last else self._limit,
            "mark_every": PART_SAMPLES,
            "cut_every": CUT_SAMPLES if may_cut else 0,
        }
        letterbox: Letterbox | None = None
        for facts, sampled in decoder.ask(request):
            if segment.superseded or job.over:
                decoder.end()
                return True
            if sampled is not None:
                assert letterbox is not None
                self._pass_on(segment, sampled, letterbox)
                continue
            match facts["kind"]:
                case "opened":
                    job.info = video_info(facts["info"])
                    letterbox = Letterbox(**{name: _frozen(value) for name, value in facts["letterbox"].items()})
                case "cuts" if facts["places"]:  # else it goes on alone
                    self._schedule.cut(segment, [ResumePoint(**place) for place in facts["places"]])
                    bounded = True
                case "failed":
                    raise RecordingError(facts["reason"])
                case "lost":
                    self._start_earlier(segment)
                    return False
                case "end" if bounded:
                    if segment.last is not None and segment.passed < segment.last.samples:  # fewer than were planned
                        self._schedule.reclaim(segment)
                    return segment.last is not None
                case "end":
                    if not segment.passed:
                        raise RecordingError("no frame of it lies at or after the start of the container")
                    self._end(segment, Damage(**facts["damage"]), facts["end_s"])
                    return True
        return False

    def _pass_on(self, segment: Segment[Job], sampled: Sampled, letterbox: Letterbox) -> None:
        """Hand a sample to the detector, unless it was before the decoder died."""
        facts = sampled.facts
        number, place = facts["number"], facts["place"] and ResumePoint(**facts["place"])
        if number < segment.passed:
            return
        if segment.last is not None and number + 1 == segment.last.samples:
            # The cut was made by the packets' stamps. It holds if decoding came to the same, and without damage.
            if place.key_pts is None or place.index != segment.last.index:
                self._schedule.reclaim(segment)
        elif place is not None:
            segment.after = place
        sample = FrameRef(
            segment=segment,
            number=number,
            time_s=facts["time_s"],
            index=facts["index"],
            letterbox=letterbox,
            flow=sampled.flow,
            scene_motion=sampled.scene_motion,
            resume_point=place,
        )
        self._pool.add(sample, sampled.canvas)
        segment.passed = number + 1

    def _start_earlier(self, segment: Segment[Job]) -> None:
        """The place to begin after was not found: decode up to it from the start, or do all of it again."""
        job, after = segment.job, segment.after
        assert after is not None
        assert job.writer is not None
        if segment.order:
            self._schedule.reclaim(segment)
        if after.key_pts is not None:
            segment.after = replace(after, key_pts=None)
        elif not segment.order and job.after and segment.passed == job.after.samples:
            job.writer.restart()
            self._replay(job)
            segment.after, segment.passed = None, 0
        else:
            while not segment.superseded and not self._schedule.is_first(
                segment
            ):  # an earlier one may see why, and take over
                self._give_up_if_stopped()
                self._stop.wait(_POLL_S)
            if not segment.superseded:
                raise RecordingError("does not decode to the same frames twice; convert it with ffmpeg")

    def _end_there(self, segment: Segment[Job], death: DecoderDiedError) -> None:
        """The decoder dies whenever it comes to this point: what lies before it is what there is."""
        if death.outside:
            raise RecordingError(f"{death} twice at one place: no memory left? Run again; what is done is kept")
        self._schedule.reclaim(segment)
        if not segment.passed or segment.job.info is None:
            raise RecordingError(f"{death} before it gave a frame; convert the file with ffmpeg")
        self._end(segment, Damage(decoder_deaths=1), None)

    def _end(self, segment: Segment[Job], damage: Damage, end_s: float | None) -> None:
        ending = Ending(segment=segment, total=segment.passed, damage=damage, end_s=end_s)
        self._receiver.decoded(segment.job, ending)
        if self._schedule.may_cut:  # its last samples need not wait for those of others, of which few come
            self._pool.flush()


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
