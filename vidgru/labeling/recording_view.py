"""Scores, states and motion of a recording in steps of half a second, for `suggest`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from vidgru.model.checkpoint import EventModel, HeadSpec
from vidgru.model.scoring import MIN_WINDOWS, EncodedRecording, clip_logits, encode_features
from vidgru.model.summaries import FrameSummaries
from vidgru.training.calibrate import PLACE_GROUPS
from vidgru.training.data import LoadedFeatures
from vidgru.types import Array, Features

_STEP_S = 0.5
_CHUNK_FRAMES = 1 << 13


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordingView:
    """A recording in n steps.

    Attributes:
        video: Its name.
        edges_s: float64 [n+1], times between steps.
        scores: float32 [members,n,K], 0 to 1; no columns without a model.
        head: The head that the scores are from; None without a model.
        states: float32 [n,D].
        motion: float32 [n], change of the features per frame.
    """

    video: str
    edges_s: Array
    scores: Array
    head: HeadSpec | None
    states: Array
    motion: Array

    @cached_property
    def mean_scores(self) -> Array:
        """Scores averaged over the members: float32 [n,K]."""
        mean: Array = self.scores.mean(axis=0)
        return mean

    @cached_property
    def step_s(self) -> float:
        """Mean length of a step in seconds."""
        return float(np.diff(self.edges_s).mean())

    @cached_property
    def _middles_s(self) -> Array:
        middles_s: Array = (self.edges_s[1:] + self.edges_s[:-1]) / 2
        return middles_s

    def steps(self, start_s: float, end_s: float) -> tuple[int, int]:
        """Return the steps whose middle is in an interval, as a slice; at least one."""
        first, stop = (int(step) for step in np.searchsorted(self._middles_s, (start_s, end_s)))
        first = min(first, len(self._middles_s) - 1)
        return first, max(stop, first + 1)


def view_recording(
    model: EventModel | None, recordings: LoadedFeatures, video: str, features: Features
) -> RecordingView:
    """Return a recording in steps.

    States are those of the recurrent layers of all members; without a model, they are summaries of each frame, without
    features that differ between places.

    Args:
        model: Model in eval mode, with a head; None before there is one.
        recordings: Dataset of the features.
        video: Name of the recording.
        features: Its features, at least one frame.
    """
    step_s = float(np.median(np.diff(features.time_s))) if len(features) > 1 else _STEP_S
    end_s = float(features.time_s[-1]) + step_s
    summaries = FrameSummaries(recordings.feature_spec, PLACE_GROUPS)
    rows = summaries.push(features)[:, summaries.window_columns]
    motion = np.abs(np.diff(rows, axis=0, prepend=rows[:1])).mean(axis=1)
    if model is None:
        scores, states = np.zeros((1, len(rows), 0), np.float32), rows
    else:
        encoded = encode_features(model, [features])
        is_short = end_s < MIN_WINDOWS * model.window_s
        if model.task.frame_head is None or (is_short and model.task.clip_head is not None):
            return _view_clips(model, video, encoded, motion, end_s)
        scores, states = _score_frames(model, encoded)
    steps = max(round(end_s / _STEP_S), 1)
    edges_s = np.linspace(0.0, end_s, steps + 1)
    # Steps inside a gap use the next frame.
    first = np.minimum(np.searchsorted(features.time_s, edges_s[:-1]), len(rows) - 1)
    first = np.minimum.accumulate(np.maximum.accumulate(first)[::-1])[::-1]

    def averaged(values: Array, axis: int) -> Array:
        counts = np.maximum(np.diff(np.append(first, values.shape[axis])), 1)
        sums = np.add.reduceat(values, first, axis=axis)
        return (sums / counts.reshape([-1 if dim == axis else 1 for dim in range(values.ndim)])).astype(np.float32)

    return RecordingView(
        video=video,
        edges_s=edges_s,
        scores=averaged(scores, 1),
        head=None if model is None else model.task.frame_head,
        states=averaged(states, 0),
        motion=averaged(motion, 0),
    )


@torch.inference_mode()
def _score_frames(model: EventModel, encoded: EncodedRecording) -> tuple[Array, Array]:
    """Return the scores of each member, float32 [members,T,K], and states, [T,members*hidden]."""
    head, network = model.task.frame_head, model.network
    assert head is not None
    vectors = encoded.vectors.transpose(0, 1)[:, None]
    frames = vectors.shape[2]
    padding = vectors.new_zeros(*vectors.shape[:2], model.lookahead, vectors.shape[3])  # scores lag behind
    vectors = torch.cat([vectors, padding], dim=2)
    mask = (torch.arange(vectors.shape[2], device=vectors.device) < frames)[None]
    chunk = vectors.shape[2] if network.architecture.bidirectional else _CHUNK_FRAMES
    logits, hidden, states = [], [], None
    for first in range(0, vectors.shape[2], chunk):
        part = slice(first, first + chunk)
        output = network.step(vectors[:, :, part], mask[:, part], states)
        assert output.frames is not None
        states = output.states
        logits.append(output.frames[:, 0])
        hidden.append(output.hidden[:, 0])
    members = torch.cat(logits, dim=1)[:, model.lookahead :]
    if model.linear and encoded.linear is not None:
        members = model.linear.frame_mix(members, encoded.linear)
    state = torch.cat(hidden, dim=1)[:, :frames].transpose(0, 1).flatten(1)
    return head.probabilities(members).cpu().numpy(), state.cpu().numpy()


@torch.inference_mode()
def _view_clips(model: EventModel, video: str, encoded: EncodedRecording, motion: Array, end_s: float) -> RecordingView:
    """Score a recording in windows as long as the clips that the model was trained on."""
    assert model.task.clip_head is not None
    windows = max(round(len(encoded) / max(model.window_s * model.fps, 1)), 1)
    edges = np.linspace(0, len(encoded), windows + 1).round().astype(int)
    clips = [encoded.frames(first, stop) for first, stop in itertools.pairwise(edges)]
    logits, linear = clip_logits(model, clips)
    if linear is not None and model.linear:
        logits = model.linear.clip_mix(logits, linear)
    states = []
    for clip in clips:
        mask = torch.ones(1, len(clip), dtype=torch.bool, device=clip.vectors.device)
        hidden, _ = model.network.run_rnn(clip.vectors.transpose(0, 1)[:, None], mask)
        states.append(hidden[:, 0].mean(dim=1).flatten())
    return RecordingView(
        video=video,
        edges_s=np.append(encoded.time_s[edges[:-1]] * (edges[:-1] > 0), end_s),
        scores=model.task.clip_head.probabilities(logits).cpu().numpy(),
        head=model.task.clip_head,
        states=torch.stack(states).cpu().numpy(),
        motion=np.add.reduceat(motion, edges[:-1]) / np.diff(edges),
    )
