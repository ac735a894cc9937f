"""A model of clips on a whole recording: windows as long as the clips, slid over it and overlapping."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vidgru.model.checkpoint import EventModel
from vidgru.model.event_gru import EventGRU
from vidgru.model.gru_gates import Gates, has_gates, mean_gates
from vidgru.model.scoring import score_clips
from vidgru.types import Array

_STEPS_AT_ONCE = 1 << 14  # steps of all windows that are scored together
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
        if model.task.clips is None:
            raise ValueError("the model has no head for clips")
        self.window = max(1, round(model.window_s * model.fps))
        self.most_lag = math.ceil(_LONG * self.window)
        self._model = model
        self._gated: EventGRU | None = model.network if gates and has_gates(model.network) else None
        self.stride = max(1, self.window // _OVERLAP)
        self._outputs = model.task.outputs(model.task.clips)
        self._frames = 0  # pushed so far
        self._next = 0  # where the next window begins
        self._settled = 0
        self._vectors: Tensor = torch.zeros(0, model.network.architecture.width)  # of frames from `_settled` on
        self._total = np.zeros((0, self._outputs + 2 * (self._gated is not None)))
        self._weight = np.zeros(0)

    def push(self, vectors: Tensor) -> tuple[Array, Gates | None]:
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

    def finish(self) -> tuple[Array, Gates | None]:
        """Settle the frames that are left: nothing follows. As `push`."""
        if self._frames > self._settled:
            last = 0 if self._frames < _LONG * self.window else self._frames - self.window
            self._score(np.array([[last, self._frames]]))
        return self._settle(self._frames - self._settled)

    def _score(self, windows: Array) -> None:
        """Count in windows of one length, int64 [W, 2]: first frame of the recording and the one after the last."""
        for some in np.array_split(windows, -(-len(windows) * self.window // _STEPS_AT_ONCE) or 1):
            if len(some):
                self._score_some(some - self._settled)

    def _score_some(self, windows: Array) -> None:
        clips = [self._vectors[first:stop] for first, stop in windows]
        columns = [np.broadcast_to(score, (len(clips[0]), self._outputs)) for score in score_clips(self._model, clips)]
        if self._gated:
            both = torch.stack(clips)
            with torch.inference_mode():
                hidden, _ = self._gated.remember(both, both.new_ones(both.shape[:2], dtype=torch.bool))
            gates = mean_gates(self._gated, both, hidden)
            columns = [np.concatenate(pair, axis=1) for pair in zip(columns, gates, strict=True)]
        for (first, stop), values in zip(windows, columns, strict=True):
            length = stop - first
            trust = 1.0 - np.abs(2 * np.arange(length) + 1 - length) / (length + 1)
            self._total[first:stop] += trust[:, None] * values
            self._weight[first:stop] += trust

    def _settle(self, frames: int) -> tuple[Array, Gates | None]:
        mean = (self._total[:frames] / np.maximum(self._weight[:frames], 1e-12)[:, None]).astype(np.float32)
        self._total, self._weight = self._total[frames:], self._weight[frames:]
        self._vectors = self._vectors[frames:].clone()  # not a view, which would keep all that was pushed
        self._settled += frames
        gates = Gates.of(mean[:, self._outputs :]) if self._gated else None
        return mean[:, : self._outputs], gates
