"""The output folder of `vidgru predict`: its layout, and which recordings are finished in it.

OUT/<name of the recording>/events.jsonl, events.vtt, events.srt
                            report.html, clips/, annotated.mp4   if requested
                            fingerprint.json          written last: its presence means finished
                            failure.json              instead of it: why there are no events
OUT/events.jsonl, events.csv, activitynet.json, index.html       merged from every finished recording under OUT
OUT/summary.jsonl                                     how each recording of the last run ended
OUT/.locks/                                           locks of recordings and runs in progress

The merged files depend only on the recordings' own files, so it does not matter which of several runs that share OUT
merges them. Whoever writes to a recording's folder holds its lock (`Predictor`).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidgru.errors import OutputError
from vidgru.prediction import event_files
from vidgru.prediction.report.index import IndexRow, write_index
from vidgru.prediction.results import PredictionResult, failed, summary_record
from vidgru.storage import parse_json, write_atomic
from vidgru.types import Event, Recording

OUTPUT_SCHEMA = 5  # increase when the same model, settings and features would give other files
FINGERPRINT = "fingerprint.json"
FAILURE = "failure.json"
INDEX = "index.html"

_FINGERPRINT_FIELDS = {
    "video",
    "source",
    "present",
    "sha256",
    "key",
    "duration_s",
    "recorded_at",
    "reason",
    "span",
    "made",
}
_FAILURE_FIELDS = {"video", "source", "duration_s", "reason"}
_EXTRAS = {"report": "report.html", "clips": "clips", "video": "annotated.mp4"}  # file or folder of each extra


@dataclass(frozen=True)
class Extra:
    """A file or folder besides a recording's events.

    Attributes:
        name: `report`, `clips` or `video`.
        setting: What it depends on, besides model and recording: the context of clips. Empty for the others.
    """

    name: str
    setting: str = ""

    def __str__(self) -> str:
        """As in the fingerprint: `report`, `clips 1`."""
        return f"{self.name} {self.setting}".rstrip()


class OutputFolder:
    """The folder that events are written to.

    Args:
        root: OUT.
        identity: What a finished recording's files depend on, besides the recording: model and settings.
        extras: Extras requested.

    Raises:
        OutputError: `root` is a file.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], extras: tuple[Extra, ...]) -> None:
        if root.exists() and not root.is_dir():
            raise OutputError(f"{root} is a file, not a folder", "choose another folder with --out")
        self.root = root
        self._identity = {"schema": OUTPUT_SCHEMA, **identity}
        self.extras = extras

    def folder(self, recording: Recording) -> Path:
        """Folder of a recording's files."""
        return self.root / recording.name

    @property
    def lock_folder(self) -> Path:
        """Folder of the locks of recordings and runs."""
        return self.root / ".locks"

    def path(self, recording: Recording, extra: Extra) -> Path:
        """File or folder of an extra."""
        return self.folder(recording) / _EXTRAS[extra.name]

    # --- one recording ----------------------------------------------------------------------------------------------

    def existing_result(
        self, recording: Recording, sha256: str, key: str, start_time: str | None
    ) -> PredictionResult | None:
        """Return the result of a recording whose files are up to date, as `reused`; None if they are not.

        Args:
            recording: The recording.
            sha256: Hash of its bytes.
            key: Key of its features.
            start_time: Its start as the user gave it, ISO 8601; None to use the container's.

        Raises:
            OutputError: The folder holds the events of another recording that still exists.
        """
        started, folder = time.monotonic(), self.folder(recording)
        fingerprint = _read_fingerprint(folder)
        if fingerprint is None:
            return None
        source = Path(fingerprint["source"])
        if str(source) != os.path.realpath(recording.path) and fingerprint["sha256"] != sha256 and source.exists():
            raise OutputError(
                f"{folder} holds the events of {source}, not of {recording.path}",
                "choose another folder with --out, or give the folder above both as the source",
            )
        if not (
            start_time in (None, fingerprint["recorded_at"])
            and self._has_identity(fingerprint)
            and fingerprint["video"] == recording.name
            and fingerprint["key"] == key
            and set(self.extras) <= set(self._existing_extras(recording, fingerprint))
        ):
            return None
        try:
            events = event_files.read_jsonl(folder / "events.jsonl")
        except (OSError, ValueError):
            return None  # a damaged file is written again
        span = fingerprint["span"]
        return PredictionResult(
            recording=recording,
            status="reused",
            events=tuple(events),
            duration_s=fingerprint["duration_s"],
            span=None if span is None else (span[0], span[1]),
            reason=fingerprint["reason"],
            seconds=time.monotonic() - started,
        )

    def begin(self, recording: Recording, key: str, recorded_at: str | None) -> list[Extra]:
        """Prepare to write a recording's files: from now on the earlier ones no longer count as finished.

        Args:
            recording: The recording.
            key: Key of its features.
            recorded_at: ISO 8601 time of its start.

        Returns:
            Extras of an earlier run that are still valid. All others are deleted.

        Raises:
            OutputError: A file cannot be deleted.
        """
        folder, fingerprint = self.folder(recording), _read_fingerprint(self.folder(recording))
        kept: list[Extra] = []
        if (
            fingerprint is not None
            and self._has_identity(fingerprint)
            and (fingerprint["key"], fingerprint["recorded_at"]) == (key, recorded_at)
        ):
            requested = {extra.name: extra for extra in self.extras}
            kept = [
                extra
                for extra in self._existing_extras(recording, fingerprint)
                if requested.get(extra.name, extra) == extra  # clips with another context are replaced
            ]
        self._unmark(recording)
        try:
            for name, file in _EXTRAS.items():
                if name not in {extra.name for extra in kept}:
                    path = folder / file
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot delete {path}: {error.strerror}", "check its permissions") from error
        return kept

    def write_events(self, recording: Recording, events: list[Event]) -> None:
        """Write a recording's events in every format."""
        folder = self.folder(recording)
        _write(folder / "events.jsonl", event_files.to_jsonl(events))
        _write(folder / "events.vtt", event_files.to_vtt(events))
        _write(folder / "events.srt", event_files.to_srt(events))

    def finish(self, recording: Recording, extras: Iterable[Extra], facts: Mapping[str, Any]) -> None:
        """Write the fingerprint, the last of a recording's files.

        Args:
            recording: The recording.
            extras: Extras that exist.
            facts: The other fields of the fingerprint.
        """
        facts = {"present": recording.path.is_file(), "made": sorted(map(str, extras)), **facts}
        _write(self.folder(recording) / FINGERPRINT, self._marker(recording, facts))

    def write_failure(self, result: PredictionResult) -> None:
        """Write why a recording failed. Events that an earlier run found under its name no longer count.

        Raises:
            OutputError: It cannot be written.
        """
        recording = result.recording
        self._unmark(recording)
        facts = {"reason": result.reason, "duration_s": result.duration_s}
        _write(self.folder(recording) / FAILURE, self._marker(recording, facts))

    def read_failure(self, recording: Recording) -> PredictionResult | None:
        """Return the result of a recording that failed with this model and these settings, if it did."""
        failure = _read(self.folder(recording) / FAILURE, _FAILURE_FIELDS)
        if failure is None or not self._has_identity(failure) or failure["source"] != os.path.realpath(recording.path):
            return None
        return failed(recording, failure["reason"], failure["duration_s"], 0.0)

    # --- the whole run ----------------------------------------------------------------------------------------------

    def merge(self, labels: tuple[str, ...], details: str) -> None:
        """Rebuild the merged files from those of the recordings.

        They hold every recording under OUT that is finished with this model and these settings, also of earlier runs
        whose sources are not given now or no longer exist: runs over one camera after another, or over a folder from
        which old recordings are deleted, add up. Recordings finished with other settings are skipped and counted. The
        index also lists recordings that failed, as long as their files exist.

        Args:
            labels: Labels of the model.
            details: What made the events.
        """
        rows: dict[str, IndexRow] = {}
        skipped = 0
        for path in sorted(self.root.rglob(FINGERPRINT)):
            fingerprint = _read_fingerprint(path.parent)
            try:
                if fingerprint is None or not self._has_identity(fingerprint):
                    raise ValueError("finished with another model or other settings")
                events = event_files.read_jsonl(path.with_name("events.jsonl"))
                if not {event.label for event in events} <= set(labels):
                    raise ValueError("edited: a label is not the model's")
            except (OSError, ValueError):
                skipped += 1
                continue
            report = path.with_name(_EXTRAS["report"])
            rows[fingerprint["video"]] = IndexRow(
                name=fingerprint["video"],
                status="partial" if fingerprint["reason"] else "done",
                duration_s=fingerprint["duration_s"],
                events=tuple(events),
                reason=fingerprint["reason"],
                recorded_at=fingerprint["recorded_at"],
                page=report if "report" in fingerprint["made"] and report.exists() else None,
            )
        events_by_video = {name: list(row.events) for name, row in sorted(rows.items())}
        all_events = [event for events in events_by_video.values() for event in events]
        _write(self.root / "events.jsonl", event_files.to_jsonl(all_events))
        _write(self.root / "events.csv", event_files.to_csv(events_by_video.items()))
        _write(self.root / "activitynet.json", event_files.to_activitynet(events_by_video, details))
        if Extra("report") in self.extras or (self.root / INDEX).exists():  # an existing index is kept up to date
            rows = self._failure_rows() | rows
            write_index(self.root / INDEX, [row for _, row in sorted(rows.items())], labels=labels)
        if skipped:
            print(
                f"{self.root} holds {skipped} more recordings, from another model, other settings or with corrupt "
                f"files; they are not in {self.root / 'events.csv'}: predict them again, or delete their folders",
                file=sys.stderr,
            )

    def write_summary(self, name: str, results: Iterable[PredictionResult]) -> None:
        """Write the result of each recording to a file of that name, as JSON lines."""
        lines = (json.dumps(summary_record(result), sort_keys=True, ensure_ascii=False) + "\n" for result in results)
        _write(self.root / name, "".join(lines))

    # --- markers ----------------------------------------------------------------------------------------------------

    def _marker(self, recording: Recording, facts: Mapping[str, Any]) -> str:
        """JSON of a fingerprint or a failure."""
        fields = {**self._identity, "video": recording.name, "source": os.path.realpath(recording.path), **facts}
        return json.dumps(fields, sort_keys=True, ensure_ascii=False, indent=1) + "\n"

    def _unmark(self, recording: Recording) -> None:
        """Delete a recording's fingerprint and failure, so that it counts as neither finished nor failed."""
        folder = self.folder(recording)
        try:
            for name in (FINGERPRINT, FAILURE):
                (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror}", "choose another folder with --out") from error

    def _failure_rows(self) -> dict[str, IndexRow]:
        """Index rows of recordings that failed and still exist, by name."""
        rows = {}
        for path in sorted(self.root.rglob(FAILURE)):
            failure = _read(path, _FAILURE_FIELDS)
            if failure is not None and self._has_identity(failure) and Path(failure["source"]).exists():
                name = failure["video"]
                rows[name] = IndexRow(name=name, status="failed", duration_s=None, reason=failure["reason"])
        return rows

    def _existing_extras(self, recording: Recording, fingerprint: Mapping[str, Any]) -> list[Extra]:
        """Extras that exist. A report links to its recording, so it is invalid once the recording has moved."""
        unmoved = fingerprint["source"] == os.path.realpath(recording.path)
        unmoved = unmoved and fingerprint["present"] == recording.path.is_file()
        extras = [Extra(*text.split()) for text in fingerprint["made"]]
        existing = [extra for extra in extras if self.path(recording, extra).exists()]
        return [extra for extra in existing if extra.name != "report" or unmoved]

    def _has_identity(self, marker: Mapping[str, Any]) -> bool:
        """Whether a fingerprint or failure is from this model and these settings."""
        return all(marker.get(name) == value for name, value in self._identity.items())


def _read_fingerprint(folder: Path) -> dict[str, Any] | None:
    """Read the fingerprint of a finished recording; None if there is no valid one."""
    return _read(folder / FINGERPRINT, _FINGERPRINT_FIELDS)


def _read(path: Path, fields: set[str]) -> dict[str, Any] | None:
    """Read a JSON object; None if the file does not exist, is corrupt or lacks a field."""
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and value.keys() >= fields else None


def _write(path: Path, text: str) -> None:
    # File names that are not UTF-8 arrive as lone surrogates. Written as \udcXX, JSON reads them back unchanged.
    write_atomic(path, text.encode(errors="backslashreplace"))
