"""CVAT's "CVAT for video 1.1", tracks of objects, and the tags of "CVAT for images 1.1", given per frame.

Their labels and attributes become events.

    <annotations><version>1.1</version>
      <meta><task><name>...</name><frame_filter>step=1</frame_filter><source>a.mp4</source>...</task></meta>
      <track id="0" label="person"><box frame="12" outside="0" occluded="0" keyframe="1" xtl="..." ...>
        <attribute name="action">walk</attribute></box> ...</track></annotations>

    <annotations><version>1.1</version><meta>...</meta>
      <image id="50" name="frame_000050" ...><tag label="fall" source="manual"></tag></image> ...</annotations>

Frames are those of the video, counted from 0; the file does not give the frame rate. A video task exported as CVAT for
video has no tags.

Source: docs.cvat.ai/docs/manual/advanced/xml_format, "Interpolation" and "Annotation".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from pathlib import Path

from vidgru.datasets.formats.xml_reader import Element, children
from vidgru.datasets.rows import (
    SPLIT_NAMES,
    FrameSpan,
    InvalidEntryError,
    Options,
    ParseResult,
    did_you_mean,
    home_of,
    plural,
)
from vidgru.errors import AnnotationError
from vidgru.numbers import number

ROOT = "annotations"
_LABEL = "label"  # pseudo-tier of the labels of the tracks
_NOT_SET = {"", "false", "__undefined__"}
_SPLITS = {"train", "val", "test", *SPLIT_NAMES}
_FRAME_NAME = re.compile(r"(?:.*/)?frame_(\d+)(?:\.\w+)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A video, the step between annotated frames, the split that its subset names, and its labels of tags."""

    video: str
    step: int = 1
    split: str = ""
    tag_labels: tuple[str, ...] = ()


@dataclass
class _Tags:
    """The tagged frames of a task: labels by frame and tier, and the number of shapes, which are not read."""

    labels: dict[int, list[tuple[str, str]]]
    where: dict[int, str]
    shapes: int = 0


def read_cvat(path: Path, options: Options) -> ParseResult:
    """Parse a CVAT file: each visible run of a track is an event of its label, and so is each run of attribute values.

    So is each run of frames with the same tag. A ticked checkbox is an event of the attribute's name; unticked or
    undefined values and numbers are ignored. `tiers` selects attributes, `label` standing for the labels of tracks and
    tags. The subset (`Train`, `Validation`, `Test`) is the split. A task without tracks and tags is an event-free
    recording, with a warning; but in a project with other tasks, where nobody may have annotated it yet, it is skipped
    with a notice.

    Raises:
        AnnotationError: The export cannot hold what the task was annotated with.
    """
    result = ParseResult(home=home_of(path))
    tasks = {"": _Task(video=path.stem)}
    annotated: set[_Task] = set()
    tags: dict[_Task, _Tags] = {}
    tiers: dict[str, None] = {_LABEL: None}
    for element in children(path, ROOT):
        with result.entry():
            task = tasks.get(element.attributes.get("task_id", ""), tasks[""])
            if element.tag == "image":
                _image(path, element, tags.setdefault(task, _Tags({}, {})))
            elif element.tag == "meta":
                tasks = _meta(path, element, result)
            elif element.tag == "track":
                annotated.add(task)
                _track(result, element, task, tiers, options)
    for task, tagged in tags.items():
        if tagged.labels:
            annotated.add(task)
            with result.entry():
                _add_tags(result, task, tagged, tiers, options)
    shapes = sum(tagged.shapes for tagged in tags.values())
    if shapes and not annotated:
        raise AnnotationError(
            f"{path}: has {plural(shapes, 'shape')} on images and no tags; shapes of CVAT for images are not read",
            "export the task as CVAT for video 1.1",
        )
    if shapes:
        result.warnings.append(f"{plural(shapes, 'shape')} on images not read; CVAT for video 1.1 has tracks")
    for name in options.tiers:
        if name not in tiers and annotated:
            known = f"its attributes are {', '.join(list(tiers)[1:]) or 'none'}; `label` means those of the tracks"
            raise AnnotationError(f"{path}: no attribute {name!r}{did_you_mean(name, tiers)}", known)
    if not options.tiers and len(tiers) > 1:
        result.notes.append(f"labels come from {', '.join(tiers)}; select some with `tiers`")
    _add_unannotated(path, result, list(dict.fromkeys(tasks.values())), annotated, is_images=bool(tags))
    return result


def _add_unannotated(
    path: Path, result: ParseResult, tasks: list[_Task], annotated: set[_Task], *, is_images: bool
) -> None:
    """Add a row or messages for tasks without events. Raises AnnotationError if the export cannot hold their tags."""
    bare = [task for task in tasks if task not in annotated]
    lost = sorted({label for task in tasks for label in task.tag_labels}) if not is_images else []
    if lost:
        message = f"{path}: the labels {', '.join(lost)} are tags, which CVAT for video 1.1 does not hold"
        remedy = "export the task as CVAT for images 1.1"
        if not annotated:
            raise AnnotationError(message, remedy)
        result.warnings.append(f"{message}; to read them, {remedy}")
    if len(bare) > 1 or (annotated and bare):
        result.notes.append(f"{plural(len(bare), 'task')} of a project without tracks skipped ({bare[0].video})")
    elif bare:
        what = "tags" if is_images else "tracks"
        result.warnings.append(
            f"{path.name} has no {what}: {bare[0].video} counts as a recording without events; if it was annotated, "
            + ("export it as CVAT for video 1.1" if is_images else "export tags as CVAT for images 1.1")
        )
        with result.entry():
            result.add("the file", bare[0].video, split=bare[0].split)


def _meta(path: Path, meta: Element, result: ParseResult) -> dict[str, _Task]:
    """Return the tasks by id; "" is the default. Notes the number of frames of their videos."""
    by_id: dict[str, _Task] = {}
    sources = [text for source in meta.all("source") if (text := source.text.strip())]
    tasks = [*meta.all("task"), *meta.all("job")]
    for task in tasks:
        video = task.first_text("source") or (sources if len(tasks) == 1 and sources else [task.first_text("name")])[0]
        subset = task.first_text("subset").lower()
        tag_labels = (label.first_text("name") for label in meta.all("label") if label.first_text("type") == "tag")
        parsed = _Task(
            video=video or path.stem,
            step=_step(task),
            split=subset if subset in _SPLITS else "",
            tag_labels=tuple(tag_labels),
        )
        last = number(task.first_text("stop_frame"))
        if 0 <= last < 2**31:  # NaN fails too
            result.frame_counts[parsed.video] = int(last) + 1
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
                span = FrameSpan(first=frames[first], stop=end, fps=options.fps)
                result.add(shapes[first].where, task.video, label=value, split=task.split, frames=span)
    if not shapes:
        raise InvalidEntryError(track.where, "a track without shapes", "delete it in CVAT or export again")


def _image(path: Path, image: Element, tagged: _Tags) -> None:
    """Collect the tags of a frame."""
    tags = [child for child in image.children if child.tag == "tag"]
    tagged.shapes += sum(child.tag not in ("tag", "attribute") for child in image.children)
    if not tags:
        return
    name = _FRAME_NAME.fullmatch(image.attributes.get("name", ""))
    if name is None:
        message = f"{path}, {image.where}: image {image.attributes.get('name', '')!r} is a file, not a frame of a video"
        raise AnnotationError(message, "create the CVAT task from the video itself")
    frame = int(name[1])
    tagged.where[frame] = image.where
    for tag in tags:
        values = {_LABEL: tag.require("label"), **_attributes(tag)}
        labels = [(tier, label) for tier, value in values.items() if (label := _as_label(tier, value))]
        tagged.labels.setdefault(frame, []).extend(labels)


def _add_tags(result: ParseResult, task: _Task, tagged: _Tags, tiers: dict[str, None], options: Options) -> None:
    """Add each run of consecutive frames with the same tag as an event."""
    frames_of: dict[tuple[str, str], list[int]] = {}
    for frame in sorted(tagged.labels):
        for tier_label in dict.fromkeys(tagged.labels[frame]):
            frames_of.setdefault(tier_label, []).append(frame)
    tiers.update(dict.fromkeys(tier for tier, _ in frames_of))
    for (tier, label), frames in frames_of.items():
        if options.tiers and tier not in options.tiers:
            continue
        first = frames[0]
        for frame, after in pairwise((*frames, frames[-1] + task.step + 1)):
            if after - frame > task.step:
                span = FrameSpan(first=first, stop=frame + task.step, fps=options.fps)
                result.add(tagged.where[first], task.video, label=label, split=task.split, frames=span)
                first = after


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
