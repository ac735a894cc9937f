"""Measure how much has to be watched and labelled until a model is nearly as good as with all labels.

    python scripts/bench_labels.py SET... --features features --weights yolov8n-pose.pt --out runs/labels

Plays a person from annotations. Half of the recordings, by group, are held out. Of the others, stretches are offered
a few at a time: by `vidgru.labeling.suggest`, and in random order. The person watches a stretch, labels the events that
are in it, watching those that overlap its edges to their end, and marks the rest as watched; of whole clips, the person
gives the clip's label. Then a small model (two members, five epochs, 64 hidden units, without
mirroring and the features of places, the same for all) is trained on what is labelled so far.

The figure is the accuracy of held-out clips, or the frame mAP of held-out recordings. Counted are minutes watched and
labels given until it reaches 95 % of the figure with all labels, there and in the next round. Prints rows and writes
OUT/labels.json, a table OUT/labels.md and a chart OUT/labels.png after every run; runs that are there are not repeated.

`--save-at 5,10` writes what is labelled after 5 and 10 minutes of watching as OUT/SET-STRATEGY-SEED-5min.csv ..., with
the held-out half as split test, to train other models on:

    vidgru train OUT/SET-suggestions-0-10min.csv --out run && vidgru eval run OUT/SET-suggestions-0-10min.csv
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from bench_rows import ResultRows, Row, panels
from matplotlib.figure import Figure

from vidgru.config import DetectorSettings, NetworkSettings, RuntimeSettings, TrainConfig
from vidgru.datasets.dataset import Dataset, clips, event_timelines
from vidgru.datasets.rows import AnnotationRow
from vidgru.datasets.splits import assign_splits, folds
from vidgru.datasets.writers import to_csv
from vidgru.errors import AnnotationError
from vidgru.labeling.intervals import merge_ranges, subtract_ranges, total_s
from vidgru.labeling.suggest import LabelledTime, Reason, suggest
from vidgru.model.checkpoint import EventModel
from vidgru.storage import write_atomic
from vidgru.training.run import TrainingData, evaluate_loaded, prepare
from vidgru.training.trainer import train_model
from vidgru.types import Annotation

STRATEGIES: dict[str, dict[Reason, float] | None] = {
    "suggestions": None,
    "random": {"random": 1.0},
}
TARGET = 0.95
_ROUNDS = 20  # in which all of a set would be watched


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="datasets, as for vidgru train")
    parser.add_argument("--features", default="features", help="folder of the sequence cache")
    parser.add_argument("--weights", required=True, help="detector weights")
    parser.add_argument("--fps", type=float, default=8.0, help="samples per second")
    parser.add_argument("--imgsz", type=int, default=640, help="input size of the detector")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--save-at", default="", help="minutes after which the labels are written, such as 5,10")
    parser.add_argument("--out", type=Path, default=Path("runs/labels"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    save_at = sorted(float(minutes) for minutes in args.save_at.split(",") if minutes)
    results = ResultRows(args.out, "labels", ("set", "weights", "fps", "imgsz", "strategy", "seed"), table, draw)
    for path in args.sets:
        config = TrainConfig(
            detector=DetectorSettings(weights=args.weights, fps=args.fps, imgsz=args.imgsz),
            network=NetworkSettings(hidden=64, drop_features=("appearance", "colour", "scene")),
            runtime=RuntimeSettings(threads=1),
            features=args.features,
            folds=2,
            members=2,
            epochs=5,
            mirror=False,
            captions=False,
        )
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            data = prepare(path, config)
        key = {"set": Path(path).stem, "weights": Path(args.weights).name, "fps": args.fps, "imgsz": args.imgsz}
        for seed, strategy in itertools.product(range(args.seeds), args.strategies.split(",")):
            others = results.matching({**key, "seed": seed})
            if any(row["strategy"] == strategy for row in others):
                continue
            full = others[0]["full"] if others else None
            row = {**key, "strategy": strategy, "seed": seed}
            stem = args.out / f"{key['set']}-{strategy}-{seed}"
            saving = {minutes: Path(f"{stem}-{minutes:g}min.csv") for minutes in save_at}
            row |= simulate(data, config, STRATEGIES[strategy], seed, full, saving)
            results.add(row)
            print(row_text(row), flush=True)


# --- the person -------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Person:
    """A person who labels the recordings of a pool as their annotations say.

    Attributes:
        dataset: Annotations of the pool.
        durations: Seconds of each of its recordings.
        labelled: What was labelled so far, by recording.
        watched_s: Seconds of video watched.
        labels: Events and clips labelled.
    """

    dataset: Dataset
    durations: dict[str, float]
    labelled: dict[str, LabelledTime] = field(default_factory=dict)
    watched_s: float = 0.0
    labels: int = 0

    def __post_init__(self) -> None:
        names = self.dataset.labels
        self._events = {
            line.video: [(start_s, end_s, names[label]) for start_s, end_s, label in line.events]
            for line in event_timelines(self.dataset)
        }
        self._clips = {clip.video: [names[label] for label in clip.labels] for clip in clips(self.dataset)}

    def watch(self, video: str, start_s: float, end_s: float) -> None:
        """Watch a stretch and label what is in it."""
        before = self.labelled.get(video, LabelledTime())
        if not self._events:
            whole = tuple((0.0, np.inf, label) for label in self._clips[video])
            self.labelled[video] = LabelledTime(known=((0.0, np.inf),), events=whole)
            self.watched_s += end_s - start_s
            self.labels += 1
            return
        new = [event for event in self._events[video] if event[0] < end_s and event[1] > start_s]
        watched = merge_ranges([(start_s, end_s), *((first_s, last_s) for first_s, last_s, _ in new)])
        self.watched_s += total_s(subtract_ranges(watched, before.known))
        events = dict.fromkeys((*before.events, *new))
        self.labels += len(events) - len(before.events)
        self.labelled[video] = LabelledTime(known=tuple(merge_ranges([*before.known, *watched])), events=tuple(events))

    def annotations(self) -> Dataset:
        """Return what is labelled so far, as a dataset."""
        rows = []
        extra = {row.annotation.video: row.extra for row in self.dataset.rows}
        for video, labels in self.labelled.items():

            def add(start_s: float | None, end_s: float | None, label: str | None, video: str = video) -> None:
                note = Annotation(video=video, start_s=start_s, end_s=end_s, label=label, split="train")
                rows.append(AnnotationRow(annotation=note, where="", extra=extra[video], watched=label is None))

            if not self._events:
                for label in self._clips[video] or [None]:
                    add(None, None, label)
                continue
            for start_s, end_s, label in labels.events:
                add(start_s, end_s, label)
            for start_s, end_s in subtract_ranges(labels.known, [event[:2] for event in labels.events]):
                add(start_s, min(end_s, self.durations[video]), None)
        return replace(self.dataset, rows=tuple(rows))


def simulate(
    data: TrainingData,
    config: TrainConfig,
    shares: dict[Reason, float] | None,
    seed: int,
    full: float | None,
    saving: Mapping[float, Path],
) -> Row:
    """Label a pool in rounds, and measure a model after each.

    Args:
        data: All recordings.
        config: How to train.
        shares: Criteria of suggestions, as for `suggest`.
        seed: Seed of suggestions and training.
        full: The figure with all labels and this seed; None if it is not known yet.
        saving: Files for what is labelled when not more than so many minutes have been watched, in order.

    Returns:
        `full`, the figure with all labels; `curve`, minutes, labels and figure of each round; `minutes` and `labels`
        until the figure reaches `TARGET` of `full`.
    """
    config = replace(config, seed=seed)
    divided = folds(data.dataset, 2, 0)[0]  # the same parts for all strategies and seeds
    pool_rows = tuple(row for row in divided.rows if row.annotation.split != "test")
    held_out = replace(divided, rows=tuple(row for row in divided.rows if row.annotation.split == "test"))
    pool = replace(divided, rows=pool_rows)
    names = list(dict.fromkeys(row.annotation.video for row in pool_rows))
    recordings = replace(data.loaded, features={name: data.loaded.features[name] for name in names})
    durations = {name: float(f.time_s[-1]) + 1 / config.detector.fps for name, f in recordings.features.items()}
    all_known = Person(pool, durations)
    for name in names:
        all_known.watch(name, 0.0, durations[name])
    if full is None:
        full = measure(train(data, all_known.annotations(), config), held_out, data)
    person = Person(pool, durations)
    unsaved = dict(saving)
    budget_s = all_known.watched_s / _ROUNDS
    curve: list[tuple[float, int, float]] = []
    model: EventModel | None = None
    while person.watched_s < all_known.watched_s - 1e-6:
        until_s = person.watched_s + budget_s
        offered = shares if model or shares is None or "random" in shares else {"random": 1.0}
        suggestions = suggest(model, recordings, person.labelled, n=50, seed=seed + 1000 * len(curve), shares=offered)
        for suggestion in suggestions:
            if person.watched_s >= until_s - 1e-6:
                break
            next_s = person.watched_s + suggestion.end_s - suggestion.start_s
            for minutes in [minutes for minutes in unsaved if next_s > 60 * minutes]:
                save(unsaved.pop(minutes), person.annotations(), held_out)
            person.watch(suggestion.video, suggestion.start_s, suggestion.end_s)
        if not suggestions:  # crumbs are left
            break
        model = train(data, person.annotations(), config)
        curve.append((round(person.watched_s / 60, 3), person.labels, round(measure(model, held_out, data), 4)))
        if len(curve) > 1 and min(curve[-1][2], curve[-2][2]) >= TARGET * full and not unsaved:
            break
    for path in unsaved.values():
        save(path, person.annotations(), held_out)
    curve.append((round(all_known.watched_s / 60, 3), all_known.labels, round(full, 4)))
    good = [value >= TARGET * full for _, _, value in curve] + [True]
    minutes, labels, _ = next(point for i, point in enumerate(curve) if good[i] and good[i + 1])
    return {"full": round(full, 4), "minutes": minutes, "labels": labels, "curve": curve}


def save(path: Path, labelled: Dataset, held_out: Dataset) -> None:
    """Write labels, and the held-out rows as split test, with the paths of their videos."""
    rows = [
        replace(
            row, annotation=replace(row.annotation, video=str(dataset.recordings[row.annotation.video].path.absolute()))
        )
        for dataset in (labelled, held_out)
        for row in dataset.rows
    ]
    write_atomic(path, to_csv(rows).encode())


def train(data: TrainingData, dataset: Dataset, config: TrainConfig) -> EventModel | None:
    """Train a model; None if the labels do not suffice."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            dataset = assign_splits(dataset)
            return train_model(dataset, data.loaded, data.task, data.feature_settings, config).best
        except AnnotationError:
            return None


def measure(model: EventModel | None, held_out: Dataset, data: TrainingData) -> float:
    """Accuracy of clips, or frame mAP; 0 without a model."""
    if model is None:
        return 0.0
    metrics = evaluate_loaded(model, held_out, "test", data.loaded, intervals=False)
    return float(metrics["frame_map"] if "frame_map" in metrics else metrics["accuracy"])


# --- output -----------------------------------------------------------------------------------------------------------


def features_text(row: Row) -> str:
    """Format the detector settings of a run's features."""
    return f"{row['weights']}, {row['fps']:g} fps, {row['imgsz']} px"


def row_text(row: Row) -> str:
    """Format a run as a line."""
    figures = f"{row['minutes']:6.2f} min {row['labels']:4} labels to {TARGET:.0%} of {row['full']:.3f}"
    return f"{row['set']:20} {row['strategy']:12} seed {row['seed']}  {figures}"


def table(rows: Sequence[Row]) -> str:
    """Format means, and the lowest and highest of all seeds, as Markdown."""
    lines = ["| set | features | all labels | " + " | ".join(STRATEGIES) + " |", "|---" * (3 + len(STRATEGIES)) + "|"]
    for name, features in dict.fromkeys((row["set"], features_text(row)) for row in rows):
        of_set = [row for row in rows if (row["set"], features_text(row)) == (name, features)]
        minutes, labels, _ = of_set[0]["curve"][-1]
        full = float(np.mean([row["full"] for row in of_set]))
        cells = [f"{full:.2f} after {minutes:.1f} min, {labels} labels"]
        for strategy in STRATEGIES:
            runs = [row for row in of_set if row["strategy"] == strategy]
            both = []
            for unit in ("minutes", "labels") if runs else ():
                values = [run[unit] for run in runs]
                low, mean, high = min(values), float(np.mean(values)), max(values)
                digits = 1 if unit == "minutes" else 0
                spread = f" ({low:.{digits}f} to {high:.{digits}f})" if len(values) > 1 else ""
                both.append(f"{mean:.{digits}f} {unit.replace('minutes', 'min')}{spread}")
            cells.append(", ".join(both) or "not run")
        lines.append(f"| {name} | {features} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Row]) -> Figure:
    """Draw one panel per set: the figure over minutes watched of each run, until it stays at the target (dotted)."""
    sets = list(dict.fromkeys((row["set"], features_text(row)) for row in rows))
    figure, axes = panels([f"{name}\n{features}" for name, features in sets])
    for axis, key in zip(axes, sets, strict=True):
        of_set = [row for row in rows if (row["set"], features_text(row)) == key]
        for color, strategy in enumerate(STRATEGIES):
            runs = [row for row in of_set if row["strategy"] == strategy]
            for number, run in enumerate(runs):
                minutes, _, values = np.array([(0.0, 0, 0.0), *run["curve"][:-1]]).T  # the last is of all labels
                label = None if number else strategy
                axis.plot(minutes, values, marker=".", color=f"C{color}", alpha=0.8, label=label)
        axis.axhline(TARGET * np.mean([row["full"] for row in of_set]), color="0.5", linestyle=":")
        axis.set(xlabel="minutes watched", ylim=(0, 1.02))
    figure.axes[0].legend()
    return figure


if __name__ == "__main__":
    main()
