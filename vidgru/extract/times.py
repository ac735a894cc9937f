"""Times that containers and streams tell: where they start, how fast they run, when they were made."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import av


class Clock:
    """Chooses between a frame's presentation and decoding stamps as players do.

    Some writers (AVI with packed B-frames) give presentation stamps that go back and forth. This is
    `guess_correct_pts` of FFmpeg's libavcodec/decode.c: whichever of the two went back less often is believed.
    """

    def __init__(self) -> None:
        self._latest: list[int | None] = [None, None]
        self._faults = [0, 0]

    def stamp(self, pts: int | None, dts: int | None) -> int | None:
        """The stamp to believe, in ticks; None if there is none."""
        for kind, (value, other) in enumerate(((pts, dts), (dts, pts))):
            latest = self._latest[kind]
            if value is not None:
                self._faults[kind] += latest is not None and value <= latest
                self._latest[kind] = value
            elif other is not None:
                self._latest[kind] = other
        believed = pts is not None and (self._faults[0] <= self._faults[1] or dts is None)
        return pts if believed else dts


def frame_rate(stream: Any) -> Fraction | None:
    """Average frames a second; None if the container gives none."""
    rate = stream.average_rate
    return Fraction(rate.numerator, rate.denominator) if rate else None


def container_start(container: Any) -> Fraction:
    """Start of the earliest stream in seconds, exact; the container's own start, in microseconds, where they differ."""
    timed = [s for s in (*container.streams.video, *container.streams.audio) if s.start_time is not None]
    starts = [s.start_time * Fraction(s.time_base.numerator, s.time_base.denominator) for s in timed]
    if container.start_time is None:
        return min(starts, default=Fraction(0))
    rounded = Fraction(container.start_time, av.time_base)
    near = [start for start in starts if abs(start - rounded) <= Fraction(2, av.time_base)]
    return min(near, default=rounded)


def recorded_at(*metadata: dict[str, str]) -> str | None:
    """ISO 8601 creation time, UTC; None where it is missing, unreadable or a clock that was never set."""
    for values in metadata:
        try:
            made = datetime.fromisoformat(values["creation_time"])
        except (KeyError, ValueError):
            continue
        made = made if made.tzinfo else made.replace(tzinfo=UTC)
        if made.year > 1990:
            return made.astimezone(UTC).isoformat()
    return None
