"""Clip lists: one folder per class, and text lists of `path label`.

Lists are those of MMAction2's VideoDataset (`some/path/000.mp4 1`, several labels as further numbers) and of UCF101
(trainlist01.txt with labels from 1, testlist01.txt without, classInd.txt beside them). Loaders of frames (TSN, TSM,
MMAction2's RawframeDataset) use `path frames label`, which looks like two labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from vidgru.datasets.formats.parsing import read_text
from vidgru.datasets.rows import SPLIT_NAMES, InvalidEntryError, Options, ParseResult, home_of
from vidgru.errors import AnnotationError, SourceError
from vidgru.sources import VIDEO_SUFFIXES, find_recordings

_SPLITS = {"train": "train", "val": "val", "test": "test", **SPLIT_NAMES}
_SUFFIX = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
_LINE = re.compile(rf"(\S.*?\.(?:{_SUFFIX}))[\"']?(?:[\s,;]+(\d+(?:[\s,;]+\d+)*))?\s*", re.IGNORECASE | re.ASCII)
_UCF_CLASSES = "classInd.txt"
_UCF_NAME = re.compile(r"v_(\w+_g\d+)_c\d+\.\w+", re.ASCII)  # clips of one group are cut from one video
_MIN_FRAMES = 8  # of a clip
_MIN_COUNTS = 4  # lines of one number each, from which numbers that hardly repeat are counts
_SURE = 10  # lines from which the values of two columns show what they are
_CLASS_FILES = ("class.txt", "classes.txt", "labels.txt", "label_map.txt")


# --- one folder per class -------------------------------------------------------------------------------------------


def read_folders(root: Path) -> ParseResult:
    """Parse class folders; `train`, `val` and `test` folders may be above or inside them.

    Raises:
        AnnotationError: There are no videos, or fewer than two classes.
    """
    result = ParseResult(home=home_of(root), exact=True)
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
    """Parse a list of `path label [label...]`, or `path frames label`.

    A line without label has the class its folder is named for. UCF101's file names tell which clips were cut from one
    video; this becomes the column "group". Class names come from UCF101's classInd.txt beside the list, else from
    `options`, else from class.txt, classes.txt, labels.txt or label_map.txt beside it (one name per line); otherwise
    the numbers are the labels.

    Raises:
        AnnotationError: The file is not UTF-8, classInd.txt is malformed, or the numbers seem not to be labels.
    """
    result = ParseResult(home=home_of(path))
    names = _ucf_names(path) or dict(enumerate(options.names)) or _names_beside(path)
    result.names = () if options.names else tuple(names[index] for index in sorted(names))
    entries: list[tuple[str, str, list[int] | None]] = []  # place, video, numbers
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        where = f"line {line}"
        with result.entry():
            match = _LINE.fullmatch(text.strip())
            if match is None:
                remedy = 'a line looks like "some/path/a.mp4 3", with numbers for labels'
                raise InvalidEntryError(where, f"{text.strip()[:60]!r} is not a video with labels", remedy)
            numbers = None if match[2] is None else [int(number) for number in re.split(r"[\s,;]+", match[2])]
            entries.append((where, match[1].strip("\"'"), numbers))
    has_counts = _counts_frames(path, [numbers for _, _, numbers in entries if numbers], names)
    if has_counts:
        result.warnings.append("the first number of each line counts frames, the second is the label")
    single = {numbers[0] for _, _, numbers in entries if numbers and len(numbers) == 1}
    if not names and len(single) >= max(_MIN_COUNTS, len(entries) / 2) and min(single) >= _MIN_FRAMES:
        result.warnings.append(f"{len(entries)} lines have {len(single)} numbers: do they count frames, not labels?")
    for where, video, numbers in entries:
        source = _UCF_NAME.search(video)
        with result.entry():
            for label in _labels(where, video, numbers[1:] if has_counts and numbers else numbers, names):
                result.add(where, video, label=label, extra={"group": source[1]} if source else None)
    return result


def _counts_frames(path: Path, lines: list[list[int]], names: Mapping[int, str]) -> bool:
    """Whether the first of two numbers on every line counts frames, and is not a label.

    Raises:
        AnnotationError: The numbers are something else than labels, but it is not clear what.
    """
    if len(lines) < 2 or len({len(numbers) for numbers in lines}) > 1 or len(lines[0]) == 1:
        return False  # clips with several labels have various numbers of them
    columns = [set(column) for column in zip(*lines, strict=True)]
    first, last = columns[0], columns[-1]
    if names and set().union(*columns) <= names.keys():
        return False
    if len(lines[0]) == 2:
        # several labels of a clip mostly increase, and all of them have names
        is_named = bool(names) and last <= names.keys()
        if min(first) >= _MIN_FRAMES and (is_named or min(first) > max(last)):
            return True
        is_apart = min(first) > max(last) or (min(last) > max(first) and min(last) >= _MIN_FRAMES)
        is_unclear = is_apart or (len(lines) >= _SURE and len(first) > 2 * len(last) and max(first) > max(last))
    else:
        is_increasing = all(numbers[0] < numbers[1] for numbers in lines) and max(columns[1]) > max(last)
        is_unclear = len(lines[0]) == 3 and is_increasing
    if is_unclear:
        message = f"do the numbers of each line ({' '.join(map(str, lines[0]))} in the first) count frames?"
        raise AnnotationError(
            f"{path}: {message}", "write one video and its label per line, or a CSV with video,start,end,label"
        )
    return False


def _labels(where: str, video: str, indices: list[int] | None, names: Mapping[int, str]) -> list[str]:
    if indices is None:
        folder = PurePosixPath(video.replace("\\", "/")).parent.name
        if not folder or (names and folder not in names.values()):
            message = f"no label, and folder {folder!r} is not a class" if folder else "no label"
            raise InvalidEntryError(where, message, "write the number of the label after the path")
        return [folder]
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
