"""Settings of the small commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidgru.config.checks import require, require_choices

AnnotationFormat = Literal[
    "native", "folders", "list", "activitynet", "e2e-spot", "soccernet", "label-studio", "elan", "msr-vtt", "cvat",
    "kinetics",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Settings of `vidgru convert`. What a data set YAML says comes from there, and these on top.

    Attributes:
        format: of the file that is read; recognised by its content where none is given.
        fps: frames a second in which the file counts, where it does not tell (CVAT, Label Studio); 0 leaves it to it.
        half_width: seconds before and after a moment that its event reaches; 0 takes the data set YAML's, or half a
            second.
        tiers: tiers (ELAN) or attributes (CVAT) that hold the labels; all where none is given.
    """

    format: AnnotationFormat | None = None
    fps: float = 0.0
    half_width: float = 0.0
    tiers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_choices(self)
        require(0 <= self.fps <= 1000, "fps", self.fps, "from 0 to 1000")
        require(0 <= self.half_width <= 3600, "half_width", self.half_width, "from 0 to 3600 seconds")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of `vidgru export`.

    Attributes:
        format: of what is written.
        out: the file; empty puts it beside the model, under its name.
    """

    format: Literal["onnx"] = "onnx"
    out: str = ""

    def __post_init__(self) -> None:
        require_choices(self)


@dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """Settings of `vidgru info`.

    Attributes:
        verify: read every byte of a cache or an entry and hold it against what was written; unsound entries are marked,
            and the next extraction makes them again.
        prune: delete from a cache the entries of recordings that are gone or have changed, and what killed runs left.
    """

    verify: bool = False
    prune: bool = False


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of `vidgru demo`.

    Attributes:
        out: folder of everything it makes.
        clips_per_kind: clips drawn of each kind of event.
        recordings: of about a minute, drawn with timed events.
        seed: of the scenes and of the training.
    """

    out: str = "demo"
    clips_per_kind: int = 32
    recordings: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clips_per_kind", "recordings"):
            require(getattr(self, name) >= 3, name, getattr(self, name), "at least 3, one for each split")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
