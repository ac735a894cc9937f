"""Settings of what a model finds in recordings, and of why it does."""

from __future__ import annotations

from dataclasses import dataclass

from vidgru.config.checks import moment, require
from vidgru.config.extract import RunSettings
from vidgru.config.scale import ScaleSettings


@dataclass(frozen=True, kw_only=True)
class PredictConfig(RunSettings, ScaleSettings):
    """Settings of `vidgru predict`. What the detector computes comes from the model.

    Attributes:
        out: folder of the events.
        features: folder of the sequence cache.
        weights: where the model's detector lies, if not under the name it was trained with; it must be the same file.
        min_score: events scored below this are left out.
        labels: only events with these labels; all the model's where none is given.
        since: only events that end after this wall-clock time (ISO 8601). A recording that does not tell its own fails.
        until: only events that begin before this wall-clock time.
        report: write a page to look at for each recording, and one for all.
        clips: cut every event to a file of its own.
        context: seconds before and after each event that its file shows.
        save_video: write each recording with boxes, tracks and events drawn.
        record: of a live stream, keep what was seen in the cache.
        beam: sentences that are followed at once in writing a description; 1 is greedy, and faster.
        merge_only: predict nothing; rebuild the files of the run as a whole, and tell what is still to be predicted.
    """

    out: str = "events"
    features: str = "features"
    weights: str = ""
    min_score: float = 0.0
    labels: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    report: bool = True
    clips: bool = False
    context: float = 1.0
    save_video: bool = False
    record: bool = False
    beam: int = 4
    merge_only: bool = False

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        ScaleSettings.__post_init__(self)
        require(0 <= self.min_score <= 1, "min_score", self.min_score, "between 0 and 1")
        require(0 <= self.context <= 3600, "context", self.context, "from 0 to 3600 seconds")
        alone = "left out with merge_only, which is for the whole run"
        require(not (self.merge_only and self.shard), "shard", self.shard, alone)
        require(not (self.merge_only and self.ray), "ray", self.ray, alone)
        require(1 <= self.beam <= 64, "beam", self.beam, "from 1 to 64")
        since, until = (moment(name, getattr(self, name)) for name in ("since", "until"))
        ordered = since is None or until is None or since < until
        require(ordered, "until", self.until, f"after since, which is {self.since!r}")


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(RunSettings):
    """Settings of `vidgru explain`. What the detector computes comes from the model.

    Attributes:
        at: only what happens at this second of the recording.
        event: only the event of this number, by start, the first is 1.
        features: folder of the sequence cache.
        weights: where the model's detector lies, if not under the name it was trained with; it must be the same file.
    """

    at: float | None = None
    event: int | None = None
    features: str = "features"
    weights: str = ""

    def __post_init__(self) -> None:
        RunSettings.__post_init__(self)
        require(self.at is None or 0 <= self.at < float("inf"), "at", self.at, "a second of the recording, from 0")
        require(self.event is None or self.event >= 1, "event", self.event, "the number of an event, from 1")
        require(self.at is None or self.event is None, "at", self.at, "left out where event is given")
