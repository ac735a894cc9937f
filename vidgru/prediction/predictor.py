"""A model and a folder for its events, with what is done for one recording: by a run, or by any of its workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

from vidgru.cache import Entry, SequenceCache
from vidgru.config import PredictConfig
from vidgru.errors import SettingsError
from vidgru.extraction.pipeline import ExtractionResult, describe_damage, recorded_at, user_start_time
from vidgru.locks import Locks
from vidgru.model.checkpoint import EventModel, load_model, model_file
from vidgru.prediction.outputs import OutputFolder
from vidgru.prediction.process_recording import ExtractedRecording, RecordingProcessor, WorkItem
from vidgru.prediction.results import PredictionResult, failed
from vidgru.prediction.time_range import Period
from vidgru.storage import sha256_file
from vidgru.types import Recording


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


class Predictor:
    """Finds the events of recordings whose features are there, and writes their files below `config.out`.

    To be used in a `with` block, at whose end its leases are released. Threads may share one, and any number of
    processes may each have one over the same folders: a recording is worked on by one at a time.

    Args:
        model_path: a model file or a training run's folder.
        config: where to, and which events.
        say: tells the user something.

    Raises:
        ModelError, SettingsError: the model cannot be used, or not so.
        OutputError: `config.out` is a file.
    """

    def __init__(
        self, model_path: str | Path, config: PredictConfig, say: Callable[[str], None] = lambda text: None
    ) -> None:
        file = model_file(model_path)
        self.model = load_model(file)
        self.config, self.say = config, say
        sha256 = sha256_file(file)
        self._keep = check_labels(self.model, config.labels)
        self.period = Period(config.since, config.until)
        extras = {"report": config.report, f"clips {config.context:g}": config.clips, "video": config.save_video}
        wanted = [name for name, asked_for in extras.items() if asked_for]
        settings = {"min_score": config.min_score, "labels": sorted(self._keep)}
        settings |= {"since": config.since, "until": config.until} if self.period else {}
        settings |= {"beam": config.beam} if self.model.caption else {}
        identity = {"model_sha256": sha256, "settings": settings}
        self.out = OutputFolder(Path(config.out).expanduser(), identity, tuple(wanted))
        self.cache = SequenceCache(config.features)
        self.locks = Locks(self.out.locks)
        self.stop = threading.Event()
        self._details = f"vidgru {version('vidgru')}, model {sha256}, detector {self.model.weights or 'run elsewhere'}"

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.locks.close()

    def finished(self, recording: Recording) -> PredictionResult | None:
        """A recording whose files are there, and are those of this model, these settings and these bytes."""
        if not self.out.folder(recording).is_dir():
            return None
        began = time.monotonic()
        try:
            sha256 = self.cache.sha256(recording.path)
        except OSError:
            return None  # extraction says what is wrong with a recording
        told = user_start_time(self.cache, recording.path, self.config.runtime.start_time)
        found = self.out.finished(recording, sha256, self.cache.key(sha256, self.model.feature_settings), told)
        return found and replace(found, seconds=time.monotonic() - began)

    def finished_ready(self, ready: ExtractedRecording) -> PredictionResult | None:
        """As `finished`, for a recording that is known by its features."""
        told = user_start_time(ready.cache, ready.recording.path, self.config.runtime.start_time)
        return self.out.finished(ready.recording, ready.sha256, ready.entry.key, told)

    def finish(self, outcome: ExtractionResult) -> PredictionResult:
        """Score a recording whose features are there, describe its events, and write its files.

        Where another process is at it, it is waited for. What is there already is left as it is. A recording whose
        features could not be made fails, and its folder tells why.

        Args:
            outcome: of its extraction into `config.features`.

        Raises:
            OutputError: the files cannot be written.
            PredictionStoppedError: the `with` block ended meanwhile, in another thread.
        """
        ended: list[PredictionResult] = []
        finisher = self.finisher(ended.append)
        finisher.finish([self.item(outcome)])
        finisher.wait()
        return ended[0]

    def finisher(self, on_end: Callable[[PredictionResult], None]) -> RecordingProcessor:
        """What does that with several at once, for one thread; `on_end` takes how each ended."""
        return RecordingProcessor(
            self.model,
            self.config,
            self._keep,
            self.period,
            self.out,
            self.locks,
            self._found,
            on_end,
            self.stop,
            self.say,
        )

    def item(self, outcome: ExtractionResult) -> WorkItem:
        """A recording as it comes from extraction, for a finisher."""
        recording, entry = outcome.recording, self.cache.entry(outcome.key) if outcome.key else None
        if entry is None:
            return failed(recording, outcome.reason, outcome.duration_s, outcome.seconds)
        try:
            sha256 = self.cache.sha256(recording.path)
        except OSError as error:
            reason = f"cannot be read any more: {error.strerror}"
            return failed(recording, reason, outcome.duration_s, outcome.seconds)
        return self.ready(recording, self.cache, entry, sha256, outcome.seconds)

    def ready(
        self, recording: Recording, cache: SequenceCache, entry: Entry, sha256: str, seconds: float = 0.0
    ) -> ExtractedRecording:
        """A recording known by its features, for a finisher."""
        return ExtractedRecording(
            recording=recording,
            cache=cache,
            entry=entry,
            sha256=sha256,
            damage=describe_damage(entry),
            recorded_at=recorded_at(cache, entry, recording.path, self.config.runtime.start_time),
            seconds=seconds,
        )

    def _found(self, item: WorkItem) -> PredictionResult | None:
        """What another process made of a recording meanwhile: one that failed here may be whole there."""
        return self.finished(item.recording) if isinstance(item, PredictionResult) else self.finished_ready(item)

    def collect(self) -> None:
        """Rebuild the files of the run as a whole from those of the recordings."""
        self.out.collect(self.model.labels, self._details)
