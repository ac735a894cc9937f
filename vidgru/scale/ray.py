"""Extract and predict on a Ray cluster, with the same results as on one machine, byte for byte.

The unit of work is a recording. All nodes see the recordings, weights, cache and output at the same paths.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, ExtractConfig, PredictConfig, ScaleSettings
from vidgru.detector.weights import find_weights
from vidgru.extraction.results import ExtractionResult, ProgressBar, summary_writer
from vidgru.extraction.sharding import summary_name
from vidgru.model.checkpoint import model_file
from vidgru.prediction import batch
from vidgru.prediction.results import PredictionResult, failed
from vidgru.scale.cluster import connect, node_resources, plan_workers
from vidgru.scale.worker import WorkerTask
from vidgru.scale.worker_pool import LostRecording, WorkerPool
from vidgru.storage import user_path
from vidgru.types import Recording


def extract_with_ray(
    recordings: Sequence[Recording],
    cache: SequenceCache,
    config: ExtractConfig,
    *,
    progress: bool = True,
    on_result: Callable[[ExtractionResult], None] | None = None,
) -> list[ExtractionResult]:
    """Extract recordings as `extract_recordings` does, in the workers of a Ray cluster.

    If a worker or a node dies, others resume its recordings. One that three workers died with fails.

    Args:
        recordings: Recordings to extract.
        cache: Where entries are looked up and written.
        config: Settings; `config.scale.threads_per_worker` replaces `config.runtime.threads`.
        progress: Print notices on stderr, and show a bar if that is a terminal.
        on_result: Called in this thread with each result as it arrives.

    Returns:
        One result per recording, in their order. They are also written to `summary.jsonl` in the cache's folder.

    Raises:
        MissingDependencyError: Ray, or something that the detector needs, is not installed.
        SettingsError: The cluster cannot be reached or has no room for a worker; the detector cannot run as configured.
        WeightsError: There is no such weights file.
        OutputError: The cache cannot be written, or the nodes do not share its folder. Finished recordings stay.
    """
    detect = _with_absolute_weights(config.detector)
    task = WorkerTask(cache=cache.root.absolute(), detect=detect, run=config.runtime)
    summary = cache.root / summary_name(config.scale.shard_of_count)
    with summary_writer(summary) as results, closing(_process(recordings, task, config.scale, progress)) as processed:
        for number, result in processed:
            recording = recordings[number]
            if isinstance(result, LostRecording):
                result = ExtractionResult(
                    recording=recording,
                    status="failed",
                    key=None,
                    samples=0,
                    duration_s=None,
                    reason=result.reason,
                    seconds=0.0,
                )
            results[number] = replace(result, recording=recording)  # with the path that the user gave
            if on_result is not None:
                on_result(results[number])
    return [results[number] for number in sorted(results)]


def predict_with_ray(
    model_path: str | Path, sources: Iterable[str | Path], config: PredictConfig, *, progress: bool = True
) -> list[PredictionResult]:
    """Predict as `prediction.batch.predict` does, extracting and scoring in the workers of a Ray cluster.

    Sources that are cache entries are scored in this process, which takes little time.

    Args:
        model_path: A model file, or the folder of a training run.
        sources: Files, folders, globs, text lists, caches and cache entries.
        config: Settings; `config.scale.threads_per_worker` replaces `config.runtime.threads`.
        progress: Print notices on stderr, and show a bar if that is a terminal.

    Returns:
        One result per recording, in the order of the sources, cache entries last.

    Raises:
        MissingDependencyError: Ray, or something that the detector needs, is not installed.
        ModelError, SourceError, SettingsError, WeightsError, SettingsMismatchError, OutputError: As for `predict`; also
            if the cluster cannot be reached or has no room for a worker, or its nodes do not share a folder.
    """
    model = model_file(model_path).absolute()
    out, features = (user_path(folder).absolute() for folder in (config.out, config.features))

    def predict_remotely(
        recordings: list[Recording], detect: DetectorSettings
    ) -> Generator[PredictionResult, None, None]:
        detect = _with_absolute_weights(detect)
        task = WorkerTask(
            cache=features,
            detect=detect,
            run=config.runtime,
            model=model,
            predict=replace(config, out=str(out), features=str(features), weights=detect.weights),
        )
        with closing(_process(recordings, task, config.scale, progress)) as processed:
            for number, result in processed:
                if isinstance(result, LostRecording):
                    yield failed(recordings[number], result.reason, None, 0.0)
                else:
                    yield replace(result, recording=recordings[number])

    return batch.predict(model_path, sources, config, progress=progress, remote=predict_remotely)


def _process(
    recordings: Sequence[Recording], task: WorkerTask, config: ScaleSettings, progress: bool
) -> Generator[tuple[int, Any], None, None]:
    """Yield the number and the result of each recording as it ends."""
    if not recordings:
        return
    paths = [recording.path for recording in recordings]
    with connect(config.ray) as ray, ProgressBar(paths, progress) as bar, _with_markers(task) as task:
        plan = plan_workers(config, node_resources(ray))
        bar.log(f"Ray: {plan}")
        pool = WorkerPool(ray, plan, replace(task, run=replace(task.run, threads=plan.threads)), bar)
        numbered = {n: replace(recording, path=recording.path.absolute()) for n, recording in enumerate(recordings)}
        with closing(pool.process(numbered)) as results:
            for number, result in results:
                bar.end(number, reused=getattr(result, "status", "") == "reused")
                yield number, result


@contextmanager
def _with_markers(task: WorkerTask) -> Iterator[WorkerTask]:
    """Yield the task with a marker file in each of its folders, by which workers check that they share it."""
    folders = {task.cache, Path(task.predict.out)} if task.predict else {task.cache}
    markers, created = [], []
    try:
        for folder in sorted(folders):
            marker = folder / f".{secrets.token_hex(8)}.ray"
            with suppress(OSError):  # whatever writes there will report it
                if not folder.exists():
                    folder.mkdir(parents=True, exist_ok=True)
                    created.append(folder)
                marker.touch()
                markers.append(marker)
        yield replace(task, markers=tuple(markers))
    finally:
        for marker in markers:
            with suppress(OSError):
                marker.unlink()
        for folder in created:
            with suppress(OSError):  # it is not empty, and stays
                folder.rmdir()


def _with_absolute_weights(detect: DetectorSettings) -> DetectorSettings:
    """Return the settings with the absolute path of the weights. Raises WeightsError if there is no such file."""
    return replace(detect, weights=str(find_weights(detect.weights).absolute()))
