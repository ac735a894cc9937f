"""CVAT's "CVAT for video 1.1": tracks of objects, whose labels and attributes become events.

    <annotations><version>1.1</version>
      <meta><task><name>...</name><frame_filter>step=1</frame_filter><source>a.mp4</source>...</task></meta>
      <track id="0" label="person"><box frame="12" outside="0" occluded="0" keyframe="1" xtl="..." ...>
        <attribute name="action">walk</attribute></box> ...</track></annotations>

Frames are those of the video, counted from 0; the file does not give the frame rate.

Source: docs.cvat.ai/docs/manual/advanced/xml_format, "Interpolation".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

from vidgru.datasets.formats.parsing import number
from vidgru.datasets.formats.xml_reader import Element, children
from vidgru.datasets.rows import SPLIT_NAMES, InvalidEntryError, Options, ParseResult, did_you_mean, plural
from vidgru.errors import AnnotationError

ROOT = "annotations"
_LABEL = "label"  # pseudo-tier of the labels of the tracks
_NOT_SET = {"", "false", "__undefined__"}
_SPLITS = {"train", "val", "test", *SPLIT_NAMES}


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A video, the step between annotated frames, and its split, if its subset is named like one."""

    video: str
    step: int = 1
    split: str = ""


def read_cvat(path: Path, options: Options) -> ParseResult:
    """Parse a CVAT file: each visible run of a track is an event of its label, and so is each run of attribute values.

    A ticked checkbox is an event of the attribute's name; unticked or undefined values and numbers are ignored. `tiers`
    selects attributes, `label` standing for the labels of the tracks. The subset (`Train`, `Validation`, `Test`) is the
    split. A task without tracks is an event-free recording; but in a project with other tasks, where nobody may have
    annotated it yet, it is skipped with a notice.

    Raises:
        AnnotationError: No frame rate was given, or the file is CVAT for images.
    """
    result = ParseResult()
    if not options.fps:
        raise AnnotationError(
            f"{path}: CVAT counts frames and does not give the frame rate of the video",
            "give it: `fps: 25` in a dataset YAML, or vidgru convert --fps 25",
        )
    tasks = {"": _Task(video=path.stem)}
    tracked: set[_Task] = set()
    tiers: dict[str, None] = {_LABEL: None}
    for element in children(path, ROOT):
        with result.entry():
            if element.tag == "image":
                raise AnnotationError(f"{path} is CVAT for images", "export the task as CVAT for video 1.1")
            if element.tag == "meta":
                tasks = _meta(path, element)
            elif element.tag == "track":
                task = tasks.get(element.attributes.get("task_id", ""), tasks[""])
                tracked.add(task)
                _track(result, element, task, tiers, options)
    for name in options.tiers:
        if name not in tiers and tracked:
            known = f"its attributes are {', '.join(list(tiers)[1:]) or 'none'}; `label` means those of the tracks"
            raise AnnotationError(f"{path}: no attribute {name!r}{did_you_mean(name, tiers)}", known)
    if not options.tiers and len(tiers) > 1:
        result.notes.append(f"labels come from {', '.join(tiers)}; select some with `tiers`")
    without_tracks = [task for task in dict.fromkeys(tasks.values()) if task not in tracked]
    if len(without_tracks) > 1 or (tracked and without_tracks):
        result.notes.append(
            f"{plural(len(without_tracks), 'task')} of a project without tracks skipped ({without_tracks[0].video})"
        )
    elif without_tracks:
        with result.entry():
            result.add("the file", without_tracks[0].video, split=without_tracks[0].split)
    return result


def _meta(path: Path, meta: Element) -> dict[str, _Task]:
    """Return the tasks by id; "" is the default."""
    by_id: dict[str, _Task] = {}
    sources = [text for source in meta.all("source") if (text := source.text.strip())]
    tasks = [*meta.all("task"), *meta.all("job")]
    for task in tasks:
        video = task.first_text("source") or (sources if len(tasks) == 1 and sources else [task.first_text("name")])[0]
        subset = task.first_text("subset").lower()
        parsed = _Task(video=video or path.stem, step=_step(task), split=subset if subset in _SPLITS else "")
        by_id[task.first_text("id")] = parsed
        by_id.setdefault("", parsed)
    return by_id or {"": _Task(video=(sources or [path.stem])[0])}


def _step(task: Element) -> int:
    _, equals, text = task.first_text("frame_filter").partition("step=")
    value = number(text.strip()) if equals else 1.0
    return int(value) if 1 <= value < 2**31 else 1


def _track(result: ParseResult, track: Element, task: _Task, tiers: dict[str, None], options: Options) -> None:
    label = track.require("label")
    fixed = _attributes(track)
    placed = [(shape.whole("frame"), shape) for shape in track.children if "frame" in shape.attributes]
    placed.sort(key=itemgetter(0))
    frames, shapes = [frame for frame, _ in placed], [shape for _, shape in placed]
    values: dict[str, list[str]] = {}  # per tier, the label at each shape; empty for none
    for index, shape in enumerate(shapes):
        if shape.attributes.get("outside", "0") != "1":
            for name, value in {_LABEL: label, **fixed, **_attributes(shape)}.items():
                values.setdefault(name, [""] * len(shapes))[index] = _as_label(name, value)
    tiers.update(dict.fromkeys(values))
    for name, labels in values.items():
        if not options.tiers or name in options.tiers:
            for first, last, value in _runs(labels):
                end = frames[last + 1] if last + 1 < len(frames) else frames[last] + task.step
                start_s, end_s = frames[first] / options.fps, end / options.fps
                where = shapes[first].where
                result.add(where, task.video, start_s=start_s, end_s=end_s, label=value, split=task.split)
    if not shapes:
        raise InvalidEntryError(track.where, "a track without shapes", "delete it in CVAT or export again")


def _attributes(element: Element) -> dict[str, str]:
    attributes = (child for child in element.children if child.tag == "attribute")
    return {child.require("name"): child.text.strip() for child in attributes}


@lru_cache(maxsize=4096)  # a file has millions of attributes with few distinct values
def _as_label(name: str, value: str) -> str:
    """Return the label that an attribute value stands for; empty if none."""
    if name == _LABEL:
        return value
    if value.lower() == "true":
        return name
    is_number = number(value) == number(value)  # False for NaN
    return "" if value.lower() in _NOT_SET or is_number else value


def _runs(labels: list[str]) -> Iterator[tuple[int, int, str]]:
    """Yield the first and last index of each run of equal labels, except empty ones."""
    first = 0
    for index in range(1, len(labels) + 1):
        if index == len(labels) or labels[index] != labels[first]:
            if labels[first]:
                yield first, index - 1, labels[first]
            first = index
