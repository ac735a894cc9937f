"""What a model tells apart, and by which heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vidgru.types import Array

NO_EVENT = "(no event)"


@dataclass(frozen=True, kw_only=True)
class Head:
    """How labels are told: of clips as a whole, or of every frame.

    Attributes:
        background: one output more, the last: nothing happens. Never with `multi_label`.
        multi_label: labels are independent of each other (sigmoid) rather than exclusive (softmax).
    """

    background: bool
    multi_label: bool

    def probabilities(self, logits: Tensor) -> Tensor:
        """Scores from 0 to 1, of the same shape; the last column is the background's where there is one."""
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be told apart. What the annotations hold decides the heads.

    Attributes:
        labels: names, the background not among them.
        clips: how a label of a clip as a whole is told; None where no clip is labelled so.
        timed: how it is told when something happens; None where no label has times. With neither, there is one label,
            and descriptions are all that the model is for.
    """

    labels: tuple[str, ...]
    clips: Head | None = None
    timed: Head | None = None

    def __post_init__(self) -> None:
        if not self.labels:
            raise ValueError("Task needs labels")
        if self.clips is None and self.timed is None and len(self.labels) > 1:
            raise ValueError(f"Task needs a head that tells {', '.join(self.labels)} apart")

    def names(self, head: Head) -> tuple[str, ...]:
        """Names of a head's outputs, as tables and plots show them."""
        return (*self.labels, NO_EVENT) if head.background else self.labels

    def outputs(self, head: Head | None) -> int:
        """Number of a head's outputs, 0 where there is none."""
        return 0 if head is None else len(self.labels) + head.background

    def vector(self, head: Head, labels: Iterable[str]) -> Array:
        """What a head should say where these labels hold: float32 [C], 0 and 1."""
        vector = np.zeros(self.outputs(head), np.float32)
        vector[[self.labels.index(label) for label in labels]] = 1.0
        if head.background and not vector.any():
            vector[-1] = 1.0
        return vector
