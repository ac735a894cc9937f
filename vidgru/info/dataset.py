"""What a data set holds, and what to look at in it before training."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from vidgru.datasets.annotations import check_times, load_dataset
from vidgru.datasets.splits import assign_splits, report
from vidgru.errors import AnnotationError, RecordingError
from vidgru.types import Recording
from vidgru.video.reader import probe

_PROBES = 4  # recordings opened at once to see how long they are


def about_dataset(path: Path) -> list[str]:
    """What its annotations hold, and what keeps it from being trained on.

    Raises:
        AnnotationError: it cannot be read.
    """
    dataset = load_dataset(path, allow_missing=True)
    durations, unreadable = _durations(dataset.recordings.values())
    concerns = []
    for step in (assign_splits, partial(check_times, durations=durations)):
        try:
            dataset = step(dataset)
        except AnnotationError as error:  # it cannot be trained on, but described
            concerns += ["", *str(error).splitlines()]
    return [f"data set {path}", *str(report(dataset)).splitlines(), *unreadable, *concerns]


def _durations(recordings: Iterable[Recording]) -> tuple[dict[str, float], list[str]]:
    """Seconds by name of the recordings whose container tells, and a warning if some cannot be read."""

    def length(recording: Recording) -> float | str:
        try:
            return probe(recording.path).duration_s or 0.0
        except RecordingError as error:
            return f"{recording.name} {error.message}"

    recordings = list(recordings)
    with ThreadPoolExecutor(_PROBES) as pool:  # opening files is mostly waiting
        found = list(tqdm(pool.map(length, recordings), "recordings", len(recordings), leave=False, disable=None))
    wrong = [said for said in found if isinstance(said, str)]
    known = {r.name: said for r, said in zip(recordings, found, strict=True) if not isinstance(said, str) and said > 0}
    some = f"{len(wrong)} recording{'s' if len(wrong) > 1 else ''}"
    return known, [f"warning: {some} cannot be read (first: {wrong[0]})"] if wrong else []
