"""Wall-clock time: when recordings were made, and which part of the day is asked for."""

from __future__ import annotations

from datetime import datetime, timedelta

from vidgru.types import Event


class Period:
    """From `since` until `until`, the latter not included; either may be open.

    Args:
        since, until: ISO 8601 times; empty where open. Without an offset they are this machine's time, as those of
            recordings are.
    """

    def __init__(self, since: str, until: str) -> None:
        self._since, self._until = (
            datetime.fromisoformat(text).astimezone() if text else None for text in (since, until)
        )

    def __bool__(self) -> bool:
        """Whether it leaves out anything."""
        return self._since is not None or self._until is not None

    def touches(self, recorded_at: str, start_s: float, end_s: float) -> bool:
        """Whether any of these seconds of a recording that began at `recorded_at`, ISO 8601, lies in it."""
        began = datetime.fromisoformat(recorded_at).astimezone()
        start, end = (began + timedelta(seconds=second) for second in (start_s, end_s))
        return (self._until is None or start < self._until) and (self._since is None or end > self._since)


def start_time(event: Event, recorded_at: str) -> str:
    """ISO 8601 wall-clock time of an event's start, to the millisecond."""
    began, later = datetime.fromisoformat(recorded_at), timedelta(seconds=event.start_s)
    if began.tzinfo is None:  # this machine's time, whose clock may have been changed in between
        moment = (began.astimezone() + later).astimezone().replace(tzinfo=None)
    else:
        moment = began + later
    return moment.isoformat(timespec="milliseconds")
