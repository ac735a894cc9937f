"""Times that containers and streams tell: where they start, how fast they run, when they were made."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from vidgru.errors import SettingsError

_DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "y": 2, "j": 3, "I": 2}  # of strptime's fields


class TimestampSelector:
    """Chooses between a frame's presentation and decoding stamps as players do.

    Some writers (AVI with packed B-frames) give presentation stamps that go back and forth. This is
    `guess_correct_pts` of FFmpeg's libavcodec/decode.c: whichever of the two went back less often is believed.
    """

    def __init__(self) -> None:
        self._latest: list[int | None] = [None, None]
        self._faults = [0, 0]

    @property
    def steady(self) -> bool:
        """Whether no stamp has gone back so far."""
        return not any(self._faults)

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


class StartTimes:
    """When recordings begin, as the user says.

    Args:
        start_time: an ISO 8601 time, of all recordings, or a `strptime` pattern to be looked for in their names, such
            as `%Y%m%d_%H%M%S`; empty where nothing is said.

    Raises:
        SettingsError: it is neither.
    """

    def __init__(self, start_time: str) -> None:
        self._pattern: str | None = None
        self._fixed: str | None = None
        if "%" in start_time:
            self._pattern = start_time
            try:
                self._regex = re.compile(_as_regex(start_time))
            except KeyError as error:
                raise SettingsError(
                    f"start_time is {start_time!r}; the field %{error.args[0]} is not known",
                    f"fields are {' '.join(f'%{field}' for field in (*_DIGITS, 'f', 'p', 'b', 'B', 'z'))}",
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
        """ISO 8601 time at which a recording begins; None where nothing is said, or its name does not tell."""
        if self._pattern is None:
            return self._fixed
        for found in self._regex.finditer(path.name):
            try:
                return datetime.strptime(found[0], self._pattern).isoformat()
            except ValueError:  # digits that are no date
                continue
        return None


def _as_regex(pattern: str) -> str:
    """A regular expression for what a `strptime` pattern may match. Raises KeyError for fields it does not know."""
    others = {"f": r"\d{1,6}", "p": "[AaPp][Mm]", "b": r"[^\W\d_]{3,}", "B": r"[^\W\d_]{3,}", "%": "%"}
    others["z"] = r"(?:[+-]\d{2}:?\d{2}|Z)"
    pieces = re.split("%(.)", pattern)
    regex = re.escape(pieces[0])
    for name, literal in zip(pieces[1::2], pieces[2::2], strict=True):
        regex += (rf"\d{{{_DIGITS[name]}}}" if name in _DIGITS else others[name]) + re.escape(literal)
    return regex
