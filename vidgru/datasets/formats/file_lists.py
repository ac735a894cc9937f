"""Clips that are named by their label: a folder for each class, and text lists of `path label`.

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
_UCF_NAME = re.compile(r"v_(\w+_g\d+)_c\d+\.\w+", re.ASCII)  # clips of one group are cut from one film
_CLASS_FILES = ("class.txt", "classes.txt", "labels.txt", "label_map.txt")


# --- a folder for each class ----------------------------------------------------------------------------------------


def read_folders(root: Path) -> ParseResult:
    """A folder for each class, holding its clips; `train`, `val` and `test` folders may stand above or inside them.

    Raises:
        AnnotationError: no videos, or not two classes at least.
    """
    result = ParseResult(exact=True)
    if not root.is_dir():
        raise AnnotationError(f"{root} is a file", "format folders is of a folder that holds one for each class")
    try:
        recordings = find_recordings([root])
    except SourceError as error:
        raise AnnotationError(f"no annotations and no videos in {root}", error.remedy) from error
    for recording in recordings:
        with result.entry():
            label, split = _class_of(recording.name)
            if not label:
                remedy = "a class is a folder: move it into one, or write an annotation file"
                raise InvalidEntryError(recording.name, "lies in no folder that could be its class", remedy)
            result.add(recording.name, recording.name, label=label, split=split)
    labels = {row.annotation.label for row in result.rows}
    if len(labels) < 2:
        raise AnnotationError(
            f"no annotations in {root}, and no folders that could be classes",
            "it needs an annotation file (annotations.csv, or a tool's export), or a folder of clips for each class",
        )
    return result


def has_class_folders(root: Path) -> bool:
    """Whether two folders or more in `root` hold videos and could be classes."""
    try:
        return len({label for r in find_recordings([root]) if (label := _class_of(r.name)[0])}) > 1
    except SourceError:
        return False


def _class_of(name: str) -> tuple[str, str]:
    """Class and split of a clip by its folders; both may be empty."""
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
    """Whether every line of a text names a video, with or without numbers behind it."""
    lines = [line for line in head.splitlines() if line.strip()]
    return bool(lines) and all(_LINE.fullmatch(line.strip()) for line in lines)


def read_list(path: Path, options: Options) -> ParseResult:
    """A list of `path label [label...]`; a line without label is of the class that its folder is named for.

    UCF101's names tell which clips were cut from one film: that becomes the column "group".
    Names come from UCF101's classInd.txt beside the list, else from `options`, else from class.txt, classes.txt,
    labels.txt or label_map.txt beside it (a name a line); without any, the numbers are the labels.

    Raises:
        AnnotationError: it is not UTF-8, or classInd.txt is not what it should be.
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
                raise InvalidEntryError(where, f"{text.strip()[:60]!r} is not a video and its labels", remedy)
            video, numbers = match[1].strip("\"'"), match[2]
            film = _UCF_NAME.search(video)
            for label in _labels(where, video, numbers, names):
                result.add(where, video, label=label, extra={"group": film[1]} if film else None)
    return result


def _labels(where: str, video: str, numbers: str | None, names: Mapping[int, str]) -> list[str]:
    if numbers is None:
        folder = PurePosixPath(video.replace("\\", "/")).parent.name
        if not folder or (names and folder not in names.values()):
            what = f"no label, and folder {folder!r} is not a class" if folder else "no label"
            raise InvalidEntryError(where, what, "write the label's number behind the path")
        return [folder]
    indices = [int(text) for text in re.split(r"[\s,;]+", numbers)]
    for index in indices:
        if names and index not in names:
            what = f"label {index} has no name; they go from {min(names)} to {max(names)}"
            raise InvalidEntryError(
                where, what, "correct it, or `names` in the data set YAML, or the file beside the list"
            )
    return [names.get(index, str(index)) for index in dict.fromkeys(indices)]


def _ucf_names(path: Path) -> dict[int, str]:
    """Names by number from UCF101's list of classes beside a list; empty if there is none."""
    names: dict[int, str] = {}
    file = path.with_name(_UCF_CLASSES)
    for line, text in enumerate(read_text(file).splitlines() if file.is_file() else (), start=1):
        index, _, name = text.strip().partition(" ")
        if text.strip() and not (index.isascii() and index.isdigit() and len(index) < 10 and name.strip()):
            what = f"{text[:60]!r} is not a number and a class"
            raise AnnotationError(f"{file}, line {line}: {what}", "a line looks like this: 1 Archery")
        if text.strip():
            names[int(index)] = name.strip()
    return names


def _names_beside(path: Path) -> dict[int, str]:
    """Names by number from a file with a name a line beside a list; empty if there is none."""
    file = next((file for name in _CLASS_FILES if (file := path.with_name(name)).is_file()), None)
    return dict(enumerate(filter(None, map(str.strip, read_text(file).splitlines())))) if file else {}
