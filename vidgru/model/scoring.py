"""Scores of clips and frames: encoder, recurrent layer and heads over recordings of any length, in batches.

Frames are encoded once, chunk by chunk, so memory holds one vector per frame instead of its objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vidgru.model.checkpoint import EventModel, HeadSpec
from vidgru.model.event_gru import EventGRU, RNNState
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import stream_features
from vidgru.model.gru_gates import GRUGates, has_gates, mean_gates
from vidgru.model.summaries import SETTLED_S, FrameSummaries, WindowSummaries, summarize_clip
from vidgru.types import Array, Features, FrameSequence

FRAMES_PER_PASS = 1024  # of the encoder
_STEPS_PER_PASS = 1 << 13  # of the recurrent layer, over all clips of a batch
_CHUNK_STEPS = 1 << 11  # of the recurrent layer, per recording of a batch
_WINDOW_STEPS_PER_PASS = 1 << 14  # over all windows of a batch
_WINDOWS_PER_FRAME = 4  # windows start every quarter of their length
MIN_WINDOWS = 1.5  # a recording shorter than this many windows is scored as one


# --- encoding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedRecording:
    """Inputs of recurrent layer and linear path for one recording, or for a part of one.

    Attributes:
        vectors: float32 [T,members,width], on the network's device.
        attention: float32 [M], attention to each object in its frame, in the order of the frame sequence.
        time_s: float64 [T].
        summaries: float32 [T,Z], what the linear path of clips reads of each frame; None without such a path.
        linear: float32 [n,K], logits of the linear path of frames; None without such a path. Of a whole recording n is
            T; of a chunk, they are of the frames whose lookahead ends within it.
    """

    vectors: Tensor
    attention: Array
    time_s: Array
    summaries: Tensor | None = None
    linear: Tensor | None = None

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.vectors)

    def frames(self, first: int, stop: int) -> EncodedRecording:
        """Return the frames [first,stop) as a clip: without attention, and without logits of frames."""
        return EncodedRecording(
            vectors=self.vectors[first:stop],
            attention=np.zeros(0, np.float32),
            time_s=self.time_s[first:stop],
            summaries=None if self.summaries is None else self.summaries[first:stop],
        )

    def joined(self, later: EncodedRecording) -> EncodedRecording:
        """Return a clip of these frames and the next ones, in memory of its own."""
        summaries = [part.summaries for part in (self, later) if part.summaries is not None]
        return EncodedRecording(
            vectors=torch.cat([self.vectors, later.vectors]),
            attention=np.zeros(0, np.float32),
            time_s=np.concatenate([self.time_s, later.time_s]),
            summaries=torch.cat(summaries) if summaries else None,
        )


class RecordingEncoder:
    """Encodes consecutive chunks of one recording.

    Args:
        model: Model in eval mode.

    Attributes:
        settled: Number of equal frames after which all outputs of further ones are equal.
    """

    def __init__(self, model: EventModel) -> None:
        self.settled = math.ceil(SETTLED_S * model.fps) + model.lookahead + 1
        self._model, self._path = model, model.linear
        # the last frame, encoded with the last row of `linear`, and its features
        self._last: tuple[EncodedRecording, Features] | None = None
        self._summaries: FrameSummaries | None = None
        self._windows: WindowSummaries | None = None
        self._to_skip = model.lookahead  # the first windows are of times before the first frame
        if self._path:
            self._summaries = FrameSummaries(model.feature_spec, self._path.drop_groups)
            if self._path.frames:
                width = len(self._summaries.window_columns)
                self._windows = WindowSummaries(width, model.fps, model.lookahead)

    @torch.inference_mode()
    def push(self, features: Features) -> EncodedRecording:
        """Encode the next chunk, of any length."""
        network, device = self._model.network, self._model.network.device
        vectors, attention, linear = [], [], []
        summaries = None if self._summaries is None else self._summaries.push(features)
        for first in range(0, len(features), FRAMES_PER_PASS):
            stop = min(first + FRAMES_PER_PASS, len(features))
            counts = np.diff(features.offsets[first : stop + 1])
            objects = features.objects[features.offsets[first] : features.offsets[stop]]
            encoded = network.encode(
                torch.from_numpy(objects).to(device),
                torch.from_numpy(counts[None]).to(device),
                torch.from_numpy(features.frame[None, first:stop]).to(device),
                self._model.masked_groups,
            )
            vectors.append(encoded.vectors[:, 0].transpose(0, 1))
            attention.append(encoded.attention.cpu().numpy())
            if self._summaries and self._windows and summaries is not None:
                windows = self._windows.push(summaries[first:stop, self._summaries.window_columns])
                linear.append(self._frame_logits(windows))
        empty = torch.zeros(0, network.members, network.architecture.width, device=device)
        result = EncodedRecording(
            vectors=torch.cat(vectors) if vectors else empty,
            attention=np.concatenate([np.zeros(0, np.float32), *attention]),
            time_s=features.time_s,
            summaries=self._clip_columns(summaries),
            linear=self._concatenate(linear),
        )
        if len(features):
            at = len(features) - 1
            last = replace(
                result.frames(at, at + 1),
                attention=result.attention[features.offsets[at] :],
                linear=None if result.linear is None else result.linear[-1:],
            )
            self._last = last, features.frames(at, at + 1)
        return result

    def repeat(self, time_s: Array) -> EncodedRecording:
        """Encode further frames that equal the last `settled` ones, without computing anything.

        Args:
            time_s: float64 [n], times of the frames, at least one.
        """
        assert self._last
        encoded, features = self._last
        if self._summaries:  # the last time at which the objects were detected
            self._summaries.push(replace(features, time_s=time_s[-1:]))
        n = len(time_s)
        return EncodedRecording(
            vectors=encoded.vectors.expand(n, -1, -1),
            attention=np.tile(encoded.attention, n),
            time_s=time_s,
            summaries=None if encoded.summaries is None else encoded.summaries.expand(n, -1),
            linear=None if encoded.linear is None else encoded.linear.expand(n, -1),
        )

    @torch.inference_mode()
    def finish(self) -> Tensor | None:
        """Return the logits of the linear path of the last frames, [lookahead,K] as in `EncodedRecording.linear`."""
        return None if self._windows is None else self._frame_logits(self._windows.finish())

    def _frame_logits(self, windows: Array) -> Tensor:
        assert self._path
        assert self._path.frames
        skip = min(self._to_skip, len(windows))
        self._to_skip -= skip
        device = self._model.network.device
        logits: Tensor = self._path.frames(torch.from_numpy(windows[skip:]).to(device))
        return logits

    def _clip_columns(self, summaries: Array | None) -> Tensor | None:
        if summaries is None or self._summaries is None or not (self._path and self._path.clips):
            return None
        return torch.from_numpy(summaries[:, self._summaries.clip_columns]).to(self._model.network.device)

    def _concatenate(self, linear: list[Tensor]) -> Tensor | None:
        if not (self._path and self._path.frames):
            return None
        return torch.cat(linear) if linear else self._path.frames.bias.new_zeros(0, len(self._path.frames.bias))


def encode_features(model: EventModel, features: Iterable[Features]) -> EncodedRecording:
    """Encode the features of consecutive chunks that make a whole recording."""
    encoder = RecordingEncoder(model)
    parts = [encoder.push(part) for part in features] or [encoder.push(_no_frames(model.feature_spec))]
    tail = encoder.finish()
    summaries = [part.summaries for part in parts if part.summaries is not None]
    linear = [part.linear for part in parts if part.linear is not None]
    return EncodedRecording(
        vectors=torch.cat([part.vectors for part in parts]),
        attention=np.concatenate([part.attention for part in parts]),
        time_s=np.concatenate([part.time_s for part in parts]),
        summaries=torch.cat(summaries) if summaries else None,
        linear=None if tail is None else torch.cat([*linear, tail]),
    )


def _no_frames(spec: FeatureSpec) -> Features:
    objects, frame = (np.zeros((0, width), np.float32) for width in (spec.object_width, spec.frame_width))
    return Features(objects=objects, offsets=np.zeros(1, np.int64), frame=frame, time_s=np.zeros(0))


def encode_recording(model: EventModel, parts: Iterable[FrameSequence]) -> EncodedRecording:
    """Encode a recording, given as consecutive chunks.

    Raises:
        SettingsMismatchError: The sequence does not have the tensors that the model reads.
    """
    return encode_features(model, stream_features(parts, model.feature_spec))


# --- clips ------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def clip_logits(model: EventModel, clips: Sequence[EncodedRecording]) -> tuple[Tensor, Tensor | None]:
    """Return the logits of the clip head, [members,clips,C], and of the linear path, [clips,C] or None.

    Each clip is read from an empty state. Arguments and errors as for `score_clips`.
    """
    head = _require_clip_head(model)
    network = model.network
    logits = torch.zeros(network.members, len(clips), model.task.num_outputs(head), device=network.device)
    for batch, padded, mask in _padded_batches([clip.vectors for clip in clips], _STEPS_PER_PASS):
        batch_logits = network.event_logits(padded, mask).clips
        assert batch_logits is not None
        logits[:, torch.from_numpy(batch).to(network.device)] = batch_logits
    if not (model.linear and model.linear.clips):
        return logits, None
    # a clip without frames has the logits of an average one
    summaries = [
        model.linear.clips.mean if clip.summaries is None or not len(clip) else summarize_clip(clip.summaries)
        for clip in clips
    ]
    return logits, model.linear.clips(torch.stack(summaries)) if clips else logits[0]


def score_clips(model: EventModel, clips: Sequence[EncodedRecording]) -> Array:
    """Score clips of any lengths with the clip head.

    Args:
        model: Model in eval mode.
        clips: Recordings, or parts of them as from `EncodedRecording.frames`, of at least one frame.

    Returns:
        float32 [clips,C], 0 to 1; the last column is the background's if the head has one.

    Raises:
        ValueError: The model has no clip head.
    """
    head = _require_clip_head(model)
    network, linear = clip_logits(model, clips)
    if linear is not None and model.linear:
        network = model.linear.clip_mix(network, linear)
    scores: Array = head.probabilities(network).mean(dim=0).cpu().numpy()
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
        self.max_lookahead = math.ceil(MIN_WINDOWS * self.window)
        self._model = model
        self._gated_network: EventGRU | None = model.network if gates and has_gates(model.network) else None
        self._outputs = model.task.num_outputs(head)
        self._frames = 0  # pushed so far
        self._next = 0  # start of the next window
        self._settled = 0
        # of the frames from `_settled` on
        self._recent: EncodedRecording | None = None
        self._total = np.zeros((0, self._outputs + 2 * (self._gated_network is not None)))
        self._weight = np.zeros(0)

    def push(self, frames: EncodedRecording) -> tuple[Array, GRUGates | None]:
        """Add the next frames.

        Returns:
            Scores of the frames that are now settled, float32 [m,C], and their gates if requested.
        """
        self._recent = frames if self._recent is None else self._recent.joined(frames)
        self._frames += len(frames)
        padding = ((0, len(frames)), (0, 0))
        self._total, self._weight = np.pad(self._total, padding), np.pad(self._weight, padding[0])
        if self._frames < MIN_WINDOWS * self.window:
            return self._settle(0)
        starts = np.arange(self._next, self._frames - self.window, self.stride)
        self._score(np.column_stack([starts, starts + self.window]))
        self._next += len(starts) * self.stride
        return self._settle(self._frames - self.window - self._settled)

    def finish(self) -> tuple[Array, GRUGates | None]:
        """Settle the remaining frames at the end of the recording. Returns as `push`."""
        if self._frames > self._settled:
            last = 0 if self._frames < MIN_WINDOWS * self.window else self._frames - self.window
            self._score(np.array([[last, self._frames]]))
        return self._settle(self._frames - self._settled)

    def _score(self, windows: Array) -> None:
        """Add windows of equal length to the weighted sums: first and stop frame of each, int64 [W,2]."""
        for batch in np.array_split(windows, -(-len(windows) * self.window // _WINDOW_STEPS_PER_PASS) or 1):
            if len(batch):
                self._score_batch(batch - self._settled)

    def _score_batch(self, windows: Array) -> None:
        assert self._recent is not None
        clips = [self._recent.frames(first, stop) for first, stop in windows]
        columns = [np.broadcast_to(score, (len(clips[0]), self._outputs)) for score in score_clips(self._model, clips)]
        if self._gated_network:
            stacked = torch.stack([clip.vectors for clip in clips]).movedim(2, 0)
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
        if self._recent is not None:
            self._recent = self._recent.frames(frames, len(self._recent))
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
        self._head, self._linear = model.task.frame_head, model.linear
        self.outputs = model.task.num_outputs(self._head)
        self._network, self._lookahead = model.network, model.lookahead
        self._gated_network: EventGRU | None = model.network if gates and has_gates(model.network) else None
        self._to_skip = model.lookahead  # the first steps score times before the first frame
        self._states: RNNState = None
        self._pending: list[tuple[Tensor, Tensor, Tensor | None]] = []  # arguments of `push`, of a bidirectional model

    def push(
        self, vectors: Tensor, mask: Tensor | None = None, linear: Tensor | None = None, equal: int = 0
    ) -> tuple[Array, Array | None]:
        """Add the next frames of a batch of recordings.

        Args:
            vectors: float32 [members,B,n,width].
            mask: bool [B,n], False after the end of a recording; None if all are frames.
            linear: float32 [B,m,K], logits of the linear path of the frames that are now settled; None without one.
            equal: Number of frames before that equal these, if these are all equal; 0 if they are not.

        Returns:
            Scores of the frames that are now settled, float32 [B,m,K], 0 to 1, the last column the background's if the
            head has one; and the gates of the pushed frames as from `mean_gates`, if requested.
        """
        if mask is None:
            mask = vectors.new_ones(vectors.shape[1:3], dtype=torch.bool)
        if self._network.architecture.bidirectional:
            self._pending.append((vectors, mask, linear))
            return np.zeros((vectors.shape[1], 0, self.outputs), np.float32), self._empty_gates(vectors)
        return self._score(*self._advance(vectors, mask, equal), linear)

    def finish(self, like: Tensor, linear: Tensor | None = None) -> tuple[Array, Array | None]:
        """Settle the remaining frames at the end of the recordings. Returns as `push`.

        Args:
            like: float32 [members,B,0,width], for its shape and device.
            linear: As for `push`.
        """
        if self._pending:
            vectors, masks, rows = zip(*self._pending, strict=True)
            linear = None if rows[0] is None else torch.cat([row for row in rows if row is not None], dim=1)
            return self._score(*self._advance(torch.cat(vectors, dim=2), torch.cat(masks, dim=1)), linear)
        padding = like.new_zeros(*like.shape[:2], self._lookahead, like.shape[3])
        logits, _ = self._advance(padding, padding.new_zeros(padding.shape[1:3], dtype=torch.bool))
        return self._score(logits, self._empty_gates(like), linear)

    @torch.inference_mode()
    def _advance(self, vectors: Tensor, mask: Tensor, equal: int = 0) -> tuple[Tensor, Array | None]:
        """Return the network's logits of the frames that are now settled, and gates. Arguments as for `push`."""
        if not vectors.shape[2]:
            return vectors.new_zeros(*vectors.shape[:3], self.outputs), self._empty_gates(vectors)
        states = self._states
        if equal and states is not None:
            logits, hidden, self._states = self._network.repeat_step(vectors, states, equal)
        else:
            logits, hidden, self._states = self._network.step(vectors, mask, states)
        assert logits is not None
        gates = mean_gates(self._gated_network, vectors, hidden, states) if self._gated_network else None
        skip = min(self._to_skip, vectors.shape[2])
        self._to_skip -= skip
        return logits[:, :, skip:], gates

    def _score(self, logits: Tensor, gates: Array | None, linear: Tensor | None) -> tuple[Array, Array | None]:
        if linear is not None and self._linear:
            logits = self._linear.frame_mix(logits, linear)
        return self._head.probabilities(logits).mean(dim=0).cpu().numpy(), gates

    def _empty_gates(self, like: Tensor) -> Array | None:
        return np.zeros((like.shape[1], 0, 2), np.float32) if self._gated_network else None


def score_frames(model: EventModel, recordings: Sequence[EncodedRecording]) -> list[Array]:
    """Score every frame of whole recordings with the frame head; recordings of similar length share a batch.

    Args:
        model: Model in eval mode.
        recordings: Whole recordings.

    Returns:
        float32 [T,K] each, 0 to 1; the last column is the background's if the head has one.

    Raises:
        ValueError: The model has no frame head.
    """
    return [scores for scores, _ in score_frames_and_gates(model, recordings, gates=False)]


def score_frames_and_gates(
    model: EventModel, recordings: Sequence[EncodedRecording], *, gates: bool
) -> list[tuple[Array, Array | None]]:
    """Like `score_frames`, each with its gates as from `mean_gates`, if requested and the network has gates."""
    with_gates = gates and has_gates(model.network)
    no_scores = np.zeros((0, FrameScorer(model).outputs), np.float32)
    no_gates = np.zeros((0, 2), np.float32) if with_gates else None
    result: list[tuple[Array, Array | None]] = [(no_scores, no_gates)] * len(recordings)
    vectors = [recording.vectors for recording in recordings]
    for batch, padded, mask in _padded_batches(vectors, _STEPS_PER_PASS * 4):
        scorer, steps, lag = FrameScorer(model, gates=gates), mask.shape[1], model.lookahead
        rows = [linear for i in batch if (linear := recordings[i].linear) is not None]
        linear = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else None
        pieces = []
        for first in range(0, steps, _CHUNK_STEPS):
            stop = min(first + _CHUNK_STEPS, steps)
            settled = None if linear is None else linear[:, max(first - lag, 0) : max(stop - lag, 0)]
            pieces.append(scorer.push(padded[:, :, first:stop], mask[:, first:stop], settled))
        pieces.append(scorer.finish(padded[:, :, :0], None if linear is None else linear[:, max(steps - lag, 0) :]))
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
