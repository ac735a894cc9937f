"""LosslessCut's segments: CSV of start, end and label in seconds, without a header.

    ,56.9568,First segment
    70,842.33,"Another, quoted"
    1234,,Last segment

The file does not name its video: it is called like it, `a.csv` or `a.mp4.csv`.

Source: github.com/mifi/lossless-cut, import-export.md, "CSV".
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

from vidgru.datasets.formats.csv_reader import read_cells
from vidgru.datasets.formats.parsing import seconds
from vidgru.datasets.rows import InvalidEntryError, ParseResult, home_of
from vidgru.numbers import number


def is_losslesscut(text: str) -> bool:
    """Whether the first line of a table is a segment."""
    try:
        cells = [cell.strip() for cell in next(csv.reader([text.partition("\n")[0]]), [])]
    except csv.Error:
        return False
    times = [cell for cell in cells[:2] if cell]
    return len(cells) == 3 and bool(times and cells[2]) and not any(math.isnan(number(time)) for time in times)


def read_losslesscut(path: Path) -> ParseResult:
    """Parse the segments of one video. An empty start is the start of the video; an empty end cannot be read.

    Raises:
        AnnotationError: Not UTF-8.
    """
    result = ParseResult(home=home_of(path))
    for where, cells in read_cells(path, result):
        with result.entry():
            start, end, label = (*cells, "", "", "")[:3]
            if not label:
                raise InvalidEntryError(where, "no label", "name the segment in LosslessCut, or delete the line")
            if not end:
                message = "no end: the segment goes on to the end of the video, which the file does not tell"
                raise InvalidEntryError(where, message, "write the end in seconds")
            start_s = seconds(where, "start", start) if start else 0.0
            result.add(where, path.stem, start_s=start_s, end_s=seconds(where, "end", end), label=label)
    return result
