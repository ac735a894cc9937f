"""Recordings in, cache entries out: decode, detect, measure motion, track, write, all at the same time.

    decoder threads          detector threads        the calling thread
    one recording each  ──▶  one batch each     ──▶  in order: motion, tracks, cache
    frames, flow             objects, scene

Batches hold frames of several recordings of one input shape, so that a folder of short clips runs at the speed of one
long file. Each detector thread runs the network on one core: cores are used by running several batches at once, which
is faster than sharing one batch among them, and makes the features independent of the number of cores. All queues are
bounded, so memory does not grow with the length of the recordings.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from tqdm import tqdm

from vidgru.cache import Entry, EntryWriter, SequenceCache
from vidgru.config import DetectorSettings, RunSettings
from vidgru.errors import CacheError, OutputError, RecordingChanged, RecordingError
from vidgru.extract.backends import TorchBackend, find_weights, load_network
from vidgru.extract.detector import Detections, Detector
from vidgru.extract.motion import FlowMeter, object_motion
from vidgru.extract.outcome import Outcome, Status, summary_lines, summary_table
from vidgru.extract.stages import Batch, Batcher, Channel, Row, Sample, Threads, Turns, assemble
from vidgru.extract.tracker import Tracker
from vidgru.extract.video import Damage, VideoInfo, VideoReader, file_identity
from vidgru.files import sha256_file, write_atomic
from vidgru.types import Recording

__all__ = ["Outcome", "extract", "summary_table", "weights_what"]

_CPU_BATCH, _DEVICE_BATCH = 4, 32
_CHUNK_SAMPLES = 256  # samples handed to the writer at a time
_BATCHES_WAITING = 2  # a detector thread


def damage_of(entry: Entry) -> str:
    """What was wrong with an entry's recording, in the words of its outcome; empty where nothing was."""
    return str(Damage(**entry.damage))


def weights_what(detect: DetectorSettings) -> dict[str, Any]:
    """The settings that decide the features, with the hash of the weights.

    Raises:
        WeightsError: there is no such weights file.
    """
    return detect.what(sha256_file(find_weights(detect.weights)))


def extract(
    recordings: Many[Recording],
    cache: SequenceCache,
    detect: DetectorSettings,
    run: RunSettings,
    *,
    progress: bool = True,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """See every sampled frame of the recordings once and cache what was seen.

    Recordings whose features are there already are not decoded, and equal recordings share one entry. A recording
    that cannot be read ends as failed and the run goes on.

    Args:
        recordings: what to work on.
        cache: where entries are, and go.
        detect: what is computed.
        run: how.
        progress: show a bar on stderr if that is a terminal.
        on_outcome: called in this thread with each recording's outcome as it ends.

    Returns:
        One outcome a recording, in their order. They are also written to `summary.jsonl` in the cache's folder.

    Raises:
        WeightsError, SettingsError: the detector is not there, or cannot run as asked, and a recording needs it.
        OutputError: the cache cannot be written; what was finished stays.
    """
    return _Run(recordings, cache, detect, run, progress, on_outcome).outcomes()


@dataclass(kw_only=True, eq=False)
class _Job:
    """One recording on its way. Its decoder thread fills the first group of fields, the calling thread the others."""

    number: int
    recording: Recording
    started: float = 0.0
    key: str = ""
    info: VideoInfo | None = None
    damage: Damage = field(default_factory=Damage)
    duration_s: float = 0.0

    total: int | None = None  # samples, known when it is decoded
    arrived: dict[int, tuple[Sample, Detections]] = field(default_factory=dict)
    handled: int = 0
    shown: float = 0.0  # share of it that the progress bar counts
    rows: list[Row] = field(default_factory=list)
    tracker: Tracker | None = None
    writer: EntryWriter | None = None
    stack: ExitStack = field(default_factory=ExitStack)
    twins: list[_Job] = field(default_factory=list)  # recordings of the same content, which wait for this one


class _Run:
    """State of one call of `extract`. Methods named `_on_...` run in the calling thread, posted by the others."""

    def __init__(
        self,
        recordings: Many[Recording],
        cache: SequenceCache,
        detect: DetectorSettings,
        run: RunSettings,
        progress: bool,
        on_outcome: Callable[[Outcome], None] | None,
    ) -> None:
        self._cache, self._detect, self._run = cache, detect, run
        self._weights = find_weights(detect.weights)
        self._what = detect.what(sha256_file(self._weights))
        self._jobs = [_Job(number=i, recording=recording) for i, recording in enumerate(recordings)]
        self._on_outcome = on_outcome
        self._outcomes: dict[int, Outcome] = {}
        self._claimed: dict[str, _Job] = {}  # entries being made, by key
        self._stop = threading.Event()
        self._posts: Channel[Callable[[], None]] = Channel(256, self._stop)
        self._turns = Turns(iter(self._jobs))
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._decoding = min(self._cores, len(self._jobs))  # decoder threads at work
        self._threads = Threads(self._stop, lambda error: self._post(self._on_crash, error))
        self._lock = threading.Lock()
        self._detector: Detector | None = None
        self._how: dict[str, Any] = {}
        self._bar = tqdm(
            total=len(self._jobs),
            unit="recording",
            bar_format="{percentage:3.0f}%|{bar}| {n:.1f}/{total} recordings [{elapsed}<{remaining}{postfix}]",
            disable=not (progress and sys.stderr.isatty()),
        )
        self._samples, self._began = 0, time.monotonic()

    def outcomes(self) -> list[Outcome]:
        """Run to the end."""
        threads_before = torch.get_num_threads()
        try:
            for number in range(self._decoding):
                self._threads.start(f"decoder-{number}", self._decode_all)
            while len(self._outcomes) < len(self._jobs):
                self._posts.get()()
        finally:
            self._threads.close()
            for job in self._jobs:
                job.stack.close()
            torch.set_num_threads(threads_before)
            self._bar.close()
            self._write_summary()
        return [self._outcomes[job.number] for job in self._jobs]

    def _post(self, work: Callable[..., None], *arguments: Any) -> None:
        self._posts.put(partial(work, *arguments))

    # --- decoder threads --------------------------------------------------------------------------------------------

    def _decode_all(self) -> None:
        for job in self._turns:
            job.started = time.monotonic()
            try:
                self._decode(job)
            except RecordingError as error:
                self._post(self._on_failed, job, error.message)
        with self._lock:
            self._decoding -= 1
            last = not self._decoding
        if last and self._detector is not None:
            self._batcher.flush()

    def _decode(self, job: _Job) -> None:
        identity = file_identity(job.recording.path)
        try:
            job.key = self._cache.key(self._cache.sha256(job.recording.path), self._what)
        except OSError as error:
            raise RecordingError(f"cannot be read: {error.strerror}") from None
        entry = None
        with suppress(CacheError):  # an entry that is not sound is made again
            entry = self._cache.entry(job.key)
        if entry is not None:
            return self._post(self._on_reused, job, entry)
        with self._lock:
            first = self._claimed.setdefault(job.key, job)
        if first is not job:
            return self._post(self._on_twin, job, first)
        with VideoReader(job.recording.path) as reader:
            if reader.identity != identity:
                raise RecordingChanged("changed while it was read; run again when it is complete")
            job.info, job.damage = reader.info, reader.damage
            detector = self._ready_detector()
            letterbox = detector.letterbox(reader.info.size_px)
            meter, total = FlowMeter(), 0
            for frame in reader.sample(self._detect.fps, letterbox.content_wh):
                sample = Sample(
                    job=job,
                    number=total,
                    time_s=frame.time_s,
                    index=frame.index,
                    flow=meter.step(frame.image, frame.time_s),
                    letterbox=letterbox,
                )
                self._batcher.add(sample, frame.image)
                total += 1
            if not total:
                raise RecordingError("no frame of it lies at or after the start of the container")
            job.duration_s = reader.info.duration_s or reader.end_s
        self._post(self._on_decoded, job, total)

    def _ready_detector(self) -> Detector:
        """The detector, loaded with its threads when the first recording needs it."""
        with self._lock:
            if self._detector is None:
                backend = TorchBackend(load_network(self._weights), self._run.device, self._run.precision)
                on_cpu = backend.device.type == "cpu"
                workers = (self._run.threads or self._cores) if on_cpu else 1
                size = self._run.detector_batch or (_CPU_BATCH if on_cpu else _DEVICE_BATCH)
                self._batches: Channel[Batch] = Channel(_BATCHES_WAITING * workers, self._stop)
                self._batcher = Batcher(size, self._batches.put)
                self._how = {
                    "backend": backend.name,
                    "precision": backend.precision,
                    "device": str(backend.device),
                    "batch": size,
                    "threads": workers,
                    "versions": {
                        name: version(name)
                        for name in ("vidgru", "ultralytics", "torch", "torchvision", "av", "opencv-python", "numpy")
                    },
                }
                detector = Detector(backend, self._detect)
                for number in range(workers):
                    self._threads.start(f"detector-{number}", partial(self._detect_all, detector))
                self._detector = detector
            return self._detector

    def _detect_all(self, detector: Detector) -> None:
        torch.set_num_threads(1)
        while True:
            batch = self._batches.get()
            detections = detector.detect(batch.images, [sample.letterbox for sample in batch.samples])
            self._post(self._on_seen, batch.samples, detections)

    # --- the calling thread -----------------------------------------------------------------------------------------

    def _on_seen(self, samples: list[Sample], detections: list[Detections]) -> None:
        for sample, seen in zip(samples, detections, strict=True):
            job: _Job = sample.job
            if job.number not in self._outcomes:  # else it failed meanwhile
                job.arrived[sample.number] = (sample, seen)
        for job in {sample.job.number: sample.job for sample in samples}.values():
            self._handle(job)

    def _handle(self, job: _Job) -> None:
        """Work off the samples of a job that have arrived, in their order."""
        assert job.info is not None
        if job.tracker is None:
            job.tracker = Tracker(self._detect.tracker, job.info.size_px)
        while job.handled in job.arrived:
            sample, seen = job.arrived.pop(job.handled)
            tracks = job.tracker.update(seen.boxes, seen.scores, seen.classes)
            job.rows.append((sample, seen, tracks, object_motion(sample.flow, seen.boxes)))
            job.handled += 1
            self._samples += 1
            if len(job.rows) == _CHUNK_SAMPLES:
                self._write(job)
        if job.info.duration_s and job.rows:
            self._show(job, min(job.rows[-1][0].time_s / job.info.duration_s, 1.0))
        if job.handled == job.total:
            self._finish(job)

    def _write(self, job: _Job) -> None:
        assert job.info is not None
        if job.writer is None:
            job.writer = job.stack.enter_context(self._cache.writer(job.key))
        if job.rows:
            job.writer.append(assemble(job.rows, self._detect.fps, job.info.size_px, self._names()))
            job.rows = []

    def _names(self) -> tuple[str, ...]:
        assert self._detector is not None
        return self._detector.names

    def _finish(self, job: _Job) -> None:
        self._write(job)
        assert job.info is not None
        assert job.writer is not None
        damage = job.damage.facts()
        job.writer.finish(
            status="partial" if damage else "done",
            duration_s=job.duration_s,
            fps=self._detect.fps,
            size_px=job.info.size_px,
            names=self._names(),
            what=self._what,
            how=self._how,
            damage=damage,
            recorded_at=job.info.recorded_at,
        )
        self._end(job, "partial" if damage else "done", job.handled, job.duration_s, str(job.damage))
        for twin in job.twins:
            self._end(twin, "reused", job.handled, job.duration_s, str(job.damage))

    def _on_decoded(self, job: _Job, total: int) -> None:
        job.total = total
        if job.handled == total:
            self._finish(job)

    def _on_reused(self, job: _Job, entry: Entry) -> None:
        self._end(job, "reused", entry.samples, entry.duration_s, damage_of(entry))

    def _on_twin(self, job: _Job, first: _Job) -> None:
        outcome = self._outcomes.get(first.number)
        if outcome is None:
            first.twins.append(job)
        elif outcome.key is None:
            self._end(job, "failed", 0, None, outcome.reason)
        else:
            self._end(job, "reused", outcome.samples, outcome.duration_s, outcome.reason)

    def _on_failed(self, job: _Job, reason: str) -> None:
        job.arrived.clear()
        job.rows.clear()
        for one in (job, *job.twins):
            self._end(one, "failed", 0, None, reason)

    def _on_crash(self, error: BaseException) -> None:
        raise error

    def _end(self, job: _Job, status: Status, samples: int, duration_s: float | None, reason: str) -> None:
        job.stack.close()
        self._show(job, 1.0)
        outcome = Outcome(
            recording=job.recording,
            status=status,
            key=None if status == "failed" else job.key,
            samples=samples,
            duration_s=duration_s,
            reason=reason,
            seconds=time.monotonic() - job.started,
        )
        self._outcomes[job.number] = outcome
        if outcome.key:
            with (
                suppress(OutputError) if status == "reused" else nullcontext()
            ):  # a cache to read from may be read-only
                self._cache.remember(job.recording.path, outcome.key)
        if self._on_outcome is not None:
            self._on_outcome(outcome)

    def _show(self, job: _Job, share: float) -> None:
        """Move the bar to where this recording's share is worked off."""
        self._bar.set_postfix_str(f"{self._samples / (time.monotonic() - self._began):.0f} samples/s", refresh=False)
        self._bar.update(share - job.shown)
        job.shown = share

    def _write_summary(self) -> None:
        """The outcomes so far, unless all were there before: then the cache may be read-only."""
        if any(outcome.status != "reused" for outcome in self._outcomes.values()):
            outcomes = [self._outcomes[number] for number in sorted(self._outcomes)]
            write_atomic(self._cache.root / "summary.jsonl", summary_lines(outcomes))
