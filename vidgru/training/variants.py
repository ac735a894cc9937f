"""What is compared: cells, and variants written as settings on top of the common ones."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from vidgru.config import CompareConfig, DetectorSettings, RuntimeSettings, TrainConfig
from vidgru.errors import SettingsError
from vidgru.flags import list_flags, suggest, with_flags

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
    """Parse `name=value`."""
    flags = list_flags(TrainConfig())
    name, equals, text = word.partition("=")
    name = name.replace("-", "_")
    if not equals:
        raise SettingsError(f"{word!r} is no setting", 'write name=value, several as in "hidden=64 lr=0.001"')
    if name not in flags:
        remedy = suggest(name, flags.keys() - _COMMON, "vidgru train --help lists them")
        raise SettingsError(f"there is no setting {name!r}", remedy)
    if name in _COMMON:
        raise SettingsError(f"{name} is common to all that is compared", f"give it as --{name.replace('_', '-')}")
    return name, flags[name].parse(text, separator="+")
