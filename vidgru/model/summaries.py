"""Summaries of frames, clips and windows of time: the input of the linear path beside the network.

On few annotated clips a strongly regularised linear model of pooled statistics is hard to beat; the network adds what
the order of frames tells (`linear_path.py`).

A frame is summarised by its best-scored object, the mean and the maximum over its objects, and its own features. A clip
is summarised by mean, standard deviation, maximum and mean absolute change over its frames; a frame of a recording by
itself, the lookahead after it, and windows of several lengths before it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidgru.model.feature_spec import FeatureSpec
from vidgru.types import Array, Features

_WINDOWS_S = (0.5, 1.5, 3.0)  # before a frame
_MAX_AGE_S = 3.0  # beyond this, it does not matter how long ago an object was detected
SETTLED_S = _MAX_AGE_S + max(_WINDOWS_S)  # after so many equal frames, summaries of their past are equal


class FrameSummaries:
    """Summaries of the frames of one recording, computed chunk by chunk.

    A detector loses people who lie or are occluded. The frames after a detection therefore carry its features on, with
    their age.

    Args:
        feature_spec: Groups and widths of the features.
        drop_groups: Feature groups to leave out.

    Attributes:
        width: Z, the length of a summary.
        clip_columns, window_columns: Columns that clips and windows use: of a clip every object matters, and the time
            of an event is that of the best-scored one.
    """

    def __init__(self, feature_spec: FeatureSpec, drop_groups: tuple[str, ...] = ()) -> None:
        self._spec = feature_spec
        objects, frame = feature_spec.object_groups(), feature_spec.frame_groups()
        self._objects = _columns(objects, (*drop_groups, "class"))
        self._frame = _columns(frame, drop_groups)
        self._score = objects["score"].start
        n = len(self._objects)
        self.width = 3 * n + 1 + len(self._frame)
        self.clip_columns = np.arange(n + 1, self.width)
        self.window_columns = np.concatenate([np.arange(n + 1), np.arange(3 * n + 1, self.width)])
        self._best = np.zeros(n, np.float32)  # of the last frame with objects
        self._best_s = -np.inf  # its time

    def group_columns(self, group: str) -> Array:
        """Return the columns of a summary that come from a feature group, int64 [n]."""
        at = self._spec.object_groups().get(group) or self._spec.frame_groups().get(group)
        if at is None:
            return np.zeros(0, np.int64)
        n = len(self._objects)
        if group in self._spec.frame_groups():
            return 3 * n + 1 + np.flatnonzero((self._frame >= at.start) & (self._frame < at.stop))
        inside = np.flatnonzero((self._objects >= at.start) & (self._objects < at.stop))
        return np.concatenate([inside, n + 1 + inside, 2 * n + 1 + inside])

    def push(self, features: Features) -> Array:
        """Return the summaries of the next frames, float32 [T,Z]."""
        n = len(self._objects)
        summaries = np.zeros((len(features), self.width), np.float32)
        summaries[:, 3 * n + 1 :] = features.frame[:, self._frame]
        counts = np.diff(features.offsets)
        occupied = np.flatnonzero(counts)
        best, times = self._best[None], np.array([self._best_s])
        if len(occupied):
            objects, starts = features.objects[:, self._objects], features.offsets[occupied]
            summaries[occupied, n + 1 : 2 * n + 1] = np.add.reduceat(objects, starts) / counts[occupied, None]
            summaries[occupied, 2 * n + 1 : 3 * n + 1] = np.maximum.reduceat(objects, starts)
            # sorted by frame, then by falling score: the first object of each frame is its best
            frame_of = np.repeat(np.arange(len(features)), counts)
            order = np.lexsort((-features.objects[:, self._score], frame_of))
            best = np.concatenate([best, objects[order[starts - starts[0]]]])
            times = np.concatenate([times, features.time_s[occupied]])
        latest = np.searchsorted(occupied, np.arange(len(features)), side="right")  # 0 for one of an earlier chunk
        summaries[:, :n] = best[latest]
        summaries[:, n] = np.minimum(features.time_s - times[latest], _MAX_AGE_S)
        self._best, self._best_s = best[-1], float(times[-1])
        return summaries


def summarize_clip(summaries: Tensor) -> Tensor:
    """Summarise the frames of a clip: [L,Z] to [4 Z], L at least 1."""
    std, mean = torch.std_mean(summaries, dim=0, correction=0)
    change = (summaries[1:] - summaries[:-1]).abs().sum(dim=0) / max(len(summaries) - 1, 1)
    return torch.cat([mean, std, summaries.amax(dim=0), change])


class WindowSummaries:
    """Summaries of the frames of one recording with their surroundings, computed chunk by chunk.

    Each is known `lookahead` frames later, as the scores of the frame head are. Before its beginning and after its end
    a recording is taken to stand still.

    Args:
        width: Z, the length of a frame's summary.
        fps: Samples per second.
        lookahead: Number of frames after a frame that count.

    Attributes:
        width: Length of the result.
    """

    def __init__(self, width: int, fps: float, lookahead: int) -> None:
        self._windows = [max(round(seconds * fps), 1) for seconds in _WINDOWS_S]
        self._lookahead = lookahead
        self._recent = np.zeros((0, width), np.float32)  # frames that later summaries need
        self.width = width * (2 + 3 * len(_WINDOWS_S))

    def push(self, summaries: Array) -> Array:
        """Return the summaries that are known with the next n frames: float32 [n,width].

        Row i is of the frame `lookahead` before frame i. The first rows are of frames before the beginning.
        """
        if not len(summaries):
            return np.zeros((0, self.width), np.float32)
        before = max(self._windows) + self._lookahead - 1
        if not len(self._recent):
            self._recent = np.repeat(summaries[:1], before, axis=0)
        frames = np.concatenate([self._recent, summaries])
        self._recent = frames[len(frames) - before :].copy()
        zero = np.zeros((1, frames.shape[1]))
        sums = np.concatenate([zero, frames.cumsum(axis=0, dtype=np.float64)])
        squares = np.concatenate([zero, np.square(frames, dtype=np.float64).cumsum(axis=0)])
        centre = np.arange(before - self._lookahead, len(frames) - self._lookahead)
        ahead = (sums[centre + self._lookahead + 1] - sums[centre]) / (self._lookahead + 1)
        parts = [frames[centre], ahead]
        for window in self._windows:
            first = centre + 1 - window
            mean = (sums[centre + 1] - sums[first]) / window
            variance = (squares[centre + 1] - squares[first]) / window - np.square(mean)
            parts += [mean, np.sqrt(np.maximum(variance, 0)), ahead - mean]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def finish(self) -> Array:
        """Return the summaries of the last `lookahead` frames, float32 [lookahead,width]."""
        return self.push(np.repeat(self._recent[-1:], self._lookahead, axis=0))


def _columns(groups: dict[str, slice], drop_groups: tuple[str, ...]) -> Array:
    columns = [np.arange(at.start, at.stop) for name, at in groups.items() if name not in drop_groups]
    return np.concatenate([np.zeros(0, np.int64), *columns])
