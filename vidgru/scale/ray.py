"""Runs whose recordings are shared out over a Ray cluster: the same results as on one machine, byte for byte.

One task is one recording, never a row a frame: order and atomicity are a recording's. Machines share a disk, on which
the recordings, the weights, the cache and the output lie under one path.
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
from vidgru.scale.cluster import joined, machines_of, size_crew
from vidgru.scale.foreman import Foreman, Lost
from vidgru.scale.worker import News, Task
from vidgru.types import Recording


def extract_with_ray(
    recordings: Sequence[Recording],
    cache: SequenceCache,
    config: ExtractConfig,
    *,
    progress: bool = True,
    on_result: Callable[[ExtractionResult], None] | None = None,
) -> list[ExtractionResult]:
    """As `extract_recordings`, in the workers of a Ray cluster.

    A worker that dies, or whose machine does, loses nothing: others go on with its recordings where it was. One that
    three workers died with ends as failed.

    Args:
        recordings: what to work on.
        cache: where entries are, and go.
        config: what is computed, and how; `config.scale.threads_per_worker` stands in for `config.runtime.threads`.
        progress: tell on stderr what runs, and show a bar if that is a terminal.
        on_result: called in this thread with each recording's outcome as it ends.

    Returns:
        One outcome a recording, in their order. They are also written to `summary.jsonl` in the cache's folder.

    Raises:
        MissingDependencyError: Ray, or something that the detector needs, is not installed.
        SettingsError: the cluster cannot be joined, or has no room for a worker; the detector cannot run as asked.
        WeightsError: the detector is not there.
        OutputError: the cache cannot be written, or the machines do not share its folder; what was finished stays.
    """
    detect = _everywhere(config.detector)
    task = Task(cache=cache.root.absolute(), detect=detect, run=config.runtime)
    summary = cache.root / summary_name(config.scale.shard_of_count)
    with summary_writer(summary) as outcomes, closing(_work(recordings, task, config.scale, progress)) as ends:
        for number, ended in ends:
            recording = recordings[number]
            lost = isinstance(ended, Lost)
            outcomes[number] = _failed(recording, ended) if lost else replace(ended, recording=recording)
            if on_result is not None:
                on_result(outcomes[number])
    return [outcomes[number] for number in sorted(outcomes)]


def predict_with_ray(
    model_path: str | Path, sources: Iterable[str | Path], config: PredictConfig, *, progress: bool = True
) -> list[PredictionResult]:
    """As `prediction.batch.predict`, with recordings extracted, scored and written by the workers of a Ray cluster.

    Sources that are caches are scored here, which takes little.

    Args:
        model_path: a model file or a training run's folder.
        sources: files, folders, globs, text lists, caches and their entries.
        config: where to, and which events; `config.scale.threads_per_worker` stands in for `config.runtime.threads`.
        progress: tell on stderr what runs, and show a bar if that is a terminal.

    Returns:
        One prediction a recording, in the order of the sources, those of caches last.

    Raises:
        MissingDependencyError: Ray, or something that the detector needs, is not installed.
        ModelError, SourceError, SettingsError, WeightsError, SettingsMismatchError, OutputError: as from `predict`,
            or the
            cluster cannot be joined, or has no room for a worker, or its machines do not share a folder.
    """
    model = model_file(model_path).absolute()
    out, features = (Path(folder).expanduser().absolute() for folder in (config.out, config.features))

    def predict_remotely(
        recordings: list[Recording], detect: DetectorSettings
    ) -> Generator[PredictionResult, None, None]:
        there = _everywhere(detect)
        task = Task(
            cache=features,
            detect=there,
            run=config.runtime,
            model=model,
            predict=replace(config, out=str(out), features=str(features), weights=there.weights),
        )
        with closing(_work(recordings, task, config.scale, progress)) as ends:
            for number, ended in ends:
                recording = recordings[number]
                lost = isinstance(ended, Lost)
                yield failed(recording, ended.reason, None, 0.0) if lost else replace(ended, recording=recording)

    return batch.predict(model_path, sources, config, progress=progress, remote=predict_remotely)


def _work(
    recordings: Sequence[Recording], task: Task, config: ScaleSettings, progress: bool
) -> Generator[tuple[int, Any], None, None]:
    """The number of each recording and what became of it, as each ends."""
    if not recordings:
        return
    paths = [recording.path for recording in recordings]
    with joined(config.ray) as ray, ProgressBar(paths, progress) as bar, _marked(task) as marked:
        crew = size_crew(config, machines_of(ray))
        bar.log(f"Ray: {crew}")

        def on_news(news: News) -> None:
            for number, step in news.steps.items():
                bar.advance(number, step.seconds, step.share, step.samples)

        marked = replace(marked, run=replace(marked.run, threads=crew.threads))
        foreman = Foreman(ray, crew, marked, on_news, bar.log)
        numbered = {n: replace(one, path=one.path.absolute()) for n, one in enumerate(recordings)}
        with closing(foreman.work(numbered)) as ends:
            for number, ended in ends:
                bar.end(number, reused=getattr(ended, "status", "") == "reused")
                yield number, ended


@contextmanager
def _marked(task: Task) -> Iterator[Task]:
    """The task, with a file in each of its folders, by which a worker on another machine sees whether it shares it."""
    folders = {task.cache, Path(task.predict.out)} if task.predict else {task.cache}
    marks, made = [], []
    try:
        for folder in sorted(folders):
            mark = folder / f".{secrets.token_hex(8)}.ray"
            with suppress(OSError):  # whoever is to write there will say so
                if not folder.exists():
                    folder.mkdir(parents=True, exist_ok=True)
                    made.append(folder)
                mark.touch()
                marks.append(mark)
        yield replace(task, marks=tuple(marks))
    finally:
        for mark in marks:
            with suppress(OSError):
                mark.unlink()
        for folder in made:
            with suppress(OSError):  # it stays where anything was made in it
                folder.rmdir()


def _everywhere(detect: DetectorSettings) -> DetectorSettings:
    """What is computed, with the weights by a path that holds from any folder.

    Raises:
        WeightsError: there is no such file.
    """
    return replace(detect, weights=str(find_weights(detect.weights).absolute()))


def _failed(recording: Recording, lost: Lost) -> ExtractionResult:
    return ExtractionResult(
        recording=recording, status="failed", key=None, samples=0, duration_s=None, reason=lost.reason, seconds=0.0
    )
