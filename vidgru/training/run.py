"""The `train` command: a dataset in, a run's folder out, or the metrics of a cross-validation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vidgru.cache import SequenceCache
from vidgru.config import TrainConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Dataset, clips, described_segments, select_splits
from vidgru.datasets.formats.csv_reader import format_csv
from vidgru.datasets.report import report
from vidgru.datasets.splits import assign_splits, folds, groups, in_split, only_group
from vidgru.errors import VidgruError
from vidgru.extraction.import_detections import open_detections
from vidgru.extraction.pipeline import feature_settings_for
from vidgru.flags import require, to_settings, with_settings
from vidgru.model.checkpoint import BEST, EventModel, EventTask, check_feature_settings, load_model, model_file
from vidgru.model.scoring import encode_features
from vidgru.storage import unused_path, user_path, write_atomic, write_json
from vidgru.training.advice import dataset_advice, inexact_events, lost_objects, metrics_advice, print_advice
from vidgru.training.augment import why_not_mirrored
from vidgru.training.data import LoadedFeatures, extract_missing, load_features
from vidgru.training.distributed import ProcessGroup, process_group, refuse_distributed
from vidgru.training.evaluate import evaluate_model, metrics_summary
from vidgru.training.examples import task_from_dataset
from vidgru.training.initial_model import with_settings_of
from vidgru.training.members import split_notes
from vidgru.training.state_file import STATE
from vidgru.training.trainer import TrainingResult, train_model
from vidgru.types import DESCRIBED

LAST = "last.safetensors"
COMPARISON = "compare.json"
_FOLDS = "folds.json"
_RESULTS = (BEST, STATE, _FOLDS, COMPARISON)  # a folder with any of these holds a run
_MAX_GROUPS = 4  # named in the line of a fold
_MAX_LABELS = 10  # in the report of the dataset, so that it and the metrics fit on one screen
# main metrics, averaged over folds
HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1", "map", "event_f1", "map_50", "frame_map", "cider_d")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """Everything that training reads.

    Attributes:
        dataset: Annotations, without recordings that could not be read.
        failed: Reason by video, for recordings that could not be read.
        loaded: Features in memory.
        task: Heads and labels.
        feature_settings: Settings of the features.
    """

    dataset: Dataset
    failed: dict[str, str]
    loaded: LoadedFeatures
    task: EventTask
    feature_settings: dict[str, Any]


def train(dataset_path: str | Path, config: TrainConfig) -> Path:
    """Train a model on annotated recordings; with `config.folds`, cross-validate instead.

    Extracts missing features first and prints a summary of the annotations. Model selection and early stopping use the
    validation split only. Equal inputs and seeds give equal bytes on one machine with one number of threads. Under
    `torchrun`, the processes train one model together.

    Args:
        dataset_path: As for `load_dataset`.
        config: Training settings.

    Returns:
        The run's folder, with config.yaml, best.safetensors, last.safetensors, state.safetensors (to resume from),
        results.csv, metrics.json and plots; for a cross-validation with config.yaml and folds.json.

    Raises:
        AnnotationError, WeightsError, SettingsError, ModelError, OutputError, VidgruError: Each with its remedy.
        KeyboardInterrupt: After writing the finished epochs or folds.
    """
    if config.folds:
        refuse_distributed("cross-validation")
    with process_group() as processes:
        config = complete_settings(config)
        data = prepare(dataset_path, config)
        if not processes.is_equal(str(sorted(data.loaded.keys.items()))):  # or they would wait for each other forever
            raise VidgruError("a recording was read by some processes only", "start it again")
        if config.folds:
            return _cross_validate(data, config)
        return _train(data, config, processes)


def complete_settings(config: TrainConfig) -> TrainConfig:
    """Return the settings with a folder that holds no run yet, and with those of the model that training starts from.

    Raises:
        ModelError: There is no such model.
        SettingsError: The run would overwrite the model that it starts from.
    """
    folder = user_path(config.out)
    if config.init:
        init = model_file(config.init)
        model, weights = load_model(init, start=True), config.detector.weights
        config = with_settings_of(model, config)
        if config.detector.weights != weights:  # a file that only the model names
            cache = SequenceCache(config.features)
            cache.check_detector(config.detector.weights, model.feature_settings["weights_sha256"])
        overwrites = config.exist_ok and init.resolve().parent == folder.resolve()
        require(not overwrites, "out", config.out, f"another folder than that of the model to start from, {init}")
    if config.resume or config.exist_ok:
        return config
    out = unused_path(folder, lambda path: any((path / name).exists() for name in _RESULTS))
    if out != folder:
        print(f"{folder} holds a run, so this one goes to {out} (--exist-ok overwrites, --resume continues it)")
    return with_settings(config, out=str(out))


def prepare(dataset_path: str | Path, config: TrainConfig) -> TrainingData:
    """Load annotations and features, extracting what is missing; print a summary of the annotations.

    Recordings of the test split are left out unless `config.folds` is set.

    Raises:
        AnnotationError, WeightsError, SourceError, SettingsError, SettingsMismatchError, OutputError: Each with its
            remedy.
    """
    detection_source = open_detections(config.imported, config.detector) if config.imported.detections else None
    find_imported = detection_source.find if detection_source else None
    init = load_model(config.init, start=True) if config.init else None
    labels = init.labels if init and not init.is_start and init.labels != (DESCRIBED,) else ()
    dataset = load_dataset(
        dataset_path,
        allow_missing=config.allow_missing,
        find_imported=find_imported,
        labels=labels,
        videos=config.videos,
    )
    if config.folds:  # they divide all rows anew
        dataset = in_split(dataset, dataset.recordings, "train", *dataset.splits)
    else:
        dataset = assign_splits(dataset)
    used = dataset if config.folds else select_splits(dataset, ("train", "val"))
    task = task_from_dataset(used, captions=config.captions)
    if detection_source:
        cache, feature_settings = detection_source.cache(config.features), detection_source.feature_settings
    else:
        cache, feature_settings = SequenceCache(config.features), feature_settings_for(config.detector)
    if init:
        check_feature_settings(init, feature_settings, "the features of this dataset")  # before hours of extraction
    videos = [clip.video for clip in clips(used)]
    if config.captions:
        videos += [segment.video for segment in described_segments(used)]
    extracted = extract_missing(
        dataset, videos, cache, feature_settings, config.detector, config.runtime, detection_source
    )
    loaded = load_features(cache, extracted.keys, config.flip_idx)
    if not detection_source:
        for item in lost_objects(extracted.dataset, loaded.features.get, loaded.feature_spec, loaded.names):
            print(f"warning: {item}", file=sys.stderr)
    described = extracted.dataset
    if not config.folds:
        notes = split_notes(described, config, loaded.durations(config.detector.fps))
        described = replace(described, notes=notes)
    print(report(described, max_labels=_MAX_LABELS))
    if not config.folds and (place := only_group(extracted.dataset)):
        print(
            f"warning: all recordings are of {place}: metrics do not tell how the model does elsewhere; "
            "add recordings of others",
            file=sys.stderr,
        )
    if config.augment and (reason := why_not_mirrored(loaded.feature_spec, task.labels, config.mirror)):
        print(f"training without mirroring: {reason}")
    return TrainingData(
        dataset=extracted.dataset,
        failed=extracted.failed,
        loaded=loaded,
        task=task,
        feature_settings=feature_settings,
    )


def _train(data: TrainingData, config: TrainConfig, processes: ProcessGroup) -> Path:
    """Train one model and write the run's folder."""
    out = user_path(config.out)
    result = train_model(
        data.dataset, data.loaded, data.task, data.feature_settings, config, folder=out, process_group=processes
    )
    if processes.rank == 0:
        # not earlier: a run that is refused, or interrupted at once, leaves an earlier run in the folder as it is
        write_atomic(out / "config.yaml", _yaml(config))
        result.best.save(out / BEST)
        result.last.save(out / LAST)
        write_atomic(out / "results.csv", _csv(result.epochs))
        metrics = evaluate_held_out(result, data, out if config.plots else None)
        metrics = {"epoch": result.best_epoch, "failed": data.failed, **metrics}
        write_json(out / "metrics.json", metrics)
        if config.plots:
            from vidgru.training.plots import plot_curves  # matplotlib takes 0.5 s of CPU time to import

            plot_curves(out / "results.csv", out / "curves.png", best_epoch=result.best_epoch)
        members = len(result.members)
        how = (
            f"epoch {result.best_epoch} of {len(result.epochs)}" if members == 1 else f"{members} members, out of fold"
        )
        if summary := metrics_summary(metrics):
            print(f"validation, {how}\n{summary}")
        print(f"metrics: {out / 'metrics.json'}\nmodel: {out / BEST}")
        print_advice(
            [*inexact_events(metrics), *metrics_advice(metrics), *dataset_advice(data.dataset, config.detector.fps)]
        )
    if result.interrupted:
        raise KeyboardInterrupt
    return out


def _cross_validate(data: TrainingData, config: TrainConfig) -> Path:
    """Train once per fold on the other folds; write folds.json and print the metrics of all folds together.

    Each recording is evaluated by the model that has not seen it; the dataset's own splits are not used.
    """
    out = user_path(config.out)
    group, kind = groups(data.dataset, config.group_by or None)
    rows: list[dict[str, Any]] = []
    models: dict[str, EventModel] = {}
    write_atomic(out / "config.yaml", _yaml(config))
    for fold in folds(data.dataset, config.folds, config.seed, config.group_by or None):
        model = train_model(fold, data.loaded, data.task, data.feature_settings, config).best
        metrics = evaluate_loaded(model, fold, "test", data.loaded, intervals=False)
        videos = dict.fromkeys(row.annotation.video for row in fold.rows if row.split == "test")
        models |= dict.fromkeys(videos, model)
        left_out = list(dict.fromkeys(group[video] for video in videos))
        rows.append({"by": kind, "left_out": left_out, **metrics})
        values = ", ".join(f"{name} {metrics[name]:.3f}" for name in HEADLINES if metrics.get(name) is not None)
        print(f"fold {len(rows)} of {config.folds}, without {kind} {_listed(left_out)}: {values}")
        mean, spread = over_folds(rows)
        results = {"failed": data.failed, "folds": rows, "mean": mean, "spread": spread}
        write_json(out / _FOLDS, results)
    together = in_split(data.dataset, models, "all folds")
    pooled = evaluate_loaded(model, together, "all folds", data.loaded, models, intervals=True)
    write_json(out / _FOLDS, {**results, "pooled": pooled})
    print(f"all {config.folds} folds together, each recording by the model that has not seen it")
    print(f"{metrics_summary(pooled)}\nmetrics: {out / _FOLDS}")
    print_advice([*inexact_events(pooled), *metrics_advice(pooled)])
    return out


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_GROUPS} more" if len(names) > _MAX_GROUPS else ""
    return ", ".join(names[:_MAX_GROUPS]) + more


def over_folds(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation of the main metrics, each over the folds that have it."""
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in HEADLINES}
    mean = {name: float(np.mean(of_folds)) for name, of_folds in values.items() if of_folds}
    return mean, {name: float(np.std(values[name])) for name in mean}


def evaluate_held_out(result: TrainingResult, data: TrainingData, out: Path | None) -> dict[str, Any]:
    """Metrics on held-out recordings, each by the member that has not learnt from it; as `evaluate_model`."""
    assert result.held_out is not None
    kinds = result.held_out.clips, result.held_out.recordings, result.held_out.captions
    folds = {example.video: example.fold for kind in kinds for example in kind}
    if not folds:
        print("warning: too few groups to hold any out: nothing to measure the model on", file=sys.stderr)
        return {"split": "none"}
    split = "val" if len(result.members) == 1 else "out of fold"
    dataset = data.dataset if split == "val" else in_split(data.dataset, folds, split)
    models = {video: result.members[fold] for video, fold in folds.items()}
    return {
        "split": split,
        **evaluate_loaded(result.best, dataset, split, data.loaded, models, intervals=True, out=out),
    }


def evaluate_loaded(
    model: EventModel,
    dataset: Dataset,
    split: str,
    loaded: LoadedFeatures,
    models: Mapping[str, EventModel] | None = None,
    *,
    intervals: bool,
    out: Path | None = None,
) -> dict[str, Any]:
    """Metrics of a split whose features are in memory, with a model for each recording or one for all.

    Otherwise as `evaluate_model`.
    """
    models = models or {}
    videos = dict.fromkeys(clip.video for clip in clips(dataset, split))
    videos |= dict.fromkeys(
        segment.video for segment in described_segments(dataset, split) if segment.video in loaded.features
    )
    encoded = {video: encode_features(models.get(video, model), [loaded.features[video]]) for video in videos}
    read = loaded.features.__getitem__
    return evaluate_model(model, dataset, split, encoded, read, models, intervals=intervals, out=out)


def _yaml(config: TrainConfig) -> bytes:
    """Settings as YAML; tuples become lists."""
    settings = {name: list(v) if isinstance(v, tuple) else v for name, v in to_settings(config).items()}
    return yaml.safe_dump(settings, allow_unicode=True).encode()


def _csv(rows: Sequence[Mapping[str, float | None]]) -> bytes:
    rounded = (
        {name: value if isinstance(value, int | None) else float(f"{value:.6g}") for name, value in row.items()}
        for row in rows
    )
    return format_csv(list(rows[0]), rounded).encode()
