"""Comparing cells, and any other settings, trained alike: what each costs, and what it is worth."""

from __future__ import annotations

import csv
import io
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.config import CompareConfig, TrainConfig
from vidgru.datasets.dataset import Dataset
from vidgru.datasets.splits import folds
from vidgru.flags import to_flags
from vidgru.model.checkpoint import EventModel, EventTask
from vidgru.model.event_gru import count_parameters
from vidgru.model.scoring import encode_features, score_clips, score_frames
from vidgru.storage import write_atomic, write_json
from vidgru.training.batches import Batches
from vidgru.training.comparison_plots import plot_comparison, plot_probe
from vidgru.training.data import Loaded
from vidgru.training.distributed import refuse_distributed
from vidgru.training.examples import Examples, batches_of
from vidgru.training.memory import step_bytes
from vidgru.training.probe import CHANCE, probe
from vidgru.training.reproducibility import reproducible
from vidgru.training.run import HEADLINES, evaluate_loaded, over_folds, prepare
from vidgru.training.trainer import Result, architecture_of, fit
from vidgru.training.variants import variants

_ROUNDS = 5  # of which the fastest counts: whatever else the machine does only slows
_TIMED = 10_000  # frames at least, that speed is measured over


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one of those compared came to.

    Attributes:
        name: a cell, or a variant as it was written.
        parameters: of the whole network.
        cell_parameters: of the recurrent layer.
        epoch_s: seconds a training epoch takes, validation included; median of all epochs.
        frames_per_s: of recordings whose features are in memory, through the whole network on one core.
        cell_frames_per_s: of recordings that are encoded, through the recurrent layer and the head.
        step_bytes: memory of a training step on a CPU, as `step_bytes` measures it.
        best_epoch: the one chosen on validation; median of all folds.
        metrics: by name, mean over folds.
        spread: standard deviation over folds; empty without folds.
    """

    name: str
    parameters: int
    cell_parameters: int
    epoch_s: float
    frames_per_s: float
    cell_frames_per_s: float
    step_bytes: int
    best_epoch: float
    metrics: dict[str, float]
    spread: dict[str, float]


def compare(dataset_path: str | Path, config: CompareConfig) -> list[Row]:
    """Train each cell and variant on the same data, splits or folds, from the same seed, by the same loop.

    Features are extracted and read once. Without folds, figures are of the validation split, on which epochs were
    chosen too; the test split is not looked at, so that it is still there to judge what is chosen by this table. With
    folds, they are of parts that training has not seen.

    Prints the table, and writes compare.json, compare.csv and compare.png into `config.out`, and with `config.probe`
    how far back each cell remembers: probe.json, probe.png. Files are written as soon as a row is there.

    Args:
        dataset_path: as for `load_dataset`.
        config: what is compared, and what all have in common.

    Raises:
        SettingsError: a variant that cannot be.
        VidgruError: as from `train`.
        KeyboardInterrupt: with the rows that were finished written.
    """
    refuse_distributed("a comparison")
    compared, out = variants(config), Path(config.train.out).expanduser()
    extracted, loaded, task, feature_settings = prepare(dataset_path, config.train)
    dataset, common = extracted.dataset, config.train
    parts = list(folds(dataset, common.folds, common.seed, common.group_by or None)) if common.folds else [dataset]
    judged = f"mean and spread over {common.folds} folds" if common.folds else "validation split"
    rows: list[Row] = []
    for name, settings in compared.items():
        print(f"{name}: training", file=sys.stderr)
        rows.append(_row(name, parts, loaded, task, feature_settings, settings))
        facts = {"judged": judged, "failed": extracted.failed, "settings": to_flags(config)}
        write_json(out / "compare.json", {**facts, "rows": [asdict(row) for row in rows]})
        write_atomic(out / "compare.csv", _csv(rows))
        plot_comparison([asdict(row) for row in rows], out / "compare.png", title=f"{dataset.source.name}, {judged}")
    print(table(rows, judged))
    if config.probe:
        _probe(config, out)
    return rows


def _row(
    name: str,
    parts: Sequence[Dataset],
    loaded: Loaded,
    task: EventTask,
    feature_settings: dict[str, Any],
    config: TrainConfig,
) -> Row:
    results: list[Result] = []
    judged: list[dict[str, Any]] = []
    for part in parts:
        results.append(fit(part, loaded, task, feature_settings, config))
        judged.append(
            evaluate_loaded(results[-1].best, part, "test" if config.folds else "val", loaded, intervals=False)
        )
    mean, spread = over_folds(judged)
    network = results[0].best.network
    whole, cell = _frames_per_s(results[0].best, Examples.of(parts[0], "train", loaded, task), loaded, config)
    return Row(
        name=name,
        parameters=count_parameters(network),
        cell_parameters=count_parameters(network.gru) if network.gru else 0,
        epoch_s=float(np.median([epoch["seconds"] for result in results for epoch in result.epochs])),
        frames_per_s=whole,
        cell_frames_per_s=cell,
        step_bytes=step_bytes(
            results[0].best, _largest_batch(parts[0], loaded, task, config, results[0].best.lookahead)
        ),
        best_epoch=float(np.median([result.best_epoch for result in results])),
        metrics=mean,
        spread=spread if config.folds else {},
    )


def _frames_per_s(model: EventModel, some: Examples, loaded: Loaded, config: TrainConfig) -> tuple[float, float]:
    """Frames a second through the whole network, and behind the encoder, on one core, recordings side by side."""
    features, frames = [], 0
    for video in itertools.cycle(some.videos):
        features.append(loaded.features[video])
        frames += len(features[-1])
        if frames >= _TIMED:
            break
    score = score_frames if model.task.frame_head else score_clips
    edges = np.cumsum([len(part) for part in features])[:-1].tolist()
    encoding, scoring = [], []
    with reproducible(config.seed, 1):
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            vectors = list(encode_features(model, features).vectors.tensor_split(edges))
            encoded = time.perf_counter()
            score(model, vectors)
            encoding.append(encoded - started)
            scoring.append(time.perf_counter() - encoded)
    return frames / (min(encoding) + min(scoring)), frames / min(scoring)


def _largest_batch(
    dataset: Dataset, loaded: Loaded, task: EventTask, config: TrainConfig, lookahead: int
) -> tuple[int, int, int]:
    """B, T and M of the largest batch of the first epoch."""
    made = batches_of(Examples.of(dataset, "train", loaded, task), loaded, task, config, lookahead)
    batches = Batches([part for part in made if part], config.seed)
    shapes = [(*batch.counts.shape, len(batch.objects)) for batch, _ in batches(1) if batch is not None]
    clips, steps, objects = max(shapes, key=lambda shape: shape[0] * shape[1] + shape[2])
    return clips, steps, objects


def _probe(config: CompareConfig, out: Path) -> None:
    """How far back each cell remembers: a table, probe.json and probe.png."""
    found: dict[str, dict[int, list[float]]] = {}
    print("\nhow far back a cell remembers: what was seen first decides the label of an event so many frames later;")
    print(f"accuracy, mean of the networks trained ({CHANCE} is chance)")
    wide = max(len(cell) for cell in config.cells)
    print(" ".join([" " * wide, *(f"{distance:>8}" for distance in config.distances)]))
    for cell in dict.fromkeys(config.cells):
        print(f"{cell}: probing", file=sys.stderr)
        architecture = replace(architecture_of(config.train), cell=cell)
        found[cell] = probe(architecture, config.distances, lr=config.train.lr, seed=config.train.seed)
        print(" ".join([f"{cell:{wide}}", *(f"{np.mean(shares):8.3f}" for shares in found[cell].values())]))
        write_json(out / "probe.json", {"chance": CHANCE, "cells": found})
        plot_probe(found, out / "probe.png", chance=CHANCE)


def table(rows: Sequence[Row], judged: str) -> str:
    """Rows as text, and below them what was measured."""
    names = [name for name in HEADLINES if any(name in row.metrics for row in rows)]
    heads = ["", "cell", "all", "s/epoch", "frames/s", "cell only", "MB/step", "best", *names]
    lines = [heads]
    for row in rows:
        figures = [_figure(row.metrics.get(name), row.spread.get(name)) for name in names]
        lines.append(
            [
                row.name,
                f"{row.cell_parameters:,}",
                f"{row.parameters:,}",
                f"{row.epoch_s:.2f}",
                f"{row.frames_per_s:,.0f}",
                f"{row.cell_frames_per_s:,.0f}",
                f"{row.step_bytes / 1e6:.0f}",
                f"{row.best_epoch:g}",
                *figures,
            ]
        )
    wide = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    text = [
        "  ".join([f"{line[0]:{wide[0]}}", *(f"{cell:>{w}}" for cell, w in zip(line[1:], wide[1:], strict=True))])
        for line in lines
    ]
    return "\n".join(
        [
            *text,
            "cell, all: parameters of the recurrent layer and of the network. s/epoch: median, with validation.",
            "frames/s: features in memory to scores, one core; cell only: without the encoder. MB/step: peak of a",
            f"training step on a CPU over what PyTorch takes anyway. best: epoch chosen. {', '.join(names)}: {judged}.",
        ]
    )


def _figure(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.3f}" if spread is None else f"{mean:.3f} +- {spread:.3f}"


def _csv(rows: Sequence[Row]) -> bytes:
    """A line a row; each metric is a column, and its spread one behind it where there are folds."""
    flat = []
    for row in rows:
        values = {f.name: getattr(row, f.name) for f in fields(row) if f.name not in ("metrics", "spread")}
        for name, value in row.metrics.items():
            values[name] = value
            if name in row.spread:
                values[f"{name}_spread"] = row.spread[name]
        flat.append(values)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for values in flat for name in values)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()
