"""Import detections: one cache entry per recording, with tracks if the detections have none."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vidgru.cache import Entry, SequenceCache
from vidgru.cache.entry import canonical_json
from vidgru.config import DetectorSettings
from vidgru.errors import LockLostError, OutputError, RecordingError, SourceError
from vidgru.extraction.import_detections.parsed import ParsedDetections
from vidgru.extraction.import_detections.sampling import FrameTimes, find_frame_times, hash_detections, to_sequence
from vidgru.extraction.import_detections.source import CACHE, SAVE_TXT, DetectionSource
from vidgru.extraction.results import ExtractionResult, ExtractionStoppedError, Status, summary_writer
from vidgru.extraction.sharding import summary_name
from vidgru.locks import Locks
from vidgru.types import FrameSequence, Recording
from vidgru.video.container import file_identity

_THREADS = 4  # most of their time they wait for the disk
_POLL_S = 0.2  # between checks for an entry that another process is making
_LISTED = 3  # recordings listed if several match a video
_SETTLED_NS = 2_000_000_000  # a file modified later may change again without a new mtime (see `SequenceCache.sha256`)


def extract_detections(
    detection_source: DetectionSource,
    recordings: Sequence[Recording] | None,
    cache: SequenceCache,
    *,
    progress: bool = True,
    on_result: Callable[[ExtractionResult], None] | None = None,
) -> list[ExtractionResult]:
    """Make frame sequences of imported detections, and cache them.

    They have no motion, appearance, colour or scene. Recordings whose sequences are cached are not read, and those
    with equal detections share an entry. A recording that cannot be read ends as failed, and the run continues. Other
    processes may work on the same cache at the same time.

    Args:
        detection_source: The detections.
        recordings: Recordings to make, matched by name; their videos, if available, provide times and sizes. None
            for all recordings of the source, without videos.
        cache: Cache to read from and write to.
        progress: Show a bar on stderr, if that is a terminal.
        on_result: Called with the result of each recording.

    Returns:
        One result per recording, in order. They are also written to `summary.jsonl` in the cache's folder.

    Raises:
        SourceError: The detections are another cache, or of none of the recordings.
        OutputError: The cache cannot be written; finished entries remain.
    """
    origin = detection_source.origin
    if detection_source.format == CACHE and cache.root.resolve() != origin:
        raise SourceError(f"{origin} is already a cache of sequences", "use it as it is")
    if recordings is None:
        recordings = [detection_source.recording(name) for name in detection_source.recording_names]
    elif recordings and not any(detection_source.find_all(recording.name) for recording in recordings):
        raise SourceError(
            f"none of the {len(recordings)} recordings, such as {recordings[0].name}, is among the detections in "
            f"{origin}, such as {detection_source.recording_names[0]}",
            "pass the videos that the detections were made from, under their original names",
        )
    with (
        summary_writer(cache.root / summary_name((1, 1))) as results,
        Locks(cache.lock_folder) as locks,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        stop = threading.Event()
        importer = _Importer(detection_source, cache, locks, stop)
        futures = [pool.submit(importer.run, recording) for recording in recordings]
        try:
            bar = tqdm(futures, "recordings", disable=not (progress and sys.stderr.isatty()))
            for number, future in enumerate(bar):
                results[number] = future.result()
                if on_result is not None:
                    on_result(results[number])
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return [results[number] for number in sorted(results)]


def add_sequence(
    cache: SequenceCache, name: str, sequence: FrameSequence, detect: DetectorSettings | None = None
) -> str:
    """Add a sequence, such as one from `FrameSequence.from_detections`, to a cache under a recording's name.

    >>> from vidgru import FrameSequence, SequenceCache
    >>> from vidgru.extraction.import_detections import add_sequence
    >>> sequence = FrameSequence.from_detections(
    ...     frame=[0, 1, 2], boxes=[[10, 20, 50, 90]] * 3, size_px=(100, 100), names=["cat"], source_fps=8, fps=8
    ... )
    >>> key = add_sequence(SequenceCache("features"), "a.mp4", sequence)
    >>> SequenceCache("features").read(key)
    FrameSequence(3 frames at 8 fps, last at 0.25 s, boxes=[3, 4])

    `vidgru train DATASET --detections features` then trains on it where an annotation names `a.mp4`, and
    `vidgru predict MODEL features` finds events in it.

    Args:
        cache: The cache.
        name: Name of the recording in annotations and outputs.
        sequence: T frames, T at least 1.
        detect: Its conf, max_objects and tracker, as recorded settings; defaults if None. A model accepts only
            sequences with its own settings.

    Returns:
        The key of its entry.

    Raises:
        ValueError: The sequence is empty, or the name is not a relative path.
        OutputError: The cache cannot be written.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"name is {name!r}; it must be the recording's name in annotations, such as cam1/a.mp4")
    keypoints = 0 if sequence.keypoints is None else sequence.keypoints.shape[1]
    detect = replace(detect or DetectorSettings(), fps=sequence.fps)
    digest = hashlib.sha256(canonical_json({"size_px": sequence.size_px, "names": sequence.names}))
    for tensor, values in sorted(sequence.tensors().items()):
        digest.update(f"{tensor} {values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    sha256, feature_settings = (
        digest.hexdigest(),
        detect.imported_feature_settings(sequence.names, keypoints, sequence.flip_idx),
    )
    key = cache.key(sha256, feature_settings)
    with Locks(cache.lock_folder) as locks:
        if _wait_or_lock(cache, locks, key, threading.Event()) is None:
            end_s = float(sequence.time_s[-1]) + 1 / sequence.fps if len(sequence) else 0.0
            _write_entry(cache, key, sequence, "python", feature_settings, duration_s=end_s)
        cache.set_alias(cache.root / name, key, sha256, name=name, detections=str(cache.root.resolve()))
    return key


@dataclass(frozen=True)
class _Importer:
    """Import of recordings from one source into one cache; its threads share it."""

    source: DetectionSource
    cache: SequenceCache
    locks: Locks
    stop: threading.Event

    def run(self, recording: Recording) -> ExtractionResult:
        """Make the entry of a recording, unless it exists."""
        start = time.monotonic()
        entry: Entry | None = None
        status: Status
        try:
            status, entry, reason = self._import(recording)
        except RecordingError as error:
            status, reason = "failed", error.message
        except LockLostError:
            status, reason = (
                "failed",
                "was taken over by another process while this one was suspended; run again to reuse it",
            )
        return ExtractionResult(
            recording=recording,
            status=status,
            key=entry.key if entry else None,
            samples=entry.samples if entry else 0,
            duration_s=entry.duration_s if entry else None,
            reason=reason,
            seconds=time.monotonic() - start,
        )

    def _import(self, recording: Recording) -> tuple[Status, Entry, str]:
        """Return status, entry and a note. Raises RecordingError and LockLostError."""
        source, cache, feature_settings = self.source, self.cache, self.source.feature_settings
        video = recording.path if recording.path.is_file() else None
        matches = source.find_all(recording.name)
        name = matches[0] if matches else None
        if len(matches) > 1:
            listed = ", ".join(matches[:_LISTED])
            raise RecordingError(f"matches several recordings, {listed}, in {source.origin}; pass the folder of one")
        # save_txt writes no file for a video in which it detects nothing.
        if name is None and (source.format != SAVE_TXT or video is None):
            raise RecordingError(f"is not among the detections in {source.origin}")
        if name is not None and source.format == CACHE:
            cached = cache.valid_entry(source.keys[name])
            if cached is None:
                raise RecordingError("its cache entry is gone or corrupt; pass the original detections")
            return "reused", cached, ""

        path = source.origin / (name or recording.name)
        stamp = self._stamp(name, video)
        record = cache.record(path)
        if stamp and record.get("stamp") == stamp:
            cached = cache.valid_entry(cache.key(record["sha256"], feature_settings))
            if cached is not None:
                self._set_alias(path, recording, video, cached.key, record["sha256"], stamp)
                return "reused", cached, ""

        if name is not None:
            detections = source.read(name)
        else:
            detections = ParsedDetections.empty(feature_settings["keypoints"])
        frames = find_frame_times(detections, video, source.settings)
        note = detections.check_units(frames.size_px)
        detections = detections.normalise(frames.size_px)
        sha256 = hash_detections(detections, frames)
        key = cache.key(sha256, feature_settings)
        cached = _wait_or_lock(cache, self.locks, key, self.stop)
        try:
            entry = cached or self._write(key, detections, frames)
            self._set_alias(path, recording, video, key, sha256, stamp)
        finally:
            self.locks.release(key)
        note = note if name is not None else f"has no labels in {source.origin}, so it has no objects"
        return "done" if cached is None else "reused", entry, note

    def _stamp(self, name: str | None, video: Path | None) -> str:
        """Return a hash that changes with any file that decides the sequence; empty if one was modified just now."""
        settings = self.source.settings
        parts: list[object] = [settings.source_fps, settings.size_px]
        changed_ns = 0
        if name is not None:
            parts.append(self.source.recordings[name].stamp)
            changed_ns = self.source.recordings[name].changed_ns
        if video is not None:
            parts.append(file_identity(video))
            changed_ns = max(changed_ns, file_identity(video)[1])
        is_settled = abs(time.time_ns() - changed_ns) >= _SETTLED_NS
        return hashlib.sha256(repr(parts).encode()).hexdigest() if is_settled else ""

    def _write(self, key: str, detections: ParsedDetections, frames: FrameTimes) -> Entry:
        source = self.source
        sequence = to_sequence(detections, frames, source.feature_settings, source.class_names)
        _write_entry(
            self.cache,
            key,
            sequence,
            source.format,
            source.feature_settings,
            duration_s=frames.duration_s,
            recorded_at=frames.recorded_at,
        )
        entry = self.cache.entry(key)
        assert entry is not None
        return entry

    def _set_alias(
        self, path: Path, recording: Recording, video: Path | None, key: str, sha256: str, stamp: str
    ) -> None:
        fields = {"name": recording.name, "detections": str(self.source.origin)}
        fields |= {"stamp": stamp} if stamp else {}
        fields |= {"video": str(video.resolve())} if video else {}
        is_known = self.cache.record(path).get("key") == key
        with suppress(OutputError) if is_known else nullcontext():  # a cache that is only read may be read-only
            self.cache.set_alias(path, key, sha256, **fields)


def _write_entry(
    cache: SequenceCache,
    key: str,
    sequence: FrameSequence,
    kind: str,
    feature_settings: dict[str, Any],
    *,
    duration_s: float,
    recorded_at: str | None = None,
) -> None:
    versions = {name: version(name) for name in ("vidgru", "ultralytics", "numpy")}
    with cache.writer(key, {"detections": kind, "versions": versions}) as writer:
        writer.append(sequence)
        writer.finish(
            status="done",
            duration_s=duration_s,
            fps=sequence.fps,
            size_px=sequence.size_px,
            names=sequence.names,
            feature_settings=feature_settings,
            recorded_at=recorded_at,
        )


def _wait_or_lock(cache: SequenceCache, locks: Locks, key: str, stop: threading.Event) -> Entry | None:
    """Return the entry once it exists; or acquire its lock and return None.

    Raises:
        ExtractionStoppedError: `stop` was set while another process held the lock.
    """
    while True:
        if entry := cache.valid_entry(key):
            return entry
        if locks.acquire(key):
            return cache.valid_entry(key)
        if stop.wait(_POLL_S):
            raise ExtractionStoppedError
