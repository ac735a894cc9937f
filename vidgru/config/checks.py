"""What settings are held against when they are made."""

from __future__ import annotations

from datetime import datetime
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vidgru.errors import SettingsError


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a value. Raises SettingsError."""
    if not condition:
        raise SettingsError(f"{name} is {value!r}; it must be {allowed}")


def require_choices(config: Any) -> None:
    """Refuse what is not among the values that a field has (`Literal`), and texts where a tuple of them is due.

    The command line has seen to this when it makes a config; Python has not. Raises SettingsError.
    """
    for name, kind in get_type_hints(type(config)).items():
        value: Any = getattr(config, name, None)
        if get_origin(kind) in (Union, UnionType):
            if value is None:
                continue
            kind = next(one for one in get_args(kind) if one is not type(None))
        values: tuple[Any, ...] = (value,)
        if get_origin(kind) is tuple:
            require(isinstance(value, tuple), name, value, "a tuple")
            kind, values = get_args(kind)[0], tuple(value)
        if get_origin(kind) is Literal:
            for one in values:
                require(one in get_args(kind), name, one, f"one of {', '.join(map(str, get_args(kind)))}")


def moment(name: str, text: str) -> datetime | None:
    """The moment that an ISO 8601 text means, None where it is empty. Without an offset it is this machine's time."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; it must be an ISO 8601 time", "such as 2024-05-06T07:08:09") from None
