"""The verbs as Python functions: what the command line calls. `import vidgru` has them all, loaded when first used.

A verb takes what stands before the flags on the command line, and a config whose fields are the flags:
`vidgru extract videos --fps 5` is `extract("videos", ExtractConfig(detector=DetectorSettings(fps=5)))`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from vidgru.cache import SequenceCache
from vidgru.config import EvalConfig, ExtractConfig, PredictConfig, TrainConfig
from vidgru.errors import SettingsError, SourceError
from vidgru.extraction.results import ExtractionResult
from vidgru.extraction.sharding import shard_recordings
from vidgru.prediction.results import PredictionResult
from vidgru.sources import find_recordings, is_live_source
from vidgru.types import Recording

Sources = str | Path | Iterable[str | Path]
Config = TypeVar("Config")


def extract(
    sources: Sources = (),
    config: ExtractConfig | None = None,
    *,
    progress: bool = True,
    on_result: Callable[[ExtractionResult], None] | None = None,
) -> list[ExtractionResult]:
    """See every sampled frame of recordings once, and cache what was seen.

    >>> from vidgru import DetectorSettings, ExtractConfig, SequenceCache, extract
    >>> detector = DetectorSettings(weights="detector.pt", fps=5, imgsz=64)
    >>> outcomes = extract("dataset/videos", ExtractConfig(detector=detector, out="features"), progress=False)
    >>> for outcome in outcomes:
    ...     print(outcome.recording.name, outcome.status, outcome.samples)
    a.mp4 done 15
    b.mp4 done 16
    >>> cache = SequenceCache("features")
    >>> sequence = cache.read(outcomes[0].key)
    >>> sequence.time_s[:3].tolist()
    [0.0, 0.2, 0.4]

    Args:
        sources: files, folders, globs, text lists; of detections (`config.imported`) none, or the videos that they
            were made of.
        config: the settings; their defaults where it is None.
        progress: tell on stderr which detector runs, and show a bar if that is a terminal.
        on_result: called with each recording's outcome as it ends.

    Returns:
        One outcome a recording, in their order. A recording that cannot be read is one that failed, with the reason.

    Raises:
        SourceError: a source does not exist, or holds no recordings.
        WeightsError, SettingsError, MissingDependencyError: the detector is not there, or cannot run as asked.
        OutputError: the cache cannot be written.
    """
    config = _settings(config, ExtractConfig)
    if config.dry_run:
        raise SettingsError("dry_run is set, and extract is for making features", "use vidgru extract --dry-run")
    several = _several(sources)
    if config.imported.detections:
        from vidgru.extraction.import_detections import extract_detections, open_detections

        detection_source = open_detections(config.imported, config.detector)
        videos = find_recordings(several) if several else None
        return extract_detections(
            detection_source, videos, detection_source.cache(config.out), progress=progress, on_result=on_result
        )
    cache = SequenceCache(config.out)
    recordings = recordings_of(several, config, cache)
    if config.scale.ray:
        from vidgru.scale.ray import extract_with_ray

        return extract_with_ray(recordings, cache, config, progress=progress, on_result=on_result)
    from vidgru.extraction.pipeline import extract_recordings

    return extract_recordings(
        recordings,
        cache,
        config.detector,
        config.runtime,
        progress=progress,
        on_result=on_result,
        part=config.scale.part,
    )


def recordings_of(sources: Sources, config: ExtractConfig, cache: SequenceCache) -> list[Recording]:
    """The recordings that `extract` is to work on: those of its shard.

    Raises:
        SourceError: there is no source, or one does not exist, or holds no recordings.
    """
    several = _several(sources)
    if not several:
        raise SourceError("there is nothing to extract", "give recordings: files, folders, globs, .txt lists")
    return shard_recordings(find_recordings(several), config.scale.part, cache)


def train(dataset: str | Path, config: TrainConfig | None = None) -> Path:
    """Train a model on annotated recordings; features that are missing are extracted first.

    >>> from vidgru import DetectorSettings, TrainConfig, train
    >>> detector = DetectorSettings(weights="detector.pt", fps=5, imgsz=64)
    >>> run = train("dataset", TrainConfig(detector=detector, features="features", epochs=2))
    dataset/annotations.csv: 4 events of 2 labels in 2 recordings (one label at a time)
    ...
    model: runs/train/best.safetensors
    >>> sorted(path.name for path in run.glob("*.safetensors"))
    ['best.safetensors', 'last.safetensors', 'state.safetensors']

    Args:
        dataset: a YAML, an annotation file, or a folder with one, or with a folder for each class.
        config: the settings; their defaults where it is None.

    Returns:
        The run's folder, with `best.safetensors`, `results.csv`, `metrics.json`, plots; `folds.json` of a
        cross-validation.

    Raises:
        AnnotationError, WeightsError, SettingsError, ModelError, OutputError: each with its remedy.
    """
    from vidgru.training.run import train as train_model

    return train_model(dataset, _settings(config, TrainConfig))


def evaluate(model: str | Path, dataset: str | Path, config: EvalConfig | None = None) -> dict[str, Any]:
    """Judge a model on a split of annotated recordings: prints tables, writes `metrics.json` and plots.

    >>> from vidgru import EvalConfig, evaluate
    >>> metrics = evaluate("runs/train", "dataset", EvalConfig(features="features", weights="detector.pt", split="val"))
          events  precision  recall      f1
    ...
    >>> sorted(metrics["events"]["per_class"])
    ['run', 'walk']

    Args:
        model: a model file, or a training run's folder.
        dataset: as for `train`.
        config: the split, and where things are; defaults where it is None.

    Returns:
        What `metrics.json` holds.

    Raises:
        AnnotationError, ModelError, SettingsMismatchError, WeightsError, OutputError: each with its remedy.
    """
    from vidgru.training.evaluate import evaluate as evaluate_model

    return evaluate_model(model, dataset, _settings(config, EvalConfig))


def predict(
    model: str | Path, sources: Sources, config: PredictConfig | None = None, *, progress: bool = True
) -> list[PredictionResult]:
    """Find the events of recordings, and write them below `config.out`.

    >>> from vidgru import PredictConfig, predict
    >>> config = PredictConfig(features="features", weights="detector.pt", report=False)
    >>> for prediction in predict("runs/train", "dataset/videos", config, progress=False):
    ...     print(prediction.recording.name, prediction.status, prediction.duration_s)
    a.mp4 done 3.0
    b.mp4 done 3.1

    Args:
        model: a model file, or a training run's folder.
        sources: as for `extract`; also caches, and their entries. For cameras there is `EventStream`, and the command.
        config: where to, and which events; defaults where it is None.
        progress: show a bar on stderr if that is a terminal.

    Returns:
        One prediction a recording, in the order of the sources, those of caches last.

    Raises:
        ModelError, SourceError, SettingsError, SettingsMismatchError, WeightsError: before any recording is opened.
        OutputError: the output cannot be written; what was finished stays.
    """
    config, several = _settings(config, PredictConfig), _several(sources)
    if live := [source for source in map(str, several) if is_live_source(source)]:
        raise SettingsError(
            f"{live[0]} is live, and predict is for recordings", "use EventStream, or the command vidgru predict"
        )
    if config.scale.ray:
        from vidgru.scale.ray import predict_with_ray

        return predict_with_ray(model, several, config, progress=progress)
    from vidgru.prediction import batch

    if config.merge_only:
        return batch.collect(model, several, config, progress=progress)
    return batch.predict(model, several, config, progress=progress)


def _settings(config: Config | None, kind: type[Config]) -> Config:
    """The settings, or their defaults. Raises SettingsError where they are another verb's."""
    if config is not None and not isinstance(config, kind):
        raise SettingsError(f"config is {type(config).__name__}(...)", f"give {kind.__name__}(...)")
    return config or kind()


def _several(sources: Sources) -> list[str | Path]:
    return [sources] if isinstance(sources, str | Path) else list(sources)
