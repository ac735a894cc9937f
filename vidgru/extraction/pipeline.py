"""Extraction as the other wings use it: recordings in, outcomes out, and what is known of an entry's recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vidgru.cache import Entry, SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.detector.weights import find_weights
from vidgru.extraction.extractor import Extractor
from vidgru.extraction.results import ExtractionResult, ProgressBar, print_result, summary_table, summary_writer
from vidgru.extraction.sharding import summary_name
from vidgru.storage import sha256_file
from vidgru.types import Recording
from vidgru.video.integrity import Damage
from vidgru.video.timestamps import StartTimes

__all__ = [
    "ExtractionResult",
    "Extractor",
    "describe_damage",
    "extract_recordings",
    "feature_settings_for",
    "print_result",
    "recorded_at",
    "summary_table",
    "user_start_time",
]


def describe_damage(entry: Entry) -> str:
    """What was wrong with an entry's recording, in the words of its outcome; empty where nothing was."""
    return str(Damage(**entry.damage))


def recorded_at(cache: SequenceCache, entry: Entry, path: Path, start_time: str) -> str | None:
    """ISO 8601 time at which a recording begins, None if unknown.

    It is what `start_time` (see `RuntimeSettings`) says, else what it said when the recording was extracted, else what
    the container says.
    """
    return user_start_time(cache, path, start_time) or entry.recorded_at


def user_start_time(cache: SequenceCache, path: Path, start_time: str) -> str | None:
    """As `recorded_at`, without what the container says."""
    return StartTimes(start_time).of(path) or cache.recorded_at(path)


def feature_settings_for(detect: DetectorSettings) -> dict[str, Any]:
    """The settings that decide the features, with the hash of the weights.

    Raises:
        WeightsError: there is no such weights file.
    """
    return detect.feature_settings(sha256_file(find_weights(detect.weights)))


def extract_recordings(
    recordings: Sequence[Recording],
    cache: SequenceCache,
    detect: DetectorSettings,
    run: RuntimeSettings,
    *,
    progress: bool = True,
    on_result: Callable[[ExtractionResult], None] | None = None,
    limit: int | None = None,
    part: tuple[int, int] = (1, 1),
) -> list[ExtractionResult]:
    """See every sampled frame of the recordings once and cache what was seen.

    Recordings whose features are there already are not decoded, and equal recordings share one entry. A recording
    that cannot be read ends as failed and the run goes on. Other processes may work on the same cache at the same
    time: each takes what no other is working on, and waits for what is left. A recording that a killed run left goes
    on where that one was.

    Args:
        recordings: what to work on.
        cache: where entries are, and go.
        detect: what is computed.
        run: how.
        progress: tell on stderr which detector runs, and show a bar if that is a terminal.
        on_result: called in this thread with each recording's outcome as it ends.
        limit: stop after so many samples of each recording, as if it ended there: for trying.
        part: number and count of the shard that `recordings` are, which names the summary file.

    Returns:
        One outcome a recording, in their order. They are also written to `summary.jsonl` in the cache's folder.

    Raises:
        WeightsError, SettingsError, MissingDependencyError: the detector is not there, or cannot run as asked, and a
            recording
            needs it.
        OutputError: the cache cannot be written; what was finished stays.
    """
    paths = [recording.path for recording in recordings]
    with (
        summary_writer(cache.root / summary_name(part)) as outcomes,
        ProgressBar(paths, progress) as bar,
        Extractor(cache, detect, run, bar, limit=limit) as extractor,
    ):
        for number, recording in enumerate(recordings):
            extractor.submit(number, recording)
        extractor.finish()
        for number, outcome in extractor.ended():
            outcomes[number] = outcome
            if on_result is not None:
                on_result(outcome)
    return [outcomes[number] for number in sorted(outcomes)]
