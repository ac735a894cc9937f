"""Inputs of a prediction: recordings, entries of a sequence cache, and the detector that the model was trained on."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vidgru.cache import Entry, SequenceCache
from vidgru.cache.entry import KEY, LIVE
from vidgru.config import DetectorSettings, comparable_settings, uses_imported_detections
from vidgru.errors import CacheError, OutputError, SettingsMismatchError, SourceError, WeightsError
from vidgru.extraction.pipeline import feature_settings_for
from vidgru.model.checkpoint import EventModel, check_feature_settings, detector_settings
from vidgru.prediction.results import PredictionResult, failed
from vidgru.sources import find_recordings
from vidgru.storage import user_path
from vidgru.types import FrameSequence, Recording


@dataclass(frozen=True, kw_only=True)
class CachedRecording:
    """A recording whose features are in a cache.

    Attributes:
        recording: The recording. If its file is gone or has changed since extraction, its path is the entry's folder.
        cache: The cache that holds its features.
        entry: Its entry in that cache.
        sha256: Hash of the file's bytes; empty if the file is gone.
        seconds: Wall time spent on it so far.
    """

    recording: Recording
    cache: SequenceCache
    entry: Entry
    sha256: str
    seconds: float = 0.0

    def parts(self) -> Iterable[FrameSequence]:
        """Return the consecutive parts of its frame sequence, which can be iterated over several times.

        Raises:
            CacheError: A part is missing or corrupt; with still frames, raised while iterating.
        """
        return _StoredParts(self) if self.entry.still else list(self.cache.parts(self.entry.key))


class _StoredParts:
    """Parts read from disk in each iteration: in memory, still frames take as much space as others."""

    def __init__(self, item: CachedRecording) -> None:
        self._item = item

    def __iter__(self) -> Iterator[FrameSequence]:
        return self._item.cache.parts(self._item.entry.key)


WorkItem = CachedRecording | PredictionResult
"""What a `Predictor` processes: a recording with features, or the failure of one that has none that can be used."""


def find_inputs(sources: Iterable[str | Path], model: EventModel) -> tuple[list[Recording], list[WorkItem]]:
    """Find recordings, and the entries of sources that are a cache or a single entry.

    An entry that cannot be opened is a failed result; one whose parts are corrupt fails when they are read.

    Raises:
        SourceError: A source does not exist, or holds no recordings.
        SettingsMismatchError: An entry was extracted with other settings than the model's.
        OutputError: Two recordings would share one name in the output.
    """
    files: list[str | Path] = []
    cached: list[WorkItem] = []
    for source in sources:
        folder = user_path(source)
        if (folder / "entry.json").is_file():
            try:
                cached.append(cached_entry(folder, model))
            except SettingsMismatchError:
                raise
            except CacheError as error:
                cached.append(failed(Recording(path=folder, name=folder.resolve().name[:16]), error.message, None, 0.0))
        elif folder.is_dir() and _is_cache(folder):
            cached += _whole_cache(folder, model)
        else:
            files.append(source)
    recordings = find_recordings(files) if files else []
    by_name: dict[str, Recording] = {}
    for recording in (*recordings, *(item.recording for item in cached)):
        other = by_name.setdefault(recording.name, recording)
        if other is not recording:
            raise OutputError(
                f"{other.path} and {recording.path} would both be {recording.name} in the output",
                "give the folder above both as the source, or predict each with its own --out",
            )
    return recordings, cached


def cached_entry(folder: Path, model: EventModel) -> CachedRecording:
    """Open one cache entry, given by its folder.

    Raises:
        SourceError: The folder is not a finished entry.
        CacheError: Its `entry.json` is corrupt.
        SettingsMismatchError: The entry was extracted with other settings than the model's.
    """
    folder = folder.resolve()
    cache = SequenceCache(folder.parent)
    entry = cache.entry(folder.name) if KEY.fullmatch(folder.name) else None
    if entry is None:
        raise SourceError(
            f"{folder} is neither a recording nor a valid cache entry",
            "give a video, or the folder of an entry that vidgru extract has finished",
        )
    check_feature_settings(model, entry.feature_settings, f"the features in {folder}")
    if imported := _imported(cache, {entry.key: entry}):
        return imported[0]
    return _as_recording(cache, entry, _source_paths(cache, [entry.key]).get(entry.key), Path())


def model_detector(model: EventModel, cache: SequenceCache, weights: str = "") -> DetectorSettings:
    """Find the detector that a model was trained on, and the settings that its features were extracted with.

    Args:
        model: The model, as loaded.
        cache: The user's features; a detector that only the model names must have made some of them.
        weights: Path of the detector's weights; if empty, the path they had in training.

    Raises:
        WeightsError: The weights do not exist, or only the model names them.
        SettingsMismatchError: They are of another detector, this version of vidgru computes other features with them,
            or the model expects imported detections.
    """
    if uses_imported_detections(model.feature_settings):
        raise SettingsMismatchError(
            "the model expects imported detections; vidgru cannot run its detector",
            "import their detections with vidgru extract --detections, and give the cache as the source",
        )
    feature_settings, settings = model.feature_settings, detector_settings(model, weights)
    remedy = (
        f"pass --weights with the detector that the model was trained on (SHA-256 {feature_settings['weights_sha256']})"
    )
    if not weights:
        cache.check_detector(settings.weights, feature_settings["weights_sha256"])
    try:
        here = feature_settings_for(settings)
    except WeightsError as error:
        raise WeightsError(error.message, remedy) from None
    if here["weights_sha256"] != feature_settings["weights_sha256"]:
        raise SettingsMismatchError(
            f"{settings.weights} is not the detector that the model was trained on: "
            f"its SHA-256 is {here['weights_sha256']}",
            remedy,
        )
    names = here.keys() | feature_settings.keys()
    if different := sorted(name for name in names if here.get(name) != feature_settings.get(name)):
        raise SettingsMismatchError(
            f"this version of vidgru cannot compute the model's features: {', '.join(different)} differs",
            "use the version that trained the model, or train it again",
        )
    return settings


# --- caches as sources ----------------------------------------------------------------------------------------------


def _is_cache(folder: Path) -> bool:
    """Whether a folder holds entries, or once did. Any folder may hold a file called index.jsonl."""
    if SequenceCache(folder).records():
        return True
    return any(KEY.fullmatch(path.name) and (path / "entry.json").is_file() for path in folder.iterdir())


def _whole_cache(root: Path, model: EventModel) -> list[WorkItem]:
    """Entries of a cache that match the model, named by their paths below the folder that holds all recordings."""
    cache = SequenceCache(root)
    matching: dict[str, Entry | str] = {}  # or why it cannot be opened
    others: list[Entry] = []  # with other settings
    spans: list[Entry] = []  # of parts of recordings
    sha256 = {record["key"]: record["sha256"] for record in cache.records()}
    for key in cache.entry_keys():
        try:
            entry = cache.entry(key)
        except CacheError as error:
            if key not in sha256 or cache.key(sha256[key], model.feature_settings) == key:
                matching[key] = error.message
            continue
        if entry is not None and entry.span is not None:
            spans.append(entry)
        elif entry is not None and comparable_settings(entry.feature_settings) != comparable_settings(
            model.feature_settings
        ):
            others.append(entry)
        elif entry is not None:
            matching[key] = entry
        elif cache.is_marked_corrupt(key):
            matching[key] = f"{root / key} was found corrupt earlier"
    if not matching:
        for entry in [*others, *spans][:1]:
            check_feature_settings(model, entry.feature_settings, f"the features in {root}")
        raise SourceError(f"no features in {root}", "give a folder that vidgru extract has filled, or recordings")
    if others:
        print(
            f"{root} holds {len(others)} more entries with other settings than the model's; they are skipped",
            file=sys.stderr,
        )
    if spans:
        print(
            f"{root} holds {len(spans)} entries of parts of recordings, made with --since or --until; they are skipped",
            file=sys.stderr,
        )
    sources = _source_paths(cache, matching)
    common = Path(os.path.commonpath([path.parent for path in sources.values()])) if sources else Path()
    # A path whose bytes have changed has several entries; only the latest stands for it.
    superseded = cache.sources().keys() - sources.keys()
    current = {key: entry for key, entry in matching.items() if key not in superseded}
    if len(current) < len(matching):
        print(
            f"{root} holds {len(matching) - len(current)} entries of recordings that were extracted again since; "
            "they are skipped",
            file=sys.stderr,
        )
    imported = _imported(cache, {key: entry for key, entry in current.items() if isinstance(entry, Entry)})
    items: list[WorkItem] = [*imported]
    for key in current.keys() - {item.entry.key for item in imported}:
        entry_or_reason, source = current[key], sources.get(key)
        if isinstance(entry_or_reason, Entry):
            items.append(_as_recording(cache, entry_or_reason, source, common))
        else:
            recording = Recording(path=root / key, name=_name(source, common) if source else key[:16])
            items.append(failed(recording, entry_or_reason, None, 0.0))
    return sorted(items, key=lambda item: item.recording.name)


def _source_paths(cache: SequenceCache, keys: Collection[str]) -> dict[str, Path]:
    """Path of the file that each of these entries was extracted from, if the entry is the latest of its path."""
    latest = {record["path"]: record["key"] for record in cache.records() if record["key"] in keys}
    return {key: Path(path) for path, key in latest.items()}


def _imported(cache: SequenceCache, entries: Mapping[str, Entry]) -> list[CachedRecording]:
    """Recordings whose detections were imported, with their videos if these exist.

    Recordings with equal detections share an entry, so there may be more recordings than entries.
    """
    records = (record for record in cache.records() if "detections" in record and record["key"] in entries)
    items = []
    for record in {record["path"]: record for record in records}.values():  # the latest record of each path
        entry, video = entries[record["key"]], Path(record.get("video", ""))
        path = video if record.get("video") and video.is_file() else cache.root / entry.key
        recording = Recording(path=path, name=record["name"])
        items.append(CachedRecording(recording=recording, cache=cache, entry=entry, sha256=record["sha256"]))
    return items


def _as_recording(cache: SequenceCache, entry: Entry, source: Path | None, common: Path) -> CachedRecording:
    """Name an entry after its source, a live stream's address and time, or its key.

    Args:
        cache: The entry's cache.
        entry: The entry.
        source: File that it was extracted from, if known.
        common: Folder above the sources of all entries.
    """
    sha256 = ""
    if source is not None:
        name = _name(source, common)
        if source.is_file() and cache.key(cache.sha256(source), entry.feature_settings) == entry.key:
            sha256 = cache.sha256(source)
    else:
        live = f"{entry.run_info[LIVE]} {entry.recorded_at}" if LIVE in entry.run_info else ""
        name = re.sub(r"[^\w.]+", "-", live).strip("-.") or entry.key[:16]
    path = source if source is not None and sha256 else cache.root / entry.key
    return CachedRecording(recording=Recording(path=path, name=name), cache=cache, entry=entry, sha256=sha256)


def _name(source: Path, common: Path) -> str:
    """Name a recording by its path below a folder, which is empty if unknown."""
    is_below = source.is_relative_to(common) and common != Path()
    return source.relative_to(common).as_posix() if is_below else source.name
