"""Where the decoding of a recording can go on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """The last sample of a stretch that is done: where decoding can go on.

    Attributes:
        samples: how many there are up to it, itself included.
        index: of its frame among the decoded frames of the source.
        key_pts, key_index: stamp and index of a key frame at or before it, from which decoding gives the same frames
            again. None where that is not sure (damaged so far, times out of order): then it goes from the start.
        image: hash of its image, which has to come out the same; None where none is known.
    """

    samples: int
    index: int
    key_pts: int | None
    key_index: int
    image: str | None


class ResumePointNotFoundError(Exception):
    """Decoding does not come by the place at which it was to go on."""
