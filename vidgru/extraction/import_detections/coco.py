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
from vidgru.extraction.import_detections.parsed import Seen, Source, from_corner
from vidgru.types import Array

_REMEDY = "give a JSON with videos, images with video_id and frame_id, annotations and categories"
_MOST_VISIBLE = 2
_BEYOND = 2**63  # int64


def find_coco(paths: list[Path]) -> tuple[dict[str, Source], tuple[str, ...], int]:
    """The recordings of files, by name, the names of classes, and the number of keypoints of an object.

    Raises:
        SourceError: a file is not such a JSON, or two videos are called alike.
    """
    found: dict[str, Source] = {}
    names: dict[str, None] = {}
    spoken: dict[str, tuple[Path, Any]] = {}
    points = 0
    files = [_File(path) for path in paths]
    for file in files:
        names |= dict.fromkeys(file.names.values())
        points = max(points, file.points)
    index = {name: number for number, name in enumerate(names)}
    for file in files:
        for video, name in file.videos.items():
            if name in spoken:
                other, number = spoken[name]
                raise SourceError(
                    f"video {number} of {other} and video {video} of {file.path} are both called {name!r}",
                    "rename or remove one",
                )
            spoken[name] = (file.path, video)
            read = partial(file.read, video, index, points)
            found[name] = Source(name=name, stamp=file.stamp, changed_ns=file.changed_ns, read=read)
    return found, tuple(names), points


class _File:
    """A file in memory, its objects by video.

    Attributes:
        path: of it.
        videos: name of each, by id.
        names: of classes, by id, in the order of ids.
        points: keypoints of an object at most.
        stamp: changes when the file does.
        changed_ns: when it was last changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
            self._first = int(min((_number(i) for images in self._images.values() for i in images), default=0) == 1)
            self.points = max((len(c.get("keypoints") or ()) for c in root["categories"]), default=0)
            longest = max((len(a.get("keypoints") or ()) for a in root["annotations"]), default=0)
            self.points = self.points or longest // 3
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
            raise SourceError(f"{path} is not a COCO JSON of videos: {reason}", _REMEDY) from None
        self.stamp, self.changed_ns = f"{status.st_size} {status.st_mtime_ns}", status.st_mtime_ns

    def read(self, video: Any, index: dict[str, int], points: int) -> Seen:
        """What was seen in a video, with classes by `index` and `points` keypoints. Raises RecordingError."""
        try:
            facts, images = self._videos[video], self._images[video]
            frame_of = {image["id"]: _number(image) - self._first for image in images}
            looked_at = np.unique(np.array(list(frame_of.values()), np.int64))
            frames, rows, marks = list[int](), list[list[float]](), list[Any]()
            for one in self._objects[video]:
                if "bboxes" in one:
                    there = [(frame, box) for frame, box in enumerate(one["bboxes"]) if box]
                    frames += [frame for frame, _ in there]
                    rows += [self._row(one, box, index, points) for _, box in there]
                    marks += [one["id"]] * len(there)
                else:
                    frames.append(frame_of[one["image_id"]])
                    rows.append(self._row(one, one["bbox"], index, points))
                    marks.append(one.get("track_id", one.get("instance_id")))
            table = np.array(rows, np.float64).reshape(len(rows), 6 + 3 * points)
            sized = next((one for one in (*images, facts) if one.get("width") and one.get("height")), None)
            length = facts.get("length") or len(facts.get("file_names", ())) or None
            fps = facts.get("fps") or facts.get("frame_rate")
            tracks = _tracks(marks)
            return Seen(
                frame=np.array(frames, np.int64),
                boxes=from_corner(table[:, 2:6]),
                scores=table[:, 1],
                classes=table[:, 0].astype(np.int64),
                tracks=tracks if (tracks >= 0).any() else None,
                keypoints=_keypoints(table[:, 6:].reshape(len(table), points, 3)) if points else None,
                frames=None if images or length is None else int(length),
                looked_at=looked_at if images else None,
                fps=None if fps is None else float(fps),
                size_px=None if sized is None else (int(sized["width"]), int(sized["height"])),
            )
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise RecordingError(f"its annotations in {self.path} cannot be read: {reason}") from None

    def _row(self, one: dict[str, Any], box: Any, index: dict[str, int], points: int) -> list[float]:
        seen = one.get("keypoints") or [0.0] * 3 * points
        kind = index[self.names[one["category_id"]]]
        return [kind, one.get("score", 1.0), *box, *seen]


def _name(video: dict[str, Any]) -> str:
    """What a video is called; of one that is known by its frames alone, their folder."""
    name = video.get("name") or video.get("file_name")
    if not name and video.get("file_names"):
        name = Path(video["file_names"][0]).parent.as_posix()
    parts = str(name or video["id"]).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..")) or str(video["id"])


def _number(image: dict[str, Any]) -> int:
    return int(image["frame_id"] if "frame_id" in image else image["frame_index"])


def _tracks(marks: list[Any]) -> Array:
    """Ids as int64, -1 where there is none; those that are no such numbers, such as texts, are numbered."""
    given = [-1 if mark is None else mark for mark in marks]
    given = [int(mark) if isinstance(mark, float) and mark.is_integer() else mark for mark in given]
    if all(isinstance(mark, int) and abs(mark) < _BEYOND for mark in given):
        return np.array(given, np.int64)
    texts = np.array([str(mark) for mark in given])
    tracked = texts != "-1"
    tracks = np.full(len(given), -1)
    tracks[tracked] = np.unique(texts[tracked], return_inverse=True)[1]
    return tracks


def _keypoints(points: Array) -> Array:
    """Visibility, 0 to 2, as a confidence."""
    if (points[:, :, 2] > 1).any():
        points[:, :, 2] /= _MOST_VISIBLE
    return points
