"""Training as a command: a data set in, a run's folder out; or figures of a cross-validation."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vidgru.cache import SequenceCache
from vidgru.config import TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Dataset, clips, described_segments, select_splits
from vidgru.datasets.splits import assign_splits, folds, report
from vidgru.errors import VidgruError
from vidgru.extraction.import_detections import open_detections
from vidgru.extraction.pipeline import feature_settings_for
from vidgru.flags import to_flags
from vidgru.model.checkpoint import BEST, EventModel, EventTask, load_model
from vidgru.model.scoring import encode_features
from vidgru.storage import write_atomic, write_json
from vidgru.training.data import FeatureLocations, Loaded, extract_missing, load_features, task_of
from vidgru.training.distributed import ProcessGroup, process_group, refuse_distributed
from vidgru.training.evaluate import evaluate_model, table
from vidgru.training.plots import plot_curves
from vidgru.training.trainer import fit

LAST = "last.safetensors"
# of a cross-validation, each with its spread over folds
HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1", "map", "event_f1", "map_50", "frame_map", "cider_d")


def train(dataset_path: str | Path, config: TrainConfig) -> Path:
    """Train a model on annotated recordings; with `config.folds`, cross-validate instead.

    Makes missing features first, and says what the annotations hold. Selection and stopping look at the validation
    split alone. Equal inputs and seeds give equal bytes on one machine with one number of threads. Started by
    `torchrun`, the processes train one model between them.

    Args:
        dataset_path: as for `load_dataset`.
        config: the settings.

    Returns:
        The run's folder. It holds config.yaml, and best.safetensors, last.safetensors, state.safetensors (to resume
        from), results.csv, metrics.json, and plots; of a cross-validation, folds.json.

    Raises:
        AnnotationError, WeightsError, SettingsError, ModelError, OutputError, VidgruError: each with its remedy.
        KeyboardInterrupt: with what was finished written.
    """
    if config.folds:
        refuse_distributed("cross-validation")
    with process_group() as processes:
        return _train(dataset_path, config, processes)


def _train(dataset_path: str | Path, config: TrainConfig, processes: ProcessGroup) -> Path:
    if config.init:
        load_model(config.init)  # what cannot be begun with is said before hours of extraction
    extracted, loaded, task, feature_settings = prepare(dataset_path, config)
    if not processes.alike(str(sorted(extracted.keys.items()))):  # or they would wait for one another's batches
        raise VidgruError("a recording was read by one process and not by another", "start it again")
    out = Path(config.out).expanduser()
    first = processes.rank == 0
    settings = yaml.safe_dump(_plain(to_flags(config)), allow_unicode=True).encode()
    if config.folds:
        for figures in cross_validate(extracted.dataset, loaded, task, feature_settings, config):
            write_atomic(out / "config.yaml", settings)
            write_json(out / "folds.json", {"failed": extracted.failed, **figures})
        return out
    result = fit(extracted.dataset, loaded, task, feature_settings, config, folder=out, process_group=processes)
    if not first:
        if result.interrupted:
            raise KeyboardInterrupt
        return out
    # not before: a run that is refused, or interrupted at once, leaves an earlier one as it is
    write_atomic(out / "config.yaml", settings)
    result.best.save(out / BEST)
    result.last.save(out / LAST)
    write_atomic(out / "results.csv", _csv(result.epochs))
    metrics = evaluate_loaded(result.best, extracted.dataset, "val", loaded, intervals=True, out=out)
    facts = {"split": "val", "epoch": result.best_epoch, "failed": extracted.failed, **metrics}
    write_json(out / "metrics.json", facts)
    plot_curves(out / "results.csv", out / "curves.png", best_epoch=result.best_epoch)
    print(f"validation, epoch {result.best_epoch} of {len(result.epochs)}\n{table(facts)}\nmodel: {out / BEST}")
    if result.interrupted:
        raise KeyboardInterrupt
    return out


def prepare(
    dataset_path: str | Path, config: TrainConfig
) -> tuple[FeatureLocations, Loaded, EventTask, dict[str, Any]]:
    """All that training reads: annotations, features in memory, what is to be told apart, settings of the features.

    Makes missing features first, and prints what the annotations hold. Recordings of the test split are left alone
    unless the settings ask for folds.

    Raises:
        AnnotationError, WeightsError, SourceError, SettingsError, SettingsMismatchError, OutputError: each with its
            remedy.
    """
    detection_source = open_detections(config.imported, config.detector) if config.imported.detections else None
    seen = detection_source.find if detection_source else None
    dataset = assign_splits(load_dataset(dataset_path, allow_missing=config.allow_missing, seen=seen))
    own = dataset if config.folds else select_splits(dataset, ("train", "val"))
    task = task_of(own, captions=config.captions)
    cache = detection_source.cache(config.features) if detection_source else SequenceCache(config.features)
    feature_settings = detection_source.feature_settings if detection_source else feature_settings_for(config.detector)
    videos = [clip.video for clip in clips(own)]
    if config.captions:
        videos += [one.video for one in described_segments(own)]
    extracted = extract_missing(
        dataset, videos, cache, feature_settings, config.detector, config.runtime, detection_source
    )
    print(report(extracted.dataset))
    return extracted, load_features(cache, extracted.keys), task, feature_settings


def cross_validate(
    dataset: Dataset, loaded: Loaded, task: EventTask, feature_settings: dict[str, Any], config: TrainConfig
) -> Iterator[dict[str, Any]]:
    """Train once for each of `config.folds` parts and judge each model on the part it has not seen; prints figures.

    Args:
        dataset: its own splits are not used.
        loaded: features of all its recordings.
        task: what is to be told apart.
        feature_settings: settings of the features.
        config: how.

    Yields:
        After each fold: `folds`, the metrics of each so far, and `mean` and `spread` (standard deviation over folds) of
        the headlines.

    Raises:
        AnnotationError: fewer groups of recordings than folds.
        VidgruError: as from `fit`.
    """
    judged: list[dict[str, Any]] = []
    for number, fold in enumerate(folds(dataset, config.folds, config.seed, config.group_by or None), start=1):
        model = fit(fold, loaded, task, feature_settings, config).best
        metrics = evaluate_loaded(model, fold, "test", loaded, intervals=False)
        judged.append(metrics)
        shown = ", ".join(f"{name} {metrics[name]:.3f}" for name in HEADLINES if metrics.get(name) is not None)
        print(f"fold {number} of {config.folds}: {shown}")
        mean, spread = over_folds(judged)
        yield {"folds": judged, "mean": mean, "spread": spread}
    for name, value in mean.items():
        print(f"{name} {value:.3f} +- {spread[name]:.3f} over {config.folds} folds")


def over_folds(judged: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation of the headlines, each over the folds that have it."""
    values = {name: [m[name] for m in judged if m.get(name) is not None] for name in HEADLINES}
    mean = {name: float(np.mean(some)) for name, some in values.items() if some}
    return mean, {name: float(np.std(values[name])) for name in mean}


def evaluate_loaded(
    model: EventModel, dataset: Dataset, split: str, loaded: Loaded, *, intervals: bool, out: Path | None = None
) -> dict[str, Any]:
    """Metrics of a split whose features are in memory; as `evaluate_model`."""
    videos = dict.fromkeys(clip.video for clip in clips(dataset, split))
    videos |= dict.fromkeys(one.video for one in described_segments(dataset, split) if one.video in loaded.features)
    encoded = {video: encode_features(model, [loaded.features[video]]) for video in videos}
    return evaluate_model(model, dataset, split, encoded, loaded.features.__getitem__, intervals=intervals, out=out)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as YAML writes them: tuples are lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def _csv(rows: Sequence[Mapping[str, float | None]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else f"{value:.6g}" for name, value in row.items()})
    return text.getvalue().encode()
