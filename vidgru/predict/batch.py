"""Recordings and a model to events in files. A finished recording is not looked at again.

OUT/<name of the recording>/events.jsonl, events.vtt, events.srt
                            fingerprint.json          written last: its presence means finished
OUT/events.jsonl, events.csv, activitynet.json        of every finished recording under OUT, see `_collect`
OUT/summary.jsonl                                     how each recording of the last run ended
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from vidgru.cache import Entry, SequenceCache
from vidgru.config import PredictConfig
from vidgru.errors import CacheError, OutputError, RecordingError, SettingsError, WeightsError
from vidgru.extract.pipeline import Outcome, damage_of, extract, recorded_at
from vidgru.files import sha256_file, write_atomic
from vidgru.model.checkpoint import EventModel, check_what, load_model, model_file
from vidgru.model.stream import score_recording
from vidgru.predict import writers
from vidgru.predict.detector import model_detector
from vidgru.sources import find_recordings
from vidgru.types import Event, Recording

OUTPUT_SCHEMA = 1  # raised whenever the same model, settings and features would give other files
FINGERPRINT = "fingerprint.json"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How one recording ended.

    Attributes:
        recording: which.
        status: done, reused (its files were there already), partial (damaged; what could be decoded was scored) or
            failed.
        events: what was written, by start.
        duration_s: of the recording; None if unknown.
        reason: why it failed or is partial; empty otherwise.
        seconds: wall time it took.
    """

    recording: Recording
    status: Literal["done", "reused", "partial", "failed"]
    events: tuple[Event, ...] = ()
    duration_s: float | None = None
    reason: str = ""
    seconds: float = 0.0


def predict(
    model_path: str | Path, sources: Iterable[str | Path], config: PredictConfig, *, progress: bool = True
) -> list[Prediction]:
    """Find the events of recordings and write them below `config.out`.

    Each recording is scored as soon as its features are there: in the cache, or made on the way with the detector and
    the sampling that the model was trained on. A recording that cannot be read ends as failed, and the run goes on.

    Args:
        model_path: a model file or a training run's folder.
        sources: files, folders, globs, text lists.
        config: where to, and which events.
        progress: show a bar on stderr if that is a terminal.

    Returns:
        One prediction a recording, in the order of the sources. They are also written to `summary.jsonl`.

    Raises:
        ModelError, SourceError, SettingsError: before any recording is opened.
        WeightsError: features are missing, and so is the detector to make them.
        SettingsMismatch: the detector is not the one that the model was trained on.
        OutputError: the output cannot be written, or two recordings would share a folder; what was finished stays.
    """
    file = model_file(model_path)
    model = load_model(file)
    recordings = find_recordings(sources)
    run = _Run(model, sha256_file(file), config)
    return run.predict(recordings, progress)


def summary_table(predictions: Iterable[Prediction]) -> str:
    """A line for each recording that is not whole, events by label, and the counts."""
    predictions = list(predictions)
    lines = [f"{p.status:8} {p.recording.name}: {p.reason}" for p in predictions if p.reason]
    events = [event for p in predictions for event in p.events]
    found = Counter(event.label for event in events)
    wide = max(map(len, found), default=0)
    if found:
        lines.append(f"{'':{wide}}  events  recordings      seconds")
    for label, count in sorted(found.items()):
        own = [event for event in events if event.label == label]
        seconds = sum(event.end_s - event.start_s for event in own)
        lines.append(f"{label:{wide}}  {count:6}  {len({event.video for event in own}):10}  {seconds:11.1f}")
    ended = Counter(p.status for p in predictions)
    counts = ", ".join(f"{ended[s]} {s}" for s in ("done", "reused", "partial", "failed") if ended[s])
    hours = sum(p.duration_s or 0 for p in predictions) / 3600
    lines.append(f"{counts}: {hours:.2f} hours of video, {len(events)} events")
    return "\n".join(lines)


class _Run:
    """One call of `predict`: the model, and where its events go."""

    def __init__(self, model: EventModel, model_sha256: str, config: PredictConfig) -> None:
        if unknown := sorted(set(config.labels).difference(model.labels)):
            raise SettingsError(
                f"labels holds {', '.join(map(repr, unknown))}, which the model does not know",
                f"its labels are {', '.join(model.labels)}",
            )
        self.out = Path(config.out).expanduser()
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out} is a file, not a folder", "choose another folder with --out")
        self.model = model
        self.config = config
        self.cache = SequenceCache(Path(config.features).expanduser())
        self.keep = frozenset(config.labels or model.labels)
        self.identity: dict[str, Any] = {
            "schema": OUTPUT_SCHEMA,
            "model_sha256": model_sha256,
            "settings": {"min_score": config.min_score, "labels": sorted(self.keep)},
        }
        self.ended: dict[str, Prediction] = {}

    def predict(self, recordings: list[Recording], progress: bool) -> list[Prediction]:
        """All of it, and the files of the run as a whole."""
        _refuse_twins(recordings)
        detect = (
            model_detector(self.model, self.config.weights) if self.config.weights else None
        )  # a detector that is named is checked, used or not
        waiting = [r for r in tqdm(recordings, "finished before", disable=_quiet(progress)) if not self._finished(r)]
        try:
            detect = detect or model_detector(self.model) if waiting else None
        except WeightsError as error:
            self._score_cached(waiting, error)
        if detect is not None:
            extract(waiting, self.cache, detect, self.config, progress=progress, on_outcome=self._on_features)
        predictions = [self.ended[recording.name] for recording in recordings]
        self._collect()
        summary = "".join(json.dumps(_summary(p), sort_keys=True, ensure_ascii=False) + "\n" for p in predictions)
        _write(self.out / "summary.jsonl", summary)
        return predictions

    def _ours(self, mark: dict[str, Any]) -> bool:
        """Whether a fingerprint is of this model and these settings."""
        return all(mark.get(name) == value for name, value in self.identity.items())

    # --- one recording ----------------------------------------------------------------------------------------------

    def _finished(self, recording: Recording) -> bool:
        """Whether its files are there and are those of this model, these settings and these bytes.

        Raises:
            OutputError: they are those of another recording.
        """
        folder = self.out / recording.name
        mark = _read_mark(folder)
        if mark is None:
            return False
        began = time.monotonic()
        try:
            sha256 = self.cache.sha256(recording.path)
            if mark["source"] != _source(recording) and mark["sha256"] != sha256 and Path(mark["source"]).exists():
                raise OutputError(
                    f"{folder} holds the events of {mark['source']}, not of {recording.path}",
                    "choose another folder with --out, or give the folder above both as the source",
                )
            if not self._ours(mark) or mark["key"] != self.cache.key(sha256, self.model.what):
                return False
            if self.config.start_time not in ("", mark.get("start_time")):
                return False
            events = writers.read_jsonl(folder / "events.jsonl")
        except (OSError, ValueError):
            return False  # extraction says what is wrong with a recording; spoilt files are written again
        self.ended[recording.name] = Prediction(
            recording=recording,
            status="reused",
            events=tuple(events),
            duration_s=mark["duration_s"],
            reason=mark["reason"],
            seconds=time.monotonic() - began,
        )
        return True

    def _score_cached(self, recordings: list[Recording], error: WeightsError) -> None:
        """Score without the detector, for all features are there; else the error that it is missing is raised."""
        entries: list[tuple[Recording, Entry]] = []
        for recording in recordings:
            entry = self.cache.lookup(recording.path, self.model.what)
            if entry is None:
                if other := self.cache.remembered(recording.path):
                    check_what(self.model, other.what, f"the features of {recording.name} in {self.cache.root}")
                raise error
            entries.append((recording, entry))
        for recording, entry in entries:
            self._score(recording, entry, damage_of(entry))

    def _on_features(self, outcome: Outcome) -> None:
        """Called as the features of a recording get ready, or cannot be made."""
        entry = self.cache.entry(outcome.key) if outcome.key else None
        if entry is None:
            self._fail(outcome.recording, outcome.reason, outcome.duration_s, outcome.seconds)
        else:
            self._score(outcome.recording, entry, outcome.reason, outcome.seconds)

    def _score(self, recording: Recording, entry: Entry, damage: str, seconds: float = 0.0) -> None:
        began = time.monotonic()
        try:
            parts = self.cache.parts(entry.key)
            found = score_recording(self.model, parts, video=recording.name, duration_s=entry.duration_s).events
            sha256 = self.cache.sha256(recording.path)
        except (CacheError, RecordingError, OSError, ValueError) as error:
            reason = error.message if isinstance(error, CacheError | RecordingError) else str(error)
            return self._fail(recording, reason, entry.duration_s, seconds + time.monotonic() - began)
        asked_for = [e for e in found if e.label in self.keep and e.score >= self.config.min_score]
        began_at = recorded_at(self.cache, entry, recording.path, self.config.start_time)
        events = [_dated(event, began_at) for event in asked_for]
        self._write(recording, entry, sha256, events, began_at, damage)
        self.ended[recording.name] = Prediction(
            recording=recording,
            status="partial" if damage else "done",
            events=tuple(events),
            duration_s=entry.duration_s,
            reason=damage,
            seconds=seconds + time.monotonic() - began,
        )

    def _write(
        self,
        recording: Recording,
        entry: Entry,
        sha256: str,
        events: list[Event],
        began_at: str | None,
        damage: str,
    ) -> None:
        folder = self.out / recording.name
        _unmark(folder)  # a run that is killed here must not leave the old mark on new files
        _write(folder / "events.jsonl", writers.to_jsonl(events))
        _write(folder / "events.vtt", writers.to_vtt(events))
        _write(folder / "events.srt", writers.to_srt(events))
        mark = {
            **self.identity,
            "video": recording.name,
            "source": _source(recording),
            "sha256": sha256,
            "key": entry.key,
            "duration_s": entry.duration_s,
            "recorded_at": began_at,
            "start_time": self.config.start_time,
            "reason": damage,
        }
        _write(folder / FINGERPRINT, json.dumps(mark, sort_keys=True, ensure_ascii=False, indent=1) + "\n")

    def _fail(self, recording: Recording, reason: str, duration_s: float | None, seconds: float) -> None:
        """Events that an earlier run found in a file of this name no longer count; they are not deleted."""
        _unmark(self.out / recording.name)
        self.ended[recording.name] = Prediction(
            recording=recording, status="failed", duration_s=duration_s, reason=reason, seconds=seconds
        )

    # --- all of them ------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Rebuild the files of the run as a whole from those of the recordings.

        They hold every recording under OUT that is finished with this model and these settings, also those of earlier
        runs whose sources are not given or are gone by now: runs over one camera after another, or over a folder from
        which old recordings are deleted, add up. Recordings finished with another model are left out, and counted.
        """
        finished: dict[str, list[Event]] = {}
        others = 0
        for path in sorted(self.out.rglob(FINGERPRINT)):
            mark = _read_mark(path.parent)
            try:
                if mark is not None and self._ours(mark):
                    finished[mark["video"]] = writers.read_jsonl(path.with_name("events.jsonl"))
                else:
                    others += 1
            except (OSError, ValueError):
                others += 1
        events = [event for _, own in sorted(finished.items()) for event in own]
        details = f"vidgru {version('vidgru')}, model {self.identity['model_sha256']}, detector {self.model.weights}"
        _write(self.out / "events.jsonl", writers.to_jsonl(events))
        _write(self.out / "events.csv", writers.to_csv(sorted(finished.items())))
        _write(self.out / "activitynet.json", writers.to_activitynet(finished, details))
        if others:
            print(
                f"{self.out} holds {others} more recordings, of another model, other settings or with spoilt files: "
                f"they are not in {self.out / 'events.csv'}; predict them again, or delete their folders",
                file=sys.stderr,
            )


def _refuse_twins(recordings: list[Recording]) -> None:
    seen: dict[str, Recording] = {}
    for recording in recordings:
        other = seen.setdefault(recording.name, recording)
        if other is not recording:
            raise OutputError(
                f"{other.path} and {recording.path} would both be {recording.name} in the output",
                "give the folder above both as the source, or predict each with its own --out",
            )


def _read_mark(folder: Path) -> dict[str, Any] | None:
    """The fingerprint of a finished recording; None if there is none, or it is not one."""
    try:
        mark = json.loads((folder / FINGERPRINT).read_bytes())
    except (OSError, ValueError):
        return None
    whole = {"video", "source", "sha256", "key", "duration_s", "reason"}
    return mark if isinstance(mark, dict) and whole <= mark.keys() else None


def _unmark(folder: Path) -> None:
    try:
        (folder / FINGERPRINT).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}", "choose another folder with --out") from error


def _write(path: Path, text: str) -> None:
    # Names that are not UTF-8 reach us as lone surrogates; written as \udcXX they are read back from JSON as they were.
    write_atomic(path, text.encode(errors="backslashreplace"))


def _source(recording: Recording) -> str:
    return str(recording.path.resolve())


def _dated(event: Event, recorded_at: str | None) -> Event:
    """The event as it is written, with its wall-clock time where that of its recording is known."""
    event = writers.rounded(event)
    if recorded_at is None:
        return event
    start_time = datetime.fromisoformat(recorded_at) + timedelta(seconds=event.start_s)
    return replace(event, start_time=start_time.isoformat(timespec="milliseconds"))


def _summary(prediction: Prediction) -> dict[str, Any]:
    return {
        "video": prediction.recording.name,
        "status": prediction.status,
        "reason": prediction.reason,
        "events": len(prediction.events),
        "duration_s": prediction.duration_s,
        "seconds": round(prediction.seconds, 3),
    }


def _quiet(progress: bool) -> bool:
    return not (progress and sys.stderr.isatty())
