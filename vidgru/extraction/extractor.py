"""Recordings in, cache entries out, side by side, as they come: decode, detect, measure motion, track, write.

    decoder processes         detector threads         the reading thread
    one recording each   ──▶  one batch each      ──▶  in order: tracks, cache
    frames, flow              objects, scene, motion

Batches hold frames of several recordings of one input shape, so that a folder of short clips runs at the speed of one
long file; the last recordings, or a single one, are cut at key frames where decoding is what holds them up. All queues
are bounded, so memory does not grow with the length of the recordings. An entry is the same whatever ran beside it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from types import TracebackType
from typing import Any

import torch

from vidgru.cache import Entry, SequenceCache
from vidgru.cache.writer import PART_SAMPLES
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.detector.tracker import Tracker
from vidgru.detector.weights import find_weights
from vidgru.errors import LockLostError, OutputError
from vidgru.extraction.decode_process import DecoderProcess, watching
from vidgru.extraction.decode_stage import Intake
from vidgru.extraction.detector_pool import (
    Channel,
    DetectedFrame,
    DetectorPool,
    WorkerThreads,
    count_threads,
    to_sequence,
)
from vidgru.extraction.job import Ending, Job
from vidgru.extraction.results import ExtractionResult, ProgressListener, Status
from vidgru.extraction.schedule import Schedule
from vidgru.locks import Locks
from vidgru.storage import sha256_file
from vidgru.types import Recording
from vidgru.video.integrity import Damage
from vidgru.video.timestamps import StartTimes

_CHUNK_SAMPLES = 256  # samples handed to the writer at a time


class Extractor:
    """Extracts recordings as they are submitted, to be used in a `with` block. The detector stays loaded meanwhile.

    Any thread may submit. One reads `ended`, in which the last stage runs: nothing ends where nobody reads. The block
    ends all work; what is unfinished by then stays in the cache for the next run to go on with.

    Args:
        cache: where entries are, and go.
        detect: what is computed.
        run: how.
        listener: is told how far recordings are.
        limit: stop after so many samples of each recording, as if it ended there: for trying.

    Raises:
        WeightsError: there is no such weights file.
    """

    # Methods named `_on_...` run in the reading thread, others post them.

    def __init__(
        self,
        cache: SequenceCache,
        detect: DetectorSettings,
        run: RuntimeSettings,
        listener: ProgressListener,
        *,
        limit: int | None = None,
    ) -> None:
        self._cache, self._detect, self._listener = cache, detect, listener
        self._start_times = StartTimes(run.start_time)
        weights = find_weights(detect.weights)
        weights_sha256 = sha256_file(weights)
        self._feature_settings = detect.feature_settings(weights_sha256)
        if limit is not None:
            self._feature_settings["limit"] = limit  # so that nobody takes such an entry for a whole one
        self._working: dict[int, Job] = {}
        self._ended: deque[tuple[int, ExtractionResult]] = deque()
        self._last = False  # nothing more is submitted
        self._stop = threading.Event()
        self._posts: Channel[Callable[[], None]] = Channel(256, self._stop)
        self._threads = WorkerThreads(self._stop, lambda error: self._post(self._on_crash, error))
        on_seen = partial(self._post, self._on_seen)
        self._pool = DetectorPool(
            weights, weights_sha256, detect, run, self._threads, self._stop, on_seen, listener.log
        )
        self._decoders = [DecoderProcess() for _ in range(count_threads(run))]
        self._locks = Locks(cache.lock_folder)
        self._schedule: Schedule[Job] = Schedule(len(self._decoders), self._pool.is_idle, self._pool.flush, self._stop)
        self._intake = Intake(
            cache,
            detect,
            self._feature_settings,
            self._pool,
            self._schedule,
            self._locks,
            self,
            self._stop,
            limit,
            listener.log,
        )
        self._stack = ExitStack()

    def __enter__(self) -> Extractor:
        with ExitStack() as stack:  # undone in turn, whatever one of them meets, and also if Ctrl-C comes twice
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            stack.callback(self._locks.close)
            stack.callback(self._leave)
            stack.callback(self._threads.close)
            for decoder in self._decoders:
                stack.callback(decoder.close)
            stack.callback(self._stop.set)
            stack.enter_context(watching(self._decoders))
            for number, decoder in enumerate(self._decoders):
                self._threads.start(f"decoder-{number}", partial(self._decode_all, decoder))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def submit(self, number: int, recording: Recording) -> None:
        """Have a recording extracted after those before it.

        Args:
            number: by which it is told from others that are being worked on.
            recording: it need not be readable: then it ends as failed.
        """
        self._working[number] = job = Job(number=number, recording=recording)
        self._schedule.add(job)

    def finish(self) -> None:
        """Nothing more is submitted: `ended` ends with the last recording."""
        self._last = True
        self._schedule.finish()

    def ended(self) -> Iterator[tuple[int, ExtractionResult]]:
        """The number and the outcome of each recording, as it ends.

        Raises:
            WeightsError, SettingsError, MissingDependencyError: the detector cannot run as asked, and a recording
                needs it.
            OutputError: the cache cannot be written.
            ExtractionStoppedError: the block has ended, in another thread.
        """
        while True:
            while self._ended:
                yield self._ended.popleft()
            if self._last and not self._working:
                return
            try:
                self._posts.get()()
            except BaseException:
                yield from self._ended  # of the same post; whoever breaks off tells of them
                raise

    def _leave(self) -> None:
        """Give up what is being worked on."""
        with ExitStack() as stack:
            for job in self._working.values():
                stack.callback(job.stack.close)

    def _post(self, work: Callable[..., None], *arguments: Any) -> None:
        self._posts.put(partial(work, *arguments))

    # --- other threads ----------------------------------------------------------------------------------------------

    def _decode_all(self, decoder: DecoderProcess) -> None:
        try:
            self._intake.work(decoder)
        finally:
            decoder.end()
        self._post(self._on_idle)

    def reused(self, job: Job, entry: Entry) -> None:
        """See `Receiver`, as for the next two."""
        self._post(self._on_reused, job, entry)

    def failed(self, job: Job, reason: str) -> None:
        """See `Receiver`."""
        self._post(self._on_failed, job, reason)

    def decoded(self, job: Job, ending: Ending) -> None:
        """See `Receiver`."""
        self._post(self._on_decoded, job, ending)

    # --- the reading thread -----------------------------------------------------------------------------------------

    def _on_seen(self, rows: list[DetectedFrame]) -> None:
        jobs: dict[int, Job] = {}
        for row in rows:
            segment = row.frame.segment
            job: Job = segment.job
            if not job.over and not segment.superseded:  # else it failed meanwhile, or is done elsewhere
                job.arrived[row.frame.number] = row
                jobs[job.number] = job
        for job in jobs.values():
            self._unless_taken(self._handle, job)

    def _handle(self, job: Job) -> None:
        """Work off the samples of a job that have arrived, in their order."""
        assert job.info is not None
        job.tracker = job.tracker or Tracker(self._detect.tracker, job.info.size_px)
        while (row := job.arrived.get(job.handled)) and not row.frame.segment.superseded:
            del job.arrived[job.handled]
            sample, seen = row.frame, row.detections
            tracks = job.tracker.update(seen.boxes, seen.scores, seen.classes)
            job.rows.append(replace(row, tracks=tracks))
            job.handled += 1
            share = sample.time_s / job.info.duration_s if job.info.duration_s else 0.0
            self._listener.advance(job.number, sample.time_s - job.time_s, min(share, 1.0))
            job.time_s = sample.time_s
            if len(job.rows) == _CHUNK_SAMPLES or job.handled % PART_SAMPLES == 0:
                self._write(job)
        self._finish_if_over(job)

    def _write(self, job: Job) -> None:
        assert job.info is not None
        assert job.writer is not None
        if job.rows:
            place = job.rows[-1].frame.resume_point
            pieces = to_sequence(job.rows, self._detect.fps, job.info.size_px, self._pool.load().names)
            job.rows = []
            job.writer.append(pieces, None if place is None else asdict(place))

    def _finish_if_over(self, job: Job) -> None:
        """Write the entry if all samples have been worked off, and decoding has ended for good."""
        ending = job.ending
        if ending is None or ending.segment.superseded or job.handled != ending.total:
            return
        assert job.info is not None
        assert job.writer is not None
        duration_s = job.info.duration_s or ending.end_s or job.time_s
        damage = ending.damage
        if ending.end_s is None:
            damage = replace(damage, missing_tail_s=max(duration_s - job.time_s, 0.0))
        self._write(job)
        job.writer.finish(
            status="partial" if damage.facts() else "done",
            duration_s=duration_s,
            fps=self._detect.fps,
            size_px=job.info.size_px,
            names=self._pool.load().names,
            feature_settings=self._feature_settings,
            damage=damage.facts(),
            recorded_at=job.info.recorded_at,
        )
        self._end(job, "partial" if damage.facts() else "done", job.handled, duration_s, str(damage))

    def _on_decoded(self, job: Job, ending: Ending) -> None:
        if job.over:  # another segment of it has failed
            return
        job.ending = ending
        self._unless_taken(self._finish_if_over, job)

    def _unless_taken(self, work: Callable[[Job], None], job: Job) -> None:
        """Work on a job. One that another process has taken over, because this one stood still, ends as failed here."""
        try:
            work(job)
        except LockLostError:
            self._on_failed(job, "was taken over by another process, as this one stood still; run again to reuse it")

    def _on_reused(self, job: Job, entry: Entry) -> None:
        self._end(job, "reused", entry.samples, entry.duration_s, str(Damage(**entry.damage)))

    def _on_failed(self, job: Job, reason: str) -> None:
        if job.over:  # several stretches of it may fail
            return
        job.arrived.clear()
        job.rows.clear()
        self._end(job, "failed", 0, None, reason)

    def _on_idle(self) -> None:
        """A decoder has nothing left to do: `ended` looks whether that is all."""

    def _on_crash(self, error: BaseException) -> None:
        raise error

    def _end(self, job: Job, status: Status, samples: int, duration_s: float | None, reason: str) -> None:
        job.over = True
        self._listener.end(job.number, reused=status == "reused")
        outcome = ExtractionResult(
            recording=job.recording,
            status=status,
            key=None if status == "failed" else job.key,
            samples=samples,
            duration_s=duration_s,
            reason=reason,
            seconds=time.monotonic() - job.started,
        )
        if outcome.key:
            with (
                suppress(OutputError) if status == "reused" else nullcontext()
            ):  # a cache to read from may be read-only
                self._cache.set_last_entry(job.recording.path, outcome.key, self._start_times.of(job.recording.path))
        job.stack.close()  # the lease goes last: pruning takes what is neither leased nor remembered
        self._intake.unclaim(job)
        del self._working[job.number]
        self._ended.append((job.number, outcome))
