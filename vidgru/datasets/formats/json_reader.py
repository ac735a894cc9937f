"""JSON files: parsed, and walked with the path at hand, so that whatever has the wrong type can be named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidgru.datasets.formats.parsing import number, read_text
from vidgru.datasets.rows import InvalidEntryError
from vidgru.errors import AnnotationError

_SHOWN = 60  # characters of a value in an error
_MOST = 1e15  # no time, rate or count comes near it, and its milliseconds are still finite


@dataclass(frozen=True)
class Node:
    """A value in a JSON file and its path, such as `database.v_abc.annotations[2]`.

    Each way of taking it raises InvalidEntryError where the value is of another kind.
    """

    value: Any
    path: str = "the file"

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def __getitem__(self, key: str) -> Node:
        """What stands under `key`; None where nothing does."""
        if not isinstance(self.value, dict):
            raise self.bad("an object")
        return Node(self.value.get(key), self._under(key))

    def _under(self, key: str) -> str:
        return key if self.path == "the file" else f"{self.path}.{key}"

    def items(self) -> Iterator[tuple[str, Node]]:
        """The keys of an object and what stands under them."""
        if not isinstance(self.value, dict):
            raise self.bad("an object")
        for key, value in self.value.items():
            yield key, Node(value, self._under(key))

    def each(self) -> Iterator[Node]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            raise self.bad("a list")
        for index, value in enumerate(self.value):
            yield Node(value, f"{'' if self.path == 'the file' else self.path}[{index}]")

    def text(self) -> str:
        """Text; a whole number is taken for it too."""
        if isinstance(self.value, bool) or not isinstance(self.value, str | int):
            raise self.bad("text")
        return str(self.value)

    def maybe_text(self) -> str:
        """Text, or empty where there is none."""
        return "" if self.value is None else self.text()

    def number(self) -> float:
        """A finite number of fewer than 16 digits; text that spells one is taken for it too."""
        value = number(self.value) if isinstance(self.value, str) else self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MOST:  # NaN fails too
            raise self.bad("a number")
        return float(value)

    def above_0(self) -> float:
        """A finite number above 0."""
        value = self.number()
        if value <= 0:
            raise self.bad("a number above 0")
        return value

    def pair(self) -> tuple[float, float]:
        """A list of two numbers."""
        numbers = [node.number() for node in self.each()]
        if len(numbers) != 2:
            raise self.bad("two numbers, start and end")
        return numbers[0], numbers[1]

    def bad(self, wanted: str) -> InvalidEntryError:
        """The error that this is not what it should be."""
        if self.value is None:
            return InvalidEntryError(self.path, f"missing; it must be {wanted}", "see docs/formats.md for the format")
        shown = json.dumps(self.value)[:_SHOWN]
        return InvalidEntryError(self.path, f"{shown} is not {wanted}", "see docs/formats.md for the format")


def read_json(path: Path) -> Node:
    """The whole of a JSON file.

    Raises:
        AnnotationError: it is not UTF-8, or not JSON; with the line.
    """
    text = read_text(path)
    try:
        return Node(json.loads(text))
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path}, line {error.lineno}: not JSON: {error.msg}", "is the file whole? export it again"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets without end
        raise AnnotationError(f"{path}: not JSON that can be read: {error}", "export it again") from error
