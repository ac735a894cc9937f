"""Work in the background of labelling: features are extracted in a thread, models trained and used in processes.

A model is trained on the recordings that have features and labels, by `vidgru train`, and its events in all recordings
that have features become drafts, by `vidgru predict`. A failure of either is a message in the page.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal

import yaml

from vidgru.cache import SequenceCache
from vidgru.config import LabelConfig, TrainConfig
from vidgru.errors import VidgruError
from vidgru.extraction.pipeline import Extractor
from vidgru.extraction.results import ExtractionStoppedError
from vidgru.flags import to_settings
from vidgru.labeling.child import ChildProcess
from vidgru.labeling.project import LabelingProject
from vidgru.prediction.event_files import as_record, from_record, read_jsonl
from vidgru.sources import find_recordings
from vidgru.storage import parse_json, user_path, write_atomic, write_json
from vidgru.training.state_file import STATE, finished_epochs
from vidgru.types import Event

# Faster than the defaults: captions take minutes. Fewer epochs would cost too much: with 15 instead of 40, the F1 of
# models that have learnt from 29, 45 and 106 drawn events was 0.28, 0.46 and 0.65 instead of 0.34, 0.54 and 0.87.
TRAIN_FLAGS = ("--no-captions", "--no-plots", "--members", "3")

_POLL_S = 0.2
_PROGRESS_S = 0.5  # interval at which the progress of training is read
_SESSION = "session.json"
_METRICS = "metrics.json"  # of the model
_ENOUGH_NEW = 8  # recordings with new features that are given drafts before the others have theirs
_SUGGESTIONS = "100"  # enough until the next model
_ERROR = "vidgru: error: "
_POINT = ("labels", "metric", "value", "low", "high", "measured")  # fields of a point of the curve


class FeatureExtraction:
    """Extract the features of a project's recordings, in a thread.

    Args:
        project: Project that shows states and progress.
        config: Settings.

    Attributes:
        reason: Why there are no features; empty if nothing is wrong.
    """

    def __init__(self, project: LabelingProject, config: LabelConfig) -> None:
        self.reason = ""
        self._project, self._config = project, config
        self._extractor: Extractor | None = None
        self._stack = ExitStack()
        self._lock = threading.Lock()  # guards _stack
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="features", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. What is extracted stays; a later run continues from it."""
        with self._lock:
            self._is_closed = True
            self._stack.close()
        self._thread.join()

    def prefer(self, number: int) -> None:
        """Extract a recording before the others that wait."""
        if self._extractor is not None:
            self._extractor.prefer(number)

    def _run(self) -> None:
        try:
            self._extract()
        except ExtractionStoppedError:
            pass
        except VidgruError as error:
            self.reason = str(error)
        except Exception as error:  # the page works without features
            self.reason = f"extraction failed: {type(error).__name__}: {error}"
        self._project.touch()

    def _extract(self) -> None:
        cache = SequenceCache(self._config.features)
        extractor = Extractor(cache, self._config.detector, self._config.runtime, self)
        with self._lock:
            if self._is_closed:
                return
            self._stack.enter_context(extractor)
            self._extractor = extractor
        for number, item in enumerate(self._project.recordings):
            if item.media is not None:
                extractor.submit(number, item.recording)
        extractor.finish()
        for number, result in extractor.results():
            state: Literal["failed", "ready"] = "failed" if result.status == "failed" else "ready"
            self._project.set_features(number, state, 1.0, result.reason)
        with self._lock:
            self._stack.close()  # frees the detector's memory

    # Methods of `ProgressListener`, called by `Extractor`:

    def advance(self, number: int, seconds: float, share: float, samples: int = 1) -> None:
        """Show the progress of a recording."""
        self._project.set_features(number, "extracting", share)

    def end(self, number: int, *, reused: bool) -> None:
        """Do nothing: the result follows."""

    def log(self, line: str) -> None:
        """Drop a line: the page has no place for it."""


class TrainingLoop:
    """Train a model after every few labels, and turn its events into drafts, in a thread.

    The folder of the run has the model (`best.safetensors` and the other files of a run), the annotations that it was
    trained on (`labels.csv`), its events (`drafts/`), suggestions of what to label next (`suggestions.jsonl`), the
    metrics of all models so far (`curve.json`), output of the last process (`log.txt`), and the state of the session
    (`session.json`), from which a later one continues: the number of labels per recording of the last finished
    training, its drafts, and its suggestions.

    Args:
        project: Project that is labelled, and shows drafts.
        config: Settings.
        features: Extraction of its features.
    """

    def __init__(self, project: LabelingProject, config: LabelConfig, features: FeatureExtraction) -> None:
        self._project, self._config, self._features = project, config, features
        self._folder = user_path(config.run)
        self._state: Literal["idle", "running", "failed"] = "idle"
        self._message = ""
        self._curve = _read_curve(self._folder / "curve.json")
        self._progress: float | None = None  # of training
        # Numbers of labels per recording: of the last training, and of the last that finished.
        self._trained: dict[int, int] = {}
        self._finished: dict[int, int] = {}
        self._with_drafts: set[int] = set()  # recordings that the latest model has predicted
        self._drafts: dict[int, list[Event]] = {}
        self._suggestions: list[dict[str, Any]] = []
        self._has_model = False  # that was made with the current settings
        self._continue_session()
        self._is_requested = False
        self._child = ChildProcess()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="training", daemon=True)
        self._thread.start()

    def close(self) -> str:
        """Stop; a training that is not finished is lost. Returns a message about it, empty if none was running."""
        self._is_closed = True
        was_training = self._child.is_running and self._progress is not None
        self._child.close()
        self._thread.join()
        if not was_training:
            return ""
        trains_again = 0 < self._config.train_every <= self._count_new(self._finished)
        return "training stopped; the next start trains again" if trains_again else "training stopped"

    def request(self) -> None:
        """Train as soon as possible."""
        self._is_requested = True

    def state(self) -> dict[str, Any]:
        """Return state, message, progress, counts of new labels, and the curve."""
        return {
            "state": self._state,
            "message": self._message,
            "progress": self._progress,
            "new_labels": self._count_new(self._trained),
            "needed": self._config.train_every,
            "curve": list(self._curve),
        }

    def _ready(self) -> list[int]:
        return [number for number, item in enumerate(self._project.recordings) if item.features == "ready"]

    def _count_new(self, trained: Mapping[int, int]) -> int:
        """Number of labels that were added or removed since a training, in recordings with features."""
        counts = self._project.label_counts(self._ready())
        return sum(abs(count - trained.get(number, 0)) for number, count in counts.items())

    def _run(self) -> None:
        while not self._is_closed:
            try:
                self._work()
            except (VidgruError, OSError) as error:
                self._set("failed", str(error))
            except Exception as error:  # the page works without training
                self._set("failed", f"{type(error).__name__}: {error}")
            time.sleep(_POLL_S)

    def _work(self) -> None:
        """Do what is due, if anything: train, or predict recordings that have no drafts of the latest model."""
        ready = self._ready()
        is_due = 0 < self._config.train_every <= self._count_new(self._trained)
        if self._is_requested or is_due:
            self._is_requested = False
            if (message := self._train(ready)) is not None:
                self._use_model(ready, ready, message)
            return
        new = set(ready) - self._with_drafts
        is_extracting = any(item.features in ("queued", "extracting") for item in self._project.recordings)
        if new and (len(new) >= _ENOUGH_NEW or not is_extracting or self._features.reason):
            if self._has_model:
                self._use_model(sorted(new), ready, self._message)
            else:
                self._with_drafts.update(new)
                self._set("running", "choosing what to label first")
                reason = self._suggest_first(ready)
                self._set("failed" if reason else "idle", reason)

    # --- training ---------------------------------------------------------------------------------------------------

    def _train(self, ready: Sequence[int]) -> str | None:
        """Train on the labels of some recordings; return a message about the model, None if there is no new model."""
        content, counts = self._project.training_content(ready)
        labels = sum(counts.values())
        self._trained = counts  # set before training: after a failure, the same labels would fail again
        if not labels:
            self._set("failed", "no recording with features has labels yet")
            return None
        self._set("running", f"training on {labels} labels")
        write_atomic(self._folder / "labels.csv", content)
        (self._folder / STATE).unlink(missing_ok=True)  # its epochs are those of the training before
        labels_file = str(self._folder / "labels.csv")
        self._progress = 0.0
        try:
            reason = self._run_command("train", labels_file, "--out", str(self._folder), "--exist-ok", *TRAIN_FLAGS)
        finally:
            self._progress = None
        if reason:
            self._set("failed", reason)
            return None
        self._has_model = True
        self._finished, self._drafts, self._suggestions = counts, {}, []
        self._with_drafts.clear()
        self._save_session()
        point = _curve_point(labels, json.loads((self._folder / _METRICS).read_bytes()))
        if point is None:
            return "too few recordings to measure the model on"
        self._curve.append(point)
        write_json(self._folder / "curve.json", {"points": self._curve})
        return ""

    def _show_progress(self) -> None:
        """Put the finished epochs of the training that is running into the message."""
        if self._progress is None:
            return
        epochs, of = finished_epochs(self._folder / STATE), TrainConfig.epochs
        if epochs and epochs / of != self._progress:
            self._progress = epochs / of
            self._set("running", f"training on {sum(self._trained.values())} labels: epoch {epochs} of {of}")

    def _use_model(self, new: Sequence[int], ready: Sequence[int], message: str) -> None:
        """Turn the events of the model in new recordings into drafts, and suggest what to label next in ready ones."""
        self._with_drafts.update(new)  # failures are not tried again
        self._set("running", "finding events")
        reason = self._predict(new)
        if not reason:
            self._set("running", "choosing what to label next")
            reason = self._suggest(ready)
        if not reason:
            self._save_session()
        self._set("failed" if reason else "idle", reason or message)

    def _predict(self, numbers: Sequence[int]) -> str:
        """Turn the events of the model in some recordings into drafts; return why it failed, empty if it did not."""
        sources, number_of = self._write_list(numbers)
        out = self._folder / "drafts"
        reason = self._run_command("predict", str(self._folder), str(sources), "--out", str(out), "--no-report")
        drafts: dict[int, list[Event]] = {}
        for name, number in number_of.items():
            with suppress(OSError, ValueError):  # a recording that failed has none
                drafts[number] = read_jsonl(out / name / "events.jsonl")
        self._drafts |= drafts
        self._project.set_drafts(drafts)
        return "" if drafts else reason

    def _suggest(self, numbers: Sequence[int]) -> str:
        """Rank what to label next in some recordings; return why it failed, empty if it did not."""
        sources, number_of = self._write_list(numbers)
        labelled, out = self._folder / "labels.csv", self._folder / "suggestions.jsonl"
        flags = ("--labelled", str(labelled), "--out", str(out), "--n", _SUGGESTIONS)
        reason = self._run_command("suggest", str(self._folder), str(sources), *flags)
        if not reason:
            self._show_suggestions(out, number_of)
        return reason

    def _suggest_first(self, numbers: Sequence[int]) -> str:
        """Do as `_suggest`, without a model."""
        sources, number_of = self._write_list(numbers)
        settings, out = self._write_settings(to_settings(self._config.detector)), self._folder / "suggestions.jsonl"
        module = "vidgru.labeling.first_suggestions"
        reason = self._run_child(module, str(settings), str(sources), _SUGGESTIONS, str(out))
        if not reason:
            self._show_suggestions(out, number_of)
        return reason

    def _show_suggestions(self, path: Path, number_of: Mapping[str, int]) -> None:
        """Read suggestions from a file, and show them."""
        # Not splitlines, which also splits at U+2028 and the like, and JSON does not escape these.
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        known = [row for row in rows if row["video"] in number_of]
        self._suggestions = [{**row, "recording": number_of[row["video"]]} for row in known]
        self._project.set_suggestions(self._suggestions)

    # --- sessions ---------------------------------------------------------------------------------------------------

    def _session_settings(self) -> Any:
        """Return the settings that drafts depend on, as JSON holds them."""
        return json.loads(json.dumps(to_settings(self._config.detector)))

    def _save_session(self) -> None:
        """Write the state from which a later session continues, with recordings by their paths."""
        paths = [str(item.recording.path.absolute()) for item in self._project.recordings]
        session = {
            "settings": self._session_settings(),
            "labels": {paths[number]: count for number, count in self._finished.items()},
            "drafts": {paths[number]: [as_record(event) for event in self._drafts[number]] for number in self._drafts},
            "suggestions": [{**row, "recording": paths[row["recording"]]} for row in self._suggestions],
        }
        write_json(self._folder / _SESSION, session)

    def _continue_session(self) -> None:
        """Show the drafts and suggestions of an earlier session, and train on new labels only.

        Without a model, with other settings or with a file that cannot be read, the session starts from nothing.
        """
        number_of = {
            str(item.recording.path.absolute()): number for number, item in enumerate(self._project.recordings)
        }
        try:
            session = parse_json((self._folder / _SESSION).read_bytes())
            has_model = (self._folder / _METRICS).is_file()  # written last
            if not has_model or session["settings"] != self._session_settings():
                return
            trained = {number_of[path]: int(count) for path, count in session["labels"].items() if path in number_of}
            drafts = {
                number_of[path]: [from_record(row) for row in rows]
                for path, rows in session["drafts"].items()
                if path in number_of
            }
            suggestions = [
                {**row, "recording": number_of[row["recording"]]}
                for row in session["suggestions"]
                if row["recording"] in number_of
            ]
            self._project.set_suggestions(suggestions)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        self._has_model = True
        self._trained = self._finished = trained
        self._drafts, self._suggestions = drafts, suggestions
        self._with_drafts.update(drafts)
        self._project.set_drafts(drafts)

    # --- processes --------------------------------------------------------------------------------------------------

    def _write_list(self, numbers: Sequence[int]) -> tuple[Path, dict[str, int]]:
        """Write the paths of some recordings to a list; return it, and their numbers by their names in its output."""
        sources = self._folder / "recordings.txt"
        number_of = {self._project.recordings[number].recording.path.absolute(): number for number in numbers}
        write_atomic(sources, "".join(f"{path}\n" for path in number_of).encode())
        return sources, {recording.name: number_of[recording.path] for recording in find_recordings([sources])}

    def _run_command(self, command: str, *arguments: str) -> str:
        """Run a command of vidgru with the project's settings; return why it failed, empty if it did not."""
        file = self._write_settings(to_settings(self._config.detector) if command == "train" else {})
        return self._run_child("vidgru.labeling.child", command, *arguments, "--config", str(file))

    def _write_settings(self, settings: Mapping[str, Any]) -> Path:
        """Write these settings, and those that all commands have in common, as YAML."""
        common = {"features": self._config.features, "weights": self._config.detector.weights}
        values = {**settings, **common, **to_settings(self._config.runtime)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        file = self._folder / "settings.yaml"
        write_atomic(file, yaml.safe_dump(plain, allow_unicode=True).encode())
        return file

    def _run_child(self, module: str, *arguments: str) -> str:
        """Run a module as a process; return why it failed, empty if it did not."""
        log = self._folder / "log.txt"
        with open(log, "wb") as output, self._child.run(module, *arguments, output=output) as process:
            if process is None:
                return "stopped"
            while (code := _wait(process)) is None:
                self._show_progress()
        if code == 0:
            return ""
        ended = f"was ended by signal {-code}" if code < 0 else f"failed, see {log}"
        return _error_in(log.read_text(encoding="utf-8", errors="replace")) or f"the process {ended}"

    def _set(self, state: Literal["idle", "running", "failed"], message: str) -> None:
        self._state, self._message = state, message
        self._project.touch()


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit status of a process; None if it is still running after a while."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(_PROGRESS_S)
    return None


def _error_in(log: str) -> str:
    """Return the error with which a command ended, remedy included; empty if there is none."""
    _, marker, text = log.rpartition(_ERROR)
    return " ".join(text.split()) if marker else ""


def _curve_point(labels: int, metrics: dict[str, Any]) -> dict[str, Any] | None:
    """Return the figure of a model for the curve, with its interval and what it was measured on; None if on nothing."""
    for name, unit, values in (("event_f1", "events", metrics.get("events", {})), ("accuracy", "clips", metrics)):
        if values.get(name) is not None:
            low, high = (values.get("intervals") or {}).get(name) or (None, None)
            figure = {"metric": name, "value": values[name], "low": low, "high": high}
            return {"labels": labels, **figure, "measured": values[unit]}
    return None


def _read_curve(path: Path) -> list[dict[str, Any]]:
    try:
        points = parse_json(path.read_bytes())["points"]
        return [{name: point[name] for name in _POINT} for point in points]
    except (OSError, ValueError, KeyError, TypeError):
        return []
