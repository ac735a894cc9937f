"""Training: annotations and features in, a model out."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from vidgru.cache import SequenceCache
from vidgru.config import TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Dataset, clips
from vidgru.datasets.splits import assign_splits, folds, report
from vidgru.errors import AnnotationError, SettingsError, VidgruError
from vidgru.extract.pipeline import weights_what
from vidgru.files import write_atomic
from vidgru.model.checkpoint import BEST, EventModel, digest
from vidgru.model.event_gru import Architecture, EventGRU
from vidgru.train.batches import ClipBatches
from vidgru.train.data import LabelledClip, Loaded, Task, extract_missing, load_features, place
from vidgru.train.evaluate import judge, table
from vidgru.train.losses import event_loss
from vidgru.train.plots import plot_confusion, plot_curves
from vidgru.train.thresholds import fit_decoding
from vidgru.train.validation import Validation, log_loss

LAST = "last.safetensors"
_WARMUP = 0.1  # of all steps
_CLIP_NORM = 1.0
_FOLLOWED = ("accuracy", "map", "macro_f1")  # figures that are shown and kept
_AVERAGED = 3  # epochs over which the weights that are kept are averaged


def train(dataset_path: str | Path, config: TrainConfig) -> Path:
    """Train a model on annotated recordings; with `config.folds`, cross-validate instead.

    Makes missing features first, and says what the annotations hold. Selection and stopping look at the validation
    split alone. Equal inputs and seeds give equal bytes on one machine with one number of threads.

    Args:
        dataset_path: as for `load_dataset`.
        config: the settings.

    Returns:
        The run's folder. It holds config.yaml, and best.safetensors, last.safetensors, results.csv, metrics.json,
        curves.png, and confusion.png where a clip has one label; of a cross-validation, folds.json.

    Raises:
        AnnotationError, WeightsError, SettingsError, OutputError, VidgruError: each with its remedy.
    """
    dataset = assign_splits(load_dataset(dataset_path, allow_missing=config.allow_missing))
    task = Task.of(dataset)
    cache, what = SequenceCache(config.features), weights_what(config)
    videos = [clip.video for clip in clips(dataset) if config.folds or clip.split in ("train", "val")]
    extracted = extract_missing(dataset, videos, cache, what, config, config)
    print(report(extracted.dataset))
    loaded = load_features(cache, extracted.keys)
    out = Path(config.out).expanduser()
    write_atomic(out / "config.yaml", yaml.safe_dump(asdict(config), allow_unicode=True).encode())

    if config.folds:
        figures = cross_validate(extracted.dataset, loaded, task, what, config)
        write_atomic(out / "folds.json", _json({"failed": extracted.failed, **figures}))
        return out

    result = fit(extracted.dataset, loaded, task, what, config)
    result.best.save(out / BEST)
    result.last.save(out / LAST)
    write_atomic(out / "results.csv", _csv(result.epochs))
    facts = {"split": "val", "epoch": result.best_epoch, "failed": extracted.failed, **result.metrics}
    write_atomic(out / "metrics.json", _json(facts))
    plot_curves(out / "results.csv", out / "curves.png", best_epoch=result.best_epoch)
    if "confusion" in facts:
        plot_confusion(facts["confusion"], facts["names"], out / "confusion.png", title="val")
    print(f"validation, epoch {result.best_epoch} of {len(result.epochs)}\n{table(facts)}\nmodel: {out / BEST}")
    return out


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What training came to.

    Attributes:
        best: the model of the best epoch.
        last: that of the last one.
        best_epoch: from 1.
        epochs: a row of figures each.
        metrics: of `best` on the validation split.
    """

    best: EventModel
    last: EventModel
    best_epoch: int
    epochs: list[dict[str, float]]
    metrics: dict[str, Any]


def fit(dataset: Dataset, loaded: Loaded, task: Task, what: dict[str, Any], config: TrainConfig) -> Result:
    """Train on split `train`, select on split `val`.

    Args:
        dataset: with both splits.
        loaded: features of the recordings of both.
        task: what is to be told apart.
        what: settings of the features.
        config: how.

    Raises:
        AnnotationError: one of the splits has no clips, or those to train on do not differ.
        VidgruError: the loss is no longer a number.
    """
    train_clips = _placed(dataset, "train", loaded, task)
    if all(np.array_equal(clip.labels, train_clips[0].labels) for clip in train_clips):
        raise AnnotationError(
            f"{dataset.source}: all {len(train_clips)} clips of split 'train' are labelled alike: nothing to learn",
            "move rows of other labels to train",
        )
    val = Validation(loaded, _placed(dataset, "val", loaded, task))
    batches = ClipBatches(
        train_clips,
        loaded,
        task,
        size=config.batch,
        seed=config.seed,
        balance=config.balance,
        augment=config.augment,
    )
    with _reproducible(config.seed, config.threads or 1):
        device = _device(config.device)
        network = EventGRU(loaded.layout, len(task.names), _architecture(config))
        network.encoder.fit(clip.cut(loaded.features[clip.video]) for clip in train_clips)
        network.to(device)
        # What is validated and kept is the running mean of the weights (Polyak and Juditsky 1992): it does not swing
        # from epoch to epoch, so that choosing an epoch by few validation clips is less of a lottery.
        kept = copy.deepcopy(network).eval()
        optimizer = torch.optim.AdamW(_groups(network, config.weight_decay), lr=config.lr)
        steps = config.epochs * batches.count
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warmup_cosine((step + 1) / steps))
        model = EventModel(
            network=kept,
            labels=task.labels,
            background=task.background,
            multi_label=task.multi_label,
            what=what,
            weights=config.weights,
            names=loaded.names,
            decode=fit_decoding(np.zeros_like(val.labels), val.labels, task, 1.0),
            window_s=round(max(batches.steps, 2) / config.fps, 3),
            versions={name: version(name) for name in ("vidgru", "torch")},
            seen=tuple(sorted({digest(loaded.keys[clip.video]) for clip in [*train_clips, *val.clips]})),
        )
        epochs: list[dict[str, float]] = []
        best_epoch, best_score, best_state = 0, (-math.inf, -math.inf), kept.state_dict()
        for epoch in tqdm(range(1, config.epochs + 1), unit="epoch", leave=False, disable=not sys.stderr.isatty()):
            started, total, count = time.monotonic(), 0.0, 0
            network.train()
            for batch in batches(epoch):
                batch = batch.to(device)
                scores = network(batch.objects, batch.object_mask, batch.frame, batch.mask)
                loss = event_loss(scores, batch, multi_label=task.multi_label, smoothing=config.label_smoothing)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), _CLIP_NORM)
                optimizer.step()
                schedule.step()
                _follow(kept, network, 1 / (_AVERAGED * batches.count + 1))
                total, count = total + loss.item() * len(batch), count + len(batch)
            if not math.isfinite(total):
                raise VidgruError(
                    f"the training loss is {total} in epoch {epoch}",
                    "lower --lr; if it stays, vidgru info --verify on the features tells whether they are sound",
                )
            metrics = judge(model, scores := val.scores(model), val.clips, intervals=False)
            val_loss, main = (
                log_loss(scores, val.labels, task.multi_label),
                metrics["map" if task.multi_label else "accuracy"] or 0.0,  # None: nothing happens in validation
            )
            epochs.append(
                {
                    "epoch": epoch,
                    "seconds": time.monotonic() - started,
                    "train_loss": total / count,
                    "val_loss": val_loss,
                    **{f"val_{name}": metrics[name] for name in _FOLLOWED if name in metrics},
                }
            )
            if (main, -val_loss) > best_score:
                best_epoch, best_score = epoch, (main, -val_loss)
                best_state = {name: value.clone() for name, value in kept.state_dict().items()}
            elif config.patience and epoch - best_epoch >= config.patience:
                break
        best, last = (_finished(model, state, val, task) for state in (best_state, kept.state_dict()))
        metrics = judge(best, val.scores(best), val.clips, intervals=True)
    return Result(best=best, last=last, best_epoch=best_epoch, epochs=epochs, metrics=metrics)


def cross_validate(
    dataset: Dataset, loaded: Loaded, task: Task, what: dict[str, Any], config: TrainConfig
) -> dict[str, Any]:
    """Train once for each of `config.folds` parts and judge each model on the part it has not seen; prints figures.

    Args:
        dataset: its own splits are not used.
        loaded: features of all its recordings.
        task: what is to be told apart.
        what: settings of the features.
        config: how.

    Returns:
        `folds`, the metrics of each, and `mean` and `spread` (standard deviation over folds) of the headlines.

    Raises:
        AnnotationError: fewer groups of recordings than folds.
        VidgruError: as from `fit`.
    """
    judged: list[dict[str, Any]] = []
    for number, fold in enumerate(folds(dataset, config.folds, config.seed), start=1):
        model = fit(fold, loaded, task, what, config).best
        test = Validation(loaded, _placed(fold, "test", loaded, task))
        metrics = judge(model, test.scores(model), test.clips, intervals=False)
        judged.append(metrics)
        shown = ", ".join(f"{name} {metrics[name]:.3f}" for name in _FOLLOWED if metrics.get(name) is not None)
        print(f"fold {number} of {config.folds}: {metrics['clips']} clips, {shown}")
    table = {name: [m[name] for m in judged if m.get(name) is not None] for name in _FOLLOWED}
    mean = {name: float(np.mean(values)) for name, values in table.items() if values}
    spread = {name: float(np.std(values)) for name, values in table.items() if values}
    for name, value in mean.items():
        print(f"{name} {value:.3f} +- {spread[name]:.3f} over {config.folds} folds")
    return {"folds": judged, "mean": mean, "spread": spread}


def _placed(dataset: Dataset, split: str, loaded: Loaded, task: Task) -> list[LabelledClip]:
    times = {video: features.time_s for video, features in loaded.features.items()}
    placed = place(dataset, split, times, task)
    if not placed:
        raise AnnotationError(f"{dataset.source}: no clips in split {split!r}", "add rows with that split")
    return placed


def _finished(model: EventModel, state: dict[str, Tensor], val: Validation, task: Task) -> EventModel:
    """A model of its own, on the CPU, with the weights `state` and thresholds that fit them."""
    network = EventGRU(model.layout, len(task.names), model.network.architecture)
    network.load_state_dict(state)
    model = replace(model, network=network.eval())
    model = replace(model, decode=fit_decoding(val.scores(model), val.labels, task, model.window_s))
    metrics = judge(model, val.scores(model), val.clips, intervals=False)
    return replace(model, metrics={name: metrics[name] for name in _FOLLOWED if metrics.get(name) is not None})


@torch.no_grad()
def _follow(kept: nn.Module, network: nn.Module, share: float) -> None:
    """Move the weights of `kept` by `share` of the way to those of `network`."""
    for mean, value in zip(kept.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, share)


def _architecture(config: TrainConfig) -> Architecture:
    return Architecture(**{name: getattr(config, name) for name in Architecture.__dataclass_fields__})


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices, none on biases and scales."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _warmup_cosine(done: float) -> float:
    """Share of the highest learning rate after the share `done` of all steps."""
    if done < _WARMUP:
        return done / _WARMUP
    return 0.5 * (1 + math.cos(math.pi * min((done - _WARMUP) / (1 - _WARMUP), 1.0)))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        problem = str(error).splitlines()[0]
        raise SettingsError(f"device is {name!r}, which cannot be used: {problem}") from None
    return device


@contextmanager
def _reproducible(seed: int, threads: int) -> Iterator[None]:
    """Torch's random numbers from a seed, on so many CPU threads, and both as they were afterwards.

    The steps of such a network are too small to share: one thread is the fastest, far so beside other work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _csv(rows: Many[Mapping[str, float | None]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else f"{value:.6g}" for name, value in row.items()})
    return text.getvalue().encode()
