"""Clip lists: one folder per class, and text lists of `path label`.

Lists are those of MMAction2's VideoDataset (`some/path/000.mp4 1`, several labels as further numbers) and of UCF101
(trainlist01.txt with labels from 1, testlist01.txt without, classInd.txt beside them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from vidgru.datasets.formats.parsing import read_text
from vidgru.datasets.rows import SPLIT_NAMES, InvalidEntryError, Options, ParseResult
from vidgru.errors import AnnotationError, SourceError
from vidgru.sources import VIDEO_SUFFIXES, find_recordings

_SPLITS = {"train": "train", "val": "val", "test": "test", **SPLIT_NAMES}
_SUFFIX = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
_LINE = re.compile(rf"(\S.*?\.(?:{_SUFFIX}))[\"']?(?:[\s,;]+(\d+(?:[\s,;]+\d+)*))?\s*", re.IGNORECASE | re.ASCII)
_UCF_CLASSES = "classInd.txt"
_UCF_NAME = re.compile(r"v_(\w+_g\d+)_c\d+\.\w+", re.ASCII)  # clips of one group are cut from one video
_CLASS_FILES = ("class.txt", "classes.txt", "labels.txt", "label_map.txt")


# --- one folder per class -------------------------------------------------------------------------------------------


def read_folders(root: Path) -> ParseResult:
    """Parse class folders; `train`, `val` and `test` folders may be above or inside them.

    Raises:
        AnnotationError: There are no videos, or fewer than two classes.
    """
    result = ParseResult(exact=True)
    if not root.is_dir():
        raise AnnotationError(f"{root} is a file", "the format folders needs a folder with one folder per class")
    try:
        recordings = find_recordings([root])
    except SourceError as error:
        raise AnnotationError(f"no annotations and no videos in {root}", error.remedy) from error
    for recording in recordings:
        with result.entry():
            label, split = _class_of(recording.name)
            if not label:
                remedy = "move it into the folder of its class, or write an annotation file"
                raise InvalidEntryError(recording.name, "is in no folder that could be its class", remedy)
            result.add(recording.name, recording.name, label=label, split=split)
    labels = {row.annotation.label for row in result.rows}
    if len(labels) < 2:
        raise AnnotationError(
            f"no annotations in {root}, and no folders that could be classes",
            "add an annotation file (annotations.csv, or the export of a tool), or one folder of clips per class",
        )
    return result


def has_class_folders(root: Path) -> bool:
    """Whether at least two folders in `root` hold videos and could be classes."""
    try:
        return len({label for r in find_recordings([root]) if (label := _class_of(r.name)[0])}) > 1
    except SourceError:
        return False


def _class_of(name: str) -> tuple[str, str]:
    """Return the class and split of a clip by its folders; both may be empty."""
    parts = list(PurePosixPath(name).parts[:-1])
    if parts[:1] == ["videos"]:
        del parts[0]
    split = ""
    for position in (0, -1):  # train/walk/a.mp4, walk/train/a.mp4
        if parts and not split and parts[position].lower() in _SPLITS:
            split = _SPLITS[parts.pop(position).lower()]
    return (parts[0] if parts else ""), split


# --- text lists -----------------------------------------------------------------------------------------------------


def is_list(head: str) -> bool:
    """Whether every line of a text is a video, with or without numbers."""
    lines = [line for line in head.splitlines() if line.strip()]
    return bool(lines) and all(_LINE.fullmatch(line.strip()) for line in lines)


def read_list(path: Path, options: Options) -> ParseResult:
    """Parse a list of `path label [label...]`; a line without label has the class its folder is named for.

    UCF101's file names tell which clips were cut from one video; this becomes the column "group". Class names come from
    UCF101's classInd.txt beside the list, else from `options`, else from class.txt, classes.txt, labels.txt or
    label_map.txt beside it (one name per line); otherwise the numbers are the labels.

    Raises:
        AnnotationError: The file is not UTF-8, or classInd.txt is malformed.
    """
    result = ParseResult()
    names = _ucf_names(path) or dict(enumerate(options.names)) or _names_beside(path)
    result.names = () if options.names else tuple(names[index] for index in sorted(names))
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        where = f"line {line}"
        with result.entry():
            match = _LINE.fullmatch(text.strip())
            if match is None:
                remedy = 'a line looks like "some/path/a.mp4 3", with numbers for labels'
                raise InvalidEntryError(where, f"{text.strip()[:60]!r} is not a video with labels", remedy)
            video, numbers = match[1].strip("\"'"), match[2]
            source = _UCF_NAME.search(video)
            for label in _labels(where, video, numbers, names):
                result.add(where, video, label=label, extra={"group": source[1]} if source else None)
    return result


def _labels(where: str, video: str, numbers: str | None, names: Mapping[int, str]) -> list[str]:
    if numbers is None:
        folder = PurePosixPath(video.replace("\\", "/")).parent.name
        if not folder or (names and folder not in names.values()):
            message = f"no label, and folder {folder!r} is not a class" if folder else "no label"
            raise InvalidEntryError(where, message, "write the number of the label after the path")
        return [folder]
    indices = [int(text) for text in re.split(r"[\s,;]+", numbers)]
    for index in indices:
        if names and index not in names:
            message = f"label {index} has no name; names go from {min(names)} to {max(names)}"
            raise InvalidEntryError(
                where, message, "correct the label, `names` in the dataset YAML, or the file beside the list"
            )
    return [names.get(index, str(index)) for index in dict.fromkeys(indices)]


def _ucf_names(path: Path) -> dict[int, str]:
    """Read class names by number from UCF101's classInd.txt beside a list; empty if there is none."""
    names: dict[int, str] = {}
    file = path.with_name(_UCF_CLASSES)
    for line, text in enumerate(read_text(file).splitlines() if file.is_file() else (), start=1):
        index, _, name = text.strip().partition(" ")
        if text.strip() and not (index.isascii() and index.isdigit() and len(index) < 10 and name.strip()):
            message = f"{text[:60]!r} is not a number and a class"
            raise AnnotationError(f"{file}, line {line}: {message}", "a line looks like: 1 Archery")
        if text.strip():
            names[int(index)] = name.strip()
    return names


def _names_beside(path: Path) -> dict[int, str]:
    """Read class names by number from a file beside a list, one name per line; empty if there is none."""
    file = next((file for name in _CLASS_FILES if (file := path.with_name(name)).is_file()), None)
    return dict(enumerate(filter(None, map(str.strip, read_text(file).splitlines())))) if file else {}
