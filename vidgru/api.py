"""Every command as a Python function; the command line calls only these.

A function takes the positional arguments of its command, and a config whose fields are the flags:
`vidgru extract videos --fps 5` is `extract("videos", ExtractConfig(detector=DetectorSettings(fps=5)))`.

Importing this module is cheap: what a command needs is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vidgru.config import (
    CompareConfig,
    ConvertConfig,
    DemoConfig,
    EvalConfig,
    ExplainConfig,
    ExportConfig,
    ExtractConfig,
    InfoConfig,
    LabelConfig,
    PredictConfig,
    PretrainConfig,
    SuggestConfig,
    TrainConfig,
    TuneConfig,
)
from vidgru.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from vidgru.cache import SequenceCache
    from vidgru.extraction.results import ExtractionResult
    from vidgru.info import InfoReport
    from vidgru.labeling.suggest import Suggestion
    from vidgru.prediction.results import PredictionResult
    from vidgru.training.compare import ComparisonRow
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
    """Run the detector on recordings and cache per-frame features.

    >>> from vidgru import DetectorSettings, ExtractConfig, SequenceCache, extract
    >>> detector = DetectorSettings(weights="detector.pt", fps=5, imgsz=64)
    >>> results = extract("dataset/videos", ExtractConfig(detector=detector, out="features"), progress=False)
    >>> for result in results:
    ...     print(result.recording.name, result.status, result.samples)
    a.mp4 done 15
    b.mp4 done 16
    >>> cache = SequenceCache("features")
    >>> sequence = cache.read(results[0].key)
    >>> sequence.time_s[:3].tolist()
    [0.0, 0.2, 0.4]

    Args:
        sources: Files, folders, globs, text lists. For imported detections (`config.imported`) none, or the videos
            that were detected.
        config: Settings; their defaults if None.
        progress: Print the detector in use to stderr, and show a progress bar if that is a terminal.
        on_result: Called with the result of each recording as it ends.

    Returns:
        One result per recording, in their order. A recording that cannot be read is a result with status `failed`
        and the reason.

    Raises:
        SourceError: A source does not exist, or holds no recordings.
        WeightsError, SettingsError, MissingDependencyError: The detector is missing, or cannot run with these settings.
        OutputError: The cache cannot be written.
    """
    config, sources = _settings(config, ExtractConfig), _as_list(sources)
    if config.dry_run:
        raise SettingsError("dry_run is set, which extract does not support", "use vidgru.api.estimate")
    if config.imported.detections:
        from vidgru.extraction.import_detections import extract_detections, open_detections
        from vidgru.sources import find_recordings

        detections = open_detections(config.imported, config.detector)
        videos = find_recordings(sources) if sources else None
        cache = detections.cache(config.out)
        return extract_detections(detections, videos, cache, progress=progress, on_result=on_result)
    recordings, cache = _recordings(sources, config)
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
        shard=config.scale.shard_of_count,
    )


def estimate(sources: Sources, config: ExtractConfig | None = None) -> str:
    """Return, as text, what `extract` would do and how long it would take, from a trial on a few seconds.

    Args:
        sources: As for `extract`.
        config: As for `extract`.

    Raises:
        SourceError, WeightsError, SettingsError, MissingDependencyError: As `extract`.
    """
    from vidgru.extraction.estimate import estimate as estimate_extraction

    config = _settings(config, ExtractConfig)
    recordings, cache = _recordings(_as_list(sources), config)
    return str(estimate_extraction(recordings, cache, config.detector, config.runtime))


def train(dataset: str | Path, config: TrainConfig | None = None) -> Path:
    """Train a model on annotated recordings, extracting missing features first.

    >>> from vidgru import DetectorSettings, TrainConfig, train
    >>> detector = DetectorSettings(weights="detector.pt", fps=5, imgsz=64)
    >>> run = train("dataset", TrainConfig(detector=detector, features="features", epochs=2))
    dataset/annotations.csv: 4 events of 2 labels in 2 recordings (one label at a time)
    ...
    model: runs/train/best.safetensors
    ...
    >>> sorted(path.name for path in run.glob("*.safetensors"))
    ['best.safetensors', 'last.safetensors', 'state.safetensors']

    Args:
        dataset: A dataset YAML, an annotation file, or a folder with an annotation file or with a folder per class.
        config: Settings; their defaults if None.

    Returns:
        Folder of the run, with `best.safetensors`, `results.csv`, `metrics.json` and plots; for cross-validation, with
        `folds.json`.

    Raises:
        AnnotationError, WeightsError, SettingsError, ModelError, OutputError: With a remedy each.
    """
    from vidgru.training.run import train as train_model

    return train_model(dataset, _settings(config, TrainConfig))


def pretrain(features: str | Path | Iterable[str | Path], config: PretrainConfig | None = None) -> Path:
    """Learn a start for training from recordings without annotations.

    Args:
        features: Folders of sequence caches.
        config: Settings; their defaults if None.

    Returns:
        The start, a file for `TrainConfig.init`.

    Raises:
        SourceError, SettingsMismatchError, SettingsError, OutputError: With a remedy each.
    """
    from vidgru.training.pretrain import pretrain as learn

    return learn([features] if isinstance(features, str | Path) else list(features), _settings(config, PretrainConfig))


def compare(dataset: str | Path, config: CompareConfig | None = None) -> list[ComparisonRow]:
    """Train several settings on the same splits and compare cost and accuracy.

    Prints a table, and writes it below `config.train.out`.

    Args:
        dataset: As for `train`.
        config: The settings to compare, and those they share; their defaults if None.

    Returns:
        One row per setting.

    Raises:
        AnnotationError, WeightsError, SettingsError, OutputError: With a remedy each.
    """
    from vidgru.training.compare import compare as compare_settings

    return compare_settings(dataset, _settings(config, CompareConfig))


def evaluate(model: str | Path, dataset: str | Path, config: EvalConfig | None = None) -> dict[str, Any]:
    """Evaluate a model on a split of annotated recordings.

    Prints tables, and writes `metrics.json` and plots below `config.out`.

    >>> from vidgru import EvalConfig, evaluate
    >>> config = EvalConfig(features="features", weights="detector.pt", split="val")
    >>> metrics = evaluate("runs/train", "dataset", config)
          events  precision  recall      f1
    ...
    >>> sorted(metrics["events"]["per_class"])
    ['run', 'walk']

    Args:
        model: A model file, or the folder of a training run.
        dataset: As for `train`.
        config: Settings; their defaults if None.

    Returns:
        The contents of `metrics.json`.

    Raises:
        AnnotationError, ModelError, SettingsMismatchError, WeightsError, OutputError: With a remedy each.
    """
    from vidgru.training.evaluate import evaluate as evaluate_model

    return evaluate_model(model, dataset, _settings(config, EvalConfig))


def tune(model: str | Path, dataset: str | Path, config: TuneConfig | None = None) -> Path:
    """Fit the thresholds of a model, and the edges of its events, to more annotations.

    Prints thresholds and metrics before and after, and writes the model.

    Args:
        model: A model file, or the folder of a training run.
        dataset: As for `train`; recordings that the model was trained on are left out.
        config: Settings; their defaults if None.

    Returns:
        The model file written: `config.out`, or the model itself.

    Raises:
        AnnotationError, ModelError, SettingsMismatchError, WeightsError, OutputError: With a remedy each.
    """
    from vidgru.training.tune import tune as tune_model

    return tune_model(model, dataset, _settings(config, TuneConfig))


def predict(
    model: str | Path, sources: Sources, config: PredictConfig | None = None, *, progress: bool = True
) -> list[PredictionResult]:
    """Predict events in recordings.

    They are returned, and written below `config.out`.

    >>> from vidgru import PredictConfig, predict
    >>> config = PredictConfig(features="features", weights="detector.pt", report=False)
    >>> for result in predict("runs/train", "dataset/videos", config, progress=False):
    ...     print(result.recording.name, result.status, result.duration_s)
    a.mp4 done 3.0
    b.mp4 done 3.1

    Args:
        model: A model file, or the folder of a training run.
        sources: As for `extract`; also caches and their entries. For live sources use `vidgru.api.predict_live` or
            `EventStream`.
        config: Settings; their defaults if None.
        progress: Show a progress bar on stderr if that is a terminal.

    Returns:
        One result per recording, in the order of the sources, those of caches last.

    Raises:
        ModelError, SourceError, SettingsError, SettingsMismatchError, WeightsError: Before any recording is opened.
        OutputError: The output cannot be written; finished recordings are kept.
    """
    from vidgru.sources import is_live_source

    config, sources = _settings(config, PredictConfig), _as_list(sources)
    if live := [source for source in map(str, sources) if is_live_source(source)]:
        raise SettingsError(f"{live[0]} is a live source, not a recording", "use vidgru.api.predict_live")
    if config.scale.ray:
        from vidgru.scale.ray import predict_with_ray

        return predict_with_ray(model, sources, config, progress=progress)
    from vidgru.prediction import batch

    if config.merge_only:
        return batch.merge(model, sources, config, progress=progress)
    return batch.predict(model, sources, config, progress=progress)


def predict_live(model: str | Path, source: str, config: PredictConfig | None = None) -> int:
    """Predict the events of a live source and print them as JSON lines until it ends or SIGINT or SIGTERM arrives.

    Args:
        model: A model file, or the folder of a training run.
        source: A URL, or the number of a camera.
        config: Settings; their defaults if None.

    Returns:
        Exit code: 0, or 1 if the source broke off or the cache could not be written.

    Raises:
        SourceError: The source cannot be opened.
        ModelError, SettingsError, WeightsError, SettingsMismatchError: Before the source is opened.
    """
    from vidgru.prediction.live import predict_live as predict_source

    return predict_source(model, source, _settings(config, PredictConfig))


def explain(model: str | Path, recording: str | Path, config: ExplainConfig | None = None) -> str:
    """Explain the events that a model predicts in a recording, or any moment of it.

    Returns text.

    Args:
        model: A model file, or the folder of a training run.
        recording: A video, or the folder of a cache entry.
        config: Settings; their defaults if None.

    Raises:
        ModelError, SourceError, SettingsError, SettingsMismatchError, WeightsError: With a remedy each.
    """
    from vidgru.prediction.explain import explain_recording

    return explain_recording(model, recording, _settings(config, ExplainConfig))


def label(sources: Sources, config: LabelConfig | None = None) -> Path:
    """Annotate recordings in a browser, with features, training and drafts in the background.

    Serves a page on this machine until Ctrl-C.

    Args:
        sources: As for `extract`.
        config: Settings; their defaults if None.

    Returns:
        The annotation file.

    Raises:
        SourceError, SettingsError: Before anything is served.
        AnnotationError, OutputError: The annotation file cannot be read or written, or is open elsewhere.
    """
    from vidgru.labeling.server import label_recordings

    return label_recordings(_as_list(sources), _settings(config, LabelConfig))


def suggest(model: str | Path, sources: Sources, config: SuggestConfig | None = None) -> list[Suggestion]:
    """Suggest what to label next in recordings, and why.

    Args:
        model: A model file, or the folder of a training run.
        sources: As for `predict`, without live sources.
        config: Settings; their defaults if None.

    Returns:
        Stretches of recordings, the most useful first; also written to `config.out`, if that is given.

    Raises:
        ModelError, SourceError, AnnotationError, SettingsMismatchError, WeightsError: With a remedy each.
        OutputError: The output cannot be written.
    """
    from vidgru.labeling.suggest_command import suggest_recordings

    return suggest_recordings(model, _as_list(sources), _settings(config, SuggestConfig))


def export(model: str | Path, config: ExportConfig | None = None) -> Path:
    """Export a model to ONNX for other runtimes.

    Args:
        model: A model file, or the folder of a training run.
        config: Settings; their defaults if None.

    Returns:
        The file written.

    Raises:
        ModelError, SettingsError, MissingDependencyError, OutputError: With a remedy each.
    """
    from vidgru.model.onnx_export import export_model

    return export_model(model, _settings(config, ExportConfig))


def convert(dataset: str | Path, out: str | Path | None = None, config: ConvertConfig | None = None) -> list[str]:
    """Convert annotations to vidgru's CSV or JSONL, to subtitles, or to the files of other tools.

    Args:
        dataset: As for `train`, in any known format.
        out: Output: .csv, .jsonl, .json (ActivityNet), .vtt, .xml (CVAT), .boris, a folder (a .vtt per video), or any
            name with `to` in `config`; None writes beside the dataset, as `events.label-studio.json` for `to`.
        config: Settings; their defaults if None.

    Returns:
        A summary of what was written, and notes on what could not be converted, as sentences.

    Raises:
        AnnotationError, SettingsError, OutputError: With a remedy each.
    """
    from vidgru.datasets.convert import convert as convert_annotations

    return convert_annotations(dataset, out, _settings(config, ConvertConfig))


def info(path: str | Path, config: InfoConfig | None = None) -> InfoReport:
    """Inspect and verify a video, cache, dataset, model or detector.

    Args:
        path: A video, a cache or the folder of one of its entries, a dataset, a model file or the folder of a run, or
            weights of a detector.
        config: Settings; their defaults if None.

    Raises:
        SourceError: It is none of these.
        SettingsError: `verify` or `prune` does not apply to it.
        VidgruError: It cannot be read; the error of its kind.
    """
    from vidgru.info import inspect_path

    config = _settings(config, InfoConfig)
    return inspect_path(
        path, verify=config.verify, prune=config.prune, detections=config.detections, videos=config.videos
    )


def demo(config: DemoConfig | None = None) -> None:
    """Show on synthetic scenes, offline, what vidgru does.

    Prints the events that a bundled model predicts in a new recording, beside the true ones; then trains a small model
    and prints its metrics.

    Args:
        config: Settings; their defaults if None.

    Raises:
        WeightsError, ModelError: The detector or the model of the demo is not installed.
        OutputError: `config.out` cannot be written.
    """
    from vidgru.demo.run import run

    run(_settings(config, DemoConfig))


def _recordings(sources: list[str | Path], config: ExtractConfig) -> tuple[list[Recording], SequenceCache]:
    """Return the recordings of this run's shard, and the cache.

    Raises:
        SourceError: There is no source, or one does not exist, or holds no recordings.
    """
    from vidgru.cache import SequenceCache
    from vidgru.extraction.sharding import shard_recordings
    from vidgru.sources import find_recordings

    if not sources:
        raise SourceError("no recordings to extract", "pass files, folders, globs or .txt lists")
    cache = SequenceCache(config.out)
    return shard_recordings(find_recordings(sources), config.scale.shard_of_count, cache), cache


def _settings(config: Config | None, kind: type[Config]) -> Config:
    """Return the settings, or their defaults. Raises SettingsError if they are those of another command."""
    if config is not None and not isinstance(config, kind):
        raise SettingsError(f"config is {type(config).__name__}(...)", f"pass {kind.__name__}(...)")
    return config or kind()


def _as_list(sources: Sources) -> list[str | Path]:
    return [sources] if isinstance(sources, str | Path) else list(sources)
