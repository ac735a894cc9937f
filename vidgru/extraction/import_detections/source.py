"""Detections on disk: which format they have, of which recordings and classes they are."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vidgru.cache import Entry, SequenceCache
from vidgru.config import DetectorSettings, ImportedDetectionSettings, uses_imported_detections
from vidgru.errors import RecordingError, SettingsMismatchError, SourceError
from vidgru.extraction.import_detections.class_names import FACTS, find_facts, numbered, read_facts
from vidgru.extraction.import_detections.coco import find_coco
from vidgru.extraction.import_detections.mot import find_mot, is_mot
from vidgru.extraction.import_detections.parsed import Seen, Source
from vidgru.extraction.import_detections.save_txt import FRAME_FILE, find_save_txt, is_save_txt
from vidgru.sources import VIDEO_SUFFIXES

_EXPECTED = (
    "give the folder of Ultralytics' save_txt labels (video_1.txt, ...), a MOT CSV (separated by commas) or a folder "
    "of such, a COCO JSON of videos, or a cache that holds such sequences"
)
SAVE_TXT, MOT, COCO, CACHE = "save_txt", "mot", "coco", "cache"


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionSource:
    """Detections of recordings.

    Attributes:
        origin: the file or folder.
        format: save_txt, mot, coco or cache.
        sources: recordings by name; none of a cache.
        keys: of a cache, the entry of each recording by name.
        own_names: of the classes, as the detections number them.
        feature_settings: settings of the sequences to be made of them, as in cache entries.
        settings: what the user says of them.
    """

    origin: Path
    format: str
    sources: dict[str, Source]
    keys: dict[str, str]
    own_names: tuple[str, ...]
    feature_settings: dict[str, Any]
    settings: ImportedDetectionSettings

    @property
    def recordings(self) -> list[str]:
        """Names of the recordings."""
        return list(self.keys if self.format == CACHE else self.sources)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, in sequences."""
        return tuple(self.feature_settings["names"])

    def cache(self, features: str) -> SequenceCache:
        """Where the sequences are, or go: the folder `features`, unless these detections are a cache."""
        return SequenceCache(self.origin if self.format == CACHE else Path(features).expanduser())

    def find(self, video: str) -> str | None:
        """The recording that a video is called; None if there is none, or several may be meant."""
        called = self.called(video)
        return called[0] if len(called) == 1 else None

    def called(self, video: str) -> list[str]:
        """The recordings that a video may be: the one of its name, with or without its suffix.

        Else those whose path is the end of the video's or the other way round.
        """
        if video in self._spelt:
            return [self._spelt[video]]
        parts = _stem(video).split("/")
        return [
            name
            for name, theirs in self._ends.get(parts[-1], ())
            if all(a == b for a, b in zip(reversed(parts), reversed(theirs), strict=False))
        ]

    @cached_property
    def _spelt(self) -> dict[str, str]:
        return {**{_stem(name): name for name in self.recordings}, **{name: name for name in self.recordings}}

    @cached_property
    def _ends(self) -> dict[str, list[tuple[str, list[str]]]]:
        found = defaultdict(list)
        for name in self.recordings:
            parts = _stem(name).split("/")
            found[parts[-1]].append((name, parts))
        return found

    def read(self, name: str) -> Seen:
        """What was seen in a recording, with classes as indices into `names`.

        Raises:
            RecordingError: it cannot be read, or holds a class that is not among `names`.
        """
        seen = self.sources[name].read().checked(len(self.own_names))
        if self.own_names == self.names:
            return seen
        index = np.array([self.names.index(one) if one in self.names else -1 for one in self.own_names])
        classes = index[seen.classes]
        if len(seen) and classes.min() < 0:
            unknown = self.own_names[seen.classes[classes < 0][0]]
            raise RecordingError(f"holds an object of the class {unknown!r}, which is not among those to be told apart")
        return replace(seen, classes=classes)


def open_detections(
    settings: ImportedDetectionSettings, detect: DetectorSettings, model_feature_settings: dict[str, Any] | None = None
) -> DetectionSource:
    """See what detections there are; the format is recognised by content.

    Args:
        settings: where they are, and what is known of them.
        detect: fps, conf, max_objects and tracker of the sequences.
        model_feature_settings: settings of the sequences that a model reads, which these have to be like; None where
            there is none.

    Raises:
        SourceError: there are none, or in no known format.
        SettingsError: classes, or columns, cannot be told.
        SettingsMismatchError: they cannot be what the model reads.
    """
    origin = Path(settings.detections).expanduser()
    kind = _format(origin)
    given = tuple(read_facts(Path(settings.classes))["names"]) if settings.classes else ()
    keypoints, sources, keys, own = 0, dict[str, Source](), dict[str, str](), tuple[str, ...]()
    if kind == CACHE:
        keys, own, keypoints = _entries(origin, detect, model_feature_settings)
    elif kind == COCO:
        sources, own, keypoints = find_coco([origin] if origin.is_file() else sorted(origin.glob("*.json")))
    elif kind == MOT:
        sources, facts = find_mot(origin)
        own = given or facts.get("names") or numbered(1)
    else:
        folders = (origin, origin / "labels", *([origin.parent] if origin.resolve().name == "labels" else []))
        facts = next((facts for facts in map(find_facts, folders) if facts), {})
        sources, keypoints = find_save_txt(origin, facts)
        own = given or facts.get("names") or numbered(0)
    feature_settings = detect.imported_detections_settings(given or own, keypoints)
    if model_feature_settings is not None:
        if model_feature_settings["keypoints"] != keypoints:
            raise SettingsMismatchError(
                f"the objects in {origin} have {keypoints} keypoints, those that the model was trained on "
                f"{model_feature_settings['keypoints']}",
                "give detections of the same kind of model",
            )
        feature_settings = model_feature_settings
    if not sources and not keys:
        raise SourceError(f"{origin} holds no detections", _EXPECTED)
    return DetectionSource(
        origin=origin.resolve(),
        format=kind,
        sources=sources,
        keys=keys,
        own_names=own,
        feature_settings=feature_settings,
        settings=settings,
    )


def _stem(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    return (path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES else path).as_posix()


def _format(origin: Path) -> str:
    """Raises SourceError."""
    if not origin.exists():
        raise SourceError(f"no such file or folder: {origin}", _EXPECTED)
    if origin.is_file():
        if origin.suffix.lower() == ".json":
            return COCO
        if origin.suffix.lower() in (".txt", ".csv") and is_mot(origin):
            return MOT
        raise SourceError(f"{origin} is not a file of detections", _EXPECTED)
    if any("detections" in record for record in SequenceCache(origin).records()):
        return CACHE
    if any(origin.glob("*.json")):
        return COCO
    frame_files = False
    for path in _texts(str(origin)):
        if os.path.getsize(path):
            if is_mot(Path(path)):
                return MOT
            if is_save_txt(Path(path)):
                return SAVE_TXT
        else:
            frame_files |= bool(FRAME_FILE.fullmatch(os.path.basename(path)))
    if frame_files:
        return SAVE_TXT
    raise SourceError(f"{origin} holds no detections", _EXPECTED)


def _texts(folder: str) -> Iterator[str]:
    """Text files below a folder, without those of names."""
    for base, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if name.endswith((".txt", ".csv")) and name not in FACTS:
                yield os.path.join(base, name)


def _entries(
    origin: Path, detect: DetectorSettings, model_feature_settings: dict[str, Any] | None
) -> tuple[dict[str, str], tuple[str, ...], int]:
    """Keys of a cache's entries by recording, the names of their classes, and their keypoints.

    Raises:
        SourceError: two of them are called alike.
        SettingsMismatchError: none has these settings, or they have several sets of classes.
    """
    cache = SequenceCache(origin)
    records = [record for record in cache.records() if "detections" in record]
    wanted: dict[str, Entry] = {}
    other: dict[str, Any] = {}
    for key in dict.fromkeys(record["key"] for record in records):
        entry = cache.valid_entry(key)
        if entry is None or not uses_imported_detections(entry.feature_settings):
            continue
        asked = model_feature_settings or detect.imported_detections_settings(
            entry.names, entry.feature_settings["keypoints"]
        )
        if entry.feature_settings == asked:
            wanted[key] = entry
        else:
            other = {name: value for name, value in entry.feature_settings.items() if value != asked.get(name)}
    if not wanted:
        settings = ", ".join(f"{name} {value}" for name, value in sorted(other.items()) if name != "names")
        raise SettingsMismatchError(
            f"{origin} holds no sequences of these settings" + (f"; there are some of {settings}" if settings else ""),
            "ask for the settings they were made with, or give the detections themselves",
        )
    latest = {record["path"]: record for record in records if record["key"] in wanted}
    kinds = {
        (wanted[record["key"]].names, wanted[record["key"]].feature_settings["keypoints"]) for record in latest.values()
    }
    if len(kinds) > 1:
        raise SettingsMismatchError(
            f"{origin} holds sequences of {len(kinds)} sets of classes", "give the detections of one set themselves"
        )
    found: dict[str, dict[str, Any]] = {}
    for record in latest.values():
        twin = found.setdefault(record["name"], record)
        if twin["key"] != record["key"]:
            raise SourceError(
                f"{origin} holds different sequences of {record['name']}, made of {twin['detections']} and of "
                f"{record['detections']}",
                "give the detections themselves, or extract each of these folders to its own --out",
            )
    names, keypoints = kinds.pop()
    return {name: record["key"] for name, record in found.items()}, names, int(keypoints)
