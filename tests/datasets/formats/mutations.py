"""Annotation files with one thing wrong in them, for tests and `scripts/check_formats.py`."""

import json
import random
from typing import Any

_ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    10**400,
    "",
    "x",
    "\ud800",
    "a\0b",
    [],
    {},
    [[]],
]


def _change(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value in which one node is something else."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(_ODD)
    copy = dict(value) if isinstance(value, dict) else list(value)
    key: Any = rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
    if rng.random() < 0.15:
        del copy[key]
    else:
        copy[key] = _change(copy[key], rng)
    return copy


def mutate(kind: str, content: str, rng: random.Random) -> bytes:
    """A file with one thing wrong in it."""
    data = content.encode()
    how = rng.randrange(4)
    if how == 0:
        return data[: rng.randrange(len(data))]
    if how == 1:
        at = rng.randrange(len(data))
        return data[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 4))) + data[at + 1 :]
    if content[:1] in "[{" and kind not in ("native", "qvhighlights"):
        return json.dumps(_change(json.loads(content), rng)).encode()
    at = rng.choice([i for i, letter in enumerate(content) if letter in '",>= \n'] or [0])
    odd = rng.choice(["nan", "-5", "", "1e999", '"', "<", "&x;", "\0", "9" * 30, " ", "\n", ","])
    return (content[:at] + odd + content[at + rng.randrange(2) :]).encode()
