"""The report of one recording: its video, its events and their explanations, and an editor to correct them."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from vidgru.cache import Entry
from vidgru.datasets.dataset import frames_between
from vidgru.errors import RecordingError
from vidgru.model.attribution import Explanation, MomentScores
from vidgru.model.checkpoint import EventModel
from vidgru.model.event_decoder import smooth_scores
from vidgru.model.stream import ScoredRecording
from vidgru.prediction.event_files import interval_ms
from vidgru.prediction.report.html import (
    caption_cells,
    clock,
    encode_array,
    encoded_size,
    link,
    render_html,
    text_size,
)
from vidgru.prediction.report.packing import (
    CURVE_BYTES,
    EVENT_BYTES,
    FEW_FRAMES,
    FRAME_SCORE_BYTES,
    MARGIN_S,
    MAX_POINTS,
    MOMENT_BYTES,
    OBJECT_BYTES,
    PICTURE_BYTES,
    QuantisedObjects,
    ThinnedCurves,
    bucket_starts,
    frame_ranks,
    kept_shares,
    select_objects,
    still_spans,
    thin,
)
from vidgru.storage import write_atomic
from vidgru.types import Array, Event, FrameSequence, Recording, format_span
from vidgru.video.thumbnails import read_thumbnails

EVENLY_SPACED = 24  # pictures spread over the recording
MAX_PICTURES = 96  # including those of events
_PICTURE_SIDE_PX = 480
_MAX_DECODED = 1500  # frames for all pictures: a few seconds of work at most
_JPEG_QUALITIES = (76, 55, 35, 20)  # the first that fits is used
_MANY_EMPTY = 0.15  # share of the frames of events without a detection, from which the page says so
_MAX_ATTENDED = 5  # objects per explanation
_SCRIPTS = (
    "common.js",
    "decode.js",
    "store.js",
    "thresholds.js",
    "player.js",
    "overlay.js",
    "timeline.js",
    "curves.js",
    "events.js",
    "player_page.js",
    "page.js",
)


def write_page(
    path: Path,
    *,
    model: EventModel,
    recording: Recording,
    entry: Entry,
    parts: Iterable[FrameSequence],
    scored: ScoredRecording,
    events: list[Event],
    recorded_at: str | None,
    damage: str,
    explanations: Mapping[Event, Explanation] | None = None,
    moments: MomentScores | None = None,
    given_thresholds: Iterable[str] = (),
) -> None:
    """Write a recording's report: under 20 MB whatever its length, with notes on what it leaves out.

    Args:
        path: File to write; its links are relative to it.
        model: The model that found the events.
        recording: The recording. Its file need not exist.
        entry: Its cache entry.
        parts: Consecutive parts of its frame sequence.
        scored: Its scores.
        events: Events that are written to files; `#event=3` in the page's address selects the fourth.
        recorded_at: ISO 8601 time of its start; None if unknown.
        damage: What is wrong with it; empty if nothing is.
        explanations: Explanations of events; some or all may be missing.
        moments: Scores with and without each feature group at further times.
        given_thresholds: Labels whose thresholds the user gave; the others are the model's own.

    Raises:
        OutputError: The file cannot be written.
    """
    explanations = explanations or {}
    numbers = _fitting_events(events, explanations)
    shown = [events[number] for number in numbers]
    ranks = frame_ranks(scored.time_s, shown)
    counts: list[Array] = []  # objects per frame of each part
    is_still: list[Array] = []

    def counted_parts() -> Iterator[FrameSequence]:
        for part in parts:
            counts.append(np.diff(part.offsets))
            is_still.append(np.zeros(len(part), bool) if part.still is None else part.still)
            yield part

    objects = select_objects(counted_parts(), scored.attention, ranks, OBJECT_BYTES * 3 // 4)  # base64 adds a third
    starts = bucket_starts(len(scored.time_s), ranks >= 0)
    scores = thin(scored.time_s, smooth_scores(scored.time_s, scored.scores, model.decode.smooth_s), starts)
    curve_labels = _fitting_labels(scores, encoded_size(scores.high[:1]) * (1 + scores.is_thinned), CURVE_BYTES)
    gates = None
    if scored.gates is not None:
        curves = thin(scored.time_s, np.column_stack([scored.gates.update, scored.gates.reset]), starts)
        gates = _encode_curves(curves, [0, 1])
    still = np.concatenate([np.zeros(0, bool), *is_still])
    decoding = _encode_decoding(model, scored, entry.duration_s)
    exists = recording.path.is_file()
    folders = PurePosixPath(recording.name).parts
    parents = Path(os.path.abspath(recording.path)).parents
    is_in_output_folder = path.parent.parts[-len(folders) :] == folders
    data = {
        "name": recording.name,
        "root": str(parents[min(len(folders), len(parents)) - 1]),
        "video": link(recording.path, path) if exists else None,
        "index": "../" * len(folders) + "index.html" if is_in_output_folder else None,
        "duration": max(entry.duration_s, 1e-3),
        "fps": entry.fps,
        "size": entry.size_px,
        "recorded": clock(recorded_at),
        "damage": damage,
        "labels": model.labels,
        "high": model.decode.high,
        "low": model.decode.low,
        "given": [label for label in model.labels if label in set(given_thresholds)],
        "smooth": model.decode.smooth_s,
        "decode": decoding,
        "names": entry.names,
        "events": [
            [*interval_ms(event), model.labels.index(event.label), round(event.score, 4), *caption_cells(event)]
            for event in shown
        ],
        "numbers": numbers if len(numbers) < len(events) else None,
        "explanations": {
            number: _encode_explanation(explanations[event])
            for number, event in enumerate(shown)
            if event in explanations
        },
        "moments": moments and _encode_moments(moments, scores),
        "scores": _encode_curves(scores, curve_labels),
        "gates": gates,
        "still": still_spans(scored.time_s, still, entry.duration_s).tolist(),
        "objects": {name: encode_array(getattr(objects, name)) for name in QuantisedObjects.__dataclass_fields__},
        "pictures": make_pictures(recording.path, entry.duration_s, shown, PICTURE_BYTES) if exists else [],
        "missing": _missing_events(events, shown, scored),
        "notes": [
            *_span_note(entry),
            *_still_note(still),
            *_notes(events, shown, scored, objects, scores, curve_labels, model, decoding is not None),
            *_empty_frames_note(events, scored.time_s, counts),
        ],
    }
    write_atomic(path, render_html("page.html", recording.name, _SCRIPTS, data))


def make_pictures(path: Path, duration_s: float, events: Sequence[Event], budget_bytes: int) -> list[tuple[int, str]]:
    """Decode still pictures for browsers that cannot play a recording: evenly spaced, and the middle of each event.

    Returns:
        Time in milliseconds and JPEG data URI of each, by time; fewer or none if the recording cannot be read.
    """
    times = [(number + 0.5) / EVENLY_SPACED * duration_s for number in range(EVENLY_SPACED)]
    best = sorted(events, key=lambda event: -event.score)[: MAX_PICTURES - EVENLY_SPACED]
    times += [(event.start_s + event.end_s) / 2 for event in best]
    encoded: list[tuple[int, str]] = []
    try:
        for picture in read_thumbnails(path, times, longer_side_px=_PICTURE_SIDE_PX, max_frames=_MAX_DECODED):
            uri = _jpeg_uri(picture.image, budget_bytes // len(times))
            if uri:
                encoded.append((round(picture.time_s * 1000), uri))
    except RecordingError:
        pass
    return encoded


def _jpeg_uri(image: Array, max_bytes: int) -> str:
    """Encode a picture with the best quality that fits; empty if none does."""
    for quality in _JPEG_QUALITIES:
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        uri = "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
        if len(uri) <= max_bytes:
            return uri
    return ""


def _encode_explanation(explanation: Explanation) -> dict[str, Any]:
    return {
        "baseline": round(explanation.baseline, 4),
        "objects": [[o.track, o.label, round(o.share, 3)] for o in explanation.objects[:_MAX_ATTENDED]],
        "without": {group: round(score, 4) for group, score in explanation.score_without.items()},
        "kept": [round(frame.time_s, 3) for frame in explanation.keep_peaks],
        "forgot": [round(frame.time_s, 3) for frame in explanation.forget_peaks],
    }


def _encode_moments(moments: MomentScores, curves: ThinnedCurves) -> dict[str, Any]:
    scores = np.round(moments.scores * 65535).astype(np.uint16)
    labels = _fitting_labels(curves, encoded_size(scores[:, :, :1]), MOMENT_BYTES)
    return {
        "time": [round(at_s, 3) for at_s in moments.time_s.tolist()],
        "groups": moments.groups,
        "labels": labels,
        "scores": encode_array(scores[:, :, labels]),
    }


def _encode_curves(curves: ThinnedCurves, rows: list[int]) -> dict[str, Any]:
    return {
        "labels": rows,
        "time": encode_array(curves.time_ms),
        "high": encode_array(curves.high[rows]),
        "low": encode_array(curves.low[rows]) if curves.is_thinned else None,
    }


def _encode_decoding(model: EventModel, scored: ScoredRecording, end_s: float) -> dict[str, Any] | None:
    """Encode the score of every frame, and the rule by which scores become events; None if too many or no scores."""
    decode = model.decode
    if model.task.clip_head is None and model.task.frame_head is None:
        return None
    time = np.round(scored.time_s * 10_000).astype(np.uint32)
    scores = np.round(scored.scores.T * 65535).astype(np.uint16)
    if encoded_size(time) + encoded_size(scores) > FRAME_SCORE_BYTES:
        return None
    rule = {
        "exclusive": decode.exclusive,
        "minimum": decode.min_s,
        "merge": decode.merge_s,
        "startTrim": decode.start_trim_s,
        "endTrim": decode.end_trim_s,
        "scale": decode.event_scale,
        "bias": decode.event_bias,
        "step": 1 / model.fps,
        "end": end_s,
    }
    return {"time": encode_array(time), "scores": encode_array(scores), "smooth": decode.smooth_s, "rule": rule}


def _fitting_events(events: list[Event], explanations: Mapping[Event, Explanation]) -> list[int]:
    """Numbers of the events that fit into the page, best scored first, in their order."""
    by_score = sorted(range(len(events)), key=lambda number: -events[number].score)
    cost = [60 + text_size(events[n].description or "") + 800 * (events[n] in explanations) for n in by_score]
    return sorted(by_score[: np.searchsorted(np.cumsum(cost), EVENT_BYTES, side="right")])


def _fitting_labels(scores: ThinnedCurves, bytes_per_label: int, budget_bytes: int) -> list[int]:
    """Numbers of the labels whose data fit into the page, those with the highest peaks first, in their order."""
    peaks = scores.high.max(axis=1, initial=0).astype(int)
    return sorted(np.argsort(-peaks, kind="stable")[: budget_bytes // max(bytes_per_label, 1)].tolist())


def _missing_events(events: list[Event], shown: list[Event], scored: ScoredRecording) -> list[str]:
    """Sentences on events that cannot be corrected in the page, because a file saved there says they did not happen."""
    sentences = []
    not_requested, not_fitting = len(scored.events) - len(events), len(events) - len(shown)
    if not_requested > 0:
        were = "1 event was" if not_requested == 1 else f"{not_requested:,} events were"
        sentences.append(
            f"{were} left out of this page by --labels or --since; the saved file will say that nothing "
            "happens there. Predict without these options before you correct events."
        )
    if not_fitting > 0:
        sentences.append(
            f"{not_fitting:,} of the {len(events):,} events, those with the lowest scores, did not fit into this page; "
            "the saved file will say that nothing happens there."
        )
    return sentences


def _span_note(entry: Entry) -> list[str]:
    """Sentence on the part of the recording that was read, if that is not all of it."""
    if entry.span is None:
        return []
    return [f"Only {format_span(entry.span)} of the recording was read, because of --since or --until."]


def _still_note(still: Array) -> list[str]:
    """Sentence on the still frames, if there are any."""
    if not still.any():
        return []
    return [
        f"{still.mean():.2%} of the frames are still (marked on the time axis): adaptive extraction did not decode "
        "them, and their boxes are those of the frame before."
    ]


def _notes(
    events: list[Event],
    shown: list[Event],
    scored: ScoredRecording,
    objects: QuantisedObjects,
    scores: ThinnedCurves,
    curve_labels: list[int],
    model: EventModel,
    is_tunable: bool,
) -> list[str]:
    """Sentences on what the page leaves out."""
    notes = []
    if len(shown) < len(events):
        notes.append(
            f"This page shows the {len(shown):,} best scored of {len(events):,} events; annotations saved here lack "
            "the others."
        )
    if len(events) < len(scored.events):
        notes.append(f"The options of this run selected {len(events):,} of {len(scored.events):,} events.")
    if boxes := _boxes_note(shown, scored, objects):
        notes.append(boxes)
    if scores.is_thinned:
        notes.append(
            f"Scores and gates of {len(scored.time_s):,} frames are thinned to {MAX_POINTS:,} points per curve: the "
            "minimum and maximum of each interval. Intervals are short around events."
        )
    if not is_tunable and (model.task.clip_head or model.task.frame_head):
        notes.append("The recording is too long, or the labels too many, to try other thresholds in this page.")
    if len(curve_labels) < len(model.labels):
        notes.append(
            f"Scores are drawn for {len(curve_labels):,} of {len(model.labels):,} labels, those with the highest peaks."
        )
    return notes


def _empty_frames_note(events: list[Event], time_s: Array, counts: list[Array]) -> list[str]:
    """Sentence on the frames of events in which nothing was detected, if they are many."""
    is_empty = np.concatenate([np.zeros(0, np.int64), *counts]) == 0
    in_event = np.zeros(len(time_s), bool)
    for event in events:
        in_event[slice(*frames_between(time_s, event.start_s, event.end_s))] = True
    share = is_empty[in_event].mean() if in_event.any() else 0.0
    if share < _MANY_EMPTY:
        return []
    remedy = "larger weights or a larger --imgsz may detect more"
    return [f"Nothing was detected in {share:.0%} of the frames of these events: {remedy}."]


def _boxes_note(shown: list[Event], scored: ScoredRecording, objects: QuantisedObjects) -> str:
    """Sentence on the frames whose boxes are left out; empty if none are."""
    kept, frames = len(objects.time_ms), len(scored.time_s)
    if kept == frames:
        return ""
    if frames <= FEW_FRAMES:
        return (
            f"Boxes are included for {kept:,} of {frames:,} frames: as many as fit, starting around the best scored "
            "events."
        )
    note = f"Boxes are included from {MARGIN_S:g} s before to {MARGIN_S:g} s after each event."
    shares = kept_shares(shown, objects, scored.time_s)
    if (shares < 1).any():
        note += (
            f" They did not all fit: {int((shares == 0).sum()):,} events have none, "
            f"{int(((shares > 0) & (shares < 1)).sum()):,} have some; the best scored came first."
        )
    return note
