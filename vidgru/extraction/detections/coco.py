"""Detections and tracks as COCO has them for videos: one JSON of videos, frames, objects and class names.

    videos        id, name; perhaps width, height, fps
    images        id, video_id, frame_id; perhaps width, height                   a frame that was looked at
    annotations   image_id, category_id, bbox (left, top, width, height in pixels); perhaps score, keypoints, and
                  track_id or instance_id
    categories    id, name

as MMTracking's CocoVID writes them (https://mmtracking.readthedocs.io, "Customize datasets"), with `frame_index` for
`frame_id` and `track_id` as TAO has it (https://github.com/TAO-Dataset/tao, "annotation format"); and as YouTube-VIS
does (https://youtube-vos.org/dataset/vis): no images, an annotation for each track with a list `bboxes`, one a frame.
Frames count from 0, or from 1 where no frame of the file is 0 and one is 1. Objects that are marked `iscrowd` are left
out. Keypoints are x, y and visibility (0, 1, 2) or a confidence (https://cocodataset.org/#format-data).
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.errors import RecordingError, SourceError
from vidgru.extraction.detections.seen import Seen, Source, from_corner
from vidgru.types import Array

_REMEDY = "give a JSON with videos, images with video_id and frame_id, annotations and categories"
_MOST_VISIBLE = 2


def find_coco(paths: list[Path]) -> tuple[dict[str, Source], tuple[str, ...], int]:
    """The recordings of files, by name, the names of classes, and the number of keypoints of an object.

    Raises:
        SourceError: a file is not such a JSON.
    """
    found: dict[str, Source] = {}
    names: dict[str, None] = {}
    points = 0
    files = [_File(path) for path in paths]
    for file in files:
        names |= dict.fromkeys(file.names.values())
        points = max(points, file.points)
    index = {name: number for number, name in enumerate(names)}
    for file in files:
        for video, name in file.videos.items():
            read = partial(file.read, video, index, points)
            found[name] = Source(name=name, stamp=file.stamp, changed_ns=file.changed_ns, read=read)
    return found, tuple(names), points


class _File:
    """A file in memory, its objects by video.

    Attributes:
        videos: name of each, by id.
        names: of classes, by id, in the order of ids.
        points: keypoints of an object at most.
        stamp: changes when the file does.
        changed_ns: when it was last changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            status = path.stat()
            root = json.loads(path.read_bytes())
            self.names = {c["id"]: str(c["name"]) for c in sorted(root["categories"], key=lambda c: c["id"])}
            self._videos = {video["id"]: video for video in root["videos"]}
            self.videos = {number: _name(video) for number, video in self._videos.items()}
            self._images: dict[Any, list[dict[str, Any]]] = defaultdict(list)
            video_of = {}
            for image in root.get("images", ()):
                self._images[image["video_id"]].append(image)
                video_of[image["id"]] = image["video_id"]
            self._objects: dict[Any, list[dict[str, Any]]] = defaultdict(list)
            for one in root["annotations"]:
                if not one.get("iscrowd"):
                    self._objects[one["video_id"] if "bboxes" in one else video_of[one["image_id"]]].append(one)
            numbers = [_number(image) for images in self._images.values() for image in images]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
            raise SourceError(f"{path} is not a COCO JSON of videos: {reason}", _REMEDY) from None
        self._first = int(min(numbers, default=0) == 1)
        self.points = max((len(c.get("keypoints", ())) for c in root["categories"]), default=0)
        self.points = self.points or max((len(a.get("keypoints") or ()) // 3 for a in root["annotations"]), default=0)
        self.stamp, self.changed_ns = f"{status.st_size} {status.st_mtime_ns}", status.st_mtime_ns

    def read(self, video: Any, index: dict[str, int], points: int) -> Seen:
        """What was seen in a video, with classes by `index` and `points` keypoints. Raises RecordingError."""
        try:
            facts, images = self._videos[video], self._images[video]
            frame_of = {image["id"]: _number(image) - self._first for image in images}
            looked_at = np.unique(np.array(list(frame_of.values()), np.int64))
            frames, rows = [], []
            for one in self._objects[video]:
                if "bboxes" in one:
                    there = [(frame, box) for frame, box in enumerate(one["bboxes"]) if box]
                    frames += [frame for frame, _ in there]
                    rows += [self._row(one, one["id"], box, index, points) for _, box in there]
                else:
                    frames.append(frame_of[one["image_id"]])
                    track = one.get("track_id", one.get("instance_id", -1))
                    rows.append(self._row(one, track, one["bbox"], index, points))
            table = np.array(rows, np.float64).reshape(len(rows), 7 + 3 * points)
            sized = next((one for one in (*images, facts) if one.get("width") and one.get("height")), None)
            length = facts.get("length") or len(facts.get("file_names", ())) or None
            fps = facts.get("fps") or facts.get("frame_rate")
            tracks = table[:, 2].astype(np.int64)
            return Seen(
                frame=np.array(frames, np.int64),
                boxes=from_corner(table[:, 3:7]),
                scores=table[:, 1],
                classes=table[:, 0].astype(np.int64),
                tracks=tracks if (tracks >= 0).any() else None,
                keypoints=_keypoints(table[:, 7:].reshape(len(table), points, 3)) if points else None,
                frames=None if images else length,
                looked_at=looked_at if images else None,
                fps=None if fps is None else float(fps),
                size_px=None if sized is None else (int(sized["width"]), int(sized["height"])),
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise RecordingError(f"its annotations in {self._path} cannot be read: {reason}") from None

    def _row(self, one: dict[str, Any], track: Any, box: Any, index: dict[str, int], points: int) -> list[float]:
        seen = one.get("keypoints") or [0.0] * 3 * points
        kind = index[self.names[one["category_id"]]]
        return [kind, one.get("score", 1.0), -1 if track is None else track, *box, *seen]


def _name(video: dict[str, Any]) -> str:
    """What a video is called; of one that is known by its frames alone, their folder."""
    name = video.get("name") or video.get("file_name")
    if not name and video.get("file_names"):
        name = Path(video["file_names"][0]).parent.as_posix()
    parts = str(name or video["id"]).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..")) or str(video["id"])


def _number(image: dict[str, Any]) -> int:
    return int(image["frame_id"] if "frame_id" in image else image["frame_index"])


def _keypoints(points: Array) -> Array:
    """Visibility, 0 to 2, as a confidence."""
    if (points[:, :, 2] > 1).any():
        points[:, :, 2] /= _MOST_VISIBLE
    return points
