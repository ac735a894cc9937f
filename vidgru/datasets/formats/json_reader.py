"""JSON files, walked together with the path of each value, so that errors can name it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidgru.datasets.formats.parsing import read_text
from vidgru.datasets.rows import InvalidEntryError
from vidgru.errors import AnnotationError
from vidgru.numbers import number
from vidgru.storage import parse_json

_REMEDY = "see docs/annotations.md for the format"
_SHOWN = 60  # characters of a value in an error
_MAX_NUMBER = 1e15  # beyond any time, rate or count


@dataclass(frozen=True)
class Node:
    """A value in a JSON file and its path, such as `database.v_abc.annotations[2]`.

    Every accessor raises InvalidEntryError if the value has another type.
    """

    value: Any
    path: str = "the file"

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def __getitem__(self, key: str) -> Node:
        """Return the value of a key; a node of None if it is absent."""
        if not isinstance(self.value, dict):
            raise self.bad("an object")
        return Node(self.value.get(key), self._under(key))

    def _under(self, key: str) -> str:
        return key if self.path == "the file" else f"{self.path}.{key}"

    def items(self) -> Iterator[tuple[str, Node]]:
        """Iterate over the keys and values of an object."""
        if not isinstance(self.value, dict):
            raise self.bad("an object")
        for key, value in self.value.items():
            yield key, Node(value, self._under(key))

    def each(self) -> Iterator[Node]:
        """Iterate over the elements of a list."""
        if not isinstance(self.value, list):
            raise self.bad("a list")
        for index, value in enumerate(self.value):
            yield Node(value, f"{'' if self.path == 'the file' else self.path}[{index}]")

    def text(self) -> str:
        """Return text; whole numbers are accepted too."""
        if isinstance(self.value, bool) or not isinstance(self.value, str | int):
            raise self.bad("text")
        return str(self.value)

    def maybe_text(self) -> str:
        """Return text, or an empty string for null."""
        return "" if self.value is None else self.text()

    def number(self) -> float:
        """Return a finite number of fewer than 16 digits; numeric text is accepted too."""
        value = number(self.value) if isinstance(self.value, str) else self.value
        if (
            isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MAX_NUMBER
        ):  # NaN fails too
            raise self.bad("a number")
        return float(value)

    def above_0(self) -> float:
        """Return a finite number above 0."""
        value = self.number()
        if value <= 0:
            raise self.bad("a number above 0")
        return value

    def pair(self) -> tuple[float, float]:
        """Return a list of two numbers."""
        numbers = [node.number() for node in self.each()]
        if len(numbers) != 2:
            raise self.bad("two numbers, start and end")
        return numbers[0], numbers[1]

    def bad(self, wanted: str) -> InvalidEntryError:
        """Make the error for a value of the wrong type."""
        if self.value is None:
            return InvalidEntryError(
                self.path, f"missing; it must be {wanted}", "see docs/annotations.md for the format"
            )
        shown = json.dumps(self.value)[:_SHOWN]
        return InvalidEntryError(self.path, f"{shown} is not {wanted}", _REMEDY)


def read_json(path: Path) -> Node:
    """Parse a JSON file.

    Raises:
        AnnotationError: It is not UTF-8 or not JSON; names the line.
    """
    text = read_text(path)
    try:
        return Node(parse_json(text))
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"{path}, line {error.lineno}: not JSON: {error.msg}", "the file may be incomplete: export it again"
        ) from error
    except ValueError as error:  # a number with thousands of digits; endless nesting
        raise AnnotationError(f"{path}: unreadable JSON: {error}", "export it again") from error
