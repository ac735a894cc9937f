"""Decode text files, naming the line of an error, and parse times as people write them."""

from __future__ import annotations

import math
import re
from pathlib import Path

from vidgru.datasets.rows import InvalidEntryError
from vidgru.errors import AnnotationError
from vidgru.numbers import clock

_TIMECODE = re.compile(r"\d+:\d\d:\d\d[:;.]\d\d", re.ASCII)


def read_bytes(path: Path, most: int = -1) -> bytes:
    """Return the bytes of a file, or the first `most` of them.

    Raises:
        AnnotationError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise AnnotationError(
            f"cannot read {path}: {error.strerror or error}", "check the file's permissions"
        ) from error


def read_text(path: Path) -> str:
    """Return the text of a file, without byte order mark.

    Raises:
        AnnotationError: It cannot be read or is not UTF-8.
    """
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AnnotationError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x})",
            'save it as UTF-8 (in Excel: "CSV UTF-8")',
        ) from error


def seconds(where: str, name: str, text: str) -> float:
    """Parse a time written as seconds or [HH:]MM:SS[.mmm].

    Raises:
        InvalidEntryError: It is neither, or negative.
    """
    value = clock(text)
    if math.isnan(value):
        frames = "; its last part seems to count frames" if _TIMECODE.fullmatch(text) else ""
        message = f"{name} {text!r} is not a time{frames}"
        raise InvalidEntryError(where, message, "write seconds (83.5) or HH:MM:SS (00:01:23.5)")
    if value < 0:
        raise InvalidEntryError(where, f"{name} {text} is before the recording starts", "times count from 0")
    return value + 0.0  # -0 becomes 0
