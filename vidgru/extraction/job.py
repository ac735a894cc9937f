"""One recording on its way through a run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from vidgru.cache import EntryWriter
from vidgru.detector.tracker import Tracker
from vidgru.extraction.detector_pool import DetectedFrame
from vidgru.types import Recording
from vidgru.video.container import VideoInfo
from vidgru.video.integrity import Damage
from vidgru.video.reader import ResumePoint


@dataclass(frozen=True, kw_only=True, eq=False)
class Ending:
    """What the decoder that came to the end of a recording says.

    Attributes:
        segment: the last one; where it is superseded by now, this does not count.
        total: samples, those of earlier runs included.
        damage: what was wrong.
        end_s: end of the last frame; None where a decoder died before it came there.
    """

    segment: Any
    total: int
    damage: Damage
    end_s: float | None


@dataclass(kw_only=True, eq=False)
class Job:
    """One recording. Decoder threads fill the first group of fields, before its first sample is on its way.

    Attributes:
        number, recording: which.
        started: when it was first looked at, by the monotonic clock.
        key: of its entry.
        identity: size and modification time of the file.
        writer: of its entry, with what an earlier run has finished of it.
        tracker: brought to where that run was; None before the first sample.
        after: the place where that run was.
        may_cut: nobody has asked yet whether several decoders can share it.
        info: what its container says.
        over: it has ended, and what may still be decoded of it does not count.

        ending: how decoding ended, as far as is known.
        arrived: samples that wait for their turn, by number.
        handled: samples worked off, those of earlier runs included.
        rows: samples worked off and not yet written.
        time_s: of the last sample worked off.
        stack: what is to be closed when it ends.
    """

    number: int
    recording: Recording
    started: float = 0.0
    key: str = ""
    identity: tuple[int, int] = (0, 0)
    writer: EntryWriter | None = None
    tracker: Tracker | None = None
    after: ResumePoint | None = None
    may_cut: bool = True
    info: VideoInfo | None = None
    over: bool = False

    ending: Ending | None = None
    arrived: dict[int, DetectedFrame] = field(default_factory=dict)
    handled: int = 0
    rows: list[DetectedFrame] = field(default_factory=list)
    time_s: float = 0.0
    stack: ExitStack = field(default_factory=ExitStack)
