"""Label Studio's JSON export of timelines (`TimelineLabels` on a `Video`, `Labels` on an `Audio` that plays its sound),
and of `Choices` for whole clips.

    [{"id": 1, "data": {"video": "/data/upload/1/0a1b2c3d-a.mp4"}, "annotations": [{"result": [
       {"value": {"ranges": [{"start": 3, "end": 5}], "timelinelabels": ["Moving"]}, "type": "timelinelabels", ...}]}]}]
    [{"id": 1, "video": "/data/upload/1/0a1b2c3d-a.mp4", "videoLabels": [{"ranges": [...], "timelinelabels": [...]}]}]

The second is JSON-MIN. `Labels` have the times of a region in seconds: `{"start": 1.25, "end": 3.5, "labels": [...]}`.
Frames of timelines count from 1 and both ends are included. They are counted at the rate of the labelling
configuration (`<Video frameRate=...>`, default 24), not of the file; the export does not contain that rate, unless it
comes from the data of the task (`frameRate="$fps"`).

Sources: labelstud.io/tags/timelinelabels, /tags/video, /tags/audio and /templates/video_timeline_segmentation;
HumanSignal/label-studio,
web/libs/editor/src/regions/TimelineRegion.js and tags/object/Video.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from vidgru.datasets.formats.json_reader import Node
from vidgru.datasets.rows import InvalidEntryError, Options, ParseResult, home_of, plural
from vidgru.errors import AnnotationError
from vidgru.sources import VIDEO_SUFFIXES

_DEFAULT_FPS = 24.0
_UPLOAD = re.compile(r"/?data/upload/\d+/")
_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")
_VIDEO = re.compile(rf"\.(?:{'|'.join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))})(?=$|[?#])", re.IGNORECASE)
_RATES = ("fps", "frameRate", "framerate", "frame_rate")
_READ = "TimelineLabels, Labels of audio, and Choices"
_CHOICE_KEYS = {"choices", "start", "end", "channel", "ranges"}  # others mark the region of a picture or a text
_NO_REGION = ("relation",)  # results that say nothing about what happens


def read_label_studio(path: Path, root: Node, options: Options) -> ParseResult:
    """Parse the ranges of all tasks; a task with an empty annotation is an event-free recording.

    Of several annotations of a task, the ground truth is used, else the first that was not cancelled. Results of other
    types are not read: a task with nothing else is skipped with a warning.

    Raises:
        AnnotationError: Nothing in the file can be read: JSON-MIN without timelines, results of other types only, or no
            annotations.
    """
    result = ParseResult(home=home_of(path))
    unannotated = repeated = assumed_fps = 0
    entries: dict[str, int] = {}  # JSON-MIN has one entry per annotation: their number per task
    unread: dict[str, list[str]] = {}  # videos of the tasks that have results of a type
    skipped: list[str] = []
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
                results, others, number = _results(task)
                unannotated += number == 0
                repeated += number > 1
                assumed_fps += not fps and any("ranges" in value for value in results)
                result.durations |= _durations(task, video)
                for value in results:
                    with result.entry():
                        _result(result, video, value, fps or _DEFAULT_FPS)
                for kind in dict.fromkeys(others):
                    unread.setdefault(kind, []).append(video)
                if number and not results:
                    if others:
                        skipped.append(video)
                    else:
                        result.add(task.path, video)
    if entries and not (result.problems or any(row.annotation.label for row in result.rows)):
        message = "no timeline labels, and JSON-MIN does not tell choices from other task data"
        raise AnnotationError(f"{path}: {message}", "export it as JSON")
    if skipped and not (result.rows or result.problems):
        message = f"its results are of types that are not read: {', '.join(unread)}"
        raise AnnotationError(f"{path}: {message}", f"vidgru reads {_READ}: label the timeline with one of them")
    if unannotated and not (result.rows or result.problems):
        message = f"none of its {plural(unannotated, 'task')} is annotated"
        raise AnnotationError(
            f"{path}: {message}", "submit annotations in Label Studio (predictions are not read) and export again"
        )
    _add_messages(result, unread, skipped)
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


def _add_messages(result: ParseResult, unread: dict[str, list[str]], skipped: list[str]) -> None:
    """Add a warning about results that are not read, and about tasks that have no others."""
    if unread:
        kinds = ", ".join(f"{kind} (in {plural(len(videos), 'task')})" for kind, videos in unread.items())
        effect = f"; {plural(len(skipped), 'task')} with nothing else skipped (first: {skipped[0]})" if skipped else ""
        result.warnings.append(f"results of types that are not read: {kinds}{effect}; vidgru reads {_READ}")


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


def _durations(task: Node, video: str) -> dict[str, float]:
    """Return the duration of the audio that labels were given on, by video; empty if there is none."""
    notes = task["annotations"].each() if "annotations" in task else ()
    results = (result for note in notes if "result" in note for result in note["result"].each())
    lengths = [result["original_length"].above_0() for result in results if "original_length" in result]
    return {video: lengths[0]} if lengths else {}


def _results(task: Node) -> tuple[list[Node], list[str], int]:
    """Return the values of the annotation of a task that is used, types of its other results, and its annotations."""
    if "annotations" not in task:
        values = [v for _, nodes in task.items() if isinstance(nodes.value, list) for v in nodes.each()]
        return [value for value in values if _is_timeline(value.value)], [], 1
    notes = [note for note in task["annotations"].each() if not note["was_cancelled"].value]
    truth = [note for note in notes if note["ground_truth"].value] or notes
    results: list[Node] = []
    others: list[str] = []
    for result in truth[0]["result"].each() if truth else ():
        value = result["value"]
        if _is_timeline(value.value) or ("choices" in value and value.value.keys() <= _CHOICE_KEYS):
            results.append(value)
        elif result["type"].value not in _NO_REGION:
            others.append(result["type"].maybe_text() or "unknown")
    return results, others, len(notes)


def _is_timeline(value: object) -> bool:
    """Whether the value of a result has labels in time: ranges of frames, or seconds of audio (in text, of letters)."""
    if not isinstance(value, dict):
        return False
    return "timelinelabels" in value or ({"start", "end", "labels"} <= value.keys() and "text" not in value)


def _result(result: ParseResult, video: str, value: Node, fps: float) -> None:
    """Add the labels of a result: of ranges of frames, of seconds, or of the whole clip."""
    spans: list[tuple[str, float | None, float | None]] = [(value.path, None, None)]
    if value.value.keys() & {"timelinelabels", "ranges"}:
        spans = [_seconds(span, fps) for span in value["ranges"].each()]
    elif "start" in value or "choices" not in value:
        spans = [(value.path, value["start"].number(), value["end"].number())]
    key = next(key for key in ("timelinelabels", "labels", "choices") if key in value.value)
    for where, start_s, end_s in spans:
        for label in value[key].each():
            result.add(where, video, start_s=start_s, end_s=end_s, label=label.text())


def _seconds(span: Node, fps: float) -> tuple[str, float, float]:
    """Return the place of a range of frames, and its start and end in seconds."""
    start, end = span["start"].number(), span["end"].number()
    if not 1 <= start <= end:
        message = f"frames {start:g} to {end:g} are not a range"
        raise InvalidEntryError(span.path, message, "frames count from 1, and the end must not be before the start")
    return span.path, (start - 1) / fps, end / fps


def is_label_studio(root: object) -> bool:
    """Whether a JSON value looks like an export, a single task, or JSON-MIN."""
    if isinstance(root, list):  # any task may be the first with labels
        return any(isinstance(task, dict) and is_label_studio(task) for task in root)
    if not isinstance(root, dict):
        return False
    if isinstance(root.get("data"), dict) and isinstance(root.get("annotations"), list):
        return True
    lists = (value for value in root.values() if isinstance(value, list))
    return any(_is_timeline(value) for values in lists for value in values)
