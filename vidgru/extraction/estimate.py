"""Estimate what a run would do and how long it would take, without doing it: `vidgru extract --dry-run`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, RuntimeSettings
from vidgru.errors import RecordingError
from vidgru.extraction.decode_process import DecoderDiedError, DecoderProcess, watch_for_hangs
from vidgru.extraction.detector_pool import count_threads
from vidgru.extraction.pipeline import extract_recordings, feature_settings_for
from vidgru.types import Recording
from vidgru.video.container import VideoInfo
from vidgru.video.stillness import CHECK_S

_TRIALS = 3  # recordings to try the run on, of different frame sizes where there are
_KEY_FRAME_S = 0.02  # to find and decode a key frame of 1080p
_SHORT, _LONG = 24, 88  # samples of each; the difference of two trials is the speed without the start-up


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What there is to do.

    Attributes:
        recordings: Number of recordings given.
        cached: Number of recordings known to be cached without reading them.
        unreadable: Name and reason of each recording that cannot be read.
        unknown: Number of recordings of unknown length, which the figures below leave out.
        video_s: Length of the others in seconds.
        samples: Samples that would be taken of them.
        bytes: Size that they would take on disk; None if nothing could be tried.
        seconds: Wall time that they would take; None if nothing could be tried.
        tried: Names of the recordings the run was tried on.
        still: Share of the samples of those that are still as far as packets show; None if packets do not show it.
        adaptive_seconds: Wall time with `--adaptive`, if the others are as still; None if it is unknown.
    """

    recordings: int
    cached: int
    unreadable: tuple[str, ...]
    unknown: int
    video_s: float
    samples: int
    bytes: float | None
    seconds: float | None
    tried: tuple[str, ...]
    still: float | None = None
    adaptive_seconds: float | None = None

    def __str__(self) -> str:
        remaining = self.recordings - self.cached - len(self.unreadable)
        lines = [f"cannot be read: {line}" for line in self.unreadable]
        noun = "recording" if self.recordings == 1 else "recordings"
        lines.append(f"{self.recordings} {noun}, {self.cached} of them cached, {remaining} to do")
        lines.append(f"{self.video_s / 3600:.2f} hours, {self.samples:,} samples")
        if self.unknown:
            lines[-1] += f", and {self.unknown} recordings of unknown length"
        if self.bytes is not None and self.seconds is not None:
            speed = f"{1000 * self.seconds / max(self.samples, 1):.1f} ms per sample"
            duration = _format_duration(self.seconds)
            lines.append(f"about {self.bytes / 1e9:.3f} GB and {duration} ({speed}, tried on {', '.join(self.tried)})")
        if self.still is not None and self.adaptive_seconds is not None:
            duration = _format_duration(self.adaptive_seconds)
            lines.append(f"still as far as packets show: {self.still:.1%}; about {duration} with --adaptive")
        return "\n".join(lines)


def estimate(
    recordings: Sequence[Recording], cache: SequenceCache, detect: DetectorSettings, run: RuntimeSettings
) -> Estimate:
    """Look at recordings, and try the run on a few seconds of some of them.

    Nothing is written to the cache. Only the packets of those tried are read completely, to find how much is still. A
    copy of a cached recording counts as to be done.

    Raises:
        WeightsError, SettingsError, MissingDependencyError: As `extract_recordings`.
    """
    feature_settings = feature_settings_for(detect)
    unknown, video_s = 0, 0.0
    unreadable: list[str] = []
    remaining: list[tuple[Recording, tuple[int, int], float]] = []  # with frame size and length
    missing = [recording for recording in recordings if not _is_cached(recording.path, cache, feature_settings)]
    decoders = [DecoderProcess() for _ in range(count_threads(run))]

    def probe(decoder: DecoderProcess, part: Sequence[Recording]) -> list[VideoInfo | str]:
        infos: list[VideoInfo | str] = []
        for recording in part:
            try:
                infos.append(decoder.probe(recording.path))
            except (RecordingError, DecoderDiedError) as error:
                infos.append(f"{recording.name}: {error}")
        return infos

    with watch_for_hangs(decoders), ExitStack() as stack:
        for decoder in decoders:
            stack.callback(decoder.stop)
        pool = ThreadPoolExecutor(len(decoders))
        stack.callback(pool.shutdown)
        for decoder in decoders:
            stack.callback(decoder.close)  # ends its thread, also after Ctrl-C
        step = len(decoders)
        infos: list[VideoInfo | str] = [""] * len(missing)
        for first, part in enumerate(pool.map(probe, decoders, [missing[first::step] for first in range(step)])):
            infos[first::step] = part
        for recording, info in zip(missing, infos, strict=True):
            if isinstance(info, str):
                unreadable.append(info)
                continue
            unknown += info.duration_s is None
            video_s += info.duration_s or 0.0
            remaining.append((recording, info.size_px, info.duration_s or 0.0))
        longest: dict[tuple[int, int], Recording] = {}  # of each frame size
        for recording, size_px, _ in sorted(remaining, key=lambda item: -item[2]):
            longest.setdefault(size_px, recording)
        tried = list(longest.values())[:_TRIALS]
        still, packets_s = _read_packets(tried, decoders[0], detect.fps)
    samples = round(video_s * detect.fps)
    size, seconds = _try_run(tried, replace(detect, adaptive=False), run) if tried else (None, None)
    adaptive_seconds: float | None = None
    if still is not None and seconds is not None:
        adaptive_seconds = seconds * samples * (1 - still) + (packets_s + _KEY_FRAME_S / CHECK_S) * video_s
    kept = (1 - still) if still is not None and detect.adaptive else 1.0
    return Estimate(
        recordings=len(recordings),
        cached=len(recordings) - len(missing),
        unreadable=tuple(unreadable),
        unknown=unknown,
        video_s=video_s,
        samples=samples,
        bytes=None if size is None else size * samples * kept,
        seconds=None if seconds is None else seconds * samples,
        tried=tuple(recording.name for recording in tried),
        still=still,
        adaptive_seconds=adaptive_seconds,
    )


def _is_cached(path: Path, cache: SequenceCache, feature_settings: dict[str, object]) -> bool:
    """Whether a recording whose hash is known is cached."""
    try:
        sha256 = cache.known_sha256(path)
        return sha256 is not None and cache.valid_entry(cache.key(sha256, feature_settings)) is not None
    except OSError:
        return False


def _read_packets(recordings: list[Recording], decoder: DecoderProcess, fps: float) -> tuple[float | None, float]:
    """Return the share of the samples that are still as far as packets show, and the time of reading per second.

    Recordings whose packets do not show it count as not still; the share is None if those of none do.
    """
    samples, still, video_s, start = 0, 0.0, 0.0, time.perf_counter()
    shares = []
    for recording in recordings:
        with suppress(RecordingError, DecoderDiedError):
            share, duration_s = decoder.share_still(recording.path, fps)
            shares.append(share)
            samples, video_s = samples + round(duration_s * fps), video_s + duration_s
            still += (share or 0.0) * round(duration_s * fps)
    if not samples or all(share is None for share in shares):
        return None, 0.0
    return still / samples, (time.perf_counter() - start) / video_s


def _try_run(
    recordings: list[Recording], detect: DetectorSettings, run: RuntimeSettings
) -> tuple[float | None, float | None]:
    """Measure bytes and seconds per sample; None where the recordings have no samples."""
    walls, counts, size = [], [], 0
    for limit in (1, _SHORT, _LONG):  # the first pays for what is done once per process, and is not used
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            results = extract_recordings(recordings, SequenceCache(folder), detect, run, progress=False, limit=limit)
            walls.append(time.perf_counter() - start)
            counts.append(sum(result.samples for result in results))
            size = sum(path.stat().st_size for path in Path(folder).rglob("part-*"))
    if not counts[2]:
        return None, None
    more = counts[2] - counts[1]
    is_measurable = more >= _LONG - _SHORT and walls[2] > walls[1]
    return size / counts[2], (walls[2] - walls[1]) / more if is_measurable else walls[2] / counts[2]


def _format_duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
