"""Wall-clock times as recordings tell them: not moved to another time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def clock(recorded_at: str | None) -> dict[str, Any] | None:
    """When a recording begins, for a page: the digits of its own clock in milliseconds as if UTC, and its zone.

    Args:
        recorded_at: ISO 8601; None where it is not known.
    """
    if recorded_at is None:
        return None
    moment = datetime.fromisoformat(recorded_at)
    digits = moment.replace(tzinfo=UTC)
    return {"ms": round(digits.timestamp() * 1000), "zone": moment.strftime("%z")}
