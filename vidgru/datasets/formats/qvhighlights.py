"""QVHighlights' JSON lines: sentences and the windows of a clip that they are about.

    {"qid": 7803, "query": "A man walks from outside to inside.", "duration": 150, "vid": "RoripwjYFp8_360.0_510.0",
     "relevant_windows": [[26, 36]], "relevant_clip_ids": [13, ...], "saliency_scores": [[2, 3, 3], ...]}

Source: github.com/jayleicn/moment_detr, data/README.md (Lei et al., "QVHighlights", 2021).
"""

from __future__ import annotations

from pathlib import Path

from vidgru.datasets.formats.json_reader import Node
from vidgru.datasets.formats.parsing import read_text
from vidgru.datasets.rows import InvalidEntryError, ParseResult, home_of, plural
from vidgru.storage import parse_json


def is_qvhighlights(text: str) -> bool:
    """Whether the first line of a text is a JSON object with a query of a video."""
    first = text.partition("\n")[0].rstrip()
    return first.startswith("{") and first.endswith("}") and '"query"' in first and '"vid"' in first


def read_qvhighlights(path: Path) -> ParseResult:
    """Parse one described interval per window; lines without windows, of the test set, are skipped with a notice.

    Raises:
        AnnotationError: Not UTF-8.
    """
    result = ParseResult(home=home_of(path))
    withheld = 0
    # not splitlines(), which also splits at separators that may occur inside a JSON string
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if text.strip():
            with result.entry():
                withheld += not _add(result, f"line {line}", text)
    if withheld:
        result.notes.append(f"{plural(withheld, 'line')} without relevant_windows skipped")
    return result


def _add(result: ParseResult, where: str, text: str) -> bool:
    """Add the windows of a line; return whether it has any."""
    try:
        entry = Node(parse_json(text), where)
    except ValueError as error:
        raise InvalidEntryError(where, f"not JSON: {error}", "each line must be one JSON object") from None
    video, query = entry["vid"].text(), entry["query"].text()
    if "duration" in entry:
        result.durations[video] = entry["duration"].above_0()
    windows = list(entry["relevant_windows"].each()) if "relevant_windows" in entry else []
    for window in windows:
        start_s, end_s = window.pair()
        result.add(window.path, video, start_s=start_s, end_s=end_s, description=query)
    return bool(windows)
