"""Names of classes, which text formats leave to a file beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from vidgru.errors import SettingsError

FACTS = ("data.yaml", "classes.txt", "labels.txt")
UNNAMED = 100  # classes that detections without names have room for: a fixed number, so that a model fits later ones


def find_facts(folder: Path) -> dict[str, Any]:
    """What a `data.yaml`, `classes.txt` or `labels.txt` in a folder says: `names`, `kpt_shape`; empty without one.

    Raises:
        SettingsError: it cannot be read.
    """
    path = next((path for name in FACTS if (path := folder / name).is_file()), None)
    return {} if path is None else read_facts(path)


def read_facts(path: Path) -> dict[str, Any]:
    """`names`, a tuple, and perhaps `kpt_shape`: of a YAML as Ultralytics trains on, or of a text with a name a line.

    Raises:
        SettingsError: it is neither.
    """
    remedy = "give a YAML with `names`, such as data.yaml, or a text file with a name a line"
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
        values = yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else {"names": text.split("\n")}
        if not isinstance(values, dict):
            raise ValueError("it is not a mapping")
        facts = {name: values[name] for name in ("names", "kpt_shape") if name in values}
        names = facts.get("names", ())
        if isinstance(names, dict):
            names = [names.get(number, f"class {number}") for number in range(max(map(int, names)) + 1)]
        facts["names"] = tuple(name for name in (str(name).strip() for name in names) if name)
        shape = facts.get("kpt_shape")
        if shape is not None and (len(shape) != 2 or int(shape[0]) < 1 or int(shape[1]) not in (2, 3)):
            raise ValueError(f"kpt_shape is {shape}; it must be [keypoints, 2 or 3]")
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise SettingsError(f"the names of classes cannot be read from {path}: {reason}", remedy) from None
    if not facts["names"]:
        raise SettingsError(f"{path} holds no names of classes", remedy)
    return facts


def numbered(first: int) -> tuple[str, ...]:
    """Names of classes that have none, by the number that the first has."""
    return tuple(f"class {number}" for number in range(first, first + UNNAMED))
