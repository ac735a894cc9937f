"""What the detector saw, around events or all over, and how much of it the model looked at, as small integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vidgru.types import Array, Event, FrameSequence

MARGIN_S = 1.0  # before and after an event
FEW_FRAMES = 4000  # of a recording of up to so many, all frames have a turn: why was something missed?
_FIRST_S = 30.0  # of each event come before the rest of any: one that lasts hours must not use up the budget
_FRAME_BYTES = 4 + 2 + 1
_OBJECT_BYTES = 4 * 2 + 4 + 2 + 1 + 1


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantisedObjects:
    """Objects of the `F` frames that were kept, `M` in all.

    Attributes:
        time_ms: uint32 [F], rising.
        joined: uint8 [F], 1 where the frame before is the one before in the recording too.
        counts: uint16 [F], objects of each frame.
        boxes: uint16 [M, 4], xyxy, 0 to 65535 over the upright frame.
        tracks: int32 [M], -1 where not tracked.
        classes: int16 [M].
        scores, attention: uint8 [M], 0 to 255 for 0 to 1.
    """

    time_ms: Array
    joined: Array
    counts: Array
    boxes: Array
    tracks: Array
    classes: Array
    scores: Array
    attention: Array

    @staticmethod
    def gather(parts: Iterable[FrameSequence], attention: Array, turns: Array, budget_bytes: int) -> QuantisedObjects:
        """Take the objects of frames in their turn until the budget is used up.

        Args:
            parts: of the recording, in order.
            attention: float32 [all objects], share of each in its frame.
            turns: int64 [all frames], as `turns_of` gives them.
            budget_bytes: what the arrays may take in all.
        """
        found: list[dict[str, Array]] = []
        frame, row = 0, 0
        for part in parts:
            wanted = turns[frame : frame + len(part)] >= 0
            counts = np.diff(part.offsets)
            rows = np.flatnonzero(np.repeat(wanted, counts))
            found.append(
                {
                    "frame": frame + np.flatnonzero(wanted),
                    "time_ms": np.round(part.time_s[wanted] * 1000).astype(np.uint32),
                    "counts": counts[wanted],
                    "boxes": np.round(np.clip(part.boxes[rows], 0, 1) * 65535).astype(np.uint16),
                    "tracks": part.tracks[rows],
                    "classes": part.classes[rows],
                    "scores": _bytes(part.scores[rows]),
                    "attention": _bytes(attention[row + rows]),
                }
            )
            frame, row = frame + len(part), row + len(part.boxes)
        whole = {name: np.concatenate([piece[name] for piece in found]) for name in found[0]} if found else _NOTHING
        fit = _fitting(turns[whole["frame"]], whole["counts"], budget_bytes)
        rows = np.repeat(fit, whole["counts"])
        kept = {name: value[rows if name in _BY_OBJECT else fit] for name, value in whole.items()}
        return QuantisedObjects(
            joined=(np.diff(kept["frame"], prepend=-2) == 1).astype(np.uint8),
            counts=kept["counts"].astype(np.uint16),
            **{name: kept[name] for name in ("time_ms", *_BY_OBJECT)},
        )


_BY_OBJECT = ("boxes", "tracks", "classes", "scores", "attention")
_NOTHING: dict[str, Array] = {
    "frame": np.zeros(0, np.int64),
    "time_ms": np.zeros(0, np.uint32),
    "counts": np.zeros(0, np.int64),
    "boxes": np.zeros((0, 4), np.uint16),
    "tracks": np.zeros(0, np.int32),
    "classes": np.zeros(0, np.int16),
    "scores": np.zeros(0, np.uint8),
    "attention": np.zeros(0, np.uint8),
}


def turns_of(time_s: Array, events: Sequence[Event]) -> Array:
    """When each frame's turn comes: int64 [T], from 0; -1 where it is not to be kept.

    Events come by score, the best first: what is around their first half minute, then what is left of longer ones.
    What is not around any event comes last in a recording of up to `FEW_FRAMES`, and not at all in a longer one.
    """
    best = sorted(events, key=lambda event: -event.score)
    turns = np.full(len(time_s), 2 * len(best) if len(time_s) <= FEW_FRAMES else -1, np.int64)
    spans = [(event.start_s - MARGIN_S, event.end_s + MARGIN_S) for event in best]
    rounds = [spans, [(start, min(end, start + _FIRST_S + MARGIN_S)) for start, end in spans]]
    for first_turn, some in zip((len(best), 0), rounds, strict=True):
        bounds = np.searchsorted(time_s, np.array(some).reshape(-1, 2))
        for rank in range(len(best) - 1, -1, -1):  # the best last: it overwrites
            turns[bounds[rank, 0] : bounds[rank, 1]] = first_turn + rank
    return turns


def shown(events: Sequence[Event], objects: QuantisedObjects, time_s: Array) -> Array:
    """The share of each event's frames that were kept: float64 [E]; 1 for an event between two frames."""
    kept = np.isin(np.round(time_s * 1000).astype(np.uint32), objects.time_ms)
    before = np.concatenate([[0], np.cumsum(kept)])
    spans = np.array([(event.start_s, event.end_s) for event in events]).reshape(-1, 2)
    first, stop = np.searchsorted(time_s, spans).T
    share: Array = np.where(stop > first, (before[stop] - before[first]) / np.maximum(stop - first, 1), 1.0)
    return share


def _fitting(turns: Array, counts: Array, budget_bytes: int) -> Array:
    """The frames, by turn and then by time, up to the first that the budget does not hold: bool [F]."""
    order = np.argsort(turns, kind="stable")
    cost = np.cumsum(_FRAME_BYTES + counts[order] * _OBJECT_BYTES)
    fit = np.zeros(len(turns), bool)
    fit[order[: np.searchsorted(cost, budget_bytes, side="right")]] = True
    return fit


def _bytes(values: Array) -> Array:
    return np.round(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
