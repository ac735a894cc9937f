"""Compare models on the same features and folds, with few and with all annotated clips.

    python scripts/bench_quality.py SET... --features features --weights yolov8n-pose.pt
    python scripts/bench_quality.py fights/ --weights yolov8n-pose.pt --group-by group --shots 5,25,all --draws 3

Needs scikit-learn (pip install scikit-learn). Every set is cross-validated by group: clips by accuracy, timed events by
the average precision of frames (mean over labels). With few shots, each fold learns from so many clips per class, or
recordings with an event per label, drawn anew for each draw; the fold that is tested is whole. Rows:

- default: vidgru as `vidgru train` does it, five members and a linear path;
- network: one member without the linear path; no recurrence: default, but with the mean-pooling cell;
- LR, ET: logistic regression (C = 0.01, standardized) and 500 extra trees on pooled statistics of the same features:
  of clips mean, standard deviation, maximum and mean change; around frames the windows of `vidgru/model/summaries.py`;
- biLSTM: a bidirectional LSTM (64 units, 60 epochs) over frame summaries, as Label Studio's video backend trains one.

Prints rows and writes OUT/quality.json, a table OUT/quality.md and a chart OUT/quality.png after every row; rows that
are there are not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_rows import ResultRows, Row, panels
from matplotlib.figure import Figure
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from vidgru.config import DetectorSettings, RuntimeSettings, TrainConfig
from vidgru.datasets.dataset import Dataset, clips
from vidgru.datasets.splits import folds
from vidgru.model.scoring import encode_features, score_clips, score_frames
from vidgru.model.summaries import FrameSummaries, WindowSummaries, summarize_clip
from vidgru.training.examples import Examples, LabelledClip, TimedRecording
from vidgru.training.run import TrainingData, prepare
from vidgru.training.trainer import train_model
from vidgru.types import Array

Scores = Callable[[TrainingData, Dataset, TrainConfig], tuple[Array, Array]]  # scores [n,C] and truth [n,C]
_EPOCHS = 60  # of the biLSTM


def main() -> None:
    """Run the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="datasets, as for vidgru train")
    parser.add_argument("--features", default="features", help="folder of the sequence cache")
    parser.add_argument("--weights", required=True, help="detector weights")
    parser.add_argument("--fps", type=float, default=8.0, help="samples per second")
    parser.add_argument("--group-by", default="", help="what stays within a fold")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--shots", default="5,10,25,all", help="clips per class to learn from")
    parser.add_argument("--draws", type=int, default=3, help="repetitions, with another seed of folds and draws")
    parser.add_argument("--models", default=",".join(MODELS), help="rows of the table")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = ResultRows(args.out, "quality", ("set", "weights", "shots", "model"), table, draw)
    for path in args.sets:
        config = TrainConfig(
            detector=DetectorSettings(weights=args.weights, fps=args.fps),
            runtime=RuntimeSettings(threads=1),
            features=args.features,
            folds=args.folds,
            group_by=args.group_by,
            captions=False,
        )
        with contextlib.redirect_stdout(io.StringIO()):
            data = prepare(path, config)
        for shots, model in ((shots, model) for shots in args.shots.split(",") for model in args.models.split(",")):
            row = {"set": Path(path).name, "weights": Path(args.weights).name, "shots": shots, "model": model}
            if not results.matching(row):
                row |= cross_validate(data, config, model, shots, args.draws)
                results.add(row)
                print(row_text(row), flush=True)


def cross_validate(data: TrainingData, config: TrainConfig, model: str, shots: str, draws: int) -> Row:
    """Metric of each draw over all folds, their mean, an interval over draws, and processor seconds per training."""
    values, started = [], time.process_time()
    for seed in range(draws):
        scores, truth = [], []
        for number, fold in enumerate(folds(data.dataset, config.folds, seed, config.group_by or None)):
            rng = np.random.default_rng((seed, number))
            dataset = fold if shots == "all" else few_shots(fold, int(shots), rng)
            settings = replace(config, seed=seed)
            of_scores, of_truth = MODELS[model](data, dataset, settings)
            scores.append(of_scores)
            truth.append(of_truth)
        values.append(metric(np.concatenate(scores), np.concatenate(truth), timed=data.task.frame_head is not None))
    spread = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    seconds = (time.process_time() - started) / (draws * config.folds)
    return {"values": values, "mean": float(np.mean(values)), "spread": spread, "seconds": round(seconds, 2)}


def few_shots(dataset: Dataset, number: int, rng: np.random.Generator) -> Dataset:
    """Keep `number` clips per label of train and val; of recordings with timed events, as many per label."""
    kept: set[str] = set()
    by_label: dict[int, list[str]] = {}
    for clip in clips(dataset):
        if clip.split != "test":
            for label in clip.labels or {-1}:
                by_label.setdefault(label, []).append(clip.video)
    for videos in by_label.values():
        kept |= set(rng.permutation(sorted(set(videos)))[:number].tolist())
    rows = tuple(r for r in dataset.rows if r.annotation.split == "test" or r.annotation.video in kept)
    return replace(dataset, rows=rows)


def metric(scores: Array, truth: Array, *, timed: bool) -> float:
    """Accuracy of clips, or mean average precision of frames over labels."""
    if not timed:
        return float((scores.argmax(axis=1) == truth.argmax(axis=1)).mean())
    columns = [c for c in range(scores.shape[1]) if truth[:, c].any()]
    return float(np.mean([average_precision_score(truth[:, c] > 0, scores[:, c]) for c in columns]))


# --- vidgru -----------------------------------------------------------------------------------------------------------


def vidgru(**changes: Any) -> Scores:
    """A model trained by vidgru with some settings changed."""

    def run(data: TrainingData, dataset: Dataset, config: TrainConfig) -> tuple[Array, Array]:
        network = replace(config.network, **{k: v for k, v in changes.items() if hasattr(config.network, k)})
        others = {k: v for k, v in changes.items() if not hasattr(config.network, k)}
        with contextlib.redirect_stderr(io.StringIO()):
            model = train_model(
                dataset, data.loaded, data.task, data.feature_settings, replace(config, network=network, **others)
            ).best
        test = Examples.of(dataset, "test", data.loaded.times, data.task, captions=False)
        if data.task.frame_head:
            encoded = [encode_features(model, [data.loaded.features[r.video]]) for r in test.recordings]
            return known_frames(test.recordings, score_frames(model, encoded), len(model.labels))
        encoded = [encode_features(model, [data.loaded.features[clip.video]]) for clip in test.clips]
        return score_clips(model, encoded), np.stack([clip.labels for clip in test.clips])

    return run


def known_frames(recordings: Sequence[TimedRecording], scores: Sequence[Array], labels: int) -> tuple[Array, Array]:
    """Scores and targets of the frames whose label is known."""
    known = [recording.weights > 0 for recording in recordings]
    return (
        np.concatenate([rows[keep, :labels] for rows, keep in zip(scores, known, strict=True)]),
        np.concatenate([r.targets[keep, :labels] for r, keep in zip(recordings, known, strict=True)]),
    )


# --- baselines --------------------------------------------------------------------------------------------------------


def rows_of(data: TrainingData, examples: Examples, config: TrainConfig) -> list[Array]:
    """Pooled statistics: [1,P] of each clip, or [T,P] of each recording."""
    rows = []
    for example in [*examples.clips, *examples.recordings]:
        frames = FrameSummaries(data.loaded.feature_spec)
        summaries = frames.push(data.loaded.features[example.video])
        if isinstance(example, LabelledClip):
            rows.append(summarize_clip(torch.from_numpy(summaries[:, frames.clip_columns])).numpy()[None])
        else:
            columns, lag = summaries[:, frames.window_columns], round(config.lookahead * config.detector.fps)
            windows = WindowSummaries(columns.shape[1], config.detector.fps, lag)
            rows.append(np.concatenate([windows.push(columns), windows.finish()])[lag:])
    return rows


def pooled(make: Callable[[int], Any]) -> Scores:
    """A scikit-learn classifier on pooled statistics, one per label of timed events."""

    def run(data: TrainingData, dataset: Dataset, config: TrainConfig) -> tuple[Array, Array]:
        train, test = (of_splits(data, dataset, splits) for splits in (("train", "val"), ("test",)))
        x, x_test = rows_of(data, train, config), rows_of(data, test, config)
        if not data.task.frame_head:
            y, truth = (np.stack([clip.labels for clip in part.clips]) for part in (train, test))
            model = make(config.seed).fit(np.concatenate(x), y.argmax(axis=1))
            scores = np.zeros(truth.shape)
            scores[:, model.classes_] = model.predict_proba(np.concatenate(x_test))
            return scores, truth
        labels = len(data.task.labels)
        keep = np.concatenate([recording.weights for recording in train.recordings]) > 0
        y = np.concatenate([recording.targets for recording in train.recordings])[keep] > 0
        scores = [np.zeros((len(rows), labels)) for rows in x_test]
        for label in (label for label in range(labels) if y[:, label].any()):
            model = make(config.seed).fit(np.concatenate(x)[keep], y[:, label])
            for rows, values in zip(x_test, scores, strict=True):
                values[:, label] = model.predict_proba(rows)[:, 1]
        return known_frames(test.recordings, scores, labels)

    return run


def of_splits(data: TrainingData, dataset: Dataset, splits: Sequence[str]) -> Examples:
    """Examples of the splits that the dataset has."""
    present = [split for split in splits if split in dataset.splits]
    return Examples.joined(Examples.of(dataset, s, data.loaded.times, data.task, captions=False) for s in present)


class BiLSTM(nn.Module):
    """A bidirectional LSTM on standardized frame summaries, with an output per frame; clips take the mean."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, 64, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(128, outputs))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Map [T,Z] to [T,C]."""
        logits: torch.Tensor = self.head(self.lstm(frames[None])[0][0])
        return logits


def bilstm(data: TrainingData, dataset: Dataset, config: TrainConfig) -> tuple[Array, Array]:
    """Scores of a biLSTM, trained on whole clips and recordings."""
    torch.manual_seed(config.seed)
    train, test = (of_splits(data, dataset, splits) for splits in (("train", "val"), ("test",)))

    def frames(example: LabelledClip | TimedRecording) -> torch.Tensor:
        summaries = FrameSummaries(data.loaded.feature_spec)
        return torch.from_numpy(summaries.push(data.loaded.features[example.video])[:, summaries.clip_columns])

    learnt = [*train.clips, *train.recordings]
    inputs = [frames(example) for example in learnt]
    std, mean = torch.std_mean(torch.cat(inputs), dim=0)
    std = std.clamp(min=1e-6)
    targets = [torch.from_numpy(e.labels if isinstance(e, LabelledClip) else e.targets) for e in learnt]
    model = BiLSTM(len(mean), targets[0].shape[-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_of = nn.BCEWithLogitsLoss()
    for _ in range(_EPOCHS):
        for index in torch.randperm(len(inputs)).tolist():
            logits = model(((inputs[index] - mean) / std).clamp(-5, 5))
            loss = loss_of(logits.mean(dim=0) if targets[index].ndim == 1 else logits, targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        model.eval()
        scores = [model(((frames(e) - mean) / std).clamp(-5, 5)).sigmoid() for e in [*test.clips, *test.recordings]]
    if data.task.frame_head:
        return known_frames(test.recordings, [rows.numpy() for rows in scores], len(data.task.labels))
    return torch.stack([rows.mean(dim=0) for rows in scores]).numpy(), np.stack([clip.labels for clip in test.clips])


MODELS: dict[str, Scores] = {
    "default": vidgru(),
    "network": vidgru(members=1, linear=False),
    "no recurrence": vidgru(cell="none"),
    "LR": pooled(lambda _: make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))),
    "ET": pooled(lambda seed: ExtraTreesClassifier(500, random_state=seed)),
    "biLSTM": bilstm,
}


# --- output -----------------------------------------------------------------------------------------------------------


def row_text(row: Row) -> str:
    """A row of the table."""
    spread = "" if row["spread"] is None else f" +- {row['spread']:.3f}"
    where = f"{row['set']}, {row['weights']}, {row['shots']} per class"
    return f"{where:50} {row['model']:14} {row['mean']:.3f}{spread}  {row['seconds']:.1f} s"


def table(rows: Sequence[Row]) -> str:
    """Markdown table: a row per set and model, a column per number of clips; seconds are the last column's."""
    shots = sorted({row["shots"] for row in rows}, key=_number)
    lines = ["| set | model | " + " | ".join(shots) + " | s per training |", "|---" * (len(shots) + 3) + "|"]
    for key in dict.fromkeys((row["set"], row["weights"], row["model"]) for row in rows):
        of_key = {row["shots"]: row for row in rows if (row["set"], row["weights"], row["model"]) == key}
        cells = []
        for number in shots:
            row = of_key.get(number)
            spread = "" if row is None or row["spread"] is None else f" ± {row['spread']:.3f}"
            cells.append("" if row is None else f"{row['mean']:.3f}{spread}")
        seconds = next(of_key[number]["seconds"] for number in reversed(shots) if number in of_key)
        lines.append(f"| {key[0]}, {key[1]} | {key[2]} | {' | '.join(cells)} | {seconds:.1f} |")
    return "\n".join(lines) + "\n"


def _number(shots: str) -> float:
    return math.inf if shots == "all" else int(shots)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw one panel per set: the metric over the number of clips per class."""
    sets = list(dict.fromkeys((row["set"], row["weights"]) for row in rows))
    figure, axes = panels([", ".join(key) for key in sets])
    for axis, key in zip(axes, sets, strict=True):
        of_set = [row for row in rows if (row["set"], row["weights"]) == key]
        shots = sorted({row["shots"] for row in of_set}, key=_number)
        for color, model in enumerate(MODELS):
            points = sorted((row for row in of_set if row["model"] == model), key=lambda row: _number(row["shots"]))
            x = [shots.index(row["shots"]) for row in points]
            y, spread = [row["mean"] for row in points], [row["spread"] or 0 for row in points]
            axis.errorbar(x, y, spread, marker="o", label=model if points else None, color=f"C{color}")
        axis.set(xlabel="clips per class", xticks=range(len(shots)), xticklabels=shots)
    # Sets may lack rows that others have.
    lines = {label: line for axis in figure.axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside right upper")
    return figure


if __name__ == "__main__":
    main()
