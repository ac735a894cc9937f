"""Projects of the VIA video annotator (version 3), JSON, and its CSV export of segments.

    {"project": {...}, "attribute": {"1": {"aname": "action", "type": 4, "options": {"0": "walk", "1": "fall"}, ...}},
     "file": {"1": {"fid": "1", "fname": "a.mp4", "type": 4, ...}}, "view": {"1": {"fid_list": ["1"]}},
     "metadata": {"1_a1b2c3d4": {"vid": "1", "flg": 0, "z": [1.5, 3.0], "xy": [], "av": {"1": "0"}}}}

    # ATTRIBUTE = {"1": {"aname": "action", ...}}
    # CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata
    "1_a1b2c3d4","[""a.mp4""]",0,"[1.5,3]","[]","{""1"":""0""}"

Source: gitlab.com/vgg/via, via-3.x.y, _via_data.js and _via_import_export.js.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vidgru.datasets.formats.csv_reader import read_cells
from vidgru.datasets.formats.json_reader import Node
from vidgru.datasets.formats.parsing import read_text
from vidgru.datasets.rows import InvalidEntryError, Options, ParseResult, did_you_mean, home_of, plural
from vidgru.errors import AnnotationError
from vidgru.storage import parse_json

_TEXT = 1  # type of attributes that hold text; those of other types hold ids of options
_VIDEO = 4
_DEFAULT = "_DEFAULT"  # value of an attribute that nobody has set
_CSV_MARK = "# CSV_HEADER = metadata_id,file_list,"


@dataclass(frozen=True, kw_only=True)
class _Attribute:
    name: str
    is_text: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


def is_via_project(root: object) -> bool:
    """Whether a JSON value looks like a project."""
    return isinstance(root, dict) and {"file", "view", "metadata", "attribute"} <= root.keys()


def is_via_table(text: str) -> bool:
    """Whether a text begins like the CSV export."""
    return text.startswith("#") and _CSV_MARK in text[:100_000]


def read_via_project(path: Path, root: Node, options: Options) -> ParseResult:
    """Parse the segments of all videos; videos without any are skipped with a notice.

    An option that an attribute selects is a label, text a description (the label if there is no other). Segments of a
    moment, which hold drawn regions, are not read. `tiers` selects attributes.

    Raises:
        AnnotationError: A selected attribute does not exist.
    """
    result = ParseResult(home=home_of(path))
    videos: dict[str, str] = {}
    regions = 0
    with result.entry():
        attributes = {key: _attribute(entry) for key, entry in root["attribute"].items()}
        _check_tiers(path, attributes, options)
        for key, view in root["view"].items():
            with result.entry():
                videos[key] = _video(root, view)
        for _, entry in root["metadata"].items():
            with result.entry():
                view_id = entry["vid"].text()
                if view_id not in videos:
                    raise InvalidEntryError(entry.path, f"view {view_id} is not in view", "export the project again")
                regions += not _add(result, entry.path, videos[view_id], entry["z"], entry["av"], attributes, options)
    _add_notes(result, regions)
    used = {row.annotation.video for row in result.rows}
    if without := [video for video in dict.fromkeys(videos.values()) if video not in used] if used else []:
        result.notes.append(f"{plural(len(without), 'video')} without segments skipped (first: {without[0]})")
    return result


def read_via_table(path: Path, options: Options) -> ParseResult:
    """Parse the segments of a CSV export, by the same rules.

    Raises:
        AnnotationError: Not UTF-8, or a selected attribute does not exist.
    """
    result = ParseResult(home=home_of(path))
    attributes: dict[str, _Attribute] = {}
    for line in read_text(path).split("\n"):
        name, equals, value = line.partition("=")
        if equals and name.strip() in ("# ATTRIBUTE", "# ATTRIBUTES"):  # older versions wrote only names
            with result.entry():
                entries = _parse("the attributes", value).items()
                attributes = {key: _attribute(entry) for key, entry in entries}
    _check_tiers(path, attributes, options)
    regions = 0
    for where, cells in read_cells(path, result, comment="#"):
        with result.entry():
            if len(cells) < 6:
                raise InvalidEntryError(where, f"{len(cells)} cells instead of 6", "export the project again")
            files, times, values = (_parse(where, cells[index]) for index in (1, 3, 5))
            video = next(files.each(), Node(None, where)).text()
            regions += not _add(result, where, video, times, values, attributes, options)
    _add_notes(result, regions)
    return result


def _parse(where: str, text: str) -> Node:
    try:
        return Node(parse_json(text), where)
    except ValueError as error:
        raise InvalidEntryError(where, f"not JSON: {error}", "export the project again") from None


def _attribute(entry: Node) -> _Attribute:
    if isinstance(entry.value, str):
        return _Attribute(name=entry.value)
    options = {key: value.text() for key, value in entry["options"].items()} if "options" in entry else {}
    return _Attribute(name=entry["aname"].text(), is_text=entry["type"].value == _TEXT, options=options)


def _check_tiers(path: Path, attributes: Mapping[str, _Attribute], options: Options) -> None:
    names = [attribute.name for attribute in attributes.values()]
    for name in options.tiers:
        if name not in names:
            raise AnnotationError(
                f"{path}: no attribute {name!r}{did_you_mean(name, names)}", f"its attributes are {', '.join(names)}"
            )


def _video(root: Node, view: Node) -> str:
    """Return the video of a view; views of several files show them side by side."""
    files = [root["file"][file.text()] for file in view["fid_list"].each()]
    videos = [file for file in files if file["type"].value == _VIDEO] or files
    if not videos:
        raise InvalidEntryError(view.path, "a view without a file", "delete it in VIA")
    return videos[0]["fname"].text()


def _add(
    result: ParseResult,
    where: str,
    video: str,
    times: Node,
    values: Node,
    attributes: Mapping[str, _Attribute],
    options: Options,
) -> bool:
    """Add the labels of a segment; return False if it is a moment."""
    numbers = [time.number() for time in times.each()]
    if len(numbers) == 1:
        return False
    if len(numbers) > 2:
        raise InvalidEntryError(where, f"{len(numbers)} times instead of two", "draw the segment again")
    labels: list[str] = []
    texts: list[str] = []
    for key, value in values.items():
        attribute = attributes.get(key, _Attribute(name=key))
        if not options.tiers or attribute.name in options.tiers:
            chosen = [text for text in _values(attribute, value) if text not in ("", _DEFAULT)]
            (texts if attribute.is_text else labels).extend(chosen)
    if not labels:
        labels, texts = texts, []
    if not labels and not options.tiers:
        raise InvalidEntryError(where, "a segment without a label", "choose one in VIA, or delete the segment")
    start_s, end_s = numbers or (None, None)
    for label in labels:
        result.add(where, video, start_s=start_s, end_s=end_s, label=label, description=" ".join(texts))
    return True


def _values(attribute: _Attribute, value: Node) -> Iterator[str]:
    """Yield the options that a value selects, several divided by commas, or its text."""
    text = value.maybe_text().strip()
    if attribute.is_text or not attribute.options:
        yield text
    else:
        yield from (attribute.options.get(key.strip(), key.strip()) for key in text.split(","))


def _add_notes(result: ParseResult, regions: int) -> None:
    if regions:
        result.notes.append(f"{plural(regions, 'moment')} with drawn regions skipped: vidgru reads segments")
