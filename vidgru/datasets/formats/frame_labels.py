"""Label files of one video each that hold a line per frame, or the frames of each segment.

    SIL              ,background,grooming,rearing      1-30 SIL
    SIL              0,1,0,0                           31-150 take_bowl
    take_bowl        1,0,1,0

The first is the ground truth of MS-TCN's data sets (Breakfast, 50Salads, GTEA), one label per frame. The second is a
table with a column per behavior, 1 where it happens, 0 where it does not, -1 where nobody looked: DeepEthogram's
`VIDEO_labels.csv`, and SimBA's annotations, whose table begins with poses and features. The third is Breakfast's own,
first and last frame counted from 1.

Sources: github.com/yabufarha/ms-tcn, batch_gen.py and main.py; github.com/jbohnslav/deepethogram,
docs/file_structure.md; github.com/sgoldenlab/simba, misc/deep_ethogram_labels.csv and targets_inserted of its tests;
Kuehne et al., "The Language of Actions", 2014.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from vidgru.datasets.formats.csv_reader import delimiter_of, read_cells
from vidgru.datasets.formats.parsing import read_text
from vidgru.datasets.formats.unsupported import has_pose_columns
from vidgru.datasets.rows import FrameSpan, InvalidEntryError, Options, ParseResult, did_you_mean, home_of
from vidgru.errors import AnnotationError
from vidgru.numbers import number

_BACKGROUND = ("background", "sil")
_VALUES = {"0": 0, "1": 1, "-1": -1, "0.0": 0, "1.0": 1, "-1.0": -1}
_INDEX_NAMES = ("", "frame", "frames", "index", "frame_number")
_NO_BEHAVIOR = re.compile(r"(?:Low_prob_detections|Sum_prob)_.*|.*_[xyp]")  # SimBA's features and poses
_SEGMENT = re.compile(r"(\d+)\s*-\s*(\d+)\s+(\S.*)")
_SUFFIX = re.compile(r"_labels$")
_LABEL_LENGTH = 80  # a longer line is text
_MIN_FRAMES, _MIN_RUN = 8, 4  # frames in a file, and frames per segment on average; a list of classes has 1
_HEAD_ROWS = 50


def is_frame_labels(text: str) -> bool:
    """Whether a text looks like one of the three."""
    lines = [line.strip() for line in text.split("\n")[:-1] or [text]]
    lines = [line for line in lines if line]
    if lines and all(_SEGMENT.fullmatch(line) for line in lines):
        return True
    rows = [[cell.strip() for cell in line.split(delimiter_of(lines[0]))] for line in lines[:_HEAD_ROWS]]
    if len(rows) > 1 and len(rows[0]) > 1:
        return bool(_behavior_columns(rows[0], rows[1:]))
    if len(lines) < _MIN_FRAMES or any(re.search(r"[,;\t]", line) or len(line) > _LABEL_LENGTH for line in lines):
        return False
    return len(lines) >= _MIN_RUN * sum(1 for _ in groupby(lines))


def read_frame_labels(path: Path, options: Options) -> ParseResult:
    """Parse runs of frames with a label as events; without any, the recording is event-free.

    Frames labelled `background` or `SIL` are not events, with a notice. `tiers` selects columns of a table. The video
    is called like the file, without `_labels`. Splits come from MS-TCN's first bundles, in `splits` beside the folder.

    Raises:
        AnnotationError: The file is not UTF-8, or a selected column does not exist.
    """
    result = ParseResult(home=home_of(path))
    video = _SUFFIX.sub("", path.stem)
    text = read_text(path)
    lines = [line.strip() for line in text.split("\n")]
    first = next((line for line in lines if line), "")
    if _SEGMENT.fullmatch(first):
        spans = list(_segments(result, lines))
    elif delimiter_of(first) in first:
        spans = list(_columns(path, result, video, options))
    else:
        while lines and not lines[-1]:
            lines.pop()
        result.frame_counts[video] = len(lines)
        spans = [(f"line {begin + 1}", label, begin, stop) for label, begin, stop in _runs(lines)]
    split = _split(path)
    if split:
        result.notes.append("splits come from splits/train.split1.bundle and test.split1.bundle")
    background = dict.fromkeys(label for _, label, _, _ in spans if label.lower() in _BACKGROUND)
    for where, label, begin, stop in spans:
        with result.entry():
            if label and label not in background:
                span = FrameSpan(first=begin, stop=stop, fps=options.fps)
                result.add(where, video, label=label, split=split, frames=span)
    if background:
        result.notes.append(f"frames labelled {' or '.join(background)} are not events")
    if not result.rows and not result.problems:
        with result.entry():
            result.add("the file", video, split=split)
    return result


def _split(path: Path) -> str:
    """Return the split that MS-TCN's bundles give a file; empty if there are none."""
    bundles = {split: path.parent.parent / "splits" / f"{split}.split1.bundle" for split in ("train", "test")}
    return next((split for split, bundle in bundles.items() if path.name in _bundle(bundle)), "")


@lru_cache(maxsize=8)  # it lists all files of a data set, which are read one after the other
def _bundle(path: Path) -> frozenset[str]:
    return frozenset(line.strip() for line in read_text(path).split("\n")) if path.is_file() else frozenset()


def _runs(values: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the value of each run of equal values, its first index, and the index after its last."""
    begin = 0
    for value, group in groupby(values):
        stop = begin + sum(1 for _ in group)
        yield value, begin, stop
        begin = stop


def _segments(result: ParseResult, lines: list[str]) -> Iterator[tuple[str, str, int, int]]:
    for line_number, line in enumerate(lines, start=1):
        with result.entry():
            match = _SEGMENT.fullmatch(line)
            if match and 1 <= int(match[1]) <= int(match[2]) < 10**9:
                yield f"line {line_number}", match[3], int(match[1]) - 1, int(match[2])
            elif line:
                message = f"{line[:60]!r} is not a range of frames and a label"
                raise InvalidEntryError(f"line {line_number}", message, "a line looks like: 31-150 take_bowl")


def _columns(path: Path, result: ParseResult, video: str, options: Options) -> Iterator[tuple[str, str, int, int]]:
    """Yield the events of each behavior of a table."""
    (_, header), *rows = list(read_cells(path, result)) or [("", [])]
    if options.tiers:
        missing = next((name for name in options.tiers if name not in header), None)
        if missing is not None:
            raise AnnotationError(
                f"{path}: no column {missing!r}{did_you_mean(missing, header)}", f"its columns are {', '.join(header)}"
            )
        chosen = [header.index(name) for name in options.tiers]
    else:
        chosen = _behavior_columns(header, [cells for _, cells in rows])
    if not chosen:
        raise AnnotationError(
            f"{path}: no column of behaviors, whose values are 0, 1 or -1", "select columns with `tiers`"
        )
    if has_pose_columns(",".join(header)):
        result.notes.append(
            f"labels come from the columns {', '.join(header[index] for index in chosen)}; select others with `tiers`"
        )
    step = _frame_step(path, header, rows)
    result.frame_counts[video] = len(rows) * step
    unlabelled = 0
    for index in chosen:
        values = []
        for where, cells in rows:
            with result.entry():
                value = _VALUES.get(cells[index] if index < len(cells) else "")
                if value is None:
                    message = f"{header[index]} is {cells[index] if index < len(cells) else ''!r}"
                    raise InvalidEntryError(where, message, "values of behaviors are 0, 1 or -1")
                unlabelled += value < 0
                values.append(header[index] if value > 0 else "")
        for label, begin, stop in _runs(values):
            yield rows[begin][0], label, begin * step, stop * step
    if unlabelled:
        result.warnings.append(
            f"{unlabelled} values of -1 (not labelled) of {len(rows) * len(chosen)}, read as 0: nothing happens there"
        )


def _frame_step(path: Path, header: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> int:
    """Return the frames from one row of a table to the next, by its index; 1 if it has none.

    Raises:
        AnnotationError: Frames are missing.
    """
    numbers = [number(cells[0]) for _, cells in rows] if header[0].lower() in _INDEX_NAMES else []
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    for (where, _), before, after in zip(rows[1:], numbers, numbers[1:], strict=False):
        if not (after - before == step >= 1 and step == int(step)):  # NaN fails too
            message = f"{path}, {where}: frame {after:g} follows frame {before:g}"
            raise AnnotationError(message, "each frame, or every n-th, needs a row")
    return int(step)


def _behavior_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the columns of behaviors: the last ones, as long as all their values are 0, 1 or -1.

    Empty if the table is none of behaviors, because other columns than an index and poses come before.
    """
    columns: list[int] = []
    for index in range(len(header) - 1, -1, -1):
        name = header[index]
        if name.startswith("Probability_"):  # between the behaviors in SimBA's results
            continue
        is_index = index == 0 and name.lower() in _INDEX_NAMES
        is_binary = all(len(cells) == len(header) and cells[index] in _VALUES for cells in rows)
        if is_index or not is_binary or not name or name in _VALUES or _NO_BEHAVIOR.fullmatch(name):
            break
        columns.insert(0, index)
    first = columns[0] if columns else 0
    is_complete = first == 0 or (first == 1 and header[0].lower() in _INDEX_NAMES)
    return columns if rows and (is_complete or has_pose_columns(",".join(header))) else []
