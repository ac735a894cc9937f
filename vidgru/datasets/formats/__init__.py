"""Annotation formats: recognise files by content and parse them into rows."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from vidgru.config import AnnotationFormat
from vidgru.datasets.formats import charades, cvat, elan
from vidgru.datasets.formats.activitynet import is_activitynet, read_activitynet
from vidgru.datasets.formats.boris import is_boris_project, is_boris_table, read_boris_project, read_boris_table
from vidgru.datasets.formats.fiftyone import is_fiftyone, read_fiftyone
from vidgru.datasets.formats.file_lists import is_list, read_folders, read_list
from vidgru.datasets.formats.frame_labels import is_frame_labels, read_frame_labels
from vidgru.datasets.formats.json_reader import Node, read_json
from vidgru.datasets.formats.label_studio import is_label_studio, read_label_studio
from vidgru.datasets.formats.losslesscut import is_losslesscut, read_losslesscut
from vidgru.datasets.formats.msr_vtt import is_msr_vtt, read_msr_vtt
from vidgru.datasets.formats.native import header_of, is_native_array, read_kinetics, read_native
from vidgru.datasets.formats.parsing import read_bytes
from vidgru.datasets.formats.qvhighlights import is_qvhighlights, read_qvhighlights
from vidgru.datasets.formats.spotting import is_soccernet, is_spot, read_soccernet, read_spot
from vidgru.datasets.formats.subtitles import is_subtitles, read_subtitles
from vidgru.datasets.formats.unsupported import identify_json, identify_text
from vidgru.datasets.formats.via import is_via_project, is_via_table, read_via_project, read_via_table
from vidgru.datasets.rows import Options, ParseResult, plural
from vidgru.errors import AnnotationError
from vidgru.storage import parse_json

SPREADSHEET_SUFFIXES = (".xlsx", ".xls", ".ods")  # not read; the error says so
SUBTITLE_SUFFIXES = (".vtt", ".srt")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".xml", ".eaf", ".boris", *SUBTITLE_SUFFIXES)
KNOWN = (
    "native CSV or JSONL, ActivityNet, E2E-Spot, SoccerNet, Label Studio, ELAN, MSR-VTT, CVAT, Kinetics, text lists, "
    "BORIS, VIA, LosslessCut, subtitles, YouCook2, COIN, Charades, QVHighlights, FiftyOne, "
    "labels per frame (MS-TCN, DeepEthogram, SimBA)"
)
_HEAD = 1 << 20  # bytes read to recognise a file; a larger JSON file is read whole only if these look right
_JSON_KEYS = re.compile(
    rb'"(database|results|timestamps|annotations?|events|sentences|end time|gameTime|timelinelabels|behaviors_conf'
    rb'|attribute|labels|video)"\s*:'
)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_XML_ROOT = re.compile(r"<(?![?!])([\w.:-]+)")


def recognise(path: Path) -> AnnotationFormat | None:
    """Return the format of a file by its content, `folders` for a folder, or None if it is unknown.

    Raises:
        AnnotationError: The file cannot be read, or is clearly a broken file of a known format.
    """
    if path.is_dir():
        return "folders"
    head = read_bytes(path, _HEAD)
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    suffix = path.suffix.lower()
    if is_qvhighlights(text):
        return "qvhighlights"
    if suffix == ".jsonl" or _is_json_lines(text):
        return "native"
    if text[:1] in ("{", "[") and suffix != ".csv" and not identify_text(text):
        whole = len(head) < _HEAD or _JSON_KEYS.search(head)
        return _json_format(read_json(path).value) if whole else None
    if text[:1] == "<":
        root = _XML_ROOT.search(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
        if root and root[1] == elan.ROOT:
            return "elan"
        return "cvat" if root and root[1] == cvat.ROOT else None
    if is_subtitles(text):
        return "subtitles"
    return _table_format(text, suffix) or (
        "list" if is_list(text if len(head) < _HEAD else text.rpartition("\n")[0]) else None
    )


def is_unsupported(path: Path) -> bool:
    """Whether a file is known to be one that is neither annotations nor a video, such as HDF5."""
    return identify_text(read_bytes(path, 1000).decode("utf-8-sig", errors="replace")) is not None


def _table_format(text: str, suffix: str) -> AnnotationFormat | None:
    if is_boris_table(text):
        return "boris"
    if is_via_table(text):
        return "via"
    if charades.is_sentences(text) or charades.COLUMNS.issubset(header_of(text)):
        return "charades"
    if is_losslesscut(text):
        return "losslesscut"
    if is_frame_labels(text):
        return "frame-labels"
    if "youtube_id" in header_of(text):
        return "kinetics"
    if identify_text(text):
        return None
    return "native" if "video" in header_of(text) or suffix == ".csv" else None


def _is_json_lines(text: str) -> bool:
    """Whether the first line is a complete JSON object that names a video."""
    first = text.partition("\n")[0].rstrip()
    if not (first.startswith("{") and first.endswith("}") and '"video"' in first):
        return False
    try:
        return "video" in parse_json(first)  # a file of another format may be one line, with the word somewhere in it
    except ValueError:
        return True


def _json_format(root: object) -> AnnotationFormat | None:
    if is_msr_vtt(root):
        return "msr-vtt"
    if is_soccernet(root):
        return "soccernet"
    if is_label_studio(root):
        return "label-studio"
    if is_boris_project(root):
        return "boris"
    if is_via_project(root):
        return "via"
    if is_fiftyone(root):
        return "fiftyone"
    if is_spot(root):
        return "e2e-spot"
    if is_native_array(root):
        return "native"
    return "activitynet" if is_activitynet(root) else None


def read(path: Path, kind: AnnotationFormat | None, options: Options) -> ParseResult:
    """Parse an annotation file, or a folder of class folders.

    Args:
        path: The file or folder.
        kind: Its format; None to recognise it.
        options: Facts that the format does not contain.

    Raises:
        AnnotationError: The file cannot be read or recognised. Errors in single entries are in `problems` of the
            result.
    """
    kind = kind or recognise(path)
    if kind is None:
        head = read_bytes(path, _HEAD)
        if not head.strip():
            raise AnnotationError(f"{path} is empty", "export it again")
        if head.startswith(_UTF_16):
            raise AnnotationError(f"{path} is UTF-16", 'save it as UTF-8 (in Excel: "CSV UTF-8")')
        known = identify_text(head.decode("utf-8-sig", errors="replace").lstrip())
        if known is None and len(head) < _HEAD and head.lstrip().startswith(b"{"):
            known = identify_json(read_json(path).value)
        if known:
            raise AnnotationError(f"{path} is {known[0]}", known[1])
        raise AnnotationError(
            f"{path} is in no known format",
            f"known formats: {KNOWN}; if it is one of them, name it with `format`",
        )
    result = _read(path, kind, options)
    if result.recomposed:
        number = plural(len(result.recomposed), "label")
        result.notes.append(f"{number} in decomposed Unicode read in composed form (first: {result.recomposed[0]!r})")
    if result.empty:
        skipped = f"{plural(len(result.empty), 'interval')} of zero length skipped (first: {result.empty[0]})"
        result.warnings.append(skipped)
    return result


def _read(path: Path, kind: AnnotationFormat, options: Options) -> ParseResult:
    if kind == "native":
        return read_native(path, options)
    if kind == "kinetics":
        return read_kinetics(path)
    if kind == "folders":
        return read_folders(path)
    if kind == "list":
        return read_list(path, options)
    if kind == "elan":
        return elan.read_elan(path, options)
    if kind == "cvat":
        return cvat.read_cvat(path, options)
    if kind == "subtitles":
        return read_subtitles(path)
    if kind == "losslesscut":
        return read_losslesscut(path)
    if kind == "qvhighlights":
        return read_qvhighlights(path)
    if kind == "frame-labels":
        return read_frame_labels(path, options)
    start = read_bytes(path, 1000).decode("utf-8-sig", errors="replace").lstrip()
    if kind == "charades":
        return charades.read_sentences(path) if charades.is_sentences(start) else charades.read_charades(path)
    if kind == "boris" and not start.startswith("{"):
        return read_boris_table(path, options)
    if kind == "via" and not start.startswith("{"):
        return read_via_table(path, options)
    root: Node = read_json(path)
    if kind == "activitynet":
        return read_activitynet(path, root)
    if kind == "e2e-spot":
        return read_spot(path, root, options)
    if kind == "soccernet":
        return read_soccernet(path, root, options)
    if kind == "label-studio":
        return read_label_studio(path, root, options)
    if kind == "boris":
        return read_boris_project(path, root, options)
    if kind == "via":
        return read_via_project(path, root, options)
    if kind == "fiftyone":
        return read_fiftyone(path, root, options)
    return read_msr_vtt(path, root)
