"""The folder that events are written to: which recordings are finished there, and what they amount to.

OUT/<name of the recording>/events.jsonl, events.vtt, events.srt
                            report.html, clips/, annotated.mp4   where they are wanted
                            fingerprint.json          written last: its presence means finished
                            failure.json              in its place: why there are no events
OUT/events.jsonl, events.csv, activitynet.json, index.html       of every finished recording under OUT
OUT/summary.jsonl                                     how each recording of the last run ended
OUT/.leases/                                          who works on which recording, and which runs are at work

The files of the run as a whole come of those of the recordings alone, so that it does not matter which of several runs
that share OUT rebuilds them. Who writes into a recording's folder holds its lease (`finish.py`).
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vidgru.errors import OutputError
from vidgru.prediction import event_files as writers
from vidgru.prediction.report.index import IndexRow, write_index
from vidgru.prediction.results import PredictionResult, failed
from vidgru.storage import write_atomic
from vidgru.types import Event, Recording

OUTPUT_SCHEMA = 3  # raised whenever the same model, settings and features would give other files
FINGERPRINT = "fingerprint.json"
FAILURE = "failure.json"
INDEX = "index.html"

_NEEDED = {"video", "source", "present", "sha256", "key", "duration_s", "recorded_at", "reason", "made"}  # of a mark
_NEEDED_OF_FAILURES = {"video", "source", "duration_s", "reason"}
_FILES = {"report": "report.html", "clips": "clips", "video": "annotated.mp4"}  # what there may be beside the events


class OutputFolder:
    """Where events go.

    Args:
        root: OUT.
        identity: what the files of a finished recording depend on beside the recording: model and settings.
        wanted: what is to be there beside the events: "report", "video", "clips" with their context, as in "clips 1".

    Raises:
        OutputError: `root` is not a folder.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], wanted: tuple[str, ...]) -> None:
        if root.exists() and not root.is_dir():
            raise OutputError(f"{root} is a file, not a folder", "choose another folder with --out")
        self.root = root
        self._identity = {"schema": OUTPUT_SCHEMA, **identity}
        self.wanted = wanted

    def folder(self, recording: Recording) -> Path:
        """Where the files of a recording are."""
        return self.root / recording.name

    @property
    def locks(self) -> Path:
        """Where `Locks` are of who works on what."""
        return self.root / ".leases"

    def path(self, recording: Recording, name: str) -> Path:
        """Where something wanted of a recording is."""
        return self.folder(recording) / _FILES[name.split()[0]]

    def finished(self, recording: Recording, sha256: str, key: str, told: str | None) -> PredictionResult | None:
        """A recording whose files are there, and are those of this run, as `reused`; None if they are not.

        Args:
            recording: which.
            sha256: of its bytes.
            key: of its features.
            told: ISO 8601 time of its start, where somebody told it; None leaves it to its container.

        Raises:
            OutputError: the files are those of another recording, which is still there.
        """
        began, folder = time.monotonic(), self.folder(recording)
        mark = _read_mark(folder)
        if mark is None:
            return None
        source = Path(mark["source"])
        if source != recording.path.resolve() and mark["sha256"] != sha256 and source.exists():
            raise OutputError(
                f"{folder} holds the events of {source}, not of {recording.path}",
                "choose another folder with --out, or give the folder above both as the source",
            )
        same_time = told in (None, mark["recorded_at"])
        if not (same_time and self._ours(mark) and mark["video"] == recording.name and mark["key"] == key):
            return None
        if not set(self.wanted) <= set(self._up_to_date(recording, mark)):
            return None
        try:
            events = writers.read_jsonl(folder / "events.jsonl")
        except (OSError, ValueError):
            return None  # spoilt files are written again
        return PredictionResult(
            recording=recording,
            status="reused",
            events=tuple(events),
            duration_s=mark["duration_s"],
            reason=mark["reason"],
            seconds=time.monotonic() - began,
        )

    def begin(self, recording: Recording, key: str, recorded_at: str | None) -> list[str]:
        """Make way for a recording's files: what an earlier run left there is not finished any more.

        Args:
            recording: which.
            key: of its features.
            recorded_at: ISO 8601 time of its start.

        Returns:
            What is there beside the events and still holds; all else is deleted.

        Raises:
            OutputError: it cannot be done.
        """
        folder, mark = self.folder(recording), _read_mark(self.folder(recording))
        kept: list[str] = []
        if mark is not None and self._ours(mark) and (mark["key"], mark["recorded_at"]) == (key, recorded_at):
            words = {name.split()[0]: name for name in self.wanted}
            kept = [
                name
                for name in self._up_to_date(recording, mark)
                if words.get(name.split()[0], name) == name  # clips with another context give way
            ]
        self.unmark(recording)
        try:
            for word, file in _FILES.items():
                if word in (name.split()[0] for name in kept):
                    continue
                path = folder / file
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot delete {path}: {error.strerror}", "check its permissions") from error
        return kept

    def unmark(self, recording: Recording) -> None:
        """Have a recording count as neither finished nor failed; its files are not deleted.

        Raises:
            OutputError: it cannot be done.
        """
        folder = self.folder(recording)
        try:
            for name in (FINGERPRINT, FAILURE):
                (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror}", "choose another folder with --out") from error

    def fail(self, prediction: PredictionResult) -> None:
        """Note why a recording failed. Events that an earlier run found in a file of its name do not count any more.

        Raises:
            OutputError: it cannot be written.
        """
        recording = prediction.recording
        facts = {"reason": prediction.reason, "duration_s": prediction.duration_s}
        self.unmark(recording)
        _write(self.folder(recording) / FAILURE, self._about(recording, facts))

    def failure(self, recording: Recording) -> PredictionResult | None:
        """A recording that failed with this model and these settings; None if it did not, or is finished by now."""
        mark = _read(self.folder(recording) / FAILURE, _NEEDED_OF_FAILURES)
        if mark is None or not self._ours(mark) or mark["source"] != str(recording.path.resolve()):
            return None
        return failed(recording, mark["reason"], mark["duration_s"], 0.0)

    def write_events(self, recording: Recording, events: list[Event]) -> None:
        """Write a recording's events in every format."""
        folder = self.folder(recording)
        _write(folder / "events.jsonl", writers.to_jsonl(events))
        _write(folder / "events.vtt", writers.to_vtt(events))
        _write(folder / "events.srt", writers.to_srt(events))

    def finish(self, recording: Recording, made: Iterable[str], facts: Mapping[str, Any]) -> None:
        """Write the fingerprint, last of a recording's files.

        Args:
            recording: which.
            made: what there is beside the events.
            facts: what else is to be known of it.
        """
        facts = {"present": recording.path.is_file(), "made": sorted(made), **facts}
        _write(self.folder(recording) / FINGERPRINT, self._about(recording, facts))

    def collect(self, labels: tuple[str, ...], details: str) -> None:
        """Rebuild the files of the run as a whole from those of the recordings.

        They hold every recording under OUT that is finished with this model and these settings, also those of earlier
        runs whose sources are not given or are gone by now: runs over one camera after another, or over a folder from
        which old recordings are deleted, add up. Recordings finished otherwise are left out, and counted. The page
        over all also shows those that failed, for as long as their files are there: they are to be seen to.

        Args:
            labels: of the model.
            details: what made the events.
        """
        rows: dict[str, IndexRow] = {}
        others = 0
        for path in sorted(self.root.rglob(FINGERPRINT)):
            mark = _read_mark(path.parent)
            try:
                if mark is None or not self._ours(mark):
                    others += 1
                    continue
                events = writers.read_jsonl(path.with_name("events.jsonl"))
                if not {event.label for event in events} <= set(labels):
                    raise ValueError("written by somebody else")
            except (OSError, ValueError):
                others += 1
                continue
            page = path.with_name(_FILES["report"])
            rows[mark["video"]] = IndexRow(
                name=mark["video"],
                status="partial" if mark["reason"] else "done",
                duration_s=mark["duration_s"],
                events=tuple(events),
                reason=mark["reason"],
                recorded_at=mark["recorded_at"],
                page=page if "report" in mark["made"] and page.exists() else None,
            )
        finished = {name: list(row.events) for name, row in sorted(rows.items())}
        _write(self.root / "events.jsonl", writers.to_jsonl(event for own in finished.values() for event in own))
        _write(self.root / "events.csv", writers.to_csv(finished.items()))
        _write(self.root / "activitynet.json", writers.to_activitynet(finished, details))
        if "report" in self.wanted or (self.root / INDEX).exists():  # one that is there is kept up to date
            rows = self._failures() | rows
            write_index(self.root / INDEX, [row for _, row in sorted(rows.items())], labels=labels)
        if others:
            print(
                f"{self.root} holds {others} more recordings, of another model, other settings or with spoilt files: "
                f"they are not in {self.root / 'events.csv'}; predict them again, or delete their folders",
                file=sys.stderr,
            )

    def write_summary(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        """Write how each recording of the run ended to a file of that name."""
        lines = (json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n" for record in records)
        _write(self.root / name, "".join(lines))

    def _about(self, recording: Recording, facts: Mapping[str, Any]) -> str:
        """What a fingerprint or a failure says."""
        who = {"video": recording.name, "source": str(recording.path.resolve())}
        return json.dumps({**self._identity, **who, **facts}, sort_keys=True, ensure_ascii=False, indent=1) + "\n"

    def _failures(self) -> dict[str, IndexRow]:
        """Recordings that failed and whose files are there, by name."""
        found = {}
        for path in sorted(self.root.rglob(FAILURE)):
            mark = _read(path, _NEEDED_OF_FAILURES)
            if mark is not None and self._ours(mark) and Path(mark["source"]).exists():
                name = mark["video"]
                found[name] = IndexRow(name=name, status="failed", duration_s=None, reason=mark["reason"])
        return found

    def _up_to_date(self, recording: Recording, mark: Mapping[str, Any]) -> list[str]:
        """What there is beside the events. A page leads to the recording, and is none where that has moved."""
        here = (mark["source"], mark["present"]) == (str(recording.path.resolve()), recording.path.is_file())
        made = [name for name in mark["made"] if self.path(recording, name).exists()]
        return [name for name in made if name != "report" or here]

    def _ours(self, mark: Mapping[str, Any]) -> bool:
        return all(mark.get(name) == value for name, value in self._identity.items())


def _read_mark(folder: Path) -> dict[str, Any] | None:
    """The fingerprint of a finished recording; None if there is none, or it is not one."""
    return _read(folder / FINGERPRINT, _NEEDED)


def _read(path: Path, needed: set[str]) -> dict[str, Any] | None:
    """What a JSON file says; None where it is not there, or does not say what is needed."""
    try:
        mark = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return mark if isinstance(mark, dict) and mark.keys() >= needed else None


def _write(path: Path, text: str) -> None:
    # Names that are not UTF-8 reach us as lone surrogates; written as \udcXX they are read back from JSON as they were.
    write_atomic(path, text.encode(errors="backslashreplace"))
