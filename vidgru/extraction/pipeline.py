"""Recordings in, cache entries out: decode, detect, measure motion, track, write, all at the same time.

    decoder processes         detector threads         the calling thread
    one recording each   ──▶  one batch each      ──▶  in order: tracks, cache
    frames, flow              objects, scene, motion

Batches hold frames of several recordings of one input shape, so that a folder of short clips runs at the speed of one
long file; the last recordings, or a single one, are cut at key frames where decoding is what holds them up. All queues
are bounded, so memory does not grow with the length of the recordings. An entry is the same whatever ran beside it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vidgru.cache import Entry, SequenceCache
from vidgru.cache.writer import PART_SAMPLES
from vidgru.config import DetectorSettings, RunSettings
from vidgru.errors import EntryTaken, OutputError
from vidgru.extraction.damage import Damage
from vidgru.extraction.decoder import DecoderProcess, watching
from vidgru.extraction.intake import Intake
from vidgru.extraction.job import Ending, Job
from vidgru.extraction.network import find_weights
from vidgru.extraction.outcome import Outcome, Status, say_outcome, summary_lines, summary_table
from vidgru.extraction.pool import DetectorPool, cores
from vidgru.extraction.progress import Progress
from vidgru.extraction.schedule import Schedule
from vidgru.extraction.spans import spans
from vidgru.extraction.stages import Channel, Row, Threads, assemble
from vidgru.extraction.times import StartTimes
from vidgru.extraction.tracker import Tracker
from vidgru.files import sha256_file, write_atomic
from vidgru.leases import Leases
from vidgru.types import Recording

__all__ = [
    "Outcome",
    "damage_of",
    "extract_recordings",
    "recorded_at",
    "say_outcome",
    "spans",
    "summary_table",
    "told_time",
    "weights_what",
]

_CHUNK_SAMPLES = 256  # samples handed to the writer at a time


def damage_of(entry: Entry) -> str:
    """What was wrong with an entry's recording, in the words of its outcome; empty where nothing was."""
    return str(Damage(**entry.damage))


def recorded_at(cache: SequenceCache, entry: Entry, path: Path, start_time: str) -> str | None:
    """ISO 8601 time at which a recording begins, None if unknown.

    It is what `start_time` (see `RunSettings`) says, else what it said when the recording was extracted, else what the
    container says.
    """
    return told_time(cache, path, start_time) or entry.recorded_at


def told_time(cache: SequenceCache, path: Path, start_time: str) -> str | None:
    """As `recorded_at`, without what the container says."""
    return StartTimes(start_time).of(path) or cache.recorded_at(path)


def weights_what(detect: DetectorSettings) -> dict[str, Any]:
    """The settings that decide the features, with the hash of the weights.

    Raises:
        WeightsError: there is no such weights file.
    """
    return detect.what(sha256_file(find_weights(detect.weights)))


def extract_recordings(
    recordings: Many[Recording],
    cache: SequenceCache,
    detect: DetectorSettings,
    run: RunSettings,
    *,
    progress: bool = True,
    on_outcome: Callable[[Outcome], None] | None = None,
    limit: int | None = None,
) -> list[Outcome]:
    """See every sampled frame of the recordings once and cache what was seen.

    Recordings whose features are there already are not decoded, and equal recordings share one entry. A recording
    that cannot be read ends as failed and the run goes on. Other processes may work on the same cache at the same
    time: each takes what no other is working on, and waits for what is left. A recording that a killed run left goes
    on where that one was.

    Args:
        recordings: what to work on.
        cache: where entries are, and go.
        detect: what is computed.
        run: how.
        progress: tell on stderr which detector runs, and show a bar if that is a terminal.
        on_outcome: called in this thread with each recording's outcome as it ends.
        limit: stop after so many samples of each recording, as if it ended there: for trying.

    Returns:
        One outcome a recording, in their order. They are also written to `summary.jsonl` in the cache's folder.

    Raises:
        WeightsError, SettingsError, MissingExtra: the detector is not there, or cannot run as asked, and a recording
            needs it.
        OutputError: the cache cannot be written; what was finished stays.
    """
    return _Run(recordings, cache, detect, run, progress, on_outcome, limit).outcomes()


class _Run:
    """State of a call of `extract_recordings`. Methods named `_on_...` run in the calling thread, others post them."""

    def __init__(
        self,
        recordings: Many[Recording],
        cache: SequenceCache,
        detect: DetectorSettings,
        run: RunSettings,
        progress: bool,
        on_outcome: Callable[[Outcome], None] | None,
        limit: int | None,
    ) -> None:
        self._cache, self._detect, self._on_outcome = cache, detect, on_outcome
        self._start_times = StartTimes(run.start_time)
        weights = find_weights(detect.weights)
        weights_sha256 = sha256_file(weights)
        self._what = detect.what(weights_sha256)
        if limit is not None:
            self._what["limit"] = limit  # so that nobody takes such an entry for a whole one
        self._jobs = [Job(number=i, recording=recording) for i, recording in enumerate(recordings)]
        self._outcomes: dict[int, Outcome] = {}
        self._stop = threading.Event()
        self._posts: Channel[Callable[[], None]] = Channel(256, self._stop)
        self._threads = Threads(self._stop, lambda error: self._post(self._on_crash, error))
        self._progress = Progress((job.recording.path for job in self._jobs), progress)
        on_seen = partial(self._post, self._on_seen)
        self._pool = DetectorPool(
            weights, weights_sha256, detect, run, self._threads, self._stop, on_seen, self._progress.say
        )
        self._decoders = [DecoderProcess() for _ in range(cores() if self._jobs else 0)]
        self._leases = Leases(cache.leases)
        schedule = Schedule(self._jobs, len(self._decoders), self._pool.starving, self._pool.flush, self._stop)
        self._intake = Intake(
            cache,
            detect,
            self._what,
            self._pool,
            schedule,
            self._leases,
            self,
            self._stop,
            limit,
            self._progress.say,
        )

    def outcomes(self) -> list[Outcome]:
        """Run to the end."""
        with ExitStack() as stack:  # undone in turn, whatever one of them meets, and also if Ctrl-C comes twice
            stack.callback(self._progress.close)
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            stack.callback(self._leases.close)
            for job in self._jobs:
                stack.callback(job.stack.close)
            stack.callback(self._threads.close)
            for decoder in self._decoders:
                stack.callback(decoder.close)
            stack.callback(self._stop.set)
            stack.enter_context(watching(self._decoders))
            for number, decoder in enumerate(self._decoders):
                self._threads.start(f"decoder-{number}", partial(self._decode_all, decoder))
            try:
                while len(self._outcomes) < len(self._jobs):
                    self._posts.get()()
            except BaseException:
                with suppress(OutputError):  # what ended the run is what is to be told
                    self._write_summary()
                raise
        self._write_summary()
        return [self._outcomes[job.number] for job in self._jobs]

    def _post(self, work: Callable[..., None], *arguments: Any) -> None:
        self._posts.put(partial(work, *arguments))

    # --- other threads ----------------------------------------------------------------------------------------------

    def _decode_all(self, decoder: DecoderProcess) -> None:
        try:
            self._intake.work(decoder)
        finally:
            decoder.end()

    def reused(self, job: Job, entry: Entry) -> None:
        """See `Receiver`, as for the next two."""
        self._post(self._on_reused, job, entry)

    def failed(self, job: Job, reason: str) -> None:
        """See `Receiver`."""
        self._post(self._on_failed, job, reason)

    def decoded(self, job: Job, ending: Ending) -> None:
        """See `Receiver`."""
        self._post(self._on_decoded, job, ending)

    # --- the calling thread -----------------------------------------------------------------------------------------

    def _on_seen(self, rows: list[Row]) -> None:
        jobs: dict[int, Job] = {}
        for row in rows:
            stretch = row.sample.stretch
            job: Job = stretch.job
            if not job.over and not stretch.void:  # else it failed meanwhile, or is done elsewhere
                job.arrived[row.sample.number] = row
                jobs[job.number] = job
        for job in jobs.values():
            self._unless_taken(self._handle, job)

    def _handle(self, job: Job) -> None:
        """Work off the samples of a job that have arrived, in their order."""
        assert job.info is not None
        job.tracker = job.tracker or Tracker(self._detect.tracker, job.info.size_px)
        while (row := job.arrived.get(job.handled)) and not row.sample.stretch.void:
            del job.arrived[job.handled]
            sample, seen = row.sample, row.seen
            tracks = job.tracker.update(seen.boxes, seen.scores, seen.classes)
            job.rows.append(replace(row, tracks=tracks))
            job.handled += 1
            share = sample.time_s / job.info.duration_s if job.info.duration_s else 0.0
            self._progress.sampled(job.number, sample.time_s - job.time_s, min(share, 1.0))
            job.time_s = sample.time_s
            if len(job.rows) == _CHUNK_SAMPLES or job.handled % PART_SAMPLES == 0:
                self._write(job)
        self._finish_if_over(job)

    def _write(self, job: Job) -> None:
        assert job.info is not None
        assert job.writer is not None
        if job.rows:
            place = job.rows[-1].sample.place
            pieces = assemble(job.rows, self._detect.fps, job.info.size_px, self._pool.ready().names)
            job.rows = []
            job.writer.append(pieces, None if place is None else asdict(place))

    def _finish_if_over(self, job: Job) -> None:
        """Write the entry if all samples have been worked off, and decoding has ended for good."""
        ending = job.ending
        if ending is None or ending.stretch.void or job.handled != ending.total:
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
            names=self._pool.ready().names,
            what=self._what,
            damage=damage.facts(),
            recorded_at=job.info.recorded_at,
        )
        self._end(job, "partial" if damage.facts() else "done", job.handled, duration_s, str(damage))

    def _on_decoded(self, job: Job, ending: Ending) -> None:
        if job.over:  # another stretch of it has failed
            return
        job.ending = ending
        self._unless_taken(self._finish_if_over, job)

    def _unless_taken(self, work: Callable[[Job], None], job: Job) -> None:
        """Work on a job. One that another process has taken over, because this one stood still, ends as failed here."""
        try:
            work(job)
        except EntryTaken:
            self._on_failed(job, "was taken over by another process, as this one stood still; run again to reuse it")

    def _on_reused(self, job: Job, entry: Entry) -> None:
        self._end(job, "reused", entry.samples, entry.duration_s, damage_of(entry))

    def _on_failed(self, job: Job, reason: str) -> None:
        if job.over:  # several stretches of it may fail
            return
        job.arrived.clear()
        job.rows.clear()
        self._end(job, "failed", 0, None, reason)
        self._intake.unclaim(job)

    def _on_crash(self, error: BaseException) -> None:
        raise error

    def _end(self, job: Job, status: Status, samples: int, duration_s: float | None, reason: str) -> None:
        job.over = True
        self._progress.ended(job.number, reused=status == "reused")
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
                self._cache.remember(job.recording.path, outcome.key, self._start_times.of(job.recording.path))
        job.stack.close()  # the lease goes last: pruning takes what is neither leased nor remembered
        if self._on_outcome is not None:
            self._on_outcome(outcome)

    def _write_summary(self) -> None:
        """The outcomes so far. Where nothing was made, the cache may be read-only."""
        made = any(outcome.status in ("done", "partial") for outcome in self._outcomes.values())
        outcomes = [self._outcomes[number] for number in sorted(self._outcomes)]
        if outcomes and any(outcome.status != "reused" for outcome in outcomes):
            with nullcontext() if made else suppress(OutputError):
                write_atomic(self._cache.root / "summary.jsonl", summary_lines(outcomes))
