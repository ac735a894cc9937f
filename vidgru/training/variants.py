"""What is compared: cells, and variants written as settings on top of the common ones."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from vidgru.config import CompareConfig, DetectorSettings, RuntimeSettings, TrainConfig, flag_types, with_flags
from vidgru.errors import SettingsError

# what all that is compared has in common: the data, and where and how it is run
_COMMON = {field.name for kind in (DetectorSettings, RuntimeSettings) for field in fields(kind)}
_COMMON |= {"features", "out", "allow_missing", "folds", "group_by", "resume", "captions"}


def variants(config: CompareConfig) -> dict[str, TrainConfig]:
    """Settings of each row of a comparison, by its name: first the cells, then the variants, each once.

    Raises:
        SettingsError: a variant names a setting that there is not or that all have in common, or a value that cannot
            be.
    """
    rows = {str(cell): with_flags(config.train, cell=cell) for cell in config.cells}
    for text in config.variants:
        try:
            rows[text] = with_flags(config.train, **dict(_setting(word) for word in text.split()))
        except SettingsError as error:
            raise SettingsError(f"variant {text!r}: {error.message}", error.remedy) from None
    return rows


def _setting(word: str) -> tuple[str, Any]:
    """Name and value of `name=value`."""
    kinds = flag_types(TrainConfig())
    name, equals, text = word.partition("=")
    name = name.replace("-", "_")
    if not equals:
        raise SettingsError(f"{word!r} is no setting", 'write name=value, several as in "hidden=64 lr=0.001"')
    if name not in kinds:
        near = get_close_matches(name, kinds.keys() - _COMMON, n=1)
        raise SettingsError(
            f"there is no setting {name!r}", f"did you mean {near[0]}?" if near else "vidgru train --help lists them"
        )
    if name in _COMMON:
        raise SettingsError(f"{name} is common to all that is compared", f"give it as --{name.replace('_', '-')}")
    if get_origin(kinds[name]) is tuple:
        return name, tuple(_value(name, part, get_args(kinds[name])[0]) for part in text.split("+") if part)
    return name, _value(name, text, kinds[name])


def _value(name: str, text: str, kind: Any) -> Any:
    """A value of one kind: a text, one of several texts, a number, true or false."""
    allowed = ("true", "false") if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()
    if allowed and text not in allowed:
        raise SettingsError(f"{name} is {text!r}; it must be one of {', '.join(allowed)}")
    if kind is bool:
        return text == "true"
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{name} is {text!r}; it must be {what}") from None
