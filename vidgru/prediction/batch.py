"""Recordings and a model to events in files. A finished recording is not looked at again.

`output.py` tells which files. Recordings are scored, and their files written, beside the extraction of those after
them.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from vidgru.cache import Entry, SequenceCache
from vidgru.config import PredictConfig
from vidgru.errors import SettingsError, WeightsError
from vidgru.extraction.pipeline import Outcome, damage_of, extract_recordings, recorded_at, spans, told_time
from vidgru.files import sha256_file
from vidgru.model.checkpoint import EventModel, check_what, load_model, model_file
from vidgru.prediction.background import Background
from vidgru.prediction.detector import model_detector
from vidgru.prediction.finish import NO_TIME, Finisher, Ready
from vidgru.prediction.inputs import Cached, find_inputs
from vidgru.prediction.outcome import Prediction, counted, failed, summary_record
from vidgru.prediction.output import OutputFolder
from vidgru.prediction.period import Period
from vidgru.prediction.writers import read_jsonl
from vidgru.types import Recording


def predict(
    model_path: str | Path, sources: Iterable[str | Path], config: PredictConfig, *, progress: bool = True
) -> list[Prediction]:
    """Find the events of recordings and write them below `config.out`.

    Each recording is scored as soon as its features are there: in the cache, or made on the way with the detector and
    the sampling that the model was trained on. A recording that cannot be read ends as failed, and the run goes on.

    Args:
        model_path: a model file or a training run's folder.
        sources: files, folders, globs, text lists, caches and their entries.
        config: where to, and which events.
        progress: show a bar on stderr if that is a terminal.

    Returns:
        One prediction a recording, in the order of the sources, those of caches last. They are also written to
        `summary.jsonl`.

    Raises:
        ModelError, SourceError, SettingsError: before any recording is opened.
        WeightsError: features are missing, and so is the detector to make them.
        SettingsMismatch: the detector is not the one that the model was trained on.
        OutputError: the output cannot be written, or two recordings would share a folder; what was finished stays.
    """
    if config.record:
        raise SettingsError("record is for live sources, and these are recordings", "leave it out")
    file = model_file(model_path)
    model = load_model(file)
    run = _Run(model, sha256_file(file), config, progress)
    return run.predict(*find_inputs(sources, model))


def check_labels(model: EventModel, labels: Iterable[str]) -> frozenset[str]:
    """The labels that are asked for; all the model's where none is.

    Raises:
        SettingsError: the model does not know one.
    """
    labels = frozenset(labels)
    if unknown := sorted(labels.difference(model.labels)):
        raise SettingsError(
            f"labels holds {', '.join(map(repr, unknown))}, which the model does not know",
            f"its labels are {', '.join(model.labels)}",
        )
    return labels or frozenset(model.labels)


class _Run:
    """One call of `predict`: the model, and where its events go."""

    def __init__(self, model: EventModel, model_sha256: str, config: PredictConfig, progress: bool) -> None:
        self.model = model
        self.config = config
        self.keep = check_labels(model, config.labels)
        self.period = Period(config.since, config.until)
        extras = {"report": config.report, f"clips {config.context:g}": config.clips, "video": config.save_video}
        wanted = [name for name, asked_for in extras.items() if asked_for]
        settings = {"min_score": config.min_score, "labels": sorted(self.keep)}
        settings |= {"since": config.since, "until": config.until} if self.period else {}
        settings |= {"beam": config.beam} if model.caption else {}
        identity = {"model_sha256": model_sha256, "settings": settings}
        self.out = OutputFolder(Path(config.out).expanduser(), identity, tuple(wanted))
        self.details = f"vidgru {version('vidgru')}, model {model_sha256}, detector {model.weights}"
        self.cache = SequenceCache(Path(config.features).expanduser())
        self.progress = progress
        self.quiet = not (progress and sys.stderr.isatty())
        self.ended: dict[str, Prediction] = {}

    def predict(self, recordings: list[Recording], cached: list[Cached]) -> list[Prediction]:
        """All of it, and the files of the run as a whole."""
        # a detector that is named is checked, used or not
        detect = model_detector(self.model, self.config.weights) if self.config.weights else None
        cached = [one for one in cached if self._asked_for(one)]
        recordings = self._of_the_period(recordings)
        names = [recording.name for recording in (*recordings, *(one.recording for one in cached))]
        waiting = [r for r in tqdm(recordings, "finished before", disable=self.quiet) if not self._is_finished(r)]
        ready = [some for one in cached if (some := self._cached(one))]
        stop = threading.Event()
        finisher = Finisher(self.model, self.config, self.keep, self.out, self._end, stop)
        with Background(finisher.finish, stop) as background:
            try:
                detect = detect or model_detector(self.model) if waiting else None
            except WeightsError as error:
                ready = self._all_cached(waiting, error) + ready
            for some in ready:
                background.submit(some)
            if detect is not None:
                extract_recordings(
                    waiting,
                    self.cache,
                    detect,
                    self.config,
                    progress=self.progress,
                    on_outcome=lambda outcome: self._on_features(outcome, background),
                )
        predictions = [self.ended[name] for name in names]
        reasons = {p.recording.name: p.reason for p in predictions if p.status == "failed"}
        self.out.collect(reasons, self.model.labels, self.details)
        self.out.write_summary(map(summary_record, predictions))
        return predictions

    # --- what is to be done -----------------------------------------------------------------------------------------

    def _of_the_period(self, recordings: list[Recording]) -> list[Recording]:
        """Recordings that reach into the time that is asked for. One that does not tell its time fails."""
        if not self.period:
            return recordings
        kept = []
        for recording, (began, duration_s) in spans(recordings, self.cache, self.config.start_time):
            if duration_s is None:
                kept.append(recording)  # extraction says what is wrong with it, or how long it is
            elif began is None:
                kept.append(recording)
                self._fail(recording, NO_TIME, duration_s, 0.0)
            elif self.period.touches(began, 0.0, duration_s):
                kept.append(recording)
        if len(kept) < len(recordings):
            left_out = counted(len(recordings) - len(kept), "recording")
            self._say(f"{left_out} outside the time that is asked for")
        return kept

    def _asked_for(self, one: Cached) -> bool:
        began = recorded_at(one.cache, one.entry, one.recording.path, self.config.start_time)
        return not self.period or began is None or self.period.touches(began, 0.0, one.entry.duration_s)

    def _is_finished(self, recording: Recording) -> bool:
        """Whether it has ended, or its files are there and are those of this model, these settings and these bytes."""
        began = time.monotonic()
        if recording.name in self.ended:
            return True
        if not self.out.folder(recording).is_dir():
            return False
        try:
            sha256 = self.cache.sha256(recording.path)
        except OSError:
            return False  # extraction says what is wrong with a recording
        return self._reuse(recording, self.cache, sha256, self.cache.key(sha256, self.model.what), began)

    def _reuse(self, recording: Recording, cache: SequenceCache, sha256: str, key: str, began: float) -> bool:
        told = told_time(cache, recording.path, self.config.start_time)
        mark = self.out.finished(recording, sha256, key, told)
        if mark is None:
            return False
        try:
            events = read_jsonl(self.out.folder(recording) / "events.jsonl")
        except (OSError, ValueError):
            return False  # spoilt files are written again
        self.ended[recording.name] = Prediction(
            recording=recording,
            status="reused",
            events=tuple(events),
            duration_s=mark["duration_s"],
            reason=mark["reason"],
            seconds=time.monotonic() - began,
        )
        return True

    def _all_cached(self, recordings: list[Recording], error: WeightsError) -> list[Ready]:
        """Recordings to score without the detector, for all features are there; else the error that it is missing."""
        ready = []
        for recording in recordings:
            entry = self.cache.lookup(recording.path, self.model.what)
            if entry is None:
                if other := self.cache.remembered(recording.path):
                    check_what(self.model, other.what, f"the features of {recording.name} in {self.cache.root}")
                raise error
            ready.append(self._ready(recording, self.cache, entry, self.cache.sha256(recording.path)))
        return ready

    def _cached(self, one: Cached) -> Ready | None:
        """A recording known by its features; None if it is finished."""
        if self._reuse(one.recording, one.cache, one.sha256, one.entry.key, time.monotonic()):
            return None
        return self._ready(one.recording, one.cache, one.entry, one.sha256)

    def _on_features(self, outcome: Outcome, background: Background[Ready]) -> None:
        """Called as the features of a recording get ready, or cannot be made."""
        entry = self.cache.entry(outcome.key) if outcome.key else None
        if entry is None:
            return self._fail(outcome.recording, outcome.reason, outcome.duration_s, outcome.seconds)
        try:
            sha256 = self.cache.sha256(outcome.recording.path)
        except OSError as error:
            reason = f"cannot be read any more: {error.strerror}"
            return self._fail(outcome.recording, reason, outcome.duration_s, outcome.seconds)
        background.submit(self._ready(outcome.recording, self.cache, entry, sha256, outcome.seconds))

    def _ready(
        self, recording: Recording, cache: SequenceCache, entry: Entry, sha256: str, seconds: float = 0.0
    ) -> Ready:
        began = recorded_at(cache, entry, recording.path, self.config.start_time)
        return Ready(
            recording=recording,
            cache=cache,
            entry=entry,
            sha256=sha256,
            damage=damage_of(entry),
            recorded_at=began,
            seconds=seconds,
        )

    def _fail(self, recording: Recording, reason: str, duration_s: float | None, seconds: float) -> None:
        """Events that an earlier run found in a file of this name no longer count; they are not deleted."""
        self.out.unmark(recording)
        self._end(failed(recording, reason, duration_s, seconds))

    def _end(self, prediction: Prediction) -> None:
        self.ended[prediction.recording.name] = prediction

    def _say(self, text: str) -> None:
        if self.progress:
            print(text, file=sys.stderr)
