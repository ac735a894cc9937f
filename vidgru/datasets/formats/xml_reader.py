"""XML files, read one child of the root at a time: memory is bounded by the largest child, not by the file.

Built on expat rather than ElementTree's iterparse, which cannot give the line numbers that errors name. Document types
are refused, and with them entities, which could expand without bound or read other files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from vidgru.datasets.rows import InvalidEntryError
from vidgru.errors import AnnotationError
from vidgru.numbers import number

_CHUNK = 1 << 16


@dataclass(eq=False)
class Element:
    """An element with its attributes, children, text and line number."""

    tag: str
    attributes: dict[str, str]
    line: int
    children: list[Element] = field(default_factory=list)
    text: str = ""

    @property
    def where(self) -> str:
        """Its line, for error messages."""
        return f"line {self.line}"

    def all(self, tag: str) -> Iterator[Element]:
        """Iterate over all descendants with a tag, in file order."""
        stack = self.children[::-1]
        while stack:
            element = stack.pop()
            if element.tag == tag:
                yield element
            stack += element.children[::-1]

    def first_text(self, tag: str) -> str:
        """Return the trimmed text of the first child with a tag; empty if there is none."""
        return next((child.text.strip() for child in self.children if child.tag == tag), "")

    def require(self, name: str) -> str:
        """Return a required attribute.

        Raises:
            InvalidEntryError: It is missing.
        """
        if name not in self.attributes:
            raise InvalidEntryError(
                self.where, f"<{self.tag}> has no {name}", "the file may be incomplete: export it again"
            )
        return self.attributes[name]

    def whole(self, name: str) -> int:
        """Return an attribute as a whole number, 0 or more.

        Raises:
            InvalidEntryError: It is missing or not such a number.
        """
        text = self.require(name)
        if text.isascii() and text.isdecimal() and len(text) < 16:  # fast path
            return int(text)
        value = number(text.strip())
        if not (0 <= value < 2**53 and value == int(value)):  # NaN fails too
            raise InvalidEntryError(
                self.where, f"{name} {text!r} is not a whole number, 0 or more", "export the file again"
            )
        return int(value)


def children(path: Path, root: str) -> Iterator[Element]:
    """Iterate over the complete children of the root element; the root itself comes first, without children.

    Raises:
        AnnotationError: The file cannot be read, is not well-formed, declares a document type, or has another root.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_elements: list[Element] = []
    done: list[Element] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, parser.CurrentLineNumber)
        if not open_elements:
            if tag != root:
                raise AnnotationError(
                    f"{path}: the root element is <{tag}>, not <{root}>", "correct `format` or omit it"
                )
            done.append(Element(tag, attributes, element.line))
        elif len(open_elements) > 1:
            open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(tag: str) -> None:
        element = open_elements.pop()
        if len(open_elements) == 1:
            done.append(element)

    def text(data: str) -> None:
        if len(open_elements) > 1:
            open_elements[-1].text += data

    def refuse(*declared: object) -> None:
        raise AnnotationError(
            f"{path}, line {parser.CurrentLineNumber}: declares a document type", "delete the DOCTYPE: it is not needed"
        )

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.StartDoctypeDeclHandler = refuse
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                parser.Parse(chunk, False)
                yield from done
                done.clear()
            parser.Parse(b"", True)
    except OSError as error:
        raise AnnotationError(
            f"cannot read {path}: {error.strerror or error}", "check the file's permissions"
        ) from error
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last two: unknown encodings
        line = getattr(error, "lineno", parser.CurrentLineNumber)
        raise AnnotationError(
            f"{path}, line {line}: not XML: {error}", "the file may be incomplete: export it again"
        ) from error
