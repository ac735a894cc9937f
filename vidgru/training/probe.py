"""How far back a cell remembers: an object seen early decides the label of an event much later.

After the latch problem of Bengio, Simard and Frasconi 1994, "Learning long-term dependencies with gradient descent is
difficult", put to the real network with its real loss. The sequences are made up, new ones for every step, so that
nothing can be learnt by heart and no video is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from vidgru.datasets.windows import Batch, collate, slice_window
from vidgru.model.checkpoint import EventTask, HeadSpec, build_network
from vidgru.model.event_gru import Architecture, EventGRU
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.training.losses import window_losses
from vidgru.training.reproducibility import reproducible
from vidgru.training.step import CLIP_NORM, WARMUP
from vidgru.types import Array, FrameSequence

CHANCE = 0.5
_NAMES = ("person", "car", "dog", "gate")  # whether a person or a car came first is asked when the gate is seen
_SIZES = np.array([[0.08, 0.3], [0.3, 0.15], [0.1, 0.1], [0.3, 0.5]])  # width and height of each, give or take
_GIVE = 0.2
_TASK = EventTask(labels=("person_first", "car_first"), frame_head=HeadSpec(background=False, multi_label=False))
_FIRST, _EVENT = 3, 3  # frames
_PASSING = 0.5  # probability that somebody passes by in a frame between: persons, cars and dogs alike
_FPS = 8.0
_FITTED = 32  # distance of the sequences that features are normalised by
_BATCH = 16  # sequences
_ASKED = 6  # batches that accuracy is taken over
_NETWORKS = 3
_STEPS = 250
_SOLVED, _OVER = 0.02, 20  # every loss of so many steps below this ends the training


def probe(
    architecture: Architecture, distances: Sequence[int], *, lr: float, seed: int, steps: int = _STEPS
) -> dict[int, list[float]]:
    """Train three networks on distances up to the longest, and ask each about sequences it has not seen.

    Every step has another distance, its logarithm drawn evenly: on one long distance alone no cell gets anywhere in
    this time (at 32 frames, 150 steps leave a GRU and an LSTM at chance), for nothing leads it there. Alike for all
    cells are the sequences, their order, the rates and the number of steps, fewer where the loss is next to nothing.
    There is no dropout: the question is what a cell can keep, not how it resists small data.

    Args:
        architecture: of the networks; its dropout is not used.
        distances: frames between the last one with the object that decides and the first one of the event.
        lr: learning rate, after a warm-up.
        seed: of sequences and weights.
        steps: of training at most, 16 sequences each.

    Returns:
        Share of 96 events told right, by distance, of each network; 0.5 is chance.
    """
    plain = replace(architecture, dropout=0.0, group_dropout=0.0)
    found: dict[int, list[float]] = {distance: [] for distance in distances}
    for number in range(_NETWORKS):
        with reproducible(seed + number, 1):
            network = _trained(plain, max(distances), lr, np.random.default_rng((seed, number)), steps)
        for distance, shares in found.items():
            rng = np.random.default_rng((seed, number, distance))
            shares.append(float(np.mean([_told(network, _batch(rng, distance)) for _ in range(_ASKED)])))
    return found


def _trained(architecture: Architecture, longest: int, lr: float, rng: np.random.Generator, steps: int) -> EventGRU:
    network = build_network(FeatureSpec(classes=len(_NAMES)), _TASK, architecture)
    network.encoder.fit_normalization([compute_features(_sequences(rng, _BATCH, _FITTED)[0])])
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    alike, below = torch.ones(len(_TASK.labels)), 0
    for step in range(1, steps + 1):
        batch = _batch(rng, round(longest ** rng.random()))
        scores = network(batch.objects, batch.counts, batch.frame, batch.mask)
        losses = window_losses(scores, batch, _TASK, lookahead=0, class_weights=alike, smoothing=0.0)
        loss = losses.mean() * (batch.mask.shape[1] / _EVENT)  # of a frame of the event, however long the sequence
        for group in optimizer.param_groups:
            group["lr"] = lr * min(step / WARMUP, 1.0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimizer.step()
        below = below + 1 if float(loss.detach()) < _SOLVED else 0
        if below == _OVER:
            break
    return network.eval()


@torch.inference_mode()
def _told(network: EventGRU, batch: Batch) -> float:
    """Share of a batch's events whose label is the likelier one on their last frame."""
    frames = network(batch.objects, batch.counts, batch.frame, batch.mask).frames
    assert batch.targets is not None
    return float((frames[:, -1].argmax(dim=1) == batch.targets[:, -1].argmax(dim=1)).float().mean())


def _batch(rng: np.random.Generator, distance: int) -> Batch:
    """Sequences of both kinds, with targets on the frames of the event; of other frames nothing is asked."""
    sequence, decides = _sequences(rng, _BATCH, distance)
    features, length = compute_features(sequence), len(sequence) // _BATCH
    targets = np.eye(len(_TASK.labels), dtype=np.float32)[np.repeat(decides, length)]
    weights = np.tile(np.arange(length) >= length - _EVENT, _BATCH).astype(np.float32)
    firsts = range(0, len(sequence), length)
    return collate([slice_window(features, first, length, targets, weights) for first in firsts])


def _sequences(rng: np.random.Generator, count: int, distance: int) -> tuple[FrameSequence, Array]:
    """So many sequences one behind the other (no track leads from one to the next), and what decides each.

    Objects are anywhere: only their class and shape tell what they are.
    """
    decides = rng.permutation(np.arange(count) % 2)
    passing = rng.integers(_NAMES.index("dog") + 1, size=(count, distance))
    between = np.where(rng.random((count, distance)) < _PASSING, passing, -1)
    first = np.repeat(decides[:, None], _FIRST, axis=1)
    event = np.full((count, _EVENT), _NAMES.index("gate"))
    seen = np.concatenate([first, between, event], axis=1).ravel()
    classes = seen[seen >= 0].astype(np.int16)
    total = len(classes)
    size = _SIZES[classes] * rng.uniform(1 - _GIVE, 1 + _GIVE, (total, 2))
    corner = rng.uniform(0, 1 - size)
    boxes = np.concatenate([corner, corner + size], axis=1)
    sequence = FrameSequence(
        time_s=np.arange(len(seen)) / _FPS,
        frame_index=np.arange(len(seen), dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(seen >= 0)]).astype(np.int64),
        boxes=boxes.astype(np.float32),
        scores=rng.uniform(0.5, 1, total).astype(np.float16),
        classes=classes,
        tracks=np.full(total, -1, np.int32),
        fps=_FPS,
        size_px=(640, 360),
        names=_NAMES,
    )
    return sequence, decides
