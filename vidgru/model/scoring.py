"""Scores of clips and frames: encoder, recurrent layer and heads over recordings of any length, in batches.

Frames are encoded once, chunk by chunk, so memory holds one vector per frame instead of its objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidgru.model.checkpoint import EventModel, HeadSpec
from vidgru.model.event_gru import EventGRU, RNNState
from vidgru.model.features import stream_features
from vidgru.model.gru_gates import GRUGates, has_gates, mean_gates
from vidgru.types import Array, Features, FrameSequence

FRAMES_PER_PASS = 1024  # of the encoder
_STEPS_PER_PASS = 1 << 13  # of the recurrent layer, over all clips of a batch
_CHUNK_STEPS = 1 << 11  # of the recurrent layer, per recording of a batch
_WINDOW_STEPS_PER_PASS = 1 << 14  # over all windows of a batch
_WINDOWS_PER_FRAME = 4  # windows start every quarter of their length
_MIN_WINDOWS = 1.5  # a recording shorter than this many windows is scored as one


# --- encoding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedRecording:
    """Input of the recurrent layer for one recording.

    Attributes:
        vectors: float32 [T,members,width], on the network's device.
        attention: float32 [M], attention to each object in its frame, in the order of the frame sequence.
        time_s: float64 [T].
    """

    vectors: Tensor
    attention: Array
    time_s: Array

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.time_s)


@torch.inference_mode()
def encode_features(model: EventModel, features: Iterable[Features]) -> EncodedRecording:
    """Encode the features of consecutive chunks of one recording."""
    device = model.network.device
    vectors, attention, times = [], [], []
    for part in features:
        for first in range(0, len(part), FRAMES_PER_PASS):
            stop = min(first + FRAMES_PER_PASS, len(part))
            counts = np.diff(part.offsets[first : stop + 1])
            objects = part.objects[part.offsets[first] : part.offsets[stop]]
            encoded = model.network.encode(
                torch.from_numpy(objects).to(device),
                torch.from_numpy(counts[None]).to(device),
                torch.from_numpy(part.frame[None, first:stop]).to(device),
            )
            vectors.append(encoded.vectors[:, 0].transpose(0, 1))
            attention.append(encoded.attention.cpu().numpy())
        times.append(part.time_s)
    empty = torch.zeros(0, model.network.members, model.network.architecture.width, device=device)
    return EncodedRecording(
        vectors=torch.cat(vectors) if vectors else empty,
        attention=np.concatenate([np.zeros(0, np.float32), *attention]),
        time_s=np.concatenate([np.zeros(0), *times]),
    )


def encode_recording(model: EventModel, parts: Iterable[FrameSequence]) -> EncodedRecording:
    """Encode a recording, given as consecutive chunks.

    Raises:
        SettingsMismatchError: The sequence does not have the tensors that the model reads.
    """
    return encode_features(model, stream_features(parts, model.feature_spec))


# --- clips ------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def score_clips(model: EventModel, clips: Sequence[Tensor]) -> Array:
    """Score clips of any lengths with the clip head, each from an empty state.

    Args:
        model: Model in eval mode.
        clips: float32 [L,members,width] each, L at least 1: slices of `EncodedRecording.vectors`.

    Returns:
        float32 [clips,C], 0 to 1; the last column is the background's if the head has one.

    Raises:
        ValueError: The model has no clip head.
    """
    head = _require_clip_head(model)
    scores = np.zeros((len(clips), model.task.num_outputs(head)), np.float32)
    for batch, padded, mask in _padded_batches(clips, _STEPS_PER_PASS):
        logits = model.network.event_logits(padded, mask).clips
        assert logits is not None
        scores[batch] = head.probabilities(logits).mean(dim=0).cpu().numpy()
    return scores


class SlidingWindowScorer:
    """Scores frames with the clip head: the mean over the windows that cover a frame, weighted towards their centres.

    Windows start every quarter of their length, and the last one ends with the recording; a recording shorter than one
    and a half windows is one window. A frame is settled after `window` more frames, when no later window can cover it.

    Args:
        model: Model in eval mode.
        gates: Whether to return gates as well, averaged like scores; they are None for networks without gates.

    Attributes:
        window: Frames per window.
        stride: Frames from the start of a window to the start of the next.
        max_lookahead: Frames after which a frame is settled at the latest; the first frames of a recording take longer
            than later ones.

    Raises:
        ValueError: The model has no clip head.
    """

    def __init__(self, model: EventModel, *, gates: bool = False) -> None:
        head = _require_clip_head(model)
        self.window = max(1, round(model.window_s * model.fps))
        self.stride = max(1, self.window // _WINDOWS_PER_FRAME)
        self.max_lookahead = math.ceil(_MIN_WINDOWS * self.window)
        self._model = model
        self._gated_network: EventGRU | None = model.network if gates and has_gates(model.network) else None
        self._outputs = model.task.num_outputs(head)
        self._frames = 0  # pushed so far
        self._next = 0  # start of the next window
        self._settled = 0
        # of the frames from `_settled` on
        self._vectors: Tensor = torch.zeros(0, model.network.members, model.network.architecture.width)
        self._total = np.zeros((0, self._outputs + 2 * (self._gated_network is not None)))
        self._weight = np.zeros(0)

    def push(self, vectors: Tensor) -> tuple[Array, GRUGates | None]:
        """Add the next frames, float32 [n,members,width].

        Returns:
            Scores of the frames that are now settled, float32 [m,C], and their gates if requested.
        """
        self._vectors = torch.cat([self._vectors.to(vectors.device), vectors])
        self._frames += len(vectors)
        padding = ((0, len(vectors)), (0, 0))
        self._total, self._weight = np.pad(self._total, padding), np.pad(self._weight, padding[0])
        if self._frames < _MIN_WINDOWS * self.window:
            return self._settle(0)
        starts = np.arange(self._next, self._frames - self.window, self.stride)
        self._score(np.column_stack([starts, starts + self.window]))
        self._next += len(starts) * self.stride
        return self._settle(self._frames - self.window - self._settled)

    def finish(self) -> tuple[Array, GRUGates | None]:
        """Settle the remaining frames at the end of the recording. Returns as `push`."""
        if self._frames > self._settled:
            last = 0 if self._frames < _MIN_WINDOWS * self.window else self._frames - self.window
            self._score(np.array([[last, self._frames]]))
        return self._settle(self._frames - self._settled)

    def _score(self, windows: Array) -> None:
        """Add windows of equal length to the weighted sums: first and stop frame of each, int64 [W,2]."""
        for batch in np.array_split(windows, -(-len(windows) * self.window // _WINDOW_STEPS_PER_PASS) or 1):
            if len(batch):
                self._score_batch(batch - self._settled)

    def _score_batch(self, windows: Array) -> None:
        clips = [self._vectors[first:stop] for first, stop in windows]
        columns = [np.broadcast_to(score, (len(clips[0]), self._outputs)) for score in score_clips(self._model, clips)]
        if self._gated_network:
            stacked = torch.stack(clips).movedim(2, 0)
            mask = stacked.new_ones(stacked.shape[1:3], dtype=torch.bool)
            with torch.inference_mode():
                hidden, _ = self._gated_network.run_rnn(stacked, mask)
            gates = mean_gates(self._gated_network, stacked, hidden)
            columns = [np.concatenate(pair, axis=1) for pair in zip(columns, gates, strict=True)]
        for (first, stop), values in zip(windows, columns, strict=True):
            length = stop - first
            weight = 1.0 - np.abs(2 * np.arange(length) + 1 - length) / (length + 1)
            self._total[first:stop] += weight[:, None] * values
            self._weight[first:stop] += weight

    def _settle(self, frames: int) -> tuple[Array, GRUGates | None]:
        mean = (self._total[:frames] / np.maximum(self._weight[:frames], 1e-12)[:, None]).astype(np.float32)
        self._total, self._weight = self._total[frames:], self._weight[frames:]
        self._vectors = self._vectors[frames:].clone()  # a view would keep all frames in memory
        self._settled += frames
        gates = GRUGates.from_means(mean[:, self._outputs :]) if self._gated_network else None
        return mean[:, : self._outputs], gates


def _require_clip_head(model: EventModel) -> HeadSpec:
    if model.task.clip_head is None:
        raise ValueError("the model has no clip head")
    return model.task.clip_head


# --- frames -----------------------------------------------------------------------------------------------------------


class FrameScorer:
    """Scores consecutive frames with the frame head, carrying the recurrent state from chunk to chunk.

    A frame is settled after `EventModel.lookahead` more frames. A bidirectional model waits for the whole recording.

    Args:
        model: Model in eval mode.
        gates: Whether to return gates as well; they are None for networks without gates.

    Attributes:
        outputs: K, columns of the scores.

    Raises:
        ValueError: The model has no frame head.
    """

    def __init__(self, model: EventModel, *, gates: bool = False) -> None:
        if model.task.frame_head is None:
            raise ValueError("the model has no frame head")
        self._head = model.task.frame_head
        self.outputs = model.task.num_outputs(self._head)
        self._network, self._lookahead = model.network, model.lookahead
        self._gated_network: EventGRU | None = model.network if gates and has_gates(model.network) else None
        self._to_skip = model.lookahead  # the first steps score times before the first frame
        self._states: RNNState = None
        self._pending: list[tuple[Tensor, Tensor]] = []  # frames and masks of a bidirectional model

    def push(self, vectors: Tensor, mask: Tensor | None = None) -> tuple[Array, Array | None]:
        """Add the next frames of a batch of recordings.

        Args:
            vectors: float32 [members,B,n,width].
            mask: bool [B,n], False after the end of a recording; None if all are frames.

        Returns:
            Scores of the frames that are now settled, float32 [B,m,K], 0 to 1, the last column the background's if the
            head has one; and the gates of the pushed frames as from `mean_gates`, if requested.
        """
        if mask is None:
            mask = vectors.new_ones(vectors.shape[1:3], dtype=torch.bool)
        if self._network.architecture.bidirectional:
            self._pending.append((vectors, mask))
            return self._advance(vectors[:, :, :0], mask[:, :0])
        return self._advance(vectors, mask)

    def finish(self, like: Tensor) -> tuple[Array, Array | None]:
        """Settle the remaining frames at the end of the recordings. Returns as `push`.

        Args:
            like: float32 [members,B,0,width], for its shape and device.
        """
        if self._pending:
            vectors, masks = zip(*self._pending, strict=True)
            return self._advance(torch.cat(vectors, dim=2), torch.cat(masks, dim=1))
        padding = like.new_zeros(*like.shape[:2], self._lookahead, like.shape[3])
        scores, _ = self._advance(padding, padding.new_zeros(padding.shape[1:3], dtype=torch.bool))
        return scores, self._empty_gates(like)

    @torch.inference_mode()
    def _advance(self, vectors: Tensor, mask: Tensor) -> tuple[Array, Array | None]:
        if not vectors.shape[2]:
            scores = np.zeros((vectors.shape[1], 0, self.outputs), np.float32)
            return scores, self._empty_gates(vectors)
        states = self._states
        logits, hidden, self._states = self._network.step(vectors, mask, states)
        assert logits is not None
        gates = mean_gates(self._gated_network, vectors, hidden, states) if self._gated_network else None
        skip = min(self._to_skip, vectors.shape[2])
        self._to_skip -= skip
        return self._head.probabilities(logits).mean(dim=0)[:, skip:].cpu().numpy(), gates

    def _empty_gates(self, like: Tensor) -> Array | None:
        return np.zeros((like.shape[1], 0, 2), np.float32) if self._gated_network else None


def score_frames(model: EventModel, recordings: Sequence[Tensor]) -> list[Array]:
    """Score every frame of whole recordings with the frame head; recordings of similar length share a batch.

    Args:
        model: Model in eval mode.
        recordings: float32 [T,members,width] each, as in `EncodedRecording.vectors`.

    Returns:
        float32 [T,K] each, 0 to 1; the last column is the background's if the head has one.

    Raises:
        ValueError: The model has no frame head.
    """
    return [scores for scores, _ in score_frames_and_gates(model, recordings, gates=False)]


def score_frames_and_gates(
    model: EventModel, recordings: Sequence[Tensor], *, gates: bool
) -> list[tuple[Array, Array | None]]:
    """Like `score_frames`, each with its gates as from `mean_gates`, if requested and the network has gates."""
    with_gates = gates and has_gates(model.network)
    no_scores = np.zeros((0, FrameScorer(model).outputs), np.float32)
    no_gates = np.zeros((0, 2), np.float32) if with_gates else None
    result: list[tuple[Array, Array | None]] = [(no_scores, no_gates)] * len(recordings)
    for batch, padded, mask in _padded_batches(recordings, _STEPS_PER_PASS * 4):
        scorer = FrameScorer(model, gates=gates)
        pieces = [
            scorer.push(padded[:, :, first : first + _CHUNK_STEPS], mask[:, first : first + _CHUNK_STEPS])
            for first in range(0, mask.shape[1], _CHUNK_STEPS)
        ]
        pieces.append(scorer.finish(padded[:, :, :0]))
        scores = np.concatenate([piece for piece, _ in pieces], axis=1)
        means = np.concatenate([piece for _, piece in pieces if piece is not None], axis=1) if with_gates else None
        for row, index in enumerate(batch):
            length = len(recordings[index])
            result[index] = scores[row, :length], None if means is None else means[row, :length]
    return result


def _padded_batches(clips: Sequence[Tensor], most: int) -> Iterator[tuple[Array, Tensor, Tensor]]:
    """Yield batches of clips of similar length, at most `most` steps each.

    Each is the indices [B] of its clips, their vectors [members,B,T,width], and a mask, bool [B,T]. Empty clips are
    left out.
    """
    lengths = np.array([len(clip) for clip in clips], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    first = 0
    while first < len(order):
        stop = first + 1
        while stop < len(order) and lengths[order[stop]] * (stop + 1 - first) <= most:
            stop += 1
        batch = order[first:stop]
        padded = torch.nn.utils.rnn.pad_sequence([clips[i] for i in batch], batch_first=True).movedim(2, 0)
        mask = torch.from_numpy(np.arange(padded.shape[2]) < lengths[batch, None])
        yield batch, padded, mask.to(padded.device)
        first = stop
