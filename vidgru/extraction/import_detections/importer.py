"""Detections in, cache entries out: the samples of each recording, with tracks where it has none."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vidgru.cache import Entry, SequenceCache
from vidgru.cache.entry import canonical_json
from vidgru.config import DetectorSettings
from vidgru.errors import LockLostError, OutputError, RecordingError, SourceError
from vidgru.extraction.import_detections.parsed import Seen, nothing
from vidgru.extraction.import_detections.sampling import digest_of, normalised, sampled
from vidgru.extraction.import_detections.source import CACHE, SAVE_TXT, DetectionSource
from vidgru.extraction.import_detections.timing import Frames, frames_of
from vidgru.extraction.results import ExtractionResult, ExtractionStoppedError, Status, summary_writer
from vidgru.extraction.sharding import summary_name
from vidgru.locks import Locks
from vidgru.types import FrameSequence, Recording
from vidgru.video.container import file_identity

_SIDE_BY_SIDE = 4  # recordings: most of their time they wait for the disk
_POLL_S = 0.2  # between looks at what another process is making
_NAMED = 3  # of the recordings that one may be
_SETTLED_NS = 2_000_000_000  # a file changed later may change again without its time changing (see `SequenceCache`)


def extract_detections(
    collection: DetectionSource,
    recordings: Sequence[Recording] | None,
    cache: SequenceCache,
    *,
    progress: bool = True,
    on_result: Callable[[ExtractionResult], None] | None = None,
) -> list[ExtractionResult]:
    """Make sequences of what a detector saw that was run elsewhere, and cache them.

    They have no motion, appearance, colour or scene. Recordings whose sequences are there already are not read, and
    those with equal detections share one entry. One that cannot be read ends as failed and the run goes on. Other
    processes may work on the same cache at the same time.

    Args:
        collection: the detections.
        recordings: which are wanted, by name, with the videos that tell times and sizes where those are there; None:
            all of the collection, without videos.
        cache: where entries are, and go.
        progress: show a bar on stderr, if that is a terminal.
        on_result: called with each recording's outcome as it ends.

    Returns:
        One outcome a recording, in their order. They are also written to `summary.jsonl` in the cache's folder.

    Raises:
        SourceError: the detections are another cache already, or of none of the recordings.
        OutputError: the cache cannot be written; what was finished stays.
    """
    if collection.format == CACHE and cache.root.resolve() != collection.origin:
        raise SourceError(f"{collection.origin} is a cache of sequences already", "use it as it is")
    if recordings is None:
        recordings = [recording_of(collection, name) for name in collection.recordings]
    elif recordings and not any(collection.called(recording.name) for recording in recordings):
        raise SourceError(
            f"none of the {len(recordings)} recordings, such as {recordings[0].name}, is among the detections in "
            f"{collection.origin}, such as {collection.recordings[0]}",
            "give the videos that they were made of, under the names that they had",
        )
    hidden = not (progress and sys.stderr.isatty())
    summary = cache.root / summary_name((1, 1))
    with (
        summary_writer(summary) as outcomes,
        Locks(cache.lock_folder) as locks,
        ThreadPoolExecutor(_SIDE_BY_SIDE) as pool,
    ):
        run_info, stop = _how(collection.format), threading.Event()
        jobs = [
            pool.submit(_Import(collection, recording, cache, locks, run_info, stop).outcome)
            for recording in recordings
        ]
        try:
            for number, job in enumerate(tqdm(jobs, "recordings", disable=hidden)):
                outcomes[number] = job.result()
                if on_result is not None:
                    on_result(outcomes[number])
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return [outcomes[number] for number in sorted(outcomes)]


def recording_of(collection: DetectionSource, name: str) -> Recording:
    """A recording whose video is not here: its path is one below its detections."""
    return Recording(path=collection.origin / name, name=name)


def add_sequence(
    cache: SequenceCache, name: str, sequence: FrameSequence, detect: DetectorSettings | None = None
) -> str:
    """Put a sequence, such as `Sequence.from_detections` makes, into a cache under a recording's name.

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
        cache: where to.
        name: of the recording, as annotations and outputs call it.
        sequence: T frames, at least one.
        detect: conf, max_objects and tracker that it is to count as made with; the defaults where it is None. A model
            reads sequences of its own settings alone.

    Returns:
        The key of its entry.

    Raises:
        ValueError: it has no frame, or the name is not a path below the recordings' folder.
        OutputError: the cache cannot be written.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"name is {name!r}; it must be one that annotations call the recording, such as cam1/a.mp4")
    keypoints = 0 if sequence.keypoints is None else sequence.keypoints.shape[1]
    detect = replace(detect or DetectorSettings(), fps=sequence.fps)
    digest = hashlib.sha256(canonical_json({"size_px": sequence.size_px, "names": sequence.names}))
    for tensor, values in sorted(sequence.tensors().items()):
        digest.update(f"{tensor} {values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    sha256, feature_settings = digest.hexdigest(), detect.imported_detections_settings(sequence.names, keypoints)
    key = cache.key(sha256, feature_settings)
    with Locks(cache.lock_folder) as locks:
        entry = _wait_or_take(cache, locks, key, threading.Event())
        if entry is None:
            end_s = float(sequence.time_s[-1]) + 1 / sequence.fps if len(sequence) else 0.0
            with cache.writer(key, _how("python")) as writer:
                writer.append(sequence)
                writer.finish(
                    status="done", duration_s=end_s, fps=sequence.fps, size_px=sequence.size_px, names=sequence.names,
                    feature_settings=feature_settings,
                )  # fmt: skip
        cache.set_alias(cache.root / name, key, sha256, name=name, detections=str(cache.root.resolve()))
    return key


class _Import:
    """One recording."""

    def __init__(
        self,
        collection: DetectionSource,
        recording: Recording,
        cache: SequenceCache,
        locks: Locks,
        run_info: dict[str, Any],
        stop: threading.Event,
    ) -> None:
        self._collection, self._recording, self._cache = collection, recording, cache
        self._locks, self._how, self._stop = locks, run_info, stop
        self._video = recording.path if recording.path.is_file() else None
        self._called = collection.called(recording.name)
        self._name = self._called[0] if self._called else None
        self._began = 0.0

    def outcome(self) -> ExtractionResult:
        """Make its entry, unless it is there."""
        self._began = time.monotonic()
        try:
            return self._made()
        except RecordingError as error:
            return self._ended("failed", None, error.message)
        except LockLostError:
            return self._ended("failed", None, "was taken over by another process; run again to reuse it")

    def _ended(self, status: Status, entry: Entry | None, reason: str = "") -> ExtractionResult:
        return ExtractionResult(
            recording=self._recording,
            status=status,
            key=entry.key if entry else None,
            samples=entry.samples if entry else 0,
            duration_s=entry.duration_s if entry else None,
            reason=reason,
            seconds=time.monotonic() - self._began,
        )

    def _made(self) -> ExtractionResult:
        collection, cache = self._collection, self._cache
        feature_settings, name = collection.feature_settings, self._name
        if len(self._called) > 1:
            named = ", ".join(self._called[:_NAMED])
            raise RecordingError(f"may be any of {named} in {collection.origin}; give the folder of one of them")
        # of a video in which nothing was ever seen there are no labels
        if name is None and (collection.format != SAVE_TXT or self._video is None):
            raise RecordingError(f"is not among the detections in {collection.origin}")
        if name is not None and collection.format == CACHE:
            entry = cache.valid_entry(collection.keys[name])
            if entry is None:
                raise RecordingError("has no sound entry any more; give its detections themselves")
            return self._ended("reused", entry)
        path = collection.origin / (name or self._recording.name)
        stamp = self._stamp()
        record = cache.record(path)
        if (
            stamp
            and record.get("stamp") == stamp
            and (entry := cache.valid_entry(cache.key(record["sha256"], feature_settings)))
        ):
            self._note(path, entry.key, record["sha256"], stamp)
            return self._ended("reused", entry)
        seen = collection.read(name) if name is not None else nothing(feature_settings["keypoints"])
        frames = frames_of(seen, self._video, collection.settings)
        seen = normalised(seen, frames.size_px)
        sha256 = digest_of(seen, frames)
        key = cache.key(sha256, feature_settings)
        entry = _wait_or_take(cache, self._locks, key, self._stop)
        try:
            status: Status = "done" if entry is None else "reused"
            entry = entry or self._write(key, seen, frames)
            self._note(path, key, sha256, stamp)
        finally:
            self._locks.release(key)
        odd = "" if name is not None else f"there are no labels of it in {collection.origin}: nothing was seen in it"
        return self._ended(status, entry, odd)

    def _stamp(self) -> str:
        """What changes when any of the files does that decide the sequence; empty where one may still be written to."""
        settings = self._collection.settings
        parts: list[object] = [settings.source_fps, settings.size_px]
        changed_ns = 0
        if self._name is not None:
            source = self._collection.sources[self._name]
            parts.append(source.stamp)
            changed_ns = source.changed_ns
        if self._video is not None:
            parts.append(file_identity(self._video))
            changed_ns = max(changed_ns, file_identity(self._video)[1])
        settled = abs(time.time_ns() - changed_ns) >= _SETTLED_NS
        return hashlib.sha256(repr(parts).encode()).hexdigest() if settled else ""

    def _write(self, key: str, seen: Seen, frames: Frames) -> Entry:
        collection = self._collection
        sequence = sampled(seen, frames, collection.feature_settings, collection.names)
        with self._cache.writer(key, self._how) as writer:
            writer.append(sequence)
            writer.finish(
                status="done",
                duration_s=frames.duration_s,
                fps=sequence.fps,
                size_px=sequence.size_px,
                names=sequence.names,
                feature_settings=collection.feature_settings,
                recorded_at=frames.recorded_at,
            )
        entry = self._cache.entry(key)
        assert entry is not None
        return entry

    def _note(self, path: Path, key: str, sha256: str, stamp: str) -> None:
        facts = {"name": self._recording.name, "detections": str(self._collection.origin)}
        facts |= {"stamp": stamp} if stamp else {}
        facts |= {"video": str(self._video.resolve())} if self._video else {}
        known = self._cache.record(path).get("key") == key
        with suppress(OutputError) if known else nullcontext():  # a cache to read from may be read-only
            self._cache.set_alias(path, key, sha256, **facts)


def _wait_or_take(cache: SequenceCache, locks: Locks, key: str, stop: threading.Event) -> Entry | None:
    """The entry, if it is there, or another process is making it; else None, and the lease of it is held.

    Raises ExtractionStoppedError where `stop` is set meanwhile.
    """
    while True:
        if entry := cache.valid_entry(key):
            return entry
        if locks.acquire(key):
            return cache.valid_entry(key)
        if stop.wait(_POLL_S):
            raise ExtractionStoppedError


def _how(kind: str) -> dict[str, Any]:
    return {"detections": kind, "versions": {name: version(name) for name in ("vidgru", "ultralytics", "numpy")}}
