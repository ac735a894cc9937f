"""The `compare` command: train several settings on the same splits and compare cost and accuracy."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidgru.config import CompareConfig, DetectorSettings, RuntimeSettings, TrainConfig
from vidgru.datasets.dataset import Dataset
from vidgru.datasets.formats.csv_reader import format_csv
from vidgru.datasets.splits import folds
from vidgru.errors import SettingsError
from vidgru.flags import list_flags, suggest, to_settings, with_settings
from vidgru.model.checkpoint import EventModel
from vidgru.model.event_gru import count_parameters
from vidgru.model.scoring import encode_features, score_clips, score_frames
from vidgru.storage import user_path, write_atomic, write_json
from vidgru.training.data import LoadedFeatures
from vidgru.training.distributed import refuse_distributed
from vidgru.training.examples import Examples
from vidgru.training.run import (
    COMPARISON,
    HEADLINES,
    TrainingData,
    complete_settings,
    evaluate_loaded,
    over_folds,
    prepare,
)
from vidgru.training.trainer import TrainingResult, reproducible, train_model

_ROUNDS = 5  # of timing; the fastest counts, because whatever else the machine does only slows
_TIMED_FRAMES = 10_000  # at least, over which speed is measured
# settings that all rows share: the data, and where and how it is processed
_SHARED = {field.name for kind in (DetectorSettings, RuntimeSettings) for field in fields(kind)}
_SHARED |= {"features", "out", "exist_ok", "videos", "allow_missing", "folds", "group_by", "resume", "captions"}


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """Cost and accuracy of one of the compared settings.

    Attributes:
        name: Cell, or variant as it was written.
        parameters: Number of parameters of the network.
        cell_parameters: Number of parameters of the recurrent layer.
        epoch_s: Seconds per training epoch, validation included; median of all epochs.
        frames_per_s: Frames per second from features in memory to scores, on one core.
        cell_frames_per_s: Frames per second from encoded frames to scores: recurrent layer and heads.
        best_epoch: Best epoch on validation; median of all folds.
        metrics: Main metrics by name, mean over folds.
        spread: Their standard deviation over folds; empty without folds.
    """

    name: str
    parameters: int
    cell_parameters: int
    epoch_s: float
    frames_per_s: float
    cell_frames_per_s: float
    best_epoch: float
    metrics: dict[str, float]
    spread: dict[str, float]


def compare(dataset_path: str | Path, config: CompareConfig) -> list[ComparisonRow]:
    """Train each cell and variant on the same data and splits or folds, from the same seed.

    Features are extracted and read once. Without folds, metrics are of the validation split, on which epochs were
    chosen too; the test split is not used, so that it can still evaluate the model chosen by this table. With folds,
    they are of parts that training has not seen.

    Prints the table, and writes compare.json and compare.csv into the folder `out` as soon as each row is finished.

    Args:
        dataset_path: As for `train`.
        config: Settings to compare, and those that all rows share.

    Raises:
        SettingsError: A variant is invalid.
        VidgruError: As raised by `train`.
        KeyboardInterrupt: After writing the finished rows.
    """
    refuse_distributed("compare")
    config = replace(config, train=complete_settings(config.train))
    settings, out = parse_variants(config), user_path(config.train.out)
    data, common = prepare(dataset_path, config.train), config.train
    parts = [data.dataset]
    if common.folds:
        parts = list(folds(data.dataset, common.folds, common.seed, common.group_by or None))
    evaluated = f"mean and spread over {common.folds} folds" if common.folds else "validation split"
    rows: list[ComparisonRow] = []
    for name, row_config in settings.items():
        print(f"{name}: training", file=sys.stderr)
        rows.append(_row(name, parts, data, row_config))
        facts = {"evaluated": evaluated, "failed": data.failed, "settings": to_settings(config)}
        write_json(out / COMPARISON, {**facts, "rows": [asdict(row) for row in rows]})
        write_atomic(out / "compare.csv", _csv(rows))
    print(f"{comparison_table(rows, evaluated)}\ntable: {out / 'compare.csv'}")
    return rows


def parse_variants(config: CompareConfig) -> dict[str, TrainConfig]:
    """Return the settings of each row by its name: first the cells, then the variants.

    Raises:
        SettingsError: A variant has an unknown or shared setting, or an invalid value.
    """
    rows = {str(cell): with_settings(config.train, cell=cell) for cell in config.cells}
    for text in config.variants:
        try:
            rows[text] = with_settings(config.train, **dict(_parse_setting(word) for word in text.split()))
        except SettingsError as error:
            raise SettingsError(f"variant {text!r}: {error.message}", error.remedy) from None
    return rows


def _parse_setting(word: str) -> tuple[str, Any]:
    """Name and value of `name=value`."""
    flags = list_flags(TrainConfig())
    name, equals, text = word.partition("=")
    name = name.replace("-", "_")
    if not equals:
        raise SettingsError(f"{word!r} is not a setting", 'write name=value, several as in "hidden=64 lr=0.001"')
    if name not in flags:
        remedy = suggest(name, flags.keys() - _SHARED, "vidgru train --help lists the settings")
        raise SettingsError(f"unknown setting {name!r}", remedy)
    if name in _SHARED:
        raise SettingsError(f"{name} is shared by all rows", f"pass it as --{name.replace('_', '-')}")
    return name, flags[name].parse(text, separator="+")


def _row(name: str, parts: Sequence[Dataset], data: TrainingData, config: TrainConfig) -> ComparisonRow:
    """Train and evaluate on every part, and measure the cost of the first model."""
    results: list[TrainingResult] = []
    metrics: list[dict[str, Any]] = []
    for part in parts:
        results.append(train_model(part, data.loaded, data.task, data.feature_settings, config))
        split = "test" if config.folds else "val"
        metrics.append(evaluate_loaded(results[-1].best, part, split, data.loaded, intervals=False))
    mean, spread = over_folds(metrics)
    model = results[0].best
    train = Examples.of(parts[0], "train", data.loaded.times, data.task, captions=config.captions)
    frames_per_s, cell_frames_per_s = _measure_speed(model, train, data.loaded, config)
    return ComparisonRow(
        name=name,
        parameters=count_parameters(model.network),
        cell_parameters=count_parameters(model.network.gru) if model.network.gru else 0,
        epoch_s=float(np.median([epoch["seconds"] for result in results for epoch in result.epochs])),
        frames_per_s=frames_per_s,
        cell_frames_per_s=cell_frames_per_s,
        best_epoch=float(np.median([result.best_epoch for result in results])),
        metrics=mean,
        spread=spread if config.folds else {},
    )


def _measure_speed(
    model: EventModel, train: Examples, loaded: LoadedFeatures, config: TrainConfig
) -> tuple[float, float]:
    """Frames per second through the whole network, and behind the encoder, on one core, recordings side by side."""
    features, frames = [], 0
    for video in itertools.cycle(train.videos):
        features.append(loaded.features[video])
        frames += len(features[-1])
        if frames >= _TIMED_FRAMES:
            break
    score = score_frames if model.task.frame_head else score_clips
    encoding_s, scoring_s = [], []
    with reproducible(config.seed, 1):
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            recordings = [encode_features(model, [part]) for part in features]
            encoded_at = time.perf_counter()
            score(model, recordings)
            encoding_s.append(encoded_at - started)
            scoring_s.append(time.perf_counter() - encoded_at)
    return frames / (min(encoding_s) + min(scoring_s)), frames / min(scoring_s)


def comparison_table(rows: Sequence[ComparisonRow], evaluated: str) -> str:
    """Rows as text, followed by what the columns mean."""
    names = [name for name in HEADLINES if any(name in row.metrics for row in rows)]
    lines = [["", "cell", "all", "s/epoch", "frames/s", "cell only", "best", *names]]
    for row in rows:
        lines.append(
            [
                row.name,
                f"{row.cell_parameters:,}",
                f"{row.parameters:,}",
                f"{row.epoch_s:.2f}",
                f"{row.frames_per_s:,.0f}",
                f"{row.cell_frames_per_s:,.0f}",
                f"{row.best_epoch:g}",
                *(_with_spread(row.metrics.get(name), row.spread.get(name)) for name in names),
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    table = [
        "  ".join([f"{line[0]:{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    legend = [
        "cell, all: parameters of the recurrent layer and of the network. s/epoch: median, with validation.",
        "frames/s: features in memory to scores, one core; cell only: without the encoder. best: best epoch.",
        f"{', '.join(names)}: {evaluated}.",
    ]
    return "\n".join([*table, *legend])


def _with_spread(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return "-"
    return f"{mean:.3f}" if spread is None else f"{mean:.3f} +- {spread:.3f}"


def _csv(rows: Sequence[ComparisonRow]) -> bytes:
    """One line per row; each metric is a column, followed by its spread if there are folds."""
    flat = []
    for row in rows:
        values = {f.name: getattr(row, f.name) for f in fields(row) if f.name not in ("metrics", "spread")}
        for name, value in row.metrics.items():
            values[name] = value
            if name in row.spread:
                values[f"{name}_spread"] = row.spread[name]
        flat.append(values)
    return format_csv(list(dict.fromkeys(name for values in flat for name in values)), flat).encode()
