"""Recordings and a model to events in files. A finished recording is not looked at again.

`output.py` tells which files. Recordings are scored, and their files written, beside the extraction of those after
them. Any number of runs may share the folder: see `finish.py` and `sharing.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from vidgru.config import DetectorSettings, PredictConfig
from vidgru.errors import SettingsError, WeightsError
from vidgru.extraction.pipeline import extract_recordings, recorded_at
from vidgru.extraction.sharding import ShardItem, read_spans, select_shard, shard_recordings, summary_name
from vidgru.model.checkpoint import check_feature_settings
from vidgru.prediction.detector import model_detector
from vidgru.prediction.inputs import Cached, find_inputs
from vidgru.prediction.predictor import Predictor
from vidgru.prediction.process_recording import NO_TIME, WorkItem
from vidgru.prediction.results import PredictionResult, counted, failed, summary_record
from vidgru.prediction.shared_run import SharedRun, collecting
from vidgru.prediction.worker_thread import WorkerThread
from vidgru.types import Recording

NOT_YET = "not predicted yet; start the command that is to predict it"

Elsewhere = Callable[[list[Recording], DetectorSettings, Callable[[PredictionResult], None]], None]
"""Has recordings extracted with a detector, and finished by a `Predictor` each, in other processes. Calls what it is
given with each as it ends, in the calling thread; returns when all have ended."""


def predict(
    model_path: str | Path,
    sources: Iterable[str | Path],
    config: PredictConfig,
    *,
    progress: bool = True,
    elsewhere: Elsewhere | None = None,
) -> list[PredictionResult]:
    """Find the events of recordings and write them below `config.out`.

    Each recording is scored as soon as its features are there: in the cache, or made on the way with the detector and
    the sampling that the model was trained on. A recording that cannot be read ends as failed, and the run goes on.
    Other processes may write to the same folders at the same time, each what no other is at; the last that ends
    rebuilds the files of the run as a whole.

    Args:
        model_path: a model file or a training run's folder.
        sources: files, folders, globs, text lists, caches and their entries.
        config: where to, and which events.
        progress: show a bar on stderr if that is a terminal.
        elsewhere: does the work, in place of this process.

    Returns:
        One prediction a recording, in the order of the sources, those of caches last. They are also written to
        `summary.jsonl`.

    Raises:
        ModelError, SourceError, SettingsError: before any recording is opened.
        WeightsError: features are missing, and so is the detector to make them.
        SettingsMismatchError: the detector is not the one that the model was trained on.
        OutputError: the output cannot be written, or two recordings would share a folder; what was finished stays.
    """
    if config.record:
        raise SettingsError("record is for live sources, and these are recordings", "leave it out")
    with Predictor(model_path, config, _say if progress else _silent) as predictor:
        return _Run(predictor, progress).predict(*find_inputs(sources, predictor.model), elsewhere)


def collect(
    model_path: str | Path, sources: Iterable[str | Path], config: PredictConfig, *, progress: bool = True
) -> list[PredictionResult]:
    """Rebuild the files of the run as a whole, and tell what is still to be predicted. Nothing is scored.

    Args:
        model_path, sources, config, progress: as for `predict`.

    Returns:
        One prediction a recording: reused, or failed with the reason. They are also written to `summary.jsonl`.

    Raises:
        ModelError, SourceError, SettingsError, OutputError: as for `predict`.
    """
    with Predictor(model_path, config, _say if progress else _silent) as predictor:
        return _Run(predictor, progress).collect(*find_inputs(sources, predictor.model))


class _Run:
    """One call of `predict` or `collect`: the recordings that are asked for, and how they end."""

    def __init__(self, predictor: Predictor, progress: bool) -> None:
        self.predictor, self.progress = predictor, progress
        self.model, self.config, self.cache = predictor.model, predictor.config, predictor.cache
        self.quiet = not (progress and sys.stderr.isatty())
        self.names: list[str] = []
        self.ended: dict[str, PredictionResult] = {}

    def predict(
        self, recordings: list[Recording], cached: list[Cached], elsewhere: Elsewhere | None
    ) -> list[PredictionResult]:
        """All of it, and the files of the run as a whole."""
        # a detector that is named is checked, used or not
        detect = model_detector(self.model, self.config.weights) if self.config.weights else None
        items, waiting = self._left(recordings, cached)
        try:
            detect = detect or model_detector(self.model) if waiting else None
        except WeightsError as error:
            items = [*self._all_cached(waiting, error), *items]
        run = SharedRun(self.predictor.locks)
        finisher = self.predictor.finisher(self._end)
        with WorkerThread(finisher.finish, self.predictor.stop, last=finisher.wait) as background:
            for item in items:
                background.submit(item)
            if detect is not None and elsewhere is not None:
                elsewhere(waiting, detect, lambda one: self._on_prediction(one, background))
            elif detect is not None:
                extract_recordings(
                    waiting,
                    self.cache,
                    detect,
                    self.config.runtime,
                    progress=self.progress,
                    on_result=lambda outcome: background.submit(self.predictor.item(outcome)),
                    part=self.config.scale.part,
                )
        predictions = self._predictions()
        with run.last() as last:
            if last:
                self.predictor.collect()
            else:
                self.predictor.say(
                    f"{self.config.out} is also written by another run, which will bring events.csv up to date; "
                    "if that one breaks off, --merge-only does"
                )
        return predictions

    def collect(self, recordings: list[Recording], cached: list[Cached]) -> list[PredictionResult]:
        """The files of the run as a whole, and what is there and what is not."""
        items, waiting = self._left(recordings, cached)
        for item in items:
            self._end(item if isinstance(item, PredictionResult) else self._missing(item.recording))
        for recording in waiting:
            self._end(self._missing(recording))
        predictions = self._predictions()
        with collecting(self.predictor.locks):
            self.predictor.collect()
        return predictions

    # --- what is to be done -----------------------------------------------------------------------------------------

    def _left(self, recordings: list[Recording], cached: list[Cached]) -> tuple[list[WorkItem], list[Recording]]:
        """Of the shard and the period: what can be finished at once, and the recordings that are to be extracted."""
        recordings, timeless = self._of_the_period(recordings)
        cached = [one for one in cached if self._touches(one)]
        if self.config.scale.part != (1, 1):
            recordings = shard_recordings(recordings, self.config.scale.part, self.cache)
            cached = select_shard(
                [(one, ShardItem(one.entry.key, one.entry.duration_s)) for one in cached], self.config.scale.part
            )
        self.names = [recording.name for recording in (*recordings, *(one.recording for one in cached))]
        items: list[WorkItem] = [timeless[name] for name in self.names if name in timeless]
        waiting = [
            recording
            for recording in tqdm(recordings, "finished before", disable=self.quiet)
            if recording.name not in timeless and not self._is_finished(recording)
        ]
        return items + [ready for one in cached if (ready := self._cached(one))], waiting

    def _of_the_period(self, recordings: list[Recording]) -> tuple[list[Recording], dict[str, PredictionResult]]:
        """Recordings that reach into the time that is asked for; and those that do not tell their time, which fail."""
        timeless: dict[str, PredictionResult] = {}
        if not self.predictor.period:
            return recordings, timeless
        found = []
        for recording, (began, duration_s) in read_spans(recordings, self.cache, self.config.runtime.start_time):
            if duration_s is None:
                found.append(recording)  # extraction says what is wrong with it, or how long it is
            elif began is None:
                found.append(recording)
                timeless[recording.name] = failed(recording, NO_TIME, duration_s, 0.0)
            elif self.predictor.period.touches(began, 0.0, duration_s):
                found.append(recording)
        if len(found) < len(recordings):
            left_out = counted(len(recordings) - len(found), "recording")
            self.predictor.say(f"{left_out} outside the time that is asked for")
        return found, timeless

    def _touches(self, one: Cached) -> bool:
        period, began = self.predictor.period, None
        if period:
            began = recorded_at(one.cache, one.entry, one.recording.path, self.config.runtime.start_time)
        return began is None or period.touches(began, 0.0, one.entry.duration_s)

    def _is_finished(self, recording: Recording) -> bool:
        found = self.predictor.finished(recording)
        if found is not None:
            self._end(found)
        return found is not None

    def _all_cached(self, recordings: list[Recording], error: WeightsError) -> list[WorkItem]:
        """Recordings to score without the detector, for all features are there; else the error that it is missing."""
        ready: list[WorkItem] = []
        for recording in recordings:
            entry = self.cache.lookup(recording.path, self.model.feature_settings)
            if entry is None:
                if other := self.cache.last_entry(recording.path):
                    check_feature_settings(
                        self.model, other.feature_settings, f"the features of {recording.name} in {self.cache.root}"
                    )
                raise error
            ready.append(self.predictor.ready(recording, self.cache, entry, self.cache.sha256(recording.path)))
        return ready

    def _cached(self, one: Cached) -> WorkItem | None:
        """A recording known by its features; None if it is finished."""
        ready = self.predictor.ready(one.recording, one.cache, one.entry, one.sha256)
        found = self.predictor.finished_ready(ready)
        if found is not None:
            self._end(found)
        return None if found is not None else ready

    # --- how it ends ------------------------------------------------------------------------------------------------

    def _on_prediction(self, prediction: PredictionResult, background: WorkerThread[WorkItem]) -> None:
        """Called as another process has finished a recording; the folder of one that failed may not tell yet why."""
        if prediction.status == "failed":
            background.submit(prediction)
        else:
            self._end(prediction)

    def _missing(self, recording: Recording) -> PredictionResult:
        return self.predictor.out.failure(recording) or failed(recording, NOT_YET, None, 0.0)

    def _end(self, prediction: PredictionResult) -> None:
        self.ended[prediction.recording.name] = prediction

    def _predictions(self) -> list[PredictionResult]:
        """How all ended, which is also written down."""
        predictions = [self.ended[name] for name in self.names]
        self.predictor.out.write_summary(summary_name(self.config.scale.part), map(summary_record, predictions))
        return predictions


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)


def _silent(text: str) -> None:
    pass
