"""Detections on disk: their format, recordings and classes."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vidgru.cache import Entry, SequenceCache
from vidgru.config import DetectorSettings, ImportedDetectionSettings, uses_imported_detections
from vidgru.errors import RecordingError, SettingsMismatchError, SourceError
from vidgru.extraction.import_detections.coco import open_coco
from vidgru.extraction.import_detections.mot import is_mot, open_mot, other_columns
from vidgru.extraction.import_detections.parsed import (
    CLASS_FILES,
    ParsedDetections,
    RecordingDetections,
    find_class_file,
    numbered_class_names,
    read_class_file,
)
from vidgru.extraction.import_detections.poses import POSE_CLASS, is_poses, open_poses
from vidgru.extraction.import_detections.save_txt import FRAME_FILE, is_save_txt, open_save_txt, pixel_coordinates
from vidgru.sources import VIDEO_SUFFIXES
from vidgru.storage import user_path
from vidgru.types import Recording

_EXPECTED = (
    "pass the folder of Ultralytics' save_txt labels (video_1.txt, ...), a MOT CSV (separated by commas) or a folder "
    "of them, a COCO JSON of videos, pose tables of DeepLabCut or SLEAP (CSV), or a cache of imported detections"
)
_POSE_SUFFIXES = (".h5", ".slp", ".pickle")
_EXPORT_POSES = "export it as CSV: save_as_csv=True in DeepLabCut, File > Export Analysis CSV in SLEAP"
SAVE_TXT, MOT, COCO, POSES, CACHE = "save_txt", "mot", "coco", "poses", "cache"


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionSource:
    """Detections of other tools, or a cache with sequences of them.

    Attributes:
        origin: The file or folder.
        format: save_txt, mot, coco, poses or cache.
        recordings: Detections of each recording by name; empty for a cache.
        keys: Cache entry of each recording by name; empty unless `format` is cache.
        source_class_names: Class names as the detections number them.
        feature_settings: Settings of the sequences to make, as in cache entries.
        settings: Frame rate, size and classes that the user specifies.
    """

    origin: Path
    format: str
    recordings: dict[str, RecordingDetections]
    keys: dict[str, str]
    source_class_names: tuple[str, ...]
    feature_settings: dict[str, Any]
    settings: ImportedDetectionSettings

    @property
    def recording_names(self) -> list[str]:
        """Names of the recordings."""
        return list(self.keys if self.format == CACHE else self.recordings)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in sequences."""
        return tuple(self.feature_settings["names"])

    def cache(self, features: str) -> SequenceCache:
        """Return the cache for the sequences: the folder `features`, unless these detections are a cache themselves."""
        return SequenceCache(self.origin if self.format == CACHE else user_path(features))

    def recording(self, name: str) -> Recording:
        """Return a recording without a video: its path is one below the detections."""
        return Recording(path=self.origin / name, name=name)

    def find(self, video: str) -> str | None:
        """Return the name of the recording of a video; None if none or several match."""
        matches = self.find_all(video)
        return matches[0] if len(matches) == 1 else None

    def find_all(self, video: str) -> list[str]:
        """Return the names of the recordings that a video may be.

        That is the recording with the same name, with or without suffix; else those whose path is the end of the
        video's path or the other way round.
        """
        if video in self._by_name:
            return [self._by_name[video]]
        parts = _stem(video).split("/")
        return [
            name
            for name, name_parts in self._by_last_part.get(parts[-1], ())
            if all(a == b for a, b in zip(reversed(parts), reversed(name_parts), strict=False))
        ]

    @cached_property
    def _by_name(self) -> dict[str, str]:
        names = self.recording_names
        return {**{_stem(name): name for name in names}, **{name: name for name in names}}

    @cached_property
    def _by_last_part(self) -> dict[str, list[tuple[str, list[str]]]]:
        index = defaultdict(list)
        for name in self.recording_names:
            parts = _stem(name).split("/")
            index[parts[-1]].append((name, parts))
        return index

    def read(self, name: str) -> ParsedDetections:
        """Read the detections of a recording, with classes as indices into `class_names`.

        Raises:
            RecordingError: They cannot be read, or contain a class that is not in `class_names`.
        """
        detections = self.recordings[name].read()
        detections.validate(len(self.source_class_names))
        if self.source_class_names == self.class_names:
            return detections
        index = np.array(
            [self.class_names.index(name) if name in self.class_names else -1 for name in self.source_class_names]
        )
        classes = index[detections.classes]
        if len(detections) and classes.min() < 0:
            unknown = self.source_class_names[detections.classes[classes < 0][0]]
            raise RecordingError(f"contains an object of class {unknown!r}, which is not among the classes in use")
        return replace(detections, classes=classes)


def open_detections(
    settings: ImportedDetectionSettings,
    detect: DetectorSettings,
    model_feature_settings: dict[str, Any] | None = None,
) -> DetectionSource:
    """Open detections; their format is recognised by content.

    Args:
        settings: Location of the detections, and what the user specifies about them.
        detect: fps, conf, max_objects and tracker of the sequences.
        model_feature_settings: Settings of the features that a model expects, which the sequences must match; None
            without a model.

    Raises:
        SourceError: There are no detections, or their format is unknown.
        SettingsError: Class names cannot be read, or the meaning of columns cannot be determined.
        SettingsMismatchError: The detections do not fit the model.
    """
    origin = user_path(settings.detections)
    kind = _detect_format(origin)
    given_classes = read_class_file(Path(settings.classes)) if settings.classes else {}
    class_names = tuple(given_classes.get("names", ()))
    keypoints, flip_idx = 0, tuple[int, ...]()
    recordings, keys = dict[str, RecordingDetections](), dict[str, str]()
    if kind == CACHE:
        keys, source_class_names, keypoints, flip_idx = _find_entries(origin, detect, model_feature_settings)
    elif kind == COCO:
        paths = [origin] if origin.is_file() else sorted(origin.glob("*.json"))
        recordings, source_class_names, keypoints, flip_idx = open_coco(paths)
    elif kind == POSES:
        recordings, keypoints, flip_idx = open_poses(origin)
        source_class_names = (POSE_CLASS,)
    elif kind == MOT:
        recordings, class_file, first_class = open_mot(origin)
        source_class_names = class_names or class_file.get("names") or numbered_class_names(first_class)
    else:
        folders = (origin, origin / "labels", *([origin.parent] if origin.resolve().name == "labels" else []))
        class_file = next((content for content in map(find_class_file, folders) if content), {}) | given_classes
        recordings, keypoints = open_save_txt(origin, class_file)
        flip_idx = class_file.get("flip_idx", ())
        source_class_names = class_names or class_file.get("names") or numbered_class_names(0)
    feature_settings = detect.imported_feature_settings(class_names or source_class_names, keypoints, flip_idx)
    if model_feature_settings is not None:
        if model_feature_settings["keypoints"] != keypoints:
            raise SettingsMismatchError(
                f"objects in {origin} have {keypoints} keypoints, but the model was trained on "
                f"{model_feature_settings['keypoints']}",
                "pass detections of the same kind of model",
            )
        feature_settings = model_feature_settings
    if not recordings and not keys:
        raise SourceError(f"{origin} contains no detections", _EXPECTED)
    return DetectionSource(
        origin=origin.resolve(),
        format=kind,
        recordings=recordings,
        keys=keys,
        source_class_names=source_class_names,
        feature_settings=feature_settings,
        settings=settings,
    )


def _stem(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    return (path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES else path).as_posix()


def _detect_format(origin: Path) -> str:
    """Return the format of a file or folder. Raises SourceError."""
    if not origin.exists():
        raise SourceError(f"no such file or folder: {origin}", _EXPECTED)
    if origin.is_file():
        if origin.suffix.lower() == ".json":
            return COCO
        if origin.suffix.lower() in _POSE_SUFFIXES:
            raise SourceError(f"{origin} is not read: poses of DeepLabCut and SLEAP are, as CSV", _EXPORT_POSES)
        if is_poses(origin):
            return POSES
        if origin.suffix.lower() in (".txt", ".csv") and is_mot(origin):
            return MOT
        problem = other_columns(origin)
        raise SourceError(f"{origin} is not a file of detections{f': {problem}' if problem else ''}", _EXPECTED)
    if any("detections" in record for record in SequenceCache(origin).records()):
        return CACHE
    if any(origin.glob("*.json")):
        return COCO
    problem = ""
    has_frame_files = False  # empty ones: an empty MOT file or frame decides only if nothing else does
    for folder, folders, files in os.walk(origin):
        folders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix.lower() in _POSE_SUFFIXES:
                problem = problem or f"{name} is not read; {_EXPORT_POSES}"
            if path.suffix not in (".txt", ".csv") or name in CLASS_FILES:
                continue
            if not path.stat().st_size:
                has_frame_files |= bool(FRAME_FILE.fullmatch(name))
            elif is_poses(path):
                return POSES
            elif is_mot(path):
                return MOT
            elif is_save_txt(path):
                return SAVE_TXT
            else:
                problem = problem or other_columns(path) or pixel_coordinates(path)
    if has_frame_files:
        return SAVE_TXT
    raise SourceError(f"{origin} contains no detections{f': {problem}' if problem else ''}", _EXPECTED)


def _find_entries(
    origin: Path, detect: DetectorSettings, model_feature_settings: dict[str, Any] | None
) -> tuple[dict[str, str], tuple[str, ...], int, tuple[int, ...]]:
    """Return the keys of a cache's entries by recording, their class names, number of keypoints and `flip_idx`.

    Raises:
        SourceError: Two recordings have the same name.
        SettingsMismatchError: No entry has these settings, or entries differ in their classes.
    """
    cache = SequenceCache(origin)
    records = [record for record in cache.records() if "detections" in record]
    entries: dict[str, Entry] = {}
    other_settings: dict[str, Any] = {}
    for key in dict.fromkeys(record["key"] for record in records):
        entry = cache.valid_entry(key)
        if entry is None or not uses_imported_detections(entry.feature_settings):
            continue
        expected = model_feature_settings or detect.imported_feature_settings(
            entry.names, entry.feature_settings["keypoints"], entry.feature_settings.get("flip_idx", ())
        )
        if entry.feature_settings == expected:
            entries[key] = entry
        else:
            other_settings = {
                name: value for name, value in entry.feature_settings.items() if value != expected.get(name)
            }
    if not entries:
        settings = ", ".join(f"{name} {value}" for name, value in sorted(other_settings.items()) if name != "names")
        flags = " ".join(
            f"--{name.replace('_', '-')} {f'{value:g}' if isinstance(value, float) else value}"
            for name, value in sorted(other_settings.items())
            if name in ("fps", "conf", "max_objects", "tracker")
        )
        raise SettingsMismatchError(
            f"{origin} contains no sequences with these settings"
            + (f"; it has some with {settings}" if settings else ""),
            f"{f'pass {flags}' if flags else 'use the settings they were made with'}, or pass the original detections",
        )
    latest = {record["path"]: record for record in records if record["key"] in entries}
    class_sets = {
        (entry.names, int(entry.feature_settings["keypoints"]), tuple(entry.feature_settings.get("flip_idx", ())))
        for entry in (entries[record["key"]] for record in latest.values())
    }
    if len(class_sets) > 1:
        raise SettingsMismatchError(
            f"{origin} contains sequences with {len(class_sets)} different sets of classes",
            "pass the original detections of one set",
        )
    by_name: dict[str, dict[str, Any]] = {}
    for record in latest.values():
        first = by_name.setdefault(record["name"], record)
        if first["key"] != record["key"]:
            raise SourceError(
                f"{origin} contains different sequences of {record['name']}, made from {first['detections']} and from "
                f"{record['detections']}",
                "pass the original detections, or extract each of these folders to its own --out",
            )
    return {name: record["key"] for name, record in by_name.items()}, *class_sets.pop()
