"""FiftyOne's temporal detections, labels.json beside a folder `data` of videos.

    {"classes": ["walk", "fall"],
     "labels": {"yard": [{"label": 1, "timestamps": [1.5, 3.0], "confidence": 0.9, "attributes": {...}}],
                "gate": [{"label": 0, "support": [10, 40]}]}}

Labels are indices into `classes`, or text if there are no classes. `support` holds the first and last frame, counted
from 1. Videos are named by path, without suffix.

Source: docs.voxel51.com/user_guide/dataset_creation, FiftyOneTemporalDetectionDataset.
"""

from __future__ import annotations

from pathlib import Path

from vidgru.datasets.formats.json_reader import Node
from vidgru.datasets.rows import FrameSpan, InvalidEntryError, Options, ParseResult, home_of, plural


def is_fiftyone(root: object) -> bool:
    """Whether a JSON value looks like such labels."""
    labels = root.get("labels") if isinstance(root, dict) else None
    if not isinstance(labels, dict):
        return False
    lists = [group for group in labels.values() if group]
    return all(isinstance(group, list) and isinstance(group[0], dict) and "label" in group[0] for group in lists)


def read_fiftyone(path: Path, root: Node, options: Options) -> ParseResult:
    """Parse the detections of all videos; an empty list is an event-free recording, null one that is not labelled.

    Raises:
        AnnotationError: Detections count frames, and no frame rate was given.
    """
    result = ParseResult(home=home_of(path))
    unlabelled = 0
    with result.entry():
        classes = [name.text() for name in root["classes"].each()] if "classes" in root else []
        result.names = tuple(classes)
        for video, detections in root["labels"].items():
            with result.entry():
                if detections.value is None:
                    unlabelled += 1
                    continue
                for detection in detections.each():
                    with result.entry():
                        _add(result, video, detection, classes, options)
                if not detections.value:
                    result.add(detections.path, video)
    if unlabelled:
        result.notes.append(f"{plural(unlabelled, 'video')} without labels skipped")
    return result


def _add(result: ParseResult, video: str, detection: Node, classes: list[str], options: Options) -> None:
    label = detection["label"].text()
    if classes and not isinstance(detection["label"].value, str):
        index = detection["label"].value
        if not 0 <= index < len(classes):
            message = f"label {index} is not in classes, which go from 0 to {len(classes) - 1}"
            raise InvalidEntryError(detection.path, message, "export the dataset again")
        label = classes[index]
    extra = {"score": str(detection["confidence"].number())} if "confidence" in detection else {}
    attributes = detection["attributes"]
    description = attributes["description"].maybe_text() if attributes.value is not None else ""
    if "timestamps" in detection:
        start_s, end_s = detection["timestamps"].pair()
        result.add(
            detection.path, video, start_s=start_s, end_s=end_s, label=label, description=description, extra=extra
        )
        return
    first, last = detection["support"].pair()
    if not 1 <= first <= last:
        message = f"frames {first:g} to {last:g} are not a range"
        raise InvalidEntryError(
            detection.path, message, "frames count from 1, and the end must not be before the start"
        )
    span = FrameSpan(first=first - 1, stop=last, fps=options.fps)
    result.add(detection.path, video, label=label, description=description, extra=extra, frames=span)
