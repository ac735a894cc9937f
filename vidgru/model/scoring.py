"""From features to scores: encoder, recurrent layer, heads, over stretches and batches of any sizes.

Frames are encoded once, stretch by stretch, so memory holds a vector a frame and not its objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidgru.model.checkpoint import EventModel
from vidgru.model.event_gru import EventGRU, RNNState
from vidgru.model.features import stream_features
from vidgru.model.gru_gates import GRUGates, has_gates, mean_gates
from vidgru.types import Array, Features, FrameSequence

FRAMES_PER_PASS = 1024  # frames
_STEPS_AT_ONCE = 1 << 13  # steps of all clips in one pass of the recurrent layer
_CHUNK = 1 << 11  # steps of each recording in one pass of the recurrent layer


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedRecording:
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


@torch.inference_mode()
def encode_features(model: EventModel, features: Iterable[Features]) -> EncodedRecording:
    """Encode consecutive stretches of one recording."""
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
            vectors.append(encoded.vectors[0])
            attention.append(encoded.attention.cpu().numpy())
        times.append(part.time_s)
    return EncodedRecording(
        vectors=torch.cat(vectors) if vectors else torch.zeros(0, model.network.architecture.width, device=device),
        attention=np.concatenate([np.zeros(0, np.float32), *attention]),
        time_s=np.concatenate([np.zeros(0), *times]),
    )


@torch.inference_mode()
def score_clips(model: EventModel, clips: Sequence[Tensor]) -> Array:
    """Score clips of any lengths, each on its own: the state starts empty.

    Args:
        model: in eval mode.
        clips: float32 [L, width] each, stretches of `Encoded.vectors`, L at least 1.

    Returns:
        float32 [n, C], 0 to 1; the last column is the background's where the model has one.

    Raises:
        ValueError: the model has no head for clips.
    """
    head = model.task.clip_head
    if head is None:
        raise ValueError("the model has no head for clips")
    scores = np.zeros((len(clips), model.task.num_outputs(head)), np.float32)
    for some, padded, mask in _padded(clips, _STEPS_AT_ONCE):
        logits = model.network.event_logits(padded, mask).clips
        assert logits is not None
        scores[some] = head.probabilities(logits).cpu().numpy()
    return scores


def encode_recording(model: EventModel, parts: Iterable[FrameSequence]) -> EncodedRecording:
    """Encode a recording, given by its stretches in order.

    Raises:
        SettingsMismatchError: the sequence does not have the tensors that the model reads.
    """
    return encode_features(model, stream_features(parts, model.feature_spec))


class FrameScorer:
    """Scores of consecutive frames by the head for frames: the state is carried on from stretch to stretch.

    A frame is settled when `EventModel.lookahead` more have come. Only a bidirectional model waits for the whole
    recording.

    Args:
        model: in eval mode, with a head for frames.
        gates: recompute the gates as well; None stands for them where the network has none.

    Attributes:
        outputs: K, columns of the scores.

    Raises:
        ValueError: the model has no head for frames.
    """

    def __init__(self, model: EventModel, *, gates: bool = False) -> None:
        if model.task.frame_head is None:
            raise ValueError("the model has no head for frames")
        self._head = model.task.frame_head
        self.outputs = model.task.num_outputs(self._head)
        self._network, self._lag = model.network, model.lookahead
        self._gated: EventGRU | None = model.network if gates and has_gates(model.network) else None
        self._early = model.lookahead  # scores still to come of what lies before the first frame
        self._state: RNNState = None
        self._whole: list[tuple[Tensor, Tensor]] = []  # what a bidirectional model has been given

    def push(self, vectors: Tensor, mask: Tensor | None = None) -> tuple[Array, Array | None]:
        """Take the next frames of recordings side by side.

        Args:
            vectors: float32 [B, n, width].
            mask: bool [B, n], False behind the end of a recording; None where all are frames.

        Returns:
            Scores of the frames that are settled by them, float32 [B, m, K], 0 to 1, the last column the background's
            where the model has one; and the gates of the frames pushed, as of `mean_gates`, where they are wanted.
        """
        if mask is None:
            mask = vectors.new_ones(vectors.shape[:2], dtype=torch.bool)
        if self._network.architecture.bidirectional:
            self._whole.append((vectors, mask))
            return self._read(vectors[:, :0], mask[:, :0])
        return self._read(vectors, mask)

    def finish(self, like: Tensor) -> tuple[Array, Array | None]:
        """Settle the frames that are left: nothing follows. As `push`.

        Args:
            like: float32 [B, 0, width], for its shape and device.
        """
        if self._whole:
            vectors, mask = (torch.cat(pieces, dim=1) for pieces in zip(*self._whole, strict=True))
            return self._read(vectors, mask)
        nothing = like.new_zeros(len(like), self._lag, like.shape[2])
        scores, _ = self._read(nothing, nothing.new_zeros(nothing.shape[:2], dtype=torch.bool))
        return scores, self._no_gates(like)

    @torch.inference_mode()
    def _read(self, vectors: Tensor, mask: Tensor) -> tuple[Array, Array | None]:
        if not vectors.shape[1]:
            scores = np.zeros((len(vectors), 0, self.outputs), np.float32)
            return scores, self._no_gates(vectors)
        before = self._state
        logits, hidden, self._state = self._network.step(vectors, mask, before)
        assert logits is not None
        gates = mean_gates(self._gated, vectors, hidden, before) if self._gated else None
        early = min(self._early, logits.shape[1])
        self._early -= early
        return self._head.probabilities(logits)[:, early:].cpu().numpy(), gates

    def _no_gates(self, like: Tensor) -> Array | None:
        return np.zeros((len(like), 0, 2), np.float32) if self._gated else None


def score_frames(model: EventModel, recordings: Sequence[Tensor]) -> list[Array]:
    """Score every frame of whole recordings, each read from its beginning to its end, those of like lengths at once.

    Args:
        model: in eval mode.
        recordings: float32 [T, width] each, as in `Encoded.vectors`.

    Returns:
        float32 [T, K] each, 0 to 1; the last column is the background's where the model has one.

    Raises:
        ValueError: the model has no head for frames.
    """
    return [scores for scores, _ in score_frames_and_gates(model, recordings, gates=False)]


def score_frames_and_gates(
    model: EventModel, recordings: Sequence[Tensor], *, gates: bool
) -> list[tuple[Array, Array | None]]:
    """As `score_frames`, each with its gates, as of `mean_gates`, where they are wanted and there are any."""
    wanted = gates and has_gates(model.network)
    nothing = np.zeros((0, FrameScorer(model).outputs), np.float32)
    found: list[tuple[Array, Array | None]] = [
        (nothing, np.zeros((0, 2), np.float32) if wanted else None) for _ in recordings
    ]
    for some, padded, mask in _padded(recordings, _STEPS_AT_ONCE * 4):
        scorer = FrameScorer(model, gates=gates)
        pieces = [
            scorer.push(padded[:, first : first + _CHUNK], mask[:, first : first + _CHUNK])
            for first in range(0, padded.shape[1], _CHUNK)
        ]
        pieces.append(scorer.finish(padded[:, :0]))
        settled = np.concatenate([scores for scores, _ in pieces], axis=1)
        whole = np.concatenate([means for _, means in pieces if means is not None], axis=1) if wanted else None
        for row, index in enumerate(some):
            length = len(recordings[index])
            found[index] = settled[row, :length], None if whole is None else whole[row, :length]
    return found


def _padded(clips: Sequence[Tensor], most: int) -> Iterator[tuple[Array, Tensor, Tensor]]:
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


_WINDOW_STEPS_PER_PASS = 1 << 14  # steps of all windows that are scored together
_OVERLAP = 4  # windows that cover a frame
_LONG = 1.5  # recordings of fewer window lengths are one window


class SlidingWindowScorer:
    """Scores of frames from those of the windows that cover them: a mean that trusts a window most at its middle.

    Windows begin every quarter of their length, and the last is flush with the recording's end; a recording of less
    than one and a half lengths is one window. A frame is settled when `window` more have come: no window can cover it
    any more.

    Args:
        model: in eval mode.
        gates: recompute the gates as well, as the windows' mean; None stands for them where the network has none.

    Raises:
        ValueError: the model has no head for clips.

    Attributes:
        window: frames of a window.
        stride: frames from the beginning of a window to that of the next.
        most_lag: frames after which a frame is settled at the latest: at the beginning it takes longer.
    """

    def __init__(self, model: EventModel, *, gates: bool = False) -> None:
        if model.task.clip_head is None:
            raise ValueError("the model has no head for clips")
        self.window = max(1, round(model.window_s * model.fps))
        self.most_lag = math.ceil(_LONG * self.window)
        self._model = model
        self._gated: EventGRU | None = model.network if gates and has_gates(model.network) else None
        self.stride = max(1, self.window // _OVERLAP)
        self._outputs = model.task.num_outputs(model.task.clip_head)
        self._frames = 0  # pushed so far
        self._next = 0  # where the next window begins
        self._settled = 0
        self._vectors: Tensor = torch.zeros(0, model.network.architecture.width)  # of frames from `_settled` on
        self._total = np.zeros((0, self._outputs + 2 * (self._gated is not None)))
        self._weight = np.zeros(0)

    def push(self, vectors: Tensor) -> tuple[Array, GRUGates | None]:
        """Take the next frames, float32 [n, width].

        Returns:
            Scores of the frames that are settled by them, float32 [m, C], and their gates where these are wanted.
        """
        self._vectors = torch.cat([self._vectors.to(vectors.device), vectors])
        self._frames += len(vectors)
        more = ((0, len(vectors)), (0, 0))
        self._total, self._weight = np.pad(self._total, more), np.pad(self._weight, more[0])
        if self._frames < _LONG * self.window:
            return self._settle(0)
        starts = np.arange(self._next, self._frames - self.window, self.stride)
        self._score(np.column_stack([starts, starts + self.window]))
        self._next += len(starts) * self.stride
        return self._settle(self._frames - self.window - self._settled)

    def finish(self) -> tuple[Array, GRUGates | None]:
        """Settle the frames that are left: nothing follows. As `push`."""
        if self._frames > self._settled:
            last = 0 if self._frames < _LONG * self.window else self._frames - self.window
            self._score(np.array([[last, self._frames]]))
        return self._settle(self._frames - self._settled)

    def _score(self, windows: Array) -> None:
        """Count in windows of one length, int64 [W, 2]: first frame of the recording and the one after the last."""
        for some in np.array_split(windows, -(-len(windows) * self.window // _WINDOW_STEPS_PER_PASS) or 1):
            if len(some):
                self._score_some(some - self._settled)

    def _score_some(self, windows: Array) -> None:
        clips = [self._vectors[first:stop] for first, stop in windows]
        columns = [np.broadcast_to(score, (len(clips[0]), self._outputs)) for score in score_clips(self._model, clips)]
        if self._gated:
            both = torch.stack(clips)
            with torch.inference_mode():
                hidden, _ = self._gated.run_rnn(both, both.new_ones(both.shape[:2], dtype=torch.bool))
            gates = mean_gates(self._gated, both, hidden)
            columns = [np.concatenate(pair, axis=1) for pair in zip(columns, gates, strict=True)]
        for (first, stop), values in zip(windows, columns, strict=True):
            length = stop - first
            trust = 1.0 - np.abs(2 * np.arange(length) + 1 - length) / (length + 1)
            self._total[first:stop] += trust[:, None] * values
            self._weight[first:stop] += trust

    def _settle(self, frames: int) -> tuple[Array, GRUGates | None]:
        mean = (self._total[:frames] / np.maximum(self._weight[:frames], 1e-12)[:, None]).astype(np.float32)
        self._total, self._weight = self._total[frames:], self._weight[frames:]
        self._vectors = self._vectors[frames:].clone()  # not a view, which would keep all that was pushed
        self._settled += frames
        gates = GRUGates.from_means(mean[:, self._outputs :]) if self._gated else None
        return mean[:, : self._outputs], gates
