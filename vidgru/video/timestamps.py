"""Frame timestamps: choose a frame's stamp, decide which frames are samples, date recordings by their file names."""

from __future__ import annotations

import re
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidgru.errors import SettingsError

_JOIN_STEP_S = 1  # between the first two frames after a join
# Digits of each numeric strptime field.
_DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "y": 2, "j": 3, "I": 2}


class TimestampSelector:
    """Choose between presentation (PTS) and decoding (DTS) timestamps as players do.

    Some writers (AVI with packed B-frames) store PTS that jump back and forth. As in `guess_correct_pts` of
    FFmpeg's libavcodec/decode.c, whichever of the two has decreased less often is used.
    """

    def __init__(self) -> None:
        self._latest: list[int | None] = [None, None]
        self._faults = [0, 0]

    @property
    def is_steady(self) -> bool:
        """Whether no PTS has decreased so far, so that they are used whatever the DTS are.

        FFmpeg gives two frames the same DTS before an IDR picture of H.265 with B-frames, without any damage.
        """
        return not self._faults[0]

    def select(self, pts: int | None, dts: int | None) -> int | None:
        """Return the timestamp of the next frame in ticks; None if it has none."""
        for kind, (value, other) in enumerate(((pts, dts), (dts, pts))):
            latest = self._latest[kind]
            if value is not None:
                self._faults[kind] += latest is not None and value <= latest
                self._latest[kind] = value
            elif other is not None:
                self._latest[kind] = other
        use_pts = pts is not None and (self._faults[0] <= self._faults[1] or dts is None)
        return pts if use_pts else dts


class ClockJoin:
    """Continue the clock of files that were joined byte by byte, as `cat a.ts b.ts > c.ts` does with transport streams.

    Each part starts its clock anew, so that without an offset the second part would lie on top of the first. Parts
    start with key frames. A single damaged timestamp is no join: the next frame has to follow it on the new clock.

    Attributes:
        offset: Seconds to add to times on the current clock.
    """

    def __init__(self) -> None:
        self.offset = Fraction(0)
        self._end = Fraction(0)
        self._held: tuple[Fraction, Fraction, Any] | None = None

    def push(self, time: Fraction, duration: Fraction, item: Any, *, is_key: bool) -> list[tuple[Fraction, Any]]:
        """Take a frame or packet at `time` on its own clock; return those that are certain, with their times."""
        ready = self.flush(follower=time)
        if is_key and time + self.offset < self._end - duration / 2:
            self._held = (time, duration, item)
        else:
            ready.append(self._pass(time, duration, item))
        return ready

    def flush(self, follower: Fraction | None = None) -> list[tuple[Fraction, Any]]:
        """Return what is held back, given the time of the next frame or packet; None at the end."""
        if self._held is None:
            return []
        time, duration, item = self._held
        self._held = None
        if follower is not None and abs(follower - time) < _JOIN_STEP_S:
            self.offset = self._end - time
        return [self._pass(time, duration, item)]

    def _pass(self, time: Fraction, duration: Fraction, item: Any) -> tuple[Fraction, Any]:
        time += self.offset
        self._end = max(self._end, time + duration)
        return time, item


class SamplingGrid:
    """The sampling rule.

    Grid point k is at `k / fps` seconds. Its sample is the first frame with `time >= k / fps`, within half a tick of
    the stream's time base, because containers round times to ticks. A frame is taken once, so a gap, or a source
    slower than `fps`, gives fewer samples and never repeats.

    Args:
        fps: Samples per second.
    """

    def __init__(self, fps: float) -> None:
        self.rate = Fraction(repr(float(fps)))  # 0.1 means 1/10, not its nearest binary fraction
        self._next_point = 0

    def is_sample(self, time: Fraction, tick: Fraction) -> bool:
        """Return whether the next frame, at `time` seconds, is a sample. Frames may come in any order of time."""
        point = (time + tick / 2) * self.rate
        if point < self._next_point:
            return False
        self.take(time, tick)
        return True

    def take(self, time: Fraction, tick: Fraction) -> None:
        """Take a frame as a sample unconditionally: the next sample belongs to a later grid point."""
        self._next_point = int((time + tick / 2) * self.rate) + 1


class StartTimes:
    """Start times of recordings, from the setting `start_time`.

    Args:
        start_time: An ISO 8601 time for all recordings, or a `strptime` pattern to search for in their file names,
            such as `%Y%m%d_%H%M%S`. Empty: unknown.

    Raises:
        SettingsError: `start_time` is neither.
    """

    def __init__(self, start_time: str) -> None:
        self._pattern: str | None = None
        self._fixed: str | None = None
        if "%" in start_time:
            self._pattern = start_time
            try:
                self._regex = re.compile(_pattern_regex(start_time))
            except KeyError as error:
                raise SettingsError(
                    f"start_time is {start_time!r}; the field %{error.args[0]} is not supported",
                    f"supported fields: {' '.join(f'%{field}' for field in (*_DIGITS, 'f', 'p', 'b', 'B', 'z'))}",
                ) from None
        elif start_time:
            try:
                self._fixed = datetime.fromisoformat(start_time).isoformat()
            except ValueError:
                raise SettingsError(
                    f"start_time is {start_time!r}; it must be an ISO 8601 time such as 2024-05-06T07:08:09, "
                    "or a pattern of file names such as %Y%m%d_%H%M%S"
                ) from None

    def of(self, path: Path) -> str | None:
        """Return the ISO 8601 time at which a recording starts; None if it is unknown or not in the file name."""
        if self._pattern is None:
            return self._fixed
        for match in self._regex.finditer(path.name):
            try:
                return datetime.strptime(match[0], self._pattern).isoformat()
            except ValueError:  # digits that are not a date
                continue
        return None


def _pattern_regex(pattern: str) -> str:
    """Return a regular expression of the text that a `strptime` pattern matches.

    Raises:
        KeyError: The pattern has an unsupported field.
    """
    others = {"f": r"\d{1,6}", "p": "[AaPp][Mm]", "b": r"[^\W\d_]{3,}", "B": r"[^\W\d_]{3,}", "%": "%"}
    others["z"] = r"(?:[+-]\d{2}:?\d{2}|Z)"
    pieces = re.split("%(.)", pattern)
    regex = re.escape(pieces[0])
    for name, literal in zip(pieces[1::2], pieces[2::2], strict=True):
        regex += (rf"\d{{{_DIGITS[name]}}}" if name in _DIGITS else others[name]) + re.escape(literal)
    return regex
