"""Sequences as the model takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidgru.types.sequence import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """A sequence as the model takes it: one vector an object and one a frame, ready to be cut into windows.

    Attributes:
        objects: float32 [M, F], rows as in the sequence.
        offsets: int64 [T + 1], first object of each frame.
        frame: float32 [T, G].
        time_s: float64 [T].
    """

    objects: Array
    offsets: Array
    frame: Array
    time_s: Array

    def __post_init__(self) -> None:
        frames = len(self.time_s)
        if self.offsets.shape != (frames + 1,) or self.offsets[-1] != len(self.objects) or len(self.frame) != frames:
            raise ValueError(
                f"Features do not fit: objects {list(self.objects.shape)}, offsets {list(self.offsets.shape)}, "
                f"frame {list(self.frame.shape)}, time_s {list(self.time_s.shape)}"
            )

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.time_s)

    def frames(self, start: int, stop: int) -> Features:
        """Frames `start` to `stop` (indices as in a Python slice, not negative), as views of the same memory."""
        start, stop = min(start, len(self)), min(max(start, stop), len(self))
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return Features(
            objects=self.objects[first:last],
            offsets=self.offsets[start : stop + 1] - first,
            frame=self.frame[start:stop],
            time_s=self.time_s[start:stop],
        )

    @staticmethod
    def concatenate(parts: Sequence[Features]) -> Features:
        """Join consecutive stretches, at least one."""
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        return Features(
            objects=np.concatenate([part.objects for part in parts]),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            frame=np.concatenate([part.frame for part in parts]),
            time_s=np.concatenate([part.time_s for part in parts]),
        )
