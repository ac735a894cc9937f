"""What is said of an event when the model is not sure enough of a sentence of its own: what was found, put together."""

from __future__ import annotations

from collections.abc import Sequence

from vidgru.types import DESCRIBED, Event

_MOST = 3  # classes that are named


def template(event: Event, names: Sequence[str]) -> str:
    """Objects, label and time: "person, bag: left behind, 00:12\N{EN DASH}00:15".

    Without the label where it says no more than that there is something to describe: "person, 00:12\N{EN DASH}00:15".

    Args:
        event: its label and times are told.
        names: of the classes that were seen, the most seen first; the first few are named.
    """
    label = "" if event.label == DESCRIBED else event.label.replace("_", " ").strip()
    hours = event.end_s >= 3600
    when = f"{_clock(event.start_s, hours)}\N{EN DASH}{_clock(event.end_s, hours)}"
    objects = ", ".join(names[:_MOST])
    what = ": ".join(filter(None, (objects, label)))
    return ", ".join(filter(None, (what, when)))


def _clock(seconds: float, hours: bool) -> str:
    whole = int(seconds)
    text = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{text}" if hours else text
