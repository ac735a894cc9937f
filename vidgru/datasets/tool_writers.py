"""Text of the files that `vidgru convert` writes for annotation tools, one function per tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from vidgru.datasets.writers import Annotations, without_labels
from vidgru.errors import AnnotationError, RecordingError
from vidgru.sources import VIDEO_SUFFIXES
from vidgru.types import Annotation, Array
from vidgru.video.frame_times import packet_times

_CVAT_SUBSETS = {"train": "Train", "val": "Validation", "test": "Test"}
_LABEL_STUDIO_FPS = 24.0  # of a labelling configuration that gives none
_BOX_PX = 16  # side of the boxes that stand for events in CVAT, in a row along the upper edge


@dataclass(frozen=True, kw_only=True)
class _TimedEvent:
    """An event as annotation tools hold it."""

    start_s: float
    end_s: float
    label: str
    description: str
    extra: Mapping[str, str]


def _timed_events(annotations: Annotations, tool: str) -> dict[str, list[_TimedEvent]]:
    """Return the labelled events of each video, sorted; a label of a whole video of known duration covers it.

    A video of which nothing can be written is left out: without events it would be event-free.

    Raises:
        AnnotationError: There is none.
    """
    events: dict[str, list[_TimedEvent]] = {}
    unlabelled = untimed = 0
    for row in annotations.rows:
        note = row.annotation
        end_s = annotations.durations.get(note.video) if note.end_s is None else note.end_s
        if note.label is None and note.description is None:
            events.setdefault(note.video, [])
        elif note.label is None:
            unlabelled += 1
        elif end_s is None:
            untimed += 1
        else:
            event = _TimedEvent(
                start_s=note.start_s or 0.0,
                end_s=end_s,
                label=note.label,
                description=note.description or "",
                extra=row.extra,
            )
            events.setdefault(note.video, []).append(event)
    annotations.skip(unlabelled, "row without a label", f"{tool} requires labels")
    annotations.skip(untimed, "label of a whole video", f"{tool} requires times, and its duration is not known")
    if not events and unlabelled and not untimed:
        raise without_labels(annotations, tool)
    if not events:
        raise AnnotationError(f"{annotations.source}: no row has times, which {tool} requires", "write .csv or .jsonl")
    return {video: sorted(group, key=lambda event: (event.start_s, event.end_s)) for video, group in events.items()}


def _skip_descriptions_and_splits(annotations: Annotations, tool: str, *, splits: bool = True) -> None:
    described = sum(bool(row.annotation.label and row.annotation.description) for row in annotations.rows)
    annotations.skip(described, "description", f"{tool} has none")
    if splits and any(row.annotation.split for row in annotations.rows):
        annotations.messages.append(f"splits skipped: {tool} has none")


def to_fiftyone(annotations: Annotations) -> str:
    """Format rows as labels.json of FiftyOne's temporal detections; videos are named by path without suffix.

    Source: docs.voxel51.com/user_guide/dataset_creation, FiftyOneTemporalDetectionDataset.

    Raises:
        AnnotationError: No row has a label and times, or two videos differ in their suffix only.
    """
    events = _timed_events(annotations, "FiftyOne")
    classes = sorted({event.label for group in events.values() for event in group})
    labels: dict[str, list[dict[str, Any]]] = {}
    for video, group in events.items():
        path = PurePosixPath(video)
        name = str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_absolute() else video
        if name in labels:
            message = f"{annotations.source}: two videos are called {name}, and FiftyOne ignores suffixes"
            raise AnnotationError(message, "rename one of them")
        labels[name] = [_detection(event, classes) for event in group]
    if any(row.annotation.split for row in annotations.rows):
        annotations.messages.append("splits skipped: FiftyOne has none")
    annotations.skip_columns("FiftyOne", ("score",))
    return json.dumps({"classes": classes, "labels": labels}, ensure_ascii=False, indent=1) + "\n"


def _detection(event: _TimedEvent, classes: list[str]) -> dict[str, Any]:
    detection: dict[str, Any] = {
        "label": classes.index(event.label),
        "timestamps": [round(event.start_s, 6), round(event.end_s, 6)],
    }
    if event.extra.get("score"):
        detection["confidence"] = float(event.extra["score"])
    if event.description:
        detection["attributes"] = {"description": event.description}
    return detection


def to_label_studio(annotations: Annotations, fps: float) -> str:
    """Format rows as tasks that Label Studio imports, with their annotations: timelines, and choices for whole videos.

    Args:
        annotations: The rows.
        fps: Frames per second to count in; 0 for Label Studio's default.

    Source: labelstud.io/tags/timelinelabels and /guide/tasks, "Basic Label Studio JSON format".

    Raises:
        AnnotationError: No row has a label.
    """
    fps = fps or _LABEL_STUDIO_FPS
    results: dict[str, list[dict[str, Any]]] = {}
    unlabelled = 0
    for row in annotations.rows:
        note = row.annotation
        if note.label is None and note.description is not None:
            unlabelled += 1
            continue
        group = results.setdefault(note.video, [])
        if note.label is not None:
            group.append(_region(note, note.label, fps, f"{len(results)}_{len(group) + 1}"))
    if not results:
        raise without_labels(annotations, "Label Studio")
    annotations.skip(unlabelled, "row without a label", "Label Studio requires labels")
    _skip_descriptions_and_splits(annotations, "Label Studio")
    annotations.skip_columns("Label Studio")
    tasks = [
        {"data": {"video": quote(video), "fps": fps}, "annotations": [{"result": group}]}
        for video, group in results.items()
    ]
    annotations.messages.append(f"labelling configuration: {_labelling_configuration(annotations)}")
    return json.dumps(tasks, ensure_ascii=False, indent=1) + "\n"


def _labelling_configuration(annotations: Annotations) -> str:
    """Return the configuration of a project that can show the tasks."""
    controls = ""
    notes = [row.annotation for row in annotations.rows if row.annotation.label]
    for tag, name, option, is_timed in (
        ("TimelineLabels", "timelineLabels", "Label", True),
        ("Choices", "choices", "Choice", False),
    ):
        labels = dict.fromkeys(note.label or "" for note in notes if (note.start_s is not None) == is_timed)
        options = "".join(f"<{option} value={quoteattr(label)}/>" for label in labels)
        controls += f'<{tag} name="{name}" toName="video">{options}</{tag}>' if options else ""
    return f'<View>{controls}<Video name="video" value="$video" frameRate="$fps"/></View>'


def _region(note: Annotation, label: str, fps: float, key: str) -> dict[str, Any]:
    """Return a result of an annotation; frames count from 1, and the last is included."""
    if note.start_s is None or note.end_s is None:
        value: dict[str, Any] = {"choices": [label]}
        return {"id": key, "type": "choices", "from_name": "choices", "to_name": "video", "value": value}
    start = round(note.start_s * fps) + 1
    value = {"ranges": [{"start": start, "end": max(start, round(note.end_s * fps))}], "timelinelabels": [label]}
    return {"id": key, "type": "timelinelabels", "from_name": "timelineLabels", "to_name": "video", "value": value}


def to_cvat(annotations: Annotations, fps: float) -> dict[str, str]:
    """Format rows as CVAT for video 1.1, one task per video; return texts by video.

    Each event is a track: a small box in the upper left corner, at one place per label. Frames are those of the video
    where it is there, because a frame rate may be variable.

    Args:
        annotations: The rows.
        fps: Frames per second of videos that are not there; 0 if unknown.

    Source: docs.cvat.ai/docs/manual/advanced/xml_format, "Interpolation".

    Raises:
        AnnotationError: No row has a label and times, or a frame rate is needed.
    """
    events = _timed_events(annotations, "CVAT")
    labels = sorted({event.label for group in events.values() for event in group})
    splits = {row.annotation.video: row.annotation.split for row in annotations.rows}
    _skip_descriptions_and_splits(annotations, "CVAT", splits=False)
    annotations.skip_columns("CVAT")
    texts = {}
    for video, group in events.items():
        frames = _read_frames(annotations.paths.get(video))
        if frames is None and not fps and group:
            raise AnnotationError(
                f"{annotations.source}: CVAT counts frames, and {video} is not there to count them",
                "give the frame rate of the video: --fps 25",
            )
        subset = _CVAT_SUBSETS.get(splits[video] or "", splits[video] or "")
        names = "".join(f"<label><name>{escape(label)}</name></label>" for label in labels)
        lines = [
            '<?xml version="1.0" encoding="utf-8"?>',
            "<annotations><version>1.1</version>",
            f"<meta><task><name>{escape(video)}</name><mode>interpolation</mode><subset>{escape(subset)}</subset>"
            f"<labels>{names}</labels><source>{escape(video)}</source></task></meta>",
        ]
        for index, event in enumerate(group):
            first, stop = _frame_range(event, frames, fps)
            last = [(stop, 1)] if frames is None or stop < len(frames) else [(stop - 1, 0)] * (stop - 1 > first)
            left = _BOX_PX * labels.index(event.label)
            lines.append(f'<track id="{index}" label={quoteattr(event.label)} source="manual">')
            lines += [
                f'<box frame="{frame}" keyframe="1" outside="{outside}" occluded="0" xtl="{left}.00" ytl="0.00" '
                f'xbr="{left + _BOX_PX}.00" ybr="{_BOX_PX}.00" z_order="0"></box>'
                for frame, outside in ((first, 0), *last)
            ]
            lines.append("</track>")
        texts[video] = "\n".join([*lines, "</annotations>", ""])
    return texts


def _read_frames(path: Path | None) -> Array | None:
    """Return the times of the frames of a video; None if it is not there or cannot be read."""
    try:
        return None if path is None else packet_times(path)[0]
    except RecordingError:
        return None


def _frame_range(event: _TimedEvent, frames: Array | None, fps: float) -> tuple[int, int]:
    """Return the first frame of an event and the frame after its last; it has at least one."""
    if frames is None:
        first, stop = round(event.start_s * fps), round(event.end_s * fps)
        return first, max(first + 1, stop)
    # Half a millisecond earlier: times that were written with three digits may be rounded up.
    first, stop = (int(np.searchsorted(frames, time_s - 0.0005)) for time_s in (event.start_s, event.end_s))
    first = min(first, len(frames) - 1)
    return first, max(first + 1, stop)


def to_boris(annotations: Annotations) -> str:
    """Format rows as a BORIS project: one observation per video, one state per event, times in milliseconds.

    States of one behavior that overlap in a video get further subjects, because BORIS pairs starts and stops in order
    of time.

    Source: github.com/olivierfriard/BORIS, boris/config.py, and the projects in tests/files.

    Raises:
        AnnotationError: No row has a label and times.
    """
    events = _timed_events(annotations, "BORIS")
    labels = dict.fromkeys(event.label for group in events.values() for event in group)
    subjects: dict[str, None] = {}
    observations = {}
    for video, group in events.items():
        coded: list[tuple[int, bool, list[Any]]] = []
        busy: dict[tuple[str, str], int] = {}  # end in milliseconds of the last state, by label and subject
        for event in group:
            start = round(event.start_s * 1000)
            end = max(round(event.end_s * 1000), start + 1)
            base = event.extra.get("subject", "")
            subject, number = base, 1
            while busy.get((event.label, subject), 0) > start:
                number += 1
                subject = f"{base} {number}".strip()
            busy[event.label, subject] = end
            if subject:
                subjects[subject] = None
            modifiers = event.extra.get("modifiers", "")
            coded.append((start, True, [start / 1000, subject, event.label, modifiers, event.description]))
            coded.append((end, False, [end / 1000, subject, event.label, modifiers, ""]))
        duration_s = annotations.durations.get(video)
        observations[video] = {
            "file": {"1": [video], **{str(player): [] for player in range(2, 9)}},
            "type": "MEDIA",
            "date": "1970-01-01T00:00:00",
            "description": "",
            "time offset": 0.0,
            "observation time interval": [0, 0],
            "independent_variables": {},
            "close_behaviors_between_videos": False,
            "media_info": {
                "length": {} if duration_s is None else {video: duration_s},
                "fps": {},
                "hasVideo": {video: True},
                "hasAudio": {video: False},
                "offset": {"1": 0.0},
            },
            "events": [values for _, _, values in sorted(coded, key=lambda code: code[:2])],
        }
    if any(row.annotation.split for row in annotations.rows):
        annotations.messages.append("splits skipped: BORIS has none")
    annotations.skip_columns("BORIS", ("subject", "modifiers"))
    project = {
        "time_format": "hh:mm:ss",
        "project_date": "1970-01-01T00:00:00",
        "project_name": annotations.source.stem,
        "project_description": "",
        "project_format_version": "7.0",
        "subjects_conf": {
            str(index): {"key": "", "name": name, "description": ""} for index, name in enumerate(subjects)
        },
        "behaviors_conf": {
            str(index): {
                "type": "State event", "key": "", "code": label, "description": "", "color": "", "category": "",
                "modifiers": {}, "excluded": "", "coding map": "",
            }
            for index, label in enumerate(labels)
        },
        "behavioral_categories": [],
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
        "observations": observations,
    }  # fmt: skip
    return json.dumps(project, ensure_ascii=False, indent=1) + "\n"
