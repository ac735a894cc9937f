"""XML files: read child by child of the root, so that a file of gigabytes needs no more memory than its largest child.

No document type, hence no entities: what they can do (grow without bound, read other files) no annotation needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from vidgru.datasets.formats.parsing import number
from vidgru.datasets.rows import InvalidEntryError
from vidgru.errors import AnnotationError

_CHUNK = 1 << 16


@dataclass(eq=False)
class Element:
    """An element: its attributes, children, text and line."""

    tag: str
    attributes: dict[str, str]
    line: int
    children: list[Element] = field(default_factory=list)
    text: str = ""

    @property
    def where(self) -> str:
        """Its line, as errors tell it."""
        return f"line {self.line}"

    def all(self, tag: str) -> Iterator[Element]:
        """Every element of that tag below this one, in the order of the file."""
        waiting = self.children[::-1]
        while waiting:
            element = waiting.pop()
            if element.tag == tag:
                yield element
            waiting += element.children[::-1]

    def first_text(self, tag: str) -> str:
        """The text of the first child of that tag, trimmed; empty if there is none."""
        return next((child.text.strip() for child in self.children if child.tag == tag), "")

    def require(self, name: str) -> str:
        """An attribute that has to be there.

        Raises:
            InvalidEntryError: it is not.
        """
        if name not in self.attributes:
            raise InvalidEntryError(self.where, f"<{self.tag}> has no {name}", "is the file whole? export it again")
        return self.attributes[name]

    def whole(self, name: str) -> int:
        """An attribute that is a whole number, 0 or more.

        Raises:
            InvalidEntryError: it is missing or something else.
        """
        text = self.require(name)
        if text.isascii() and text.isdecimal() and len(text) < 16:  # nearly always
            return int(text)
        value = number(text.strip())
        if not (0 <= value < 2**53 and value == int(value)):  # NaN fails too
            raise InvalidEntryError(
                self.where, f"{name} {text!r} is not a whole number, 0 or more", "export the file again"
            )
        return int(value)


def children(path: Path, root: str) -> Iterator[Element]:
    """The children of the root element, one at a time, each whole; the root itself comes first, without children.

    Raises:
        AnnotationError: it cannot be read, is not well formed, declares a document type, or has another root.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_elements: list[Element] = []
    done: list[Element] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, parser.CurrentLineNumber)
        if not open_elements:
            if tag != root:
                raise AnnotationError(f"{path}: <{tag}> is the root, not <{root}>", "leave `format` out, or correct it")
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
        raise AnnotationError(f"cannot read {path}: {error.strerror or error}", "may you read it?") from error
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two: encodings
        line = getattr(error, "lineno", parser.CurrentLineNumber)
        raise AnnotationError(f"{path}, line {line}: not XML: {error}", "is the file whole? export it again") from error
