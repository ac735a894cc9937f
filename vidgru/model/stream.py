"""From sequences to scores and events: what `vidgru eval` and `vidgru predict` both run.

Frames are encoded once, stretch by stretch, so memory holds a vector a frame and not its objects. A model of timed
events then reads the recording from its beginning to its end and scores every frame. A model of clips reads clips:
annotated ones, or windows as long as the clips it was trained on, slid over the recording and overlapping.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidgru.model.checkpoint import EventModel
from vidgru.model.decode import candidates, decode, spread
from vidgru.model.features import stream_features
from vidgru.types import Array, Event, Features, Sequence

ENCODED_AT_ONCE = 512  # frames
_STEPS_AT_ONCE = 1 << 13  # steps of all clips in one pass of the recurrent layer
_CHUNK = 1 << 11  # steps of each recording in one pass of the recurrent layer
_OVERLAP = 4  # windows that cover a frame
_LONG = 1.5  # recordings of fewer window lengths are one window


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """A recording as the recurrent layer reads it.

    Attributes:
        vectors: float32 [T, width], on the network's device.
        attention: float32 [M], how much each object counted in its frame, rows as in the sequence.
        time_s: float64 [T].
    """

    vectors: Tensor
    attention: Array
    time_s: Array

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.time_s)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredRecording:
    """Scores of a whole recording.

    Attributes:
        time_s: float64 [T].
        scores: float32 [T, C], 0 to 1, of each label, without the background, before they are smoothed.
        attention: float32 [M], how much each object counted in its frame, rows as in the sequence.
        events: what the scores amount to, by start.
        candidates: events, and weaker ones below the thresholds: what a ranking is judged by.
    """

    time_s: Array
    scores: Array
    attention: Array
    events: list[Event]
    candidates: list[Event]


@torch.inference_mode()
def encode(model: EventModel, features: Iterable[Features]) -> Encoded:
    """Encode consecutive stretches of one recording."""
    device = model.network.encoder.object_mean.device
    vectors, attention, times = [], [], []
    for part in features:
        for first in range(0, len(part), ENCODED_AT_ONCE):
            stop = min(first + ENCODED_AT_ONCE, len(part))
            counts = np.diff(part.offsets[first : stop + 1])
            objects = part.objects[part.offsets[first] : part.offsets[stop]]
            vector, weight = model.network.encoder(
                torch.from_numpy(objects).to(device),
                torch.from_numpy(counts[None]).to(device),
                torch.from_numpy(part.frame[None, first:stop]).to(device),
            )
            vectors.append(vector[0])
            attention.append(weight.cpu().numpy())
        times.append(part.time_s)
    return Encoded(
        vectors=torch.cat(vectors) if vectors else torch.zeros(0, model.network.encoder.width, device=device),
        attention=np.concatenate([np.zeros(0, np.float32), *attention]),
        time_s=np.concatenate([np.zeros(0), *times]),
    )


@torch.inference_mode()
def score_clips(model: EventModel, clips: Many[Tensor]) -> Array:
    """Score clips of any lengths, each on its own: the state starts empty.

    Args:
        model: in eval mode.
        clips: float32 [L, width] each, stretches of `Encoded.vectors`, L at least 1.

    Returns:
        float32 [n, C], 0 to 1; the last column is the background's where the model has one.

    Raises:
        ValueError: the model has no head for clips.
    """
    head = model.task.clips
    if head is None:
        raise ValueError("the model has no head for clips")
    scores = np.zeros((len(clips), model.task.outputs(head)), np.float32)
    for some, padded, mask in _padded(clips, _STEPS_AT_ONCE):
        logits = model.network.score(padded, mask).clips
        assert logits is not None
        scores[some] = head.probabilities(logits).cpu().numpy()
    return scores


@torch.inference_mode()
def score_frames(model: EventModel, recordings: Many[Tensor]) -> list[Array]:
    """Score every frame of whole recordings, each read from its beginning to its end.

    The state is carried on from chunk to chunk: what the recurrent layer needs does not grow with the length. Only a
    bidirectional model reads a recording at once.

    Args:
        model: in eval mode.
        recordings: float32 [T, width] each, as in `Encoded.vectors`.

    Returns:
        float32 [T, K] each, 0 to 1; the last column is the background's where the model has one.

    Raises:
        ValueError: the model has no head for frames.
    """
    head, network = model.task.timed, model.network
    if head is None or network.frame_head is None:
        raise ValueError("the model has no head for frames")
    scores = [np.zeros((0, model.task.outputs(head)), np.float32)] * len(recordings)
    for some, padded, mask in _padded(recordings, _STEPS_AT_ONCE * 4):
        steps = padded.shape[1] + model.lag
        # behind the end there is nothing to read, while the scores of the last frames come
        padded, mask = (torch.nn.functional.pad(t, (0, 0) * (t.ndim - 2) + (0, model.lag)) for t in (padded, mask))
        chunk, state, found = steps if network.architecture.bidirectional else _CHUNK, None, []
        for first in range(0, steps, chunk):
            part = slice(first, first + chunk)
            hidden, state = network.remember(padded[:, part], mask[:, part], state)
            found.append(head.probabilities(network.frame_head(hidden)))
        settled = torch.cat(found, dim=1)[:, model.lag :].cpu().numpy()
        for row, index in enumerate(some):
            scores[index] = settled[row, : len(recordings[index])]
    return scores


def _padded(clips: Many[Tensor], most: int) -> Iterator[tuple[Array, Tensor, Tensor]]:
    """Clips of like lengths side by side, at most so many steps in all: indices [B], [B,T,width], mask bool [B,T]."""
    lengths = np.array([len(clip) for clip in clips], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    first = 0
    while first < len(order):
        stop = first + 1
        while stop < len(order) and lengths[order[stop]] * (stop + 1 - first) <= most:
            stop += 1
        some = order[first:stop]
        padded = torch.nn.utils.rnn.pad_sequence([clips[i] for i in some], batch_first=True)
        yield some, padded, torch.from_numpy(np.arange(padded.shape[1]) < lengths[some, None]).to(padded.device)
        first = stop


def windows_of(frames: int, length: int) -> Array:
    """Windows of `length` frames that cover a recording, the last one flush with its end: int64 [W, 2].

    A recording of less than one and a half windows is one window.
    """
    if frames < _LONG * length:
        return np.array([[0, frames]])[: min(frames, 1)]
    stride = max(1, length // _OVERLAP)
    starts = np.append(np.arange(0, frames - length, stride), frames - length)
    return np.column_stack([starts, starts + length])


def score_recording(model: EventModel, parts: Iterable[Sequence], *, video: str, duration_s: float) -> ScoredRecording:
    """Scores and events of a whole recording.

    Args:
        model: as loaded.
        parts: its stretches in order, as `SequenceCache.parts` gives them.
        video: what its events are to call it.
        duration_s: its length; events end there at the latest.

    Raises:
        SettingsMismatch: the sequence does not have the tensors that the model reads.
    """
    return score_encoded(model, encode_parts(model, parts), video=video, duration_s=duration_s)


def encode_parts(model: EventModel, parts: Iterable[Sequence]) -> Encoded:
    """Encode a recording, given by its stretches in order.

    Raises:
        SettingsMismatch: the sequence does not have the tensors that the model reads.
    """
    return encode(model, stream_features(parts, model.layout))


def score_encoded(model: EventModel, encoded: Encoded, *, video: str, duration_s: float) -> ScoredRecording:
    """Scores and events of a recording that is encoded; as `score_recording`."""
    if model.task.timed:
        (scores,) = score_frames(model, [encoded.vectors])
    else:
        windows = windows_of(len(encoded), max(1, round(model.window_s * model.fps)))
        scores = spread(len(encoded), windows, score_clips(model, [encoded.vectors[a:b] for a, b in windows]))
    where: dict[str, Any] = {"video": video, "step_s": 1 / model.fps, "end_s": duration_s}
    return ScoredRecording(
        time_s=encoded.time_s,
        scores=scores[:, : len(model.labels)],
        attention=encoded.attention,
        events=decode(encoded.time_s, scores, model.labels, model.decode, **where),
        candidates=candidates(encoded.time_s, scores, model.labels, model.decode, **where),
    )
