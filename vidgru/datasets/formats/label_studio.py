"""Label Studio's JSON export of timelines (`TimelineLabels` on a `Video`), and of `Choices` for whole clips.

    [{"id": 1, "data": {"video": "/data/upload/1/0a1b2c3d-a.mp4"}, "annotations": [{"result": [
       {"value": {"ranges": [{"start": 3, "end": 5}], "timelinelabels": ["Moving"]}, "type": "timelinelabels", ...}]}]}]
    [{"id": 1, "video": "/data/upload/1/0a1b2c3d-a.mp4", "videoLabels": [{"ranges": [...], "timelinelabels": [...]}]}]

The second is JSON-MIN. Frames count from 1 and both ends are included. They are counted at the rate of the labelling
configuration (`<Video frameRate=...>`, default 24), not of the file; the export does not contain that rate, unless it
comes from the data of the task (`frameRate="$fps"`).

Sources: labelstud.io/tags/timelinelabels and /tags/video; HumanSignal/label-studio,
web/libs/editor/src/regions/TimelineRegion.js and tags/object/Video.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from vidgru.datasets.formats.json_reader import Node
from vidgru.datasets.rows import InvalidEntryError, Options, ParseResult, plural
from vidgru.errors import AnnotationError
from vidgru.sources import VIDEO_SUFFIXES

_DEFAULT_FPS = 24.0
_UPLOAD = re.compile(r"/?data/upload/\d+/")
_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")
_VIDEO = re.compile(rf"\.(?:{'|'.join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))})(?=$|[?#])", re.IGNORECASE)
_RATES = ("fps", "frameRate", "framerate", "frame_rate")


def read_label_studio(path: Path, root: Node, options: Options) -> ParseResult:
    """Parse the ranges of all tasks; a task with an empty annotation is an event-free recording.

    Of several annotations of a task, the ground truth is used, else the first that was not cancelled.

    Raises:
        AnnotationError: The file is JSON-MIN without timelines.
    """
    result = ParseResult()
    unannotated = repeated = assumed_fps = 0
    entries: dict[str, int] = {}  # JSON-MIN has one entry per annotation: their number per task
    tasks = [root] if isinstance(root.value, dict) else None
    with result.entry():
        for task in tasks or root.each():
            with result.entry():
                if "annotations" not in task:
                    key = task["id"].maybe_text() or task.path
                    entries[key] = entries.get(key, 0) + 1
                    if entries[key] > 1:
                        continue
                video, fps = _video(task), options.fps or _rate(task)
                _spellings(result, video)
                results, number = _results(task)
                unannotated += number == 0
                repeated += number > 1
                assumed_fps += not fps and any("ranges" in value for value in results)
                for value in results:
                    with result.entry():
                        _result(result, video, value, fps or _DEFAULT_FPS)
                if number and not results:
                    result.add(task.path, video)
    if entries and not (result.problems or any(row.annotation.label for row in result.rows)):
        message = "no timeline labels, and JSON-MIN does not tell choices from other task data"
        raise AnnotationError(f"{path}: {message}", "export it as JSON")
    repeated += sum(number > 1 for number in entries.values())
    if assumed_fps:
        result.warnings.append(
            f"assuming {_DEFAULT_FPS:g} frames per second, Label Studio's default; if the labelling configuration has "
            'another rate (<Video frameRate="...">), give it as `fps`'
        )
    if unannotated:
        result.notes.append(f"{plural(unannotated, 'task')} without annotation skipped")
    if repeated:
        result.notes.append(f"{plural(repeated, 'task')} annotated more than once; using one annotation of each")
    return result


def _data(task: Node) -> Node:
    return task if task["data"].value is None else task["data"]


def _video(task: Node) -> str:
    """Return the video of a task, without Label Studio's path prefix; its key in the data is arbitrary."""
    data = _data(task)
    texts = (value for _, value in data.items() if isinstance(value.value, str) and _VIDEO.search(value.value))
    address = data["video"] if "video" in data else next(texts, None)
    if address is None:
        raise InvalidEntryError(task.path, "no video", "the data of each task must name one")
    try:
        parts = urlsplit(address.text())
        local = parse_qs(parts.query).get("d")
    except ValueError as error:
        raise InvalidEntryError(address.path, f"is not an address: {error}", "give a path or a URL") from error
    name = local[0] if local else unquote(parts.path)
    return _UPLOAD.sub("", name, count=1).lstrip("/")


def _spellings(result: ParseResult, video: str) -> None:
    """Add the name without the eight-digit prefix that uploads get."""
    folder, slash, name = video.rpartition("/")
    bare = _PREFIX.sub("", name, count=1)
    if bare != name:
        result.spellings[video] = (f"{folder}{slash}{bare}",)


def _rate(task: Node) -> float:
    """Return the frame rate in the data of the task, or 0."""
    data = _data(task)
    return next((data[name].above_0() for name in _RATES if name in data), 0.0)


def _results(task: Node) -> tuple[list[Node], int]:
    """Return the results of the annotation of a task that is used, and the number of annotations."""
    if "annotations" in task:
        notes = [note for note in task["annotations"].each() if not note["was_cancelled"].value]
        truth = [note for note in notes if note["ground_truth"].value] or notes
        values = [result["value"] for result in truth[0]["result"].each()] if truth else []
        return [value for value in values if "timelinelabels" in value or "choices" in value], len(notes)
    timelines = [
        value
        for _, values in task.items()
        if isinstance(values.value, list)
        for value in values.each()
        if "timelinelabels" in value
    ]
    return timelines, 1


def _result(result: ParseResult, video: str, value: Node, fps: float) -> None:
    if "choices" in value:
        for choice in value["choices"].each():
            result.add(value.path, video, label=choice.text())
        return
    for span in value["ranges"].each():
        start, end = span["start"].number(), span["end"].number()
        if not 1 <= start <= end:
            message = f"frames {start:g} to {end:g} are not a range"
            raise InvalidEntryError(span.path, message, "frames count from 1, and the end must not be before the start")
        for label in value["timelinelabels"].each():
            result.add(span.path, video, start_s=(start - 1) / fps, end_s=end / fps, label=label.text())


def is_label_studio(root: object) -> bool:
    """Whether a JSON value looks like an export, a single task, or JSON-MIN."""
    if isinstance(root, list):  # any task may be the first with labels
        return any(isinstance(task, dict) and is_label_studio(task) for task in root)
    if not isinstance(root, dict):
        return False
    if isinstance(root.get("data"), dict) and isinstance(root.get("annotations"), list):
        return True
    lists = (value for value in root.values() if isinstance(value, list))
    return any(isinstance(value, dict) and "timelinelabels" in value for values in lists for value in values)
