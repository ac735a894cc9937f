"""One recording on its way through a run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from vidgru.cache import EntryWriter
from vidgru.extract.container import VideoInfo
from vidgru.extract.damage import Damage
from vidgru.extract.stages import Row
from vidgru.extract.tracker import Tracker
from vidgru.extract.video import Place
from vidgru.types import Recording


@dataclass(kw_only=True, eq=False)
class Job:
    """One recording. Decoder threads fill the first group of fields, before the calling thread gets its first sample.

    Attributes:
        number, recording: which.
        started: when it was first looked at, by the monotonic clock.
        key: of its entry.
        identity: size and modification time of the file.
        writer: of its entry, with what an earlier run has finished of it.
        tracker: brought to where that run was; None before the first sample.
        after: the place where that run was.
        info, damage, end_s: what its decoder says of it.
        total: samples, known when it is decoded.

        arrived: samples that wait for their turn, by number.
        handled: samples worked off, those of earlier runs included.
        rows: samples worked off and not yet written.
        time_s: of the last sample worked off.
        twins: recordings of the same content, which wait for this one.
        stack: what is to be closed when it ends.
    """

    number: int
    recording: Recording
    started: float = 0.0
    key: str = ""
    identity: tuple[int, int] = (0, 0)
    writer: EntryWriter | None = None
    tracker: Tracker | None = None
    after: Place | None = None
    info: VideoInfo | None = None
    damage: Damage = field(default_factory=Damage)
    end_s: float = 0.0
    total: int | None = None

    arrived: dict[int, Row] = field(default_factory=dict)
    handled: int = 0
    rows: list[Row] = field(default_factory=list)
    time_s: float = 0.0
    twins: list[Job] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)
