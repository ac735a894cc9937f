"""Flat flags of nested configs: the flags of the command line, the keys of YAML files, and checks of their values.

A config is a frozen dataclass whose fields are settings, or groups of settings that are dataclasses themselves. Its
flags are its own settings and those of its groups, with unique names; `Attributes:` of the docstrings holds their help.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from inspect import getdoc
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from vidgru.errors import SettingsError
from vidgru.numbers import clock

Config = TypeVar("Config")
# a setting of this type is a float, and may be written as a clock time on the command line and in YAML
RecordingTime = Annotated[float, "seconds from the start of a recording"]
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A setting as a flag.

    Attributes:
        name: Name of the field, with underscores.
        type: str, int, float or bool; the type of an item if it is a list.
        is_list: The value is a tuple.
        is_optional: The value may be None.
        is_mapping: The value may be a number per name, such as fall=0.4,sit=0.6.
        is_time: The value is a time of a recording; as text, seconds or a clock time such as 1:23.5.
        choices: Allowed values; empty if any value of the type is.
        group: First sentence of the docstring of its class.
        help: Help text.
    """

    name: str
    type: type[Any]
    is_list: bool
    is_optional: bool
    is_mapping: bool
    is_time: bool
    choices: tuple[str, ...]
    group: str
    help: str

    @property
    def option(self) -> str:
        """The flag as it is written on a command line: `for_` is --for, because `for` is a keyword of Python."""
        return f"--{self.name.rstrip('_').replace('_', '-')}"

    def parse(self, value: Any, separator: str = ",") -> Any:
        """Convert text to the type of the setting.

        Args:
            value: Text, or a value from a YAML file whose scalars are text.
            separator: Separator of the items of a list, unless they come as a list.

        Raises:
            SettingsError: The text is not a value of this type.
        """
        if self.is_list:
            items = value if isinstance(value, list) else value.strip("[]").split(separator)
            return tuple(self._parse_item(item.strip()) for item in items if item.strip())
        if self.is_optional and value in ("", "null", "~"):
            return None
        if self.is_mapping and (isinstance(value, dict) or "=" in value):
            return self._parse_mapping(value)
        return self._parse_item(value)

    def _parse_mapping(self, value: Any) -> dict[str, Any]:
        if isinstance(value, dict):
            return {name: self._parse_item(item) for name, item in value.items()}
        pairs = re.compile(r"\s*(.+?)\s*=([^,=]*)(?:,|$)")  # a name may contain commas and equals signs
        require(not pairs.sub("", value), self.name, value, "a number, or numbers by name such as fall=0.4,sit=0.6")
        return {name: self._parse_item(item.strip()) for name, item in pairs.findall(value)}

    def _parse_item(self, value: Any) -> Any:
        if not isinstance(value, str):
            require(self.type is str and not self.choices, self.name, value, "a single value")
            return json.dumps(value)  # a mask written as a YAML list
        if self.type is bool:
            require(value.lower() in _BOOLEANS, self.name, value, "one of true, false")
            return _BOOLEANS[value.lower()]
        self.check(value, is_item=True)
        if self.is_time:
            seconds = clock(value)
            require(not math.isnan(seconds), self.name, value, "seconds (83.5) or a clock time (1:23.5)")
            return seconds
        try:
            return self.type(value)
        except ValueError:
            kind = "a whole number" if self.type is int else "a number"
            raise _bad_value(self.name, value, kind) from None

    def check(self, value: Any, *, is_item: bool = False) -> None:
        """Check that a list is a tuple, and each item one of the choices.

        Raises:
            SettingsError: The value is not allowed.
        """
        if self.is_list and not is_item:
            require(isinstance(value, tuple), self.name, value, "a tuple")
        for item in value if isinstance(value, tuple) else (value,):
            allowed = not self.choices or item in self.choices or (item is None and self.is_optional)
            require(allowed, self.name, item, f"one of {', '.join(self.choices)}")


def list_flags(config: Any) -> dict[str, Flag]:
    """Return the flags of a config by name: those of its own fields, then those of its groups."""
    flags = dict(_own_flags(config.__class__))
    for value in vars(config).values():
        if is_dataclass(value):
            flags |= list_flags(value)
    return flags


@cache
def _own_flags(kind: Any) -> dict[str, Flag]:
    """Return the flags of a dataclass without those of its groups."""
    hints, document = get_type_hints(kind, include_extras=True), getdoc(kind) or ""
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", document.partition("Attributes:\n")[2], flags=re.MULTILINE)
    texts = {name: " ".join(text.split()) for name, text in entries}
    flags = {}
    for name in (item.name for item in fields(kind)):
        hint = hints[name]
        if is_dataclass(hint):
            continue
        is_list, is_optional = get_origin(hint) is tuple, get_origin(hint) in (Union, UnionType)
        is_mapping = any(get_origin(part) is Mapping for part in get_args(hint))
        is_time = RecordingTime in (hint, *get_args(hint))
        if is_list or is_optional:
            hint = next(part for part in get_args(hint) if part is not type(None))
        choices = tuple(map(str, get_args(hint))) if get_origin(hint) is Literal else ()
        flags[name] = Flag(
            name=name,
            type=str if choices else float if is_time else hint,
            is_list=is_list,
            is_optional=is_optional,
            is_mapping=is_mapping,
            is_time=is_time,
            choices=choices,
            group=document.partition("\n")[0].partition(". ")[0].removesuffix("."),
            help=texts[name],
        )
    return flags


def to_settings(config: object) -> dict[str, Any]:
    """Return the settings of a config and of all its groups, flat, by name."""
    settings: dict[str, Any] = {}
    for name, value in vars(config).items():
        settings |= to_settings(value) if is_dataclass(value) else {name: value}
    return settings


def from_settings(kind: type[Config], /, **settings: Any) -> Config:
    """Build a config from flat settings: `from_settings(ExtractConfig, fps=5, out="features")`.

    Raises:
        SettingsError: An unknown setting or a bad value.
    """
    return with_settings(kind(), **settings)


def with_settings(config: Config, /, **settings: Any) -> Config:
    """Return a copy of a config with some settings changed, whichever group they belong to.

    Raises:
        SettingsError: An unknown setting or a bad value.
    """
    known = to_settings(config)
    if unknown := settings.keys() - known.keys():
        name = min(unknown)
        raise SettingsError(f"unknown setting {name!r}", suggest(name, known, f"the settings are: {', '.join(known)}"))
    changes = {name: value for name, value in settings.items() if name in vars(config)}
    for name, group in vars(config).items():
        if is_dataclass(group) and (of_group := {key: settings[key] for key in to_settings(group) if key in settings}):
            changes[name] = with_settings(group, **of_group)
    return replace(config, **changes)  # type: ignore[type-var]


def suggest(name: str, known: Iterable[str], remedy: str) -> str:
    """Return "did you mean ...?" if a known name is similar, else the remedy."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else remedy


# --- checks ---------------------------------------------------------------------------------------------------------


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise SettingsError, naming the setting, its value and what is allowed, unless the condition holds."""
    if not condition:
        raise _bad_value(name, value, allowed)


def _bad_value(name: str, value: object, allowed: str) -> SettingsError:
    return SettingsError(f"{name} is {value!r}; it must be {allowed}")


def check_choices(config: Any) -> None:
    """Check choices and tuples of a config made in Python; the command line has checked its values already."""
    for name, flag in _own_flags(config.__class__).items():
        flag.check(getattr(config, name))


def parse_duration(name: str, text: str) -> float | None:
    """Parse a duration such as 90s, 30m or 2h into seconds; None if it is empty.

    Raises:
        SettingsError: The text is not a duration above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0.0
    require(not text or seconds > 0, name.rstrip("_"), text, "a duration such as 90s, 30m or 2h")
    return seconds or None


def parse_time(name: str, text: str) -> datetime | None:
    """Parse an ISO 8601 time, in local time if it has no offset; None if it is empty.

    Raises:
        SettingsError: The text is not a time.
    """
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise SettingsError(f"{name} is {text!r}; it must be an ISO 8601 time", "such as 2024-05-06T07:08:09") from None
