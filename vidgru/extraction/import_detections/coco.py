"""Detections and tracks in COCO JSON for videos: one file with videos, frames, objects and class names.

    videos        id, name; optionally width, height, fps
    images        id, video_id, frame_id; optionally width, height                a frame that was processed
    annotations   image_id, category_id, bbox (left, top, width, height in pixels); optionally score, keypoints, and
                  track_id or instance_id
    categories    id, name; optionally keypoints, their names

as MMTracking's CocoVID (https://mmtracking.readthedocs.io, "Customize datasets"), with `frame_index` for `frame_id`
and `track_id` as in TAO (https://github.com/TAO-Dataset/tao, "annotation format"), and as YouTube-VIS
(https://youtube-vos.org/dataset/vis): no images, and one annotation per track with a list `bboxes`, one per frame.
Frames count from 0, or from 1 if no frame of the file is 0 and one is 1. Objects marked `iscrowd` are dropped.
Keypoints are x, y and visibility (0, 1, 2) or a confidence (https://cocodataset.org/#format-data).
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from vidgru.errors import RecordingError, SourceError
from vidgru.extraction.import_detections.parsed import ParsedDetections, RecordingDetections, ltwh_to_xyxy
from vidgru.keypoints import flip_idx_from_names
from vidgru.types import Array

_REMEDY = "pass a JSON with videos, images with video_id and frame_id, annotations and categories"
_MAX_VISIBILITY = 2
_INT64_END = 2**63


def open_coco(paths: list[Path]) -> tuple[dict[str, RecordingDetections], tuple[str, ...], int, tuple[int, ...]]:
    """Return the recordings of files by name, the class names, and the number and `flip_idx` of keypoints per object.

    Raises:
        SourceError: A file is not such a JSON, or two videos have the same name.
    """
    recordings: dict[str, RecordingDetections] = {}
    files = [_CocoFile(path) for path in paths]
    class_names = tuple(dict.fromkeys(name for file in files for name in file.class_names.values()))
    class_index = {name: number for number, name in enumerate(class_names)}
    num_keypoints = max((file.num_keypoints for file in files), default=0)
    keypoint_names = [names for file in files for names in file.keypoint_names]
    videos_by_name: dict[str, tuple[Path, Any]] = {}
    for file in files:
        for video_id, name in file.video_names.items():
            if name in videos_by_name:
                other, other_id = videos_by_name[name]
                raise SourceError(
                    f"video {other_id} of {other} and video {video_id} of {file.path} are both named {name!r}",
                    "rename or remove one",
                )
            videos_by_name[name] = (file.path, video_id)
            recordings[name] = RecordingDetections(
                name=name,
                stamp=file.stamp,
                changed_ns=file.changed_ns,
                read=partial(file.read, video_id, class_index, num_keypoints),
            )
    return recordings, class_names, num_keypoints, flip_idx_from_names(keypoint_names, num_keypoints)


class _CocoFile:
    """A file in memory, with its images and objects by video.

    Attributes:
        path: Its path.
        video_names: Name of each video, by id.
        class_names: Class names by id, in order of ids.
        num_keypoints: Largest number of keypoints of an object.
        keypoint_names: Names of the keypoints of each category that has any.
        stamp: Changes when the file does.
        changed_ns: When it was last modified.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            status = path.stat()
            root = json.loads(path.read_bytes())
            categories = sorted(root["categories"], key=lambda category: category["id"])
            self.class_names = {category["id"]: normalize("NFC", str(category["name"])) for category in categories}
            self._videos = {video["id"]: video for video in root["videos"]}
            self.video_names = {video_id: _video_name(video) for video_id, video in self._videos.items()}
            self._images: dict[Any, list[dict[str, Any]]] = defaultdict(list)
            video_of_image = {}
            for image in root.get("images", ()):
                self._images[image["video_id"]].append(image)
                video_of_image[image["id"]] = image["video_id"]
            self._annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
            for note in root["annotations"]:
                if not note.get("iscrowd"):
                    video_id = note["video_id"] if "bboxes" in note else video_of_image[note["image_id"]]
                    self._annotations[video_id].append(note)
            frame_numbers = [_frame_number(image) for images in self._images.values() for image in images]
            self._first_frame = 1 if min(frame_numbers, default=0) == 1 else 0
            self.keypoint_names = [names for category in categories if (names := category.get("keypoints"))]
            self.num_keypoints = max(map(len, self.keypoint_names), default=0)
            if not self.num_keypoints:  # the categories need not name them
                self.num_keypoints = max((len(n.get("keypoints") or ()) for n in root["annotations"]), default=0) // 3
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
            raise SourceError(f"{path} is not a COCO JSON of videos: {reason}", _REMEDY) from None
        self.stamp, self.changed_ns = f"{status.st_size} {status.st_mtime_ns}", status.st_mtime_ns

    def read(self, video_id: Any, class_index: dict[str, int], num_keypoints: int) -> ParsedDetections:
        """Parse the objects of a video. Raises RecordingError."""
        try:
            video, images = self._videos[video_id], self._images[video_id]
            frame_of_image = {image["id"]: _frame_number(image) - self._first_frame for image in images}
            frames, rows, track_ids = list[int](), list[list[float]](), list[Any]()
            for note in self._annotations[video_id]:
                keypoints = note.get("keypoints") or [0.0] * 3 * num_keypoints
                if "bboxes" in note:  # a track
                    boxes = [(frame, box) for frame, box in enumerate(note["bboxes"]) if box]
                    track_id = note["id"]
                else:
                    boxes = [(frame_of_image[note["image_id"]], note["bbox"])]
                    track_id = note.get("track_id", note.get("instance_id"))
                for frame, box in boxes:
                    class_id = class_index[self.class_names[note["category_id"]]]
                    frames.append(frame)
                    rows.append([class_id, note.get("score", 1.0), *box, *keypoints])
                    track_ids.append(track_id)
            table = np.array(rows, np.float64).reshape(len(rows), 6 + 3 * num_keypoints)
            sized = next((item for item in (*images, video) if item.get("width") and item.get("height")), None)
            length = video.get("length") or len(video.get("file_names", ())) or None
            fps = video.get("fps") or video.get("frame_rate")
            tracks = _number_tracks(track_ids)
            return ParsedDetections(
                frame=np.array(frames, np.int64),
                boxes=ltwh_to_xyxy(table[:, 2:6]),
                scores=table[:, 1],
                classes=table[:, 0].astype(np.int64),
                tracks=tracks if (tracks >= 0).any() else None,
                keypoints=_scale_visibility(table[:, 6:].reshape(len(table), num_keypoints, 3))
                if num_keypoints
                else None,
                num_frames=None if images or length is None else int(length),
                processed_frames=np.unique(np.array(list(frame_of_image.values()), np.int64)) if images else None,
                fps=None if fps is None else float(fps),
                size_px=None if sized is None else (int(sized["width"]), int(sized["height"])),
            )
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise RecordingError(f"its annotations in {self.path} cannot be read: {reason}") from None


def _video_name(video: dict[str, Any]) -> str:
    """Return the name of a video as a relative path; of a video that only lists its frames, their folder."""
    name = video.get("name") or video.get("file_name")
    if not name and video.get("file_names"):
        name = Path(video["file_names"][0]).parent.as_posix()
    parts = str(name or video["id"]).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..")) or str(video["id"])


def _frame_number(image: dict[str, Any]) -> int:
    return int(image["frame_id"] if "frame_id" in image else image["frame_index"])


def _number_tracks(track_ids: list[Any]) -> Array:
    """Return track ids as int64, -1 for None. Ids that do not fit, such as strings, are numbered."""
    ids = [-1 if track_id is None else track_id for track_id in track_ids]
    ids = [int(value) if isinstance(value, float) and value.is_integer() else value for value in ids]
    if all(isinstance(value, int) and abs(value) < _INT64_END for value in ids):
        return np.array(ids, np.int64)
    texts = np.array([str(value) for value in ids])
    is_tracked = texts != "-1"
    tracks = np.full(len(ids), -1)
    tracks[is_tracked] = np.unique(texts[is_tracked], return_inverse=True)[1]
    return tracks


def _scale_visibility(keypoints: Array) -> Array:
    """Turn visibility, 0 to 2, into a confidence."""
    if (keypoints[:, :, 2] > 1).any():
        keypoints[:, :, 2] /= _MAX_VISIBILITY
    return keypoints
