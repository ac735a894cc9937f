"""Recordings, what people say of them, and what models do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DESCRIBED = "described"  # the label of what is described, where no row of a data set has a label


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A video file to work on.

    Attributes:
        path: where it is.
        name: its path under the source root, with extension and forward slashes: what outputs call it.
    """

    path: Path
    name: str

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith("/") or ".." in Path(self.name).parts:
            raise ValueError(f"Recording.name must be a path under the source root, got {self.name!r}")


def _check_interval(kind: str, start_s: float, end_s: float) -> None:
    if not (math.isfinite(start_s) and math.isfinite(end_s) and 0 <= start_s < end_s):
        raise ValueError(f"{kind} needs 0 <= start_s < end_s, got start_s={start_s}, end_s={end_s}")


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What a person said about a recording. Without times it speaks of the whole clip.

    Attributes:
        video: path under the videos folder, as the annotation file writes it.
        start_s, end_s: half-open interval in seconds, both or neither.
        label: what happened; None for a text-only row, or for a recording in which nothing happens.
        description: a sentence; None if there is none.
        split: "train", "val", "test" or another name; None if the file does not say.
    """

    video: str
    start_s: float | None = None
    end_s: float | None = None
    label: str | None = None
    description: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        if (self.start_s is None) != (self.end_s is None):
            raise ValueError(f"Annotation needs both start_s and end_s or neither, got {self.start_s}, {self.end_s}")
        if self.start_s is not None and self.end_s is not None:
            _check_interval("Annotation", self.start_s, self.end_s)


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a model says about a recording: an annotation's fields and a score.

    Attributes:
        video: path under the source root.
        start_s, end_s: half-open interval in seconds.
        label: what happened.
        score: 0 to 1.
        description: a sentence; None if the model writes none.
        description_score: 0 to 1, how sure the model is of its sentence; None if it writes none.
        description_source: "model", or "template" where it is not sure enough of its own sentence: `description` is
            then put together from what was found, and the score is that of the sentence that was not told.
        start_time: ISO 8601 wall-clock time of `start_s`, where the recording's own is known.
    """

    video: str
    start_s: float
    end_s: float
    label: str
    score: float
    description: str | None = None
    description_score: float | None = None
    description_source: Literal["model", "template"] | None = None
    start_time: str | None = None

    def __post_init__(self) -> None:
        _check_interval("Event", self.start_s, self.end_s)
        if not 0 <= self.score <= 1:
            raise ValueError(f"Event.score must be within 0 and 1, got {self.score}")
        if self.description_score is not None and not 0 <= self.description_score <= 1:
            raise ValueError(f"Event.description_score must be within 0 and 1, got {self.description_score}")
