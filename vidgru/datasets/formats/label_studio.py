"""Label Studio's JSON export of timelines (`TimelineLabels` on a `Video`), and of `Choices` for whole clips.

    [{"id": 1, "data": {"video": "/data/upload/1/0a1b2c3d-a.mp4"}, "annotations": [{"result": [
       {"value": {"ranges": [{"start": 3, "end": 5}], "timelinelabels": ["Moving"]}, "type": "timelinelabels", ...}]}]}]
    [{"id": 1, "video": "/data/upload/1/0a1b2c3d-a.mp4", "videoLabels": [{"ranges": [...], "timelinelabels": [...]}]}]

The second is JSON-MIN. Frames count from 1, and both ends are part of the range. They are frames of the labelling
configuration's rate (`<Video frameRate=...>`, 24 if it says nothing), whatever the file's own: the export does not tell
it, except where it is taken from the task's data (`frameRate="$fps"`).

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
    """Ranges of all tasks; a task whose annotation is empty is a recording in which nothing happens.

    Of several annotations of a task the one marked as ground truth counts, else the first that was not cancelled.

    Raises:
        AnnotationError: JSON-MIN without timelines.
    """
    result = ParseResult()
    without_placeholder_labels = several = assumed = 0
    entries: dict[str, int] = {}  # of JSON-MIN, which has an entry for each annotation of a task: how many, by task
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
                without_placeholder_labels += number == 0
                several += number > 1
                assumed += not fps and any("ranges" in value for value in results)
                for value in results:
                    with result.entry():
                        _result(result, video, value, fps or _DEFAULT_FPS)
                if number and not results:
                    result.add(task.path, video)
    if entries and not (result.problems or any(row.annotation.label for row in result.rows)):
        what = "no labels on timelines, and JSON-MIN does not tell choices from a task's data"
        raise AnnotationError(f"{path}: {what}", "export it as JSON")
    several += sum(number > 1 for number in entries.values())
    if assumed:
        result.warnings.append(
            f"frames are taken for {_DEFAULT_FPS:g} a second, Label Studio's default; if the labelling configuration "
            'says another (<Video frameRate="...">), give it as `fps`'
        )
    if without_placeholder_labels:
        result.notes.append(f"{plural(without_placeholder_labels, 'task')} that nobody annotated left out")
    if several:
        result.notes.append(f"{plural(several, 'task')} annotated more than once; one annotation of each is used")
    return result


def _data(task: Node) -> Node:
    return task if task["data"].value is None else task["data"]


def _video(task: Node) -> str:
    """The video of a task, without what Label Studio puts before its path; its name in the data may be any."""
    data = _data(task)
    texts = (value for _, value in data.items() if isinstance(value.value, str) and _VIDEO.search(value.value))
    address = data["video"] if "video" in data else next(texts, None)
    if address is None:
        raise InvalidEntryError(task.path, "no video", "each task's data names one")
    try:
        parts = urlsplit(address.text())
        local = parse_qs(parts.query).get("d")
    except ValueError as error:
        raise InvalidEntryError(address.path, f"is not an address: {error}", "it is a path or a URL") from error
    name = local[0] if local else unquote(parts.path)
    return _UPLOAD.sub("", name, count=1).lstrip("/")


def _spellings(result: ParseResult, video: str) -> None:
    """Uploaded files get eight random digits before their name, which the user's own do not have."""
    folder, slash, name = video.rpartition("/")
    bare = _PREFIX.sub("", name, count=1)
    if bare != name:
        result.spellings[video] = (f"{folder}{slash}{bare}",)


def _rate(task: Node) -> float:
    """Frames a second where the task's data holds them; 0 where it does not."""
    data = _data(task)
    return next((data[name].above_0() for name in _RATES if name in data), 0.0)


def _results(task: Node) -> tuple[list[Node], int]:
    """What was annotated in a task, and how many annotated it."""
    if "annotations" in task:
        notes = [note for note in task["annotations"].each() if not note["was_cancelled"].value]
        truth = [note for note in notes if note["ground_truth"].value] or notes
        found = [result["value"] for result in truth[0]["result"].each()] if truth else []
        return [value for value in found if "timelinelabels" in value or "choices" in value], len(notes)
    found = [
        value
        for _, values in task.items()
        if isinstance(values.value, list)
        for value in values.each()
        if "timelinelabels" in value
    ]
    return found, 1


def _result(result: ParseResult, video: str, value: Node, fps: float) -> None:
    if "choices" in value:
        for choice in value["choices"].each():
            result.add(value.path, video, label=choice.text())
        return
    for span in value["ranges"].each():
        start, end = span["start"].number(), span["end"].number()
        if not 1 <= start <= end:
            what = f"frames {start:g} to {end:g} are no range"
            raise InvalidEntryError(span.path, what, "frames count from 1, and the end is not before the start")
        for label in value["timelinelabels"].each():
            result.add(span.path, video, start_s=(start - 1) / fps, end_s=end / fps, label=label.text())


def is_label_studio(root: object) -> bool:
    """Whether a JSON value has the shape of an export, of one task or in JSON-MIN."""
    if isinstance(root, list):  # whichever task it is that has labels
        return any(isinstance(task, dict) and is_label_studio(task) for task in root)
    if not isinstance(root, dict):
        return False
    if isinstance(root.get("data"), dict) and isinstance(root.get("annotations"), list):
        return True
    lists = (value for value in root.values() if isinstance(value, list))
    return any(isinstance(value, dict) and "timelinelabels" in value for values in lists for value in values)
