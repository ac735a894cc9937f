"""The `pretrain` command: a start for training, learnt from recordings without annotations.

The network reads windows of cached recordings, and linear layers predict from its state after every frame

- histograms of motion over two horizons of the future (after Azabou et al. 2023, "Relax, it doesn't matter how you get
  there: A new self-supervised approach for multi-timescale behavior analysis", BAMS), and
- mean and spread of hand-made attributes over the last second (after Sun et al. 2021, "Task Programming: Learning Data
  Efficient Behavior Representations", TREBA).

The layers are thrown away; encoder and recurrent layer are the start. Both tasks are causal, as the network is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidgru.cache import SequenceCache
from vidgru.config import PretrainConfig, comparable_settings
from vidgru.datasets.windows import collate, slice_window
from vidgru.errors import SettingsMismatchError, SourceError
from vidgru.model.checkpoint import EventModel, EventTask, build_network, entry_digest
from vidgru.model.event_decoder import DecodeSettings
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.model.summaries import FrameSummaries
from vidgru.storage import unused_path, user_path
from vidgru.training.augment import Augmenter
from vidgru.training.calibrate import PLACE_GROUPS
from vidgru.training.optimizers import AdamW
from vidgru.training.trainer import (
    CLIP_NORM,
    average_weights,
    choose_device,
    clip_gradients,
    lr_scale,
    reproducible,
)
from vidgru.types import Array, Features

_HORIZONS_S = (0.5, 2.0)
_PAST_S = 1.0
_MOTION_GROUPS = ("speed", "motion", "keypoint_speed", "scene_motion")
_QUANTILES = (0.1, 0.35, 0.65, 0.9)  # between the bins of the histograms
_MIN_BATCHES = 16  # per epoch
_TASK = EventTask(labels=("event",))  # without heads


@dataclass(frozen=True, kw_only=True, eq=False)
class UnlabelledFeatures:
    """Features of recordings, and what they have in common.

    Attributes:
        features: Features of each recording.
        keys: Its cache entry.
        feature_spec: Spec of the features.
        feature_settings: Settings that decide the features.
        names: Class names of the detector.
    """

    features: list[Features]
    keys: list[str]
    feature_spec: FeatureSpec
    feature_settings: dict[str, Any]
    names: tuple[str, ...]


def pretrain(folders: Sequence[str | Path], config: PretrainConfig) -> Path:
    """Learn a start from all recordings of the caches, and write it.

    Returns:
        The file, a model of a single member without heads.

    Raises:
        SourceError: A cache has no recordings.
        SettingsMismatchError: Recordings were extracted with different settings.
        CacheError, OutputError, SettingsError: With a remedy each.
    """
    data = load_unlabelled(folders)
    out = user_path(config.out)
    out = out if config.exist_ok else unused_path(out, Path.exists)
    with reproducible(config.seed, config.runtime.threads or 1):
        model = learn_start(data, config)
    model.save(out)
    frames = sum(map(len, data.features))
    print(f"{len(data.features)} recordings, {frames / model.fps / 3600:.2f} hours")
    print(f"start: {out}, for vidgru train DATASET --init {out}")
    return out


def load_unlabelled(folders: Sequence[str | Path]) -> UnlabelledFeatures:
    """Read all recordings of some caches. Errors as for `pretrain`."""
    features, keys = list[Features](), list[str]()
    settings: dict[str, Any] | None = None
    for folder in folders:
        cache = SequenceCache(folder)
        whole = (entry for entry in cache.entries() if entry.span is None)
        entries = [entry for entry in whole if entry.samples and entry.key not in keys]
        if not entries:
            raise SourceError(
                f"{folder} has no recordings to learn from", "vidgru extract VIDEOS --out FEATURES fills a cache"
            )
        for entry in sorted(entries, key=lambda entry: entry.key):
            settings = settings or entry.feature_settings
            others = comparable_settings(entry.feature_settings)
            if differ := [name for name, value in comparable_settings(settings).items() if others.get(name) != value]:
                raise SettingsMismatchError(
                    f"{folder} has recordings of different settings ({', '.join(sorted(differ))})",
                    "extract all recordings with the same settings, into a folder of their own",
                )
            sequence = cache.read(entry.key)
            features.append(compute_features(sequence))
            keys.append(entry.key)
    assert settings is not None
    return UnlabelledFeatures(
        features=features,
        keys=keys,
        feature_spec=FeatureSpec.from_sequence(sequence),
        feature_settings=settings,
        names=sequence.names,
    )


def learn_start(data: UnlabelledFeatures, config: PretrainConfig) -> EventModel:
    """Train the network on unlabelled recordings."""
    device, fps = choose_device(config.runtime.device), float(data.feature_settings["fps"])
    network = build_network(data.feature_spec, _TASK, config.network)
    network.encoder.fit_normalization(data.features)
    targets = PastAndFuture(data, fps)
    past = nn.Linear(network.hidden_width, 2 * targets.width)
    future = nn.Linear(network.hidden_width, len(_HORIZONS_S) * len(targets.moving) * targets.bins)
    layers = nn.ModuleList([network, past, future]).to(device).train()
    averaged = copy.deepcopy(network).eval()
    optimizer = AdamW(layers.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    for step, windows in enumerate(_batches(data, config, fps), start=1):
        optimizer.param_groups[0]["lr"] = config.lr * lr_scale(step)
        batch = collate(windows).to(device)
        of_past, of_future = (values.to(device) for values in targets(windows))
        vectors = network.encode(batch.objects, batch.counts, batch.frame).vectors
        hidden = network.run_rnn(vectors, batch.mask)[0][0][batch.mask]
        known = torch.isfinite(of_future).all(dim=-1)
        log_shares = future(hidden).view(*of_future.shape).log_softmax(dim=-1)
        loss = F.smooth_l1_loss(past(hidden), of_past)
        loss = loss - (log_shares[known] * of_future[known]).sum(dim=-1).sum() / known.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(network, CLIP_NORM)
        optimizer.step()
        average_weights(averaged, network, step)
    return EventModel(
        network=averaged.cpu(),
        task=_TASK,
        feature_settings=data.feature_settings,
        weights="",
        names=data.names,
        decode=DecodeSettings(high=(0.5,), low=(0.5,), min_s=0, merge_s=0, exclusive=False),
        window_s=config.window,
        versions={name: version(name) for name in ("vidgru", "torch")},
        trained_on=tuple(sorted({entry_digest(key) for key in data.keys})),
    )


def _batches(data: UnlabelledFeatures, config: PretrainConfig, fps: float) -> Iterator[list[Any]]:
    """Yield augmented windows, of each recording as many as it is long."""
    length = max(round(config.window * fps), 2)
    augment = Augmenter(data.feature_spec, ())
    lengths = np.array([len(features) for features in data.features])
    per_epoch = max(math.ceil(float(np.ceil(lengths / length).sum()) / config.batch), _MIN_BATCHES)
    for number in range(config.epochs * per_epoch):
        rng = np.random.default_rng((config.seed, number))
        windows = []
        for index in rng.choice(len(lengths), config.batch, p=lengths / lengths.sum()):
            steps = min(length, int(lengths[index]))
            first = int(rng.integers(lengths[index] - steps + 1))
            windows.append(augment(slice_window(data.features[index], first, steps), rng))
        yield windows


class PastAndFuture:
    """What is predicted after each frame of a window.

    Args:
        data: Recordings, for the scale of attributes and the bins of histograms.
        fps: Samples per second.

    Attributes:
        width: A, number of attributes: features of the best-scored object, means over objects, and of the frame.
        moving: Columns of those that are motion.
        bins: N, number of bins.
    """

    def __init__(self, data: UnlabelledFeatures, fps: float) -> None:
        self._spec, self._fps = data.feature_spec, fps
        summaries = FrameSummaries(self._spec, PLACE_GROUPS)
        self._columns = summaries.window_columns
        self.width = len(self._columns)
        of_motion = np.concatenate([summaries.group_columns(name) for name in _MOTION_GROUPS])
        self.moving = np.flatnonzero(np.isin(self._columns, of_motion))
        rows = np.concatenate([self._attributes(features) for features in data.features])
        self._mean, self._std = rows.mean(axis=0), rows.std(axis=0).clip(1e-3)
        self._edges = np.quantile(rows[:, self.moving], _QUANTILES, axis=0)
        self.bins = len(_QUANTILES) + 1

    def __call__(self, windows: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return attributes [n,2A] of the past and histograms [n,horizons,moving,N] of the future of all frames.

        Histograms are not finite after the last frame of a window.
        """
        past, future = [], []
        for window in windows:
            features = Features(
                objects=window.objects,
                offsets=window.offsets,
                frame=window.frame,
                time_s=np.arange(len(window)) / self._fps,
            )
            rows = self._attributes(features)
            past.append(self._summarise((rows - self._mean) / self._std))
            future.append(self._histograms(rows[:, self.moving]))
        return torch.from_numpy(np.concatenate(past)).float(), torch.from_numpy(np.concatenate(future)).float()

    def _attributes(self, features: Features) -> Array:
        return FrameSummaries(self._spec, PLACE_GROUPS).push(features)[:, self._columns]

    def _summarise(self, rows: Array) -> Array:
        """Return mean and standard deviation of the rows of the last second before each, [T,2A]."""
        first, stop = self._span(len(rows), -_PAST_S)
        mean, square = (_means(values, first, stop) for values in (rows, np.square(rows)))
        return np.concatenate([mean, np.sqrt((square - mean**2).clip(0))], axis=1).clip(-5, 5)

    def _histograms(self, rows: Array) -> Array:
        """Return shares of the rows after each in every bin, [T,horizons,moving,N]."""
        bins = (rows[None] > self._edges[:, None]).sum(axis=0)
        hits = (bins[..., None] == np.arange(self.bins)).astype(np.float32)
        spans = (self._span(len(rows), horizon) for horizon in _HORIZONS_S)
        return np.stack([_means(hits, first, stop) for first, stop in spans], axis=1)

    def _span(self, steps: int, seconds: float) -> tuple[Array, Array]:
        """Return the rows [first,stop) of so many seconds after each row, or before and with it if negative."""
        at, number = np.arange(steps), max(round(abs(seconds) * self._fps), 1)
        if seconds < 0:
            return np.maximum(at + 1 - number, 0), at + 1
        return at + 1, np.minimum(at + 1 + number, steps)


def _means(values: Array, first: Array, stop: Array) -> Array:
    """Return the means of rows [first,stop); not finite where there are none."""
    sums = np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(axis=0, dtype=np.float64)])
    number = (stop - first).reshape(-1, *[1] * (values.ndim - 1))
    means: Array = np.where(number > 0, (sums[stop] - sums[first]) / np.maximum(number, 1), np.nan)
    return means
