"""What settings are held against when they are made."""

from __future__ import annotations

from datetime import datetime

from vidgru.errors import SettingsError


def need(condition: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a value. Raises SettingsError."""
    if not condition:
        raise SettingsError(f"{name} is {value!r}; it must be {allowed}")


def moment(name: str, text: str) -> datetime | None:
    """The moment that an ISO 8601 text means, None where it is empty. Without an offset it is this machine's time."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; it must be an ISO 8601 time", "such as 2024-05-06T07:08:09") from None
