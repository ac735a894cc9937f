"""What is to be predicted: recordings, and entries of a cache, whose recordings may be gone."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vidgru.cache import Entry, SequenceCache
from vidgru.cache.entry import KEY, LIVE
from vidgru.errors import OutputError, SourceError
from vidgru.model.checkpoint import EventModel, check_feature_settings
from vidgru.sources import find_recordings
from vidgru.types import Recording


@dataclass(frozen=True, kw_only=True)
class Cached:
    """A recording of which only the features are asked for.

    Attributes:
        recording: where it lies; where it is gone, or holds other bytes by now, its path is that of the entry.
        cache: that holds its features.
        entry: which they are.
        sha256: of its bytes; empty where it is gone.
    """

    recording: Recording
    cache: SequenceCache
    entry: Entry
    sha256: str


def find_inputs(sources: Iterable[str | Path], model: EventModel) -> tuple[list[Recording], list[Cached]]:
    """Recordings, and what is named by its features: the folder of a cache, or of an entry.

    Raises:
        SourceError: a source does not exist, or holds nothing.
        SettingsMismatchError: an entry is of other settings than the model's.
        OutputError: two recordings would have one name in the output.
    """
    files: list[str | Path] = []
    cached: list[Cached] = []
    for source in sources:
        folder = Path(source).expanduser()
        if (folder / "entry.json").is_file():
            cached.append(cached_entry(folder, model))
        elif folder.is_dir() and _is_cache(folder):
            cached += _whole_cache(folder, model)
        else:
            files.append(source)
    recordings = find_recordings(files) if files else []
    _refuse_twins([*recordings, *(one.recording for one in cached)])
    return recordings, cached


def cached_entry(folder: Path, model: EventModel) -> Cached:
    """An entry of a cache, given by its folder.

    Raises:
        SourceError: it is not a finished entry.
        SettingsMismatchError: it is of other settings than the model's.
    """
    folder = folder.resolve()
    cache = SequenceCache(folder.parent)
    entry = cache.valid_entry(folder.name) if KEY.fullmatch(folder.name) else None
    if entry is None:
        raise SourceError(
            f"{folder} is neither a recording nor a sound entry of a cache",
            "give a video, or the folder of an entry that vidgru extract has finished",
        )
    check_feature_settings(model, entry.feature_settings, f"the features in {folder}")
    if named := _detected(cache, {entry.key: entry}):
        return named[0]
    return _named(cache, entry, _sources(cache, [entry]).get(entry.key), Path())


def _is_cache(folder: Path) -> bool:
    """Whether it holds an entry, or did: any folder may hold a file called index.jsonl."""
    if SequenceCache(folder).records():
        return True
    return any(KEY.fullmatch(path.name) and (path / "entry.json").is_file() for path in folder.iterdir())


def _whole_cache(root: Path, model: EventModel) -> list[Cached]:
    """The entries of a cache that the model reads, named by their paths below the folder that holds them all."""
    cache = SequenceCache(root)
    entries = [entry for entry in cache.entries() if cache.valid_entry(entry.key)]
    ours = [entry for entry in entries if entry.feature_settings == model.feature_settings]
    if not ours:
        for entry in entries[:1]:
            check_feature_settings(model, entry.feature_settings, f"the features in {root}")
        raise SourceError(f"no features in {root}", "give a folder that vidgru extract has filled, or recordings")
    if len(ours) < len(entries):
        print(
            f"{root} holds {len(entries) - len(ours)} more entries, of other settings than the model's: they are left "
            "out",
            file=sys.stderr,
        )
    sources = _sources(cache, ours)
    common = Path(os.path.commonpath([path.parent for path in sources.values()])) if sources else Path()
    superseded = cache.sources().keys() - sources.keys()  # by later bytes under the same path
    found = _detected(cache, {entry.key: entry for entry in ours if entry.key not in superseded})
    named = {one.entry.key for one in found}
    found += [
        _named(cache, entry, sources.get(entry.key), common)
        for entry in ours
        if entry.key not in superseded and entry.key not in named
    ]
    return sorted(found, key=lambda one: one.recording.name)


def _sources(cache: SequenceCache, entries: Iterable[Entry]) -> dict[str, Path]:
    """A path for each of these entries that is the latest that was made from it."""
    keys = {entry.key for entry in entries}
    latest = {record["path"]: record["key"] for record in cache.records() if record["key"] in keys}
    return {key: Path(path) for path, key in latest.items()}


def _detected(cache: SequenceCache, entries: Mapping[str, Entry]) -> list[Cached]:
    """The recordings that entries were made of whose detector ran elsewhere, shown with their videos if those are here.

    Several have one entry where equal things were seen in them.
    """
    records = (record for record in cache.records() if "detections" in record and record["key"] in entries)
    found = []
    for record in {record["path"]: record for record in records}.values():  # the latest of each, of these settings
        entry, video = entries[record["key"]], Path(record.get("video", ""))
        path = video if record.get("video") and video.is_file() else cache.root / entry.key
        recording = Recording(path=path, name=record["name"])
        found.append(Cached(recording=recording, cache=cache, entry=entry, sha256=record["sha256"]))
    return found


def _named(cache: SequenceCache, entry: Entry, source: Path | None, common: Path) -> Cached:
    sha256 = ""
    if source is not None:
        under = source.is_relative_to(common) and common != Path()
        name = source.relative_to(common).as_posix() if under else source.name
        if source.is_file() and cache.key(cache.sha256(source), entry.feature_settings) == entry.key:
            sha256 = cache.sha256(source)
    else:
        live = f"{entry.run_info[LIVE]} {entry.recorded_at}" if LIVE in entry.run_info else ""
        name = re.sub(r"[^\w.]+", "-", live).strip("-.") or entry.key[:16]
    path = source if source is not None and sha256 else cache.root / entry.key
    return Cached(recording=Recording(path=path, name=name), cache=cache, entry=entry, sha256=sha256)


def _refuse_twins(recordings: list[Recording]) -> None:
    seen: dict[str, Recording] = {}
    for recording in recordings:
        other = seen.setdefault(recording.name, recording)
        if other is not recording:
            raise OutputError(
                f"{other.path} and {recording.path} would both be {recording.name} in the output",
                "give the folder above both as the source, or predict each with its own --out",
            )
