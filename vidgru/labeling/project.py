"""A labelling project: recordings and their annotations, saved at each change.

All methods may be called from any thread. Changes are applied one after the other, and each is an operation on one
annotation, so that two windows overwrite nothing of each other's.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

from vidgru.datasets.rows import BACKGROUND
from vidgru.errors import OutputError, RecordingError
from vidgru.labeling.intervals import TimeRange, merge_ranges, overlap_s, subtract_ranges, total_s
from vidgru.labeling.label_file import LabelFile, LabelledEvent, RecordingLabels, open_label_file
from vidgru.labeling.proxy import MediaInfo, read_media_info
from vidgru.locks import Locks
from vidgru.storage import unused_path, write_atomic
from vidgru.types import Event, Recording

FeatureState = Literal["queued", "extracting", "ready", "failed"]

_RETRY_S = 2.0  # how often a file that could not be written is tried again
_MAX_ID = 64
_MAX_TEXT = 10_000
_SAME_EVENT = 0.5  # overlap over union from which a draft is the same event as another, with the same label
_SUGGESTED_S = 20.0  # of time that nobody has watched
_WATCHED = 0.8  # share of a draft that was watched without marking an event, from which it is not shown


class InvalidChangeError(Exception):
    """A change that cannot be applied; none of its batch was."""


class ChangeNotSavedError(Exception):
    """The changes were applied, but the file cannot be written. It is tried again until it succeeds."""


@dataclass(kw_only=True)
class ProjectRecording:
    """A recording of the project.

    Attributes:
        recording: The recording.
        media: Properties of the video for browsers; None if it cannot be read.
        file: Annotation file with its labels.
        number: Its number there.
        features: State of its features.
        progress: Share of the features that is computed, 0 to 1.
        reason: Reason of a failure, or a note on damage; empty otherwise.
        drafts: Events of the latest model.
        watched_before: Time that had been watched, events included, when these drafts came, and still is.
        version: Version of the project when its annotations or drafts changed last.
    """

    recording: Recording
    media: MediaInfo | None
    file: LabelFile = field(repr=False)
    number: int
    features: FeatureState = "queued"
    progress: float = 0.0
    reason: str = ""
    drafts: list[Event] = field(default_factory=list)
    watched_before: list[TimeRange] = field(default_factory=list)
    version: int = 0

    @property
    def labels(self) -> RecordingLabels:
        """Its labels. To change them, set others: the file formats those anew that are not the same object."""
        return self.file.labels[self.number]

    @labels.setter
    def labels(self, labels: RecordingLabels) -> None:
        self.file.labels[self.number] = labels

    @property
    def duration_s(self) -> float:
        """Duration in seconds; 0 if the video cannot be read."""
        return self.media.duration_s if self.media else 0.0


class LabelingProject:
    """The state of a labelling session.

    Args:
        recordings: Recordings to annotate.
        path: The annotation file; it is created with the first change.
        labels: Labels to offer before any is used.

    Attributes:
        version: Counter of changes to anything that windows show.
        notes: Messages for the user about the file.
        disk_error: Reason why the file cannot be written now; empty if it can.

    Raises:
        AnnotationError: The file exists and cannot be read.
        OutputError: Another process has opened the file, or it is of another tool and `labels.csv` exists.
    """

    def __init__(self, recordings: Sequence[Recording], path: Path, labels: Sequence[str] = ()) -> None:
        media: list[MediaInfo | None] = []
        reasons: list[str] = []
        for recording in recordings:
            try:
                if not _is_unicode(str(recording.path)):
                    raise RecordingError("has a name that is not UTF-8, which annotation files cannot hold; rename it")
                media.append(read_media_info(recording.path))
                reasons.append("")
            except RecordingError as error:
                media.append(None)
                reasons.append(error.message)
        durations = [item.duration_s if item else 0.0 for item in media]
        self._file: LabelFile = open_label_file(path, recordings, durations)
        self._locks = Locks(self._file.path.with_name(f".{self._file.path.name}.lock"))
        if not self._locks.acquire("label"):
            raise OutputError(
                f"{self._file.path} is open in another vidgru label", "use that window, or pass another --out"
            )
        self.recordings = [
            ProjectRecording(recording=recording, media=info, file=self._file, number=number, reason=reason)
            for number, (recording, info, reason) in enumerate(zip(recordings, media, reasons, strict=True))
        ]
        for item in self.recordings:
            item.features = "queued" if item.media else "failed"
        self._suggestions: list[dict[str, Any]] = []
        self._labels = dict.fromkeys(self._checked_label(label) for label in labels)
        for event in (event for item in self.recordings for event in item.labels.events.values()):
            self._labels.setdefault(event.label)
        self._labels.pop("", None)
        self._lock = threading.RLock()
        self._retry: threading.Timer | None = None
        self._is_closed = False
        self._identity = _identity(self._file.path)
        self.version = 1
        self.notes = tuple(self._file.notes)
        self.disk_error = ""

    @property
    def path(self) -> Path:
        """The annotation file that is written."""
        return self._file.path

    @property
    def labels(self) -> list[str]:
        """Labels to choose from: those given first, then in order of first use."""
        with self._lock:
            return list(self._labels)

    def close(self) -> None:
        """Write what could not be written before, and release the file.

        Raises:
            OutputError: It still cannot be written.
        """
        with self._lock:
            self._is_closed = True
            if self._retry is not None:
                self._retry.cancel()
            try:
                if self.disk_error:
                    self._write()
            finally:
                self._locks.close()

    # --- what windows show ------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Count a change of something that windows show besides the annotations."""
        with self._lock:
            self.version += 1

    def set_features(self, number: int, state: FeatureState, progress: float, reason: str = "") -> None:
        """Set the state of a recording's features."""
        with self._lock:
            item = self.recordings[number]
            shown = item.features, round(item.progress, 2), item.reason
            item.features, item.progress, item.reason = state, progress, reason or item.reason
            if shown != (state, round(progress, 2), item.reason):
                self.version += 1

    def set_drafts(self, drafts: Mapping[int, Iterable[Event]]) -> None:
        """Replace the drafts of recordings by the events of a new model.

        Events in time that was watched without marking any, or that were rejected before, are left out. Of the others,
        time that was watched before stays watched: the person saw it when there was no draft.
        """
        with self._lock:
            self.version += 1
            for number, events in drafts.items():
                item = self.recordings[number]
                item.watched_before = watched = item.labels.watched_with_events(item.duration_s, gap_s=0.0)
                item.drafts = [
                    event
                    for event in events
                    if overlap_s(watched, event.start_s, event.end_s) < _WATCHED * (event.end_s - event.start_s)
                ]
                item.labels = replace(item.labels, pending=_pending_time(item, item.labels))
                item.version = self.version

    def summaries(self) -> list[dict[str, Any]]:
        """Return the list of recordings."""
        with self._lock:
            return [self._summary(number) for number in range(len(self.recordings))]

    def _summary(self, number: int) -> dict[str, Any]:
        item, media = self.recordings[number], self.recordings[number].media
        return {
            "id": recording_id(number),
            "name": item.recording.name.encode(errors="replace").decode(),
            "duration_s": media.duration_s if media else None,
            "fps": media.fps if media else None,
            "size": list(media.size_px) if media else None,
            "state": item.features,
            "progress": round(item.progress, 3),
            "reason": item.reason,
            "playable": media is not None and media.is_playable,
            "events": len(item.labels.events),
            "watched_s": round(total_s(item.labels.watched_with_events(item.duration_s)), 3),
            "is_empty": item.labels.is_empty,
            "drafts": len(_shown_drafts(item, item.labels)),
            "version": item.version,
        }

    def details(self, number: int) -> dict[str, Any]:
        """Return the annotations and drafts of a recording."""
        with self._lock:
            item = self.recordings[number]
            drafts = [
                {"start_s": event.start_s, "end_s": event.end_s, "label": event.label, "score": round(event.score, 4)}
                for event in _shown_drafts(item, item.labels)
            ]
            events = sorted(item.labels.events.items(), key=lambda pair: (pair[1].start_s, pair[1].end_s))
            return {
                "id": recording_id(number),
                "version": self.version,
                "annotations": [
                    {
                        "id": event_id,
                        "start_s": event.start_s,
                        "end_s": event.end_s,
                        "label": event.label,
                        "description": event.description,
                    }
                    for event_id, event in events
                ],
                "watched": [list(span) for span in item.labels.watched],
                "watched_with_events": [list(span) for span in item.labels.watched_with_events(item.duration_s)],
                "is_empty": item.labels.is_empty,
                "drafts": drafts,
            }

    def set_suggestions(self, suggestions: Iterable[Mapping[str, Any]]) -> None:
        """Replace what the latest model suggests to label next.

        Args:
            suggestions: Number of the `recording`, `start`, `end`, `reason` and `likely_label`, most useful first.
        """
        with self._lock:
            self._suggestions = [
                _suggestion(row["recording"], row["start"], row["end"], row["reason"], row["likely_label"] or None)
                for row in suggestions
            ]
            self.version += 1

    def suggestions(self, number: int) -> list[dict[str, Any]]:
        """Return stretches to look at next: those of the model, drafts with the lowest scores, time not watched yet.

        Args:
            number: How many to return at most.
        """
        with self._lock:
            items = list(enumerate(self.recordings))
            known = {recording_id(i): item.labels.watched_with_events(item.duration_s) for i, item in items}
            drafts = [(draft.score, i, draft) for i, item in items for draft in _shown_drafts(item, item.labels)]
            suggested = [row for row in self._suggestions if not _is_known(row, known[row["recording"]])]
            suggested += [
                _suggestion(i, draft.start_s, draft.end_s, f"draft with score {score:.2f}", draft.label)
                for score, i, draft in sorted(drafts, key=lambda entry: entry[:2])
            ]
            for i, item in sorted(items, key=lambda entry: entry[1].features != "ready"):
                unwatched = subtract_ranges([(0.0, item.duration_s)], known[recording_id(i)])
                if item.duration_s and unwatched:
                    start_s, end_s = unwatched[0]
                    end_s = min(end_s, start_s + _SUGGESTED_S)
                    suggested.append(_suggestion(i, start_s, end_s, "not watched yet", None))
            chosen: list[dict[str, Any]] = []
            for row in suggested:  # the first of those that overlap has the best reason
                others = [
                    (other["start_s"], other["end_s"]) for other in chosen if other["recording"] == row["recording"]
                ]
                if len(chosen) < number and not _is_known(row, others):
                    chosen.append(row)
            return chosen

    def label_counts(self, numbers: Iterable[int]) -> dict[int, int]:
        """Number of labelled events of each of these recordings; 1 for one that was watched and has none."""
        with self._lock:
            items = {number: self.recordings[number] for number in numbers}
            return {
                number: sum(bool(event.label) for event in item.labels.events.values())
                or int(item.media is not None and item.labels.is_wholly_watched(item.duration_s))
                for number, item in items.items()
            }

    # --- changes ----------------------------------------------------------------------------------------------------

    def apply(self, number: int, changes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Apply changes to one recording, and write the file.

        Args:
            number: Number of the recording.
            changes: Operations in order, see `vidgru.labeling.server`.

        Returns:
            The same as `details`, after the changes.

        Raises:
            InvalidChangeError: A change is malformed; none is applied.
            ChangeNotSavedError: All are applied, but the file cannot be written; it will be tried again.
        """
        with self._lock:
            item = self.recordings[number]
            if item.media is None:
                raise InvalidChangeError(f"{item.recording.name} cannot be read: {item.reason}")
            labels = replace(
                item.labels,
                events=dict(item.labels.events),
                watched=list(item.labels.watched),
                rejected=list(item.labels.rejected),
            )
            for change in changes:
                self._apply_one(labels, change, item.duration_s)
            labels.pending = _pending_time(item, labels)
            # For good: a later model without the draft must not turn time that was played past it into background.
            labels.watched = subtract_ranges(labels.watched, labels.pending)
            if item.drafts:  # time that the person has taken back was not watched before
                gone = subtract_ranges(item.watched_before, labels.watched_with_events(item.duration_s, gap_s=0.0))
                item.watched_before = subtract_ranges(item.watched_before, gone)
            item.labels = labels
            for event in labels.events.values():
                if event.label:
                    self._labels.setdefault(event.label)
            self.version += 1
            item.version = self.version
            try:
                self._write()
            except OutputError as error:
                self._retry_later(error)
                raise ChangeNotSavedError(error.message) from error
            return self.details(number)

    def _apply_one(self, labels: RecordingLabels, change: Mapping[str, Any], duration_s: float) -> None:
        operation = change.get("op")
        match operation:
            case "put":
                event_id = _text(change, "id", _MAX_ID)
                start_s, end_s = _interval(change, duration_s)
                label = self._checked_label(_text(change, "label", _MAX_TEXT))
                description = _text(change, "description", _MAX_TEXT, default="").strip()
                if not event_id or not (label or description):
                    raise InvalidChangeError("an event needs an id, and a label or a description")
                earlier = labels.events.get(event_id, LabelledEvent(start_s=0, end_s=1, label=""))
                labels.events[event_id] = replace(
                    earlier, start_s=start_s, end_s=end_s, label=label, description=description
                )
                if labels.is_empty:  # it was marked after watching all of it
                    labels.is_empty, labels.watched = False, [(0.0, duration_s)]
            case "delete":
                labels.events.pop(_text(change, "id", _MAX_ID), None)  # another window may have deleted it
            case "watched":
                labels.watched = merge_ranges([*labels.watched, _interval(change, duration_s)])
            case "unwatched":
                labels.watched = subtract_ranges(labels.watched, [_interval(change, duration_s)])
            case "empty":
                if not isinstance(change.get("value"), bool):
                    raise InvalidChangeError("empty needs a value, true or false")
                if change["value"] and labels.events:
                    raise InvalidChangeError("the recording has events; delete them before you mark it as empty")
                labels.is_empty = change["value"]
            case "reject" | "restore":
                start_s, end_s = _interval(change, duration_s)
                rejected = start_s, end_s, self._checked_label(_text(change, "label", _MAX_TEXT))
                labels.rejected = [item for item in labels.rejected if item != rejected]
                if operation == "reject":
                    labels.rejected.append(rejected)
            case _:
                raise InvalidChangeError(f"unknown operation {operation!r}")

    def _checked_label(self, label: str) -> str:
        """Return a label as it is read from files: without line breaks, in one Unicode form."""
        label = normalize("NFC", " ".join(label.split()))
        if label == BACKGROUND:
            raise InvalidChangeError(f"{BACKGROUND} is the label of watched time in which nothing happens")
        return label

    def _write(self) -> None:
        identity = _identity(self.path)
        if identity is not None and identity != self._identity:
            self._keep_other_version()
            self._identity = identity  # not copied again each time that the write below is retried
        write_atomic(self.path, self._file.content([item.duration_s for item in self.recordings]))
        self._identity = _identity(self.path)
        self.disk_error = ""

    def _keep_other_version(self) -> None:
        """Copy the file, which another program has changed, before it is overwritten."""
        copy = unused_path(self.path.with_stem(f"{self.path.stem}-other"), Path.exists)
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise OutputError(
                f"cannot read {self.path}, which another program changed: {error.strerror or error}",
                "check its permissions, or move it away",
            ) from error
        write_atomic(copy, content)
        self.notes = (*self.notes, f"another program changed {self.path}; its version is kept as {copy}")

    def _retry_later(self, error: OutputError) -> None:
        self.disk_error = error.message
        if not self._is_closed and self._retry is None:
            self._retry = threading.Timer(_RETRY_S, self._retry_write)
            self._retry.daemon = True
            self._retry.start()

    def _retry_write(self) -> None:
        with self._lock:
            self._retry = None
            if self._is_closed or not self.disk_error:
                return
            try:
                self._write()
            except OutputError as error:
                self._retry_later(error)
            self.version += 1

    def training_content(self, numbers: Sequence[int]) -> tuple[bytes, dict[int, int]]:
        """Return an annotation file of some recordings, by their absolute paths, and how many labels each has."""
        with self._lock:
            names = [str(item.recording.path.absolute()) for item in self.recordings]
            whole = replace(self._file, path=Path("labels.csv"), names=names)
            return whole.content([item.duration_s for item in self.recordings], numbers), self.label_counts(numbers)


def recording_id(number: int) -> str:
    """Return the id by which windows refer to a recording."""
    return f"r{number}"


def _is_unicode(text: str) -> bool:
    """Whether a text can be written: names of files that are not UTF-8 arrive as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return modification time and size of a file, which other programs change; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _suggestion(number: int, start_s: float, end_s: float, reason: str, label: str | None) -> dict[str, Any]:
    return {"recording": recording_id(number), "start_s": start_s, "end_s": end_s, "reason": reason, "label": label}


def _is_known(row: Mapping[str, Any], known: Iterable[TimeRange]) -> bool:
    """Whether at least half of a suggested stretch is in some intervals."""
    length_s: float = row["end_s"] - row["start_s"]
    return overlap_s(known, row["start_s"], row["end_s"]) >= length_s / 2


def _shown_drafts(item: ProjectRecording, labels: RecordingLabels) -> list[Event]:
    """Return the drafts of a recording that are neither accepted nor rejected in these labels."""
    if labels.is_empty:  # rejects all of them
        return []
    answered = [(event.start_s, event.end_s, event.label) for event in labels.events.values()]
    answered += labels.rejected
    return [draft for draft in item.drafts if not any(_is_same(draft, *interval_label) for interval_label in answered)]


def _pending_time(item: ProjectRecording, labels: RecordingLabels) -> list[TimeRange]:
    """Return the time of the drafts shown, without what was watched before they came."""
    drafts = [(draft.start_s, draft.end_s) for draft in _shown_drafts(item, labels)]
    return subtract_ranges(drafts, item.watched_before) if drafts else []


def _is_same(draft: Event, start_s: float, end_s: float, label: str) -> bool:
    common = min(draft.end_s, end_s) - max(draft.start_s, start_s)
    union = max(draft.end_s, end_s) - min(draft.start_s, start_s)
    return draft.label == label and common >= _SAME_EVENT * union


def _text(change: Mapping[str, Any], name: str, longest: int, default: str | None = None) -> str:
    value = change.get(name, default)
    if not isinstance(value, str) or len(value) > longest:
        raise InvalidChangeError(f"{name} is {value!r:.100}; it must be text of up to {longest:,} characters")
    if not _is_unicode(value) or "\0" in value:
        raise InvalidChangeError(f"{name} holds half a character, or a zero byte")
    return value


def _interval(change: Mapping[str, Any], duration_s: float) -> tuple[float, float]:
    """Return the interval of a change, to milliseconds, within the recording."""
    values = change.get("start_s"), change.get("end_s")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise InvalidChangeError(f"start_s and end_s are {values[0]!r:.50} and {values[1]!r:.50}; they must be seconds")
    start_s, end_s = (round(min(max(float(value), 0.0), duration_s), 3) for value in values if value is not None)
    if end_s <= start_s:
        raise InvalidChangeError(f"the end, {end_s:g} s, is not after the start, {start_s:g} s")
    return start_s, end_s
