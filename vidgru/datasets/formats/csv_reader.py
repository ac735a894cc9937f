"""Tables of other tools, with commas, semicolons or tabs, with or without a header; and the tables vidgru writes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from vidgru.datasets.formats.parsing import read_text
from vidgru.datasets.rows import ParseResult

_NEW_LINE = re.compile(r"\r\n?")
_FORMULA = re.compile(r"'*(?![-+]?\d+(\.\d*)?\Z)[=+\-@\t\r\n]")  # plain numbers are none


def delimiter_of(line: str) -> str:
    """Return the character that separates the cells of a line: comma, semicolon or tab."""
    return max(",;\t", key=line.count)  # spreadsheets in many countries write semicolons


def read_cells(path: Path, result: ParseResult, *, comment: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield the trimmed cells of each row that is not blank, with its place; a bad quote ends the file as a problem.

    Args:
        path: The table.
        result: Collects the problem.
        comment: Prefix of lines to skip; empty for none.

    Raises:
        AnnotationError: The file cannot be read or is not UTF-8.
    """
    lines = ["" if comment and line.startswith(comment) else line for line in read_text(path).split("\n")]
    first = next((line for line in lines if line.strip()), "")
    # strict: an unclosed quote must not swallow the rest of the file. A quote may follow a space.
    text = io.StringIO("\n".join(lines), newline="")
    reader = csv.reader(text, delimiter=delimiter_of(first), strict=True, skipinitialspace=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield f"line {line}", [cell.strip() for cell in cells]
            line = reader.line_num + 1
    except csv.Error as error:
        message = f"not readable as CSV: {error}"
        result.problems.append((f"line {line}", message, "check for a double quote that is not closed or not doubled"))


def escape_cell(value: object) -> str:
    """Return a cell that a spreadsheet shows as text: one that would start a formula gets a leading apostrophe.

    After https://owasp.org/www-community/attacks/CSV_Injection. Line breaks become line feeds: the csv module does not
    quote a lone carriage return, but ends the row there when reading. Numbers are passed as numbers, and stay.
    """
    if not isinstance(value, str):
        return "" if value is None else str(value)
    text = _NEW_LINE.sub("\n", value)
    return f"'{text}" if _FORMULA.match(text) else text


def unescape_cell(text: str) -> str:
    """Undo `escape_cell`, except for line breaks."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def format_csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Format a table with a header. Cells are escaped by `escape_cell`; values that are missing or None are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(escape_cell, columns))
    writer.writerows([escape_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()
