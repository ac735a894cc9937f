"""What a run would do and how long it would take, without doing it: `vidgru extract --dry-run`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.errors import RecordingError
from vidgru.extraction.decode_process import DecoderDiedError, DecoderProcess, watch_for_hangs
from vidgru.extraction.pipeline import extract_recordings, feature_settings_for
from vidgru.types import Recording

_TRIED = 3  # recordings, of different sizes if there are
_SHORT, _LONG = 24, 88  # samples of each; the difference between two trials tells the speed without the start


class _HashUnknownError(Exception):
    """The file would have to be hashed."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What there is to do.

    Attributes:
        recordings: how many were given.
        there: how many are extracted already, as far as can be told without reading them.
        unreadable: those that cannot be read, each with the reason.
        unknown: how many do not tell their length; they are left out of the figures below.
        video_s: length of the others.
        samples: that would be taken of them.
        bytes, seconds: size on disk and time that they would take; None where nothing could be tried.
        tried: names of the recordings that these were measured on.
    """

    recordings: int
    there: int
    unreadable: tuple[str, ...]
    unknown: int
    video_s: float
    samples: int
    bytes: float | None
    seconds: float | None
    tried: tuple[str, ...]

    def __str__(self) -> str:
        todo = self.recordings - self.there - len(self.unreadable)
        lines = [f"cannot be read: {line}" for line in self.unreadable]
        lines.append(f"{self.recordings} recordings, {self.there} of them extracted already, {todo} to do")
        lines.append(f"{self.video_s / 3600:.2f} hours, {self.samples:,} samples")
        if self.unknown:
            lines[-1] += f", and {self.unknown} recordings that do not tell their length"
        if self.bytes is not None and self.seconds is not None:
            speed = f"{1000 * self.seconds / max(self.samples, 1):.1f} ms a sample"
            lines.append(
                f"about {self.bytes / 1e9:.3f} GB and {_words(self.seconds)} "
                f"({speed}, tried on {', '.join(self.tried)})"
            )
        return "\n".join(lines)


def estimate(
    recordings: Sequence[Recording], cache: SequenceCache, detect: DetectorSettings, run: RuntimeSettings
) -> Estimate:
    """Look at recordings, and try the run on a few seconds of some of them.

    Nothing is written to the cache, and no recording is read as a whole: a copy of one that is extracted already
    counts as to be done.

    Raises:
        WeightsError, SettingsError, MissingDependencyError: as from `extract_recordings`.
    """
    feature_settings = feature_settings_for(detect)
    there, unknown, video_s = 0, 0, 0.0
    unreadable: list[str] = []
    todo: list[tuple[Recording, tuple[int, int], float]] = []
    decoder = DecoderProcess()
    with watch_for_hangs([decoder]), ExitStack() as stack:
        stack.callback(decoder.stop)
        for recording in recordings:
            if _is_there(recording.path, cache, feature_settings):
                there += 1
                continue
            try:
                info = decoder.probe(recording.path)
            except (RecordingError, DecoderDiedError) as error:
                unreadable.append(f"{recording.name}: {error}")
                continue
            unknown += info.duration_s is None
            video_s += info.duration_s or 0.0
            todo.append((recording, info.size_px, info.duration_s or 0.0))
    tried = _choose(todo)
    samples = round(video_s * detect.fps)
    size, seconds = _try(tried, detect, run) if tried else (None, None)
    return Estimate(
        recordings=len(recordings),
        there=there,
        unreadable=tuple(unreadable),
        unknown=unknown,
        video_s=video_s,
        samples=samples,
        bytes=None if size is None else size * samples,
        seconds=None if seconds is None else seconds * samples,
        tried=tuple(recording.name for recording in tried),
    )


def _is_there(path: Path, cache: SequenceCache, feature_settings: dict[str, object]) -> bool:
    def refuse() -> None:
        raise _HashUnknownError

    try:
        return cache.valid_entry(cache.key(cache.sha256(path, refuse), feature_settings)) is not None
    except (_HashUnknownError, OSError):
        return False


def _choose(todo: list[tuple[Recording, tuple[int, int], float]]) -> list[Recording]:
    """The longest recordings of different sizes."""
    chosen: dict[tuple[int, int], Recording] = {}
    for recording, size_px, _ in sorted(todo, key=lambda one: -one[2]):
        if len(chosen) < _TRIED:
            chosen.setdefault(size_px, recording)
    return list(chosen.values())


def _try(
    recordings: list[Recording], detect: DetectorSettings, run: RuntimeSettings
) -> tuple[float | None, float | None]:
    """Bytes and seconds a sample; None where the recordings are too short to tell."""
    took, done, size = [], [], 0
    for limit in (1, _SHORT, _LONG):  # the first pays for what is done once in a process, and is not looked at
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            outcomes = extract_recordings(recordings, SequenceCache(folder), detect, run, progress=False, limit=limit)
            took.append(time.perf_counter() - began)
            done.append(sum(outcome.samples for outcome in outcomes))
            size = sum(path.stat().st_size for path in Path(folder).rglob("part-*"))
    if not done[2]:
        return None, None
    more = done[2] - done[1]
    seconds = (took[2] - took[1]) / more if more >= _LONG - _SHORT and took[2] > took[1] else took[2] / done[2]
    return size / done[2], seconds


def _words(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
