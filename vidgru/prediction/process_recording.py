"""From the features of a recording to its files: events, page, films. It goes on beside the extraction of others.

Several processes may share the folder that they write to. Who works on a recording holds its lease; the others come
back to it when they have done all else, and find it finished, or free because its process died.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from vidgru.cache import Entry, SequenceCache
from vidgru.config import PredictConfig
from vidgru.errors import CacheError, RecordingError
from vidgru.locks import Locks
from vidgru.model.attribution import explain_events
from vidgru.model.captioner import caption_events
from vidgru.model.checkpoint import EventModel
from vidgru.model.scoring import EncodedRecording, encode_recording
from vidgru.model.stream import ScoredRecording, score_encoded
from vidgru.prediction.annotate_video.annotate import save_video
from vidgru.prediction.clips import cut_clips
from vidgru.prediction.event_files import rounded
from vidgru.prediction.outputs import OutputFolder
from vidgru.prediction.report.page import write_page
from vidgru.prediction.results import PredictionResult, failed
from vidgru.prediction.time_range import Period, start_time
from vidgru.types import Event, FrameSequence, Recording

NO_TIME = "does not tell when it was recorded; pass --start-time"
_SIDE_BY_SIDE = 1 << 17  # frames of recordings that are scored at once; a longer one is scored alone
_MOST = 32  # recordings that are scored at once: other processes find them taken
_RETRY_S = 0.5  # how often recordings that other processes work on are looked at
_EXPLAINED = 40  # events of a recording, the best scored, that its page gives reasons for


@dataclass(frozen=True, kw_only=True)
class ExtractedRecording:
    """A recording whose features are there.

    Attributes:
        recording: which.
        cache, entry: its features.
        sha256: of its bytes, or, where these are gone, of nothing.
        damage: what is wrong with it.
        recorded_at: ISO 8601 time of its start, if that is known.
        seconds: wall time that it took so far.
    """

    recording: Recording
    cache: SequenceCache
    entry: Entry
    sha256: str
    damage: str
    recorded_at: str | None
    seconds: float


class PredictionStoppedError(Exception):
    """The run is over."""


class _LockLostError(Exception):
    """The lease of a recording is another's by now, because this process stood still."""


WorkItem = ExtractedRecording | PredictionResult  # the latter of a recording that failed before


class RecordingProcessor:
    """Scores recordings and writes what is wanted of each. It is used by one thread.

    Args:
        model: in eval mode.
        config: what is wanted.
        keep: labels of the events that are wanted.
        period: that they are to touch.
        out: where files go.
        locks: of the recordings in `out`.
        found: what another process made of a recording meanwhile, if it did.
        on_end: takes how each recording ended.
        stop: set when the run is over, whatever is done by then.
        say: tells the user something.
    """

    def __init__(
        self,
        model: EventModel,
        config: PredictConfig,
        keep: frozenset[str],
        period: Period,
        out: OutputFolder,
        locks: Locks,
        found: Callable[[WorkItem], PredictionResult | None],
        on_end: Callable[[PredictionResult], None],
        stop: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self._stop, self._say = stop, say
        self._model, self._config, self._keep, self._out, self._on_end = model, config, keep, out, on_end
        self._period = period
        self._locks, self._found = locks, found
        self._put_off: list[WorkItem] = []

    def finish(self, waiting: list[WorkItem]) -> None:
        """Score recordings and write their files; those that other processes work on are put off.

        Raises PredictionStoppedError.

        Short ones are scored side by side: a step for all of them costs little more than a step for one.
        """
        torch.set_num_threads(1)  # of this thread: there is too little to share, and waiting for others costs more
        some: list[ExtractedRecording] = []
        try:
            for one in waiting:
                self._go_on()
                if isinstance(one, ExtractedRecording) and not _fits(one, some):
                    self._score(some)
                    some = []
                if not self._take(one):
                    continue
                if isinstance(one, PredictionResult):
                    self._fail(one)
                elif self._period and one.recorded_at is None:
                    self._fail(_failed(one, NO_TIME))
                else:
                    some.append(one)
            self._score(some)
        finally:
            for left in some:  # where it was stopped
                self._locks.release(lock_name(left.recording))

    def wait(self) -> None:
        """Finish what was put off, as other processes give it up or are done with it. Raises PredictionStoppedError."""
        waited = False
        while self._put_off:
            again, self._put_off = self._put_off, []
            self.finish(again)
            if len(self._put_off) == len(again):
                if not waited:
                    name = again[0].recording.name
                    self._say(f"{name} is worked on by another process; it is waited for, as others may be")
                waited = True
                self._stop.wait(_RETRY_S)

    def _take(self, one: WorkItem) -> bool:
        """Whether a recording is to be worked on here and now. If so, its lease is ours."""
        name = lock_name(one.recording)
        if not self._locks.acquire(name):
            self._put_off.append(one)
            return False
        taken = False
        try:
            ended = self._found(one)  # another process was faster
            taken = ended is None
        finally:
            if not taken:
                self._locks.release(name)
        if ended is not None:
            self._on_end(ended)
        return taken

    def _fail(self, prediction: PredictionResult) -> None:
        try:
            self._out.fail(prediction)
        finally:
            self._locks.release(lock_name(prediction.recording))
        self._on_end(prediction)

    def _score(self, some: list[ExtractedRecording]) -> None:
        began = time.monotonic()
        encoded: list[tuple[ExtractedRecording, list[FrameSequence], EncodedRecording]] = []
        for one in some:
            try:
                parts = list(one.cache.parts(one.entry.key))
                encoded.append((one, parts, encode_recording(self._model, parts)))
            except (CacheError, OSError, ValueError) as error:
                reason = error.message if isinstance(error, CacheError) else str(error)
                self._fail(_failed(one, reason))
        recordings = [(each, one.recording.name, one.entry.duration_s) for one, _, each in encoded]
        scored = score_encoded(self._model, recordings, gates=self._config.report)
        seconds = (time.monotonic() - began) / max(len(encoded), 1)
        for (one, parts, _), found in zip(encoded, scored, strict=True):
            self._go_on()
            one = replace(one, seconds=one.seconds + seconds)
            try:
                ended = self._write(one, parts, found)
            except _LockLostError:
                self._put_off.append(one)
                continue
            finally:
                self._locks.release(lock_name(one.recording))
            self._on_end(ended)

    def _write(self, some: ExtractedRecording, parts: list[FrameSequence], scored: ScoredRecording) -> PredictionResult:
        recording, entry, began = some.recording, some.entry, time.monotonic() - some.seconds
        wanted = [event for event in scored.events if self._wants(event, some.recorded_at)]
        told = caption_events(self._model, parts, wanted, beam=self._config.beam, progress=self._go_on)
        events = [_dated(event, some.recorded_at) for event in told]
        self._check(recording)
        kept = self._out.begin(recording, entry.key, some.recorded_at)
        self._out.write_events(recording, events)
        made, wrong = self._make([name for name in self._out.wanted if name not in kept], some, parts, scored, events)
        facts = {
            "sha256": some.sha256,
            "key": entry.key,
            "duration_s": entry.duration_s,
            "recorded_at": some.recorded_at,
            "reason": some.damage,
        }
        self._check(recording)
        self._out.finish(recording, kept + made, facts)
        reason = "; ".join(text for text in (some.damage, *wrong) if text)
        return PredictionResult(
            recording=recording,
            status="partial" if reason else "done",
            events=tuple(events),
            duration_s=entry.duration_s,
            reason=reason,
            seconds=time.monotonic() - began,
        )

    def _check(self, recording: Recording) -> None:
        """Called before what others would notice. Raises _LockLostError."""
        if not self._locks.holds(lock_name(recording)):
            raise _LockLostError

    def _make(
        self,
        names: Sequence[str],
        some: ExtractedRecording,
        parts: list[FrameSequence],
        scored: ScoredRecording,
        events: list[Event],
    ) -> tuple[list[str], list[str]]:
        """What is wanted beside the events. Returns what was made, and why the rest was not."""
        made, wrong = [], []
        for name in names:
            self._go_on()
            self._check(some.recording)
            try:
                if name != "report" and not some.recording.path.is_file():
                    raise RecordingError("its features are there, and its video is not")
                self._make_one(name, some, parts, scored, events)
                made.append(name)
            except RecordingError as error:
                wrong.append(f"no {name.split()[0]}: {error.message}")
        return made, wrong

    def _make_one(
        self,
        name: str,
        some: ExtractedRecording,
        parts: list[FrameSequence],
        scored: ScoredRecording,
        events: list[Event],
    ) -> None:
        path, source = self._out.path(some.recording, name), some.recording.path
        if name == "report":
            best = sorted(events, key=lambda event: -event.score)[:_EXPLAINED]
            whys = explain_events(self._model, parts, scored, best)
            write_page(
                path,
                model=self._model,
                recording=some.recording,
                entry=some.entry,
                parts=parts,
                scored=scored,
                events=events,
                recorded_at=some.recorded_at,
                damage=some.damage,
                why={why.event: why for why in whys},
            )
        elif name == "video":
            save_video(
                path,
                source=source,
                parts=parts,
                attention=scored.attention,
                events=events,
                names=some.entry.names,
                labels=self._model.labels,
                progress=self._go_on,
            )
        else:
            cut_clips(path, source=source, events=events, context_s=self._config.context, progress=self._go_on)

    def _go_on(self, _: float = 0.0) -> None:
        """Called often. Raises PredictionStoppedError."""
        if self._stop.is_set():
            raise PredictionStoppedError

    def _wants(self, event: Event, began_at: str | None) -> bool:
        if event.label not in self._keep or event.score < self._config.min_score:
            return False
        return began_at is None or not self._period or self._period.touches(began_at, event.start_s, event.end_s)


def lock_name(recording: Recording) -> str:
    """The name of its lease, which must do as the name of a file."""
    return hashlib.sha256(recording.name.encode(errors="surrogatepass")).hexdigest()[:32]


def _fits(one: ExtractedRecording, some: list[ExtractedRecording]) -> bool:
    """Whether a recording may be scored beside these."""
    frames = one.entry.samples + sum(other.entry.samples for other in some)
    return not some or (len(some) < _MOST and frames <= _SIDE_BY_SIDE)


def _failed(some: ExtractedRecording, reason: str) -> PredictionResult:
    return failed(some.recording, reason, some.entry.duration_s, some.seconds)


def _dated(event: Event, recorded_at: str | None) -> Event:
    """The event as it is written, with its wall-clock time where that of its recording is known."""
    event = rounded(event)
    return event if recorded_at is None else replace(event, start_time=start_time(event, recorded_at))
