"""Compare annotations with the recordings themselves: frame times, durations, samples, copies.

Loading a dataset opens no video, unless frames are counted at an unknown rate. The other checks run when the durations
of the recordings are known: before training, and in `vidgru info`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from vidgru.datasets.copies import warn_of_copies
from vidgru.datasets.dataset import Dataset
from vidgru.datasets.rows import AnnotationRow, FrameSpan, Problem, plural, raise_problems
from vidgru.errors import AnnotationError, RecordingError
from vidgru.types import Array
from vidgru.video.frame_times import packet_times
from vidgru.video.reader import probe

_THREADS = 4  # opening files is mostly waiting
_RATE_TOLERANCE = 0.01  # relative error of a rounded rate, such as 29.97 given as 30
_COUNT_TOLERANCE = 2  # frames: tools differ in whether they count the last one
_COUNT_SHARE = 0.05  # of the frames that annotations may lack: features of clips of some frames are cut off
_DURATION_TOLERANCE, _DURATION_TOLERANCE_S = 0.05, 1.0
_MIN_S, _MIN_EVENTS = 5.0, 3  # recordings and events from which all of them in the first second are strange
_LONG_S = 120.0  # recordings in which one label for the whole is unlikely to be meant
_DAY_S = 86_400.0
_MIN_EVENT_S = 1 / 240  # a shorter event is none; shares of a day are below it up to six minutes
_MAX_SHOWN = 5  # videos with other frame times, one line each


def check_recordings(dataset: Dataset, durations: Mapping[str, float], fps: float) -> Dataset:
    """Fit annotations to their recordings, and warn about what cannot be meant.

    Frame numbers become the times of these frames, and intervals that end after their recording are clipped.

    Args:
        dataset: As loaded; with splits.
        durations: Seconds by video. Rows of other recordings are unchanged.
        fps: Samples per second.

    Raises:
        AnnotationError: An interval starts after the end of its recording, or no sample falls into any event.
    """
    paths = {name: dataset.recordings[name].path for name in durations}
    rows, warnings = use_frame_times(dataset.rows, paths, dataset.frame_counts)
    stated = dataset.durations
    dataset = replace(dataset, rows=tuple(rows), warnings=(*dataset.warnings, *warnings))
    dataset = _clip_to_durations(dataset, durations)
    warnings = [
        *compare_durations(stated, durations),
        *_short_events(dataset, fps),
        *_first_second(dataset, durations),
        *_long_clips(dataset, durations),
        *warn_of_copies(dataset, paths),
    ]
    return replace(dataset, warnings=(*dataset.warnings, *warnings))


# --- frame times ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _VideoFrames:
    """Times of all frames of a video in seconds, float64 [N], their resolution, and the end of the last one."""

    time_s: Array
    tick_s: float
    end_s: float

    def time_of(self, frame: float) -> float:
        """Return the time of a frame; the end of the video for a frame after the last."""
        return float(self.time_s[int(frame)]) if frame < len(self.time_s) else self.end_s

    def compare(self, video: str, spans: Sequence[FrameSpan], count: int | None) -> tuple[bool, str]:
        """Decide whether the frames that annotations count are those of this video, at other times than assumed.

        Args:
            video: Its name.
            spans: The annotated frames.
            count: Number of frames of the video that was annotated; None if unknown.

        Returns:
            Whether to use its frame times, and a warning, which may be empty.
        """
        frames, fps = len(self.time_s), spans[0].fps
        last = max(count or 0, *(math.ceil(span.stop) for span in spans))
        is_resampled = count is not None and abs(count / fps - self.end_s) < _COUNT_TOLERANCE / fps
        if abs((count or frames) - frames) > _COUNT_TOLERANCE and is_resampled:
            return False, ""  # frames of a copy with another rate, at the right times
        message = f"{video} has {frames} frames, but its annotations count {last}"
        if last > frames + _COUNT_TOLERANCE:
            return False, f"{message}: times are computed with fps {fps:g} and may not fit; was another file annotated?"
        if count is not None and last < frames * (1 - _COUNT_SHARE) - _COUNT_TOLERANCE:
            return True, f"{message}: from there on nothing happens; was every frame annotated, and this file?"
        assumed = np.arange(frames) / fps
        if np.abs(self.time_s - assumed).max() <= max(self.tick_s, 1e-6):
            return False, ""
        rate = (frames - 1) / (self.time_s[-1] - self.time_s[0]) if frames > 1 else fps
        even = self.time_s[0] + np.arange(frames) / rate
        if np.abs(self.time_s - even).max() > 1.5 / rate:
            return True, f"{video} has a variable frame rate: the times of its frames are used, not frame / {fps:g}"
        if abs(rate - fps) > _RATE_TOLERANCE * fps:
            message = f"fps is {fps:g}, but {video} has {rate:.4g} frames per second"
            return True, f"{message}: the times of its frames are used"
        return True, ""


def use_video_rates(source: Path, rows: Sequence[AnnotationRow], paths: Mapping[str, Path]) -> list[AnnotationRow]:
    """Give rows that count frames, without their rate, the rate of their video.

    Args:
        source: File that the error names.
        rows: Rows; those that give times, or frames and their rate, are unchanged.
        paths: Videos by name.

    Raises:
        AnnotationError: The video of a row without rate is not there, or has none.
    """
    wanted: dict[str, str] = {}  # place of the first row of each video
    for row in rows:
        if row.frames is not None and not row.frames.fps:
            wanted.setdefault(row.annotation.video, row.where)
    present = [name for name in wanted if name in paths]
    rates: dict[str, float] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        rates |= {
            name: rate
            for name, rate in zip(present, pool.map(_rate, (paths[name] for name in present)), strict=True)
            if rate
        }
    unknown = next((name for name in wanted if name not in rates), None)
    if unknown is not None:
        raise AnnotationError(
            f"{source}, {wanted[unknown]}: counts frames, and their rate is unknown: {unknown} cannot be read",
            "give the rate: `fps: 25` in a dataset YAML, or vidgru convert --fps 25; or put the video there",
        )
    changed = []
    for row in rows:
        if row.frames is not None and not row.frames.fps:
            rate = rates[row.annotation.video]
            frames = replace(row.frames, fps=rate)
            start_s, end_s = frames.interval(lambda frame, rate=rate: frame / rate)  # type: ignore[misc]
            row = replace(row, frames=frames, annotation=replace(row.annotation, start_s=start_s, end_s=end_s))
        changed.append(row)
    return changed


def _rate(path: Path) -> float | None:
    try:
        return probe(path).fps
    except RecordingError:  # extraction says why
        return None


def use_frame_times(
    rows: Sequence[AnnotationRow], paths: Mapping[str, Path], frame_counts: Mapping[str, int]
) -> tuple[list[AnnotationRow], list[str]]:
    """Replace the intervals of rows that count frames by the times of these frames in their videos.

    A video with a variable frame rate has no rate by which frame numbers become times, and the rate that was given may
    be wrong. Rows are unchanged if their video cannot be read, or has other frames than those that were counted.

    Args:
        rows: Rows; those whose videos are not in `paths` are unchanged.
        paths: Videos by name.
        frame_counts: Numbers of frames of the videos when they were annotated, where known.

    Returns:
        The rows, and warnings.
    """
    spans: dict[str, list[FrameSpan]] = {}
    for row in rows:
        if row.frames is not None and row.annotation.video in paths:
            spans.setdefault(row.annotation.video, []).append(row.frames)
    used: dict[str, _VideoFrames] = {}
    warnings: list[str] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for name, video in zip(spans, pool.map(_read_frames, (paths[name] for name in spans)), strict=True):
            if video is not None:
                is_used, warning = video.compare(name, spans[name], frame_counts.get(name))
                warnings += [warning] if warning else []
                used |= {name: video} if is_used else {}
    changed = [
        _with_frame_times(row, used[row.annotation.video])
        if row.frames is not None and row.annotation.video in used
        else row
        for row in rows
    ]
    more = (
        [f"and {len(warnings) - _MAX_SHOWN} more videos with other frame times"] if len(warnings) > _MAX_SHOWN else []
    )
    return changed, [*warnings[:_MAX_SHOWN], *more]


def _read_frames(path: Path) -> _VideoFrames | None:
    try:
        time_s, tick_s, end_s = packet_times(path)
    except RecordingError:  # extraction says why
        return None
    return _VideoFrames(time_s=time_s, tick_s=tick_s, end_s=end_s)


def _with_frame_times(row: AnnotationRow, video: _VideoFrames) -> AnnotationRow:
    assert row.frames is not None
    start_s, end_s = row.frames.interval(video.time_of)
    return replace(row, annotation=replace(row.annotation, start_s=start_s, end_s=end_s)) if end_s > start_s else row


# --- durations and samples ------------------------------------------------------------------------------------------


def _clip_to_durations(dataset: Dataset, durations: Mapping[str, float]) -> Dataset:
    """Clip intervals that end after their recording, with a warning.

    Raises:
        AnnotationError: An interval starts after the end of its recording.
    """
    rows: list[AnnotationRow] = []
    problems: list[Problem] = []
    clipped: list[str] = []
    longer = 0
    for row in dataset.rows:
        note = row.annotation
        length = durations.get(note.video, math.inf)
        if note.start_s is not None and note.start_s >= length:
            message = f"start {note.start_s:g} s is past the end of {note.video} ({length:.2f} s)"
            remedy = "times are seconds from the start of the file, or HH:MM:SS; for tools that count frames, check fps"
            problems.append((row.where, message, remedy))
        elif note.end_s is not None and note.end_s > length:
            longer += note.start_s is not None and note.end_s - note.start_s > length
            clipped.append(f"{row.where}: {note.video} ends at {length:.2f} s, not {note.end_s:g}")
            row = replace(row, annotation=replace(note, end_s=length))
        rows.append(row)
    raise_problems(dataset.source, problems)
    warnings = dataset.warnings
    if clipped:
        cause = f"; {longer} are longer than it: are the times milliseconds, or frames?" if longer else ""
        warnings += (f"{plural(len(clipped), 'end')} past the end of the recording, clipped ({clipped[0]}){cause}",)
    return replace(dataset, rows=tuple(rows), durations={**dataset.durations, **durations}, warnings=warnings)


def compare_durations(stated: Mapping[str, float], durations: Mapping[str, float]) -> list[str]:
    """Warn about recordings whose duration is not that of the annotations."""
    other = []
    for video, length in durations.items():
        tolerance = max(_DURATION_TOLERANCE_S, _DURATION_TOLERANCE * length)
        if video in stated and math.isfinite(length) and abs(stated[video] - length) > tolerance:
            other.append(f"{video} has {length:.1f} s, the annotations say {stated[video]:.1f} s")
    if not other:
        return []
    return [
        f"{plural(len(other), 'recording')} of another duration than annotated (first: {other[0]}): whole films "
        "instead of the cut clips (cut them, or write the events as start,end), another cut, or another speed? Labels "
        "and times may not fit"
    ]


def warn_of_shares(rows: Sequence[AnnotationRow]) -> list[str]:
    """Warn about events that are too short for anything but shares of a day."""
    timed = [(row.annotation.start_s, row.annotation.end_s, row.where) for row in rows]
    short = [where for start_s, end_s, where in timed if start_s is not None and (end_s or 0) - start_s < _MIN_EVENT_S]
    if not short:
        return []
    number = f"{plural(len(short), 'event')} shorter than {_MIN_EVENT_S:.3f} s (first: {short[0]})"
    return [f"{number}: if the times come from Excel, they are shares of a day; multiply them by 86400"]


def _short_events(dataset: Dataset, fps: float) -> list[str]:
    """Warn about events that no sample falls into. Raises AnnotationError if these are all of them."""
    timed: list[tuple[float, float, str]] = []
    for row in dataset.rows:
        note = row.annotation
        if note.start_s is not None and note.end_s is not None and note.label not in (None, dataset.background):
            timed.append((note.start_s, note.end_s, f"{row.where}, {note.start_s:.6g} to {note.end_s:.6g} s"))
    short = [where for start_s, end_s, where in timed if math.ceil(start_s * fps - 1e-6) >= end_s * fps - 1e-6]
    if not short:
        return []
    if len(short) < len(timed):
        number = f"{len(short)} of {plural(len(timed), 'event')}"
        message = (
            f"{number} between two samples at {fps:g} per second (first: {short[0]}), so they can hardly be learnt"
        )
        has_shares = any(end_s < _MIN_EVENT_S for _, end_s, _ in timed)
        cause = "some are shares of a day, as Excel saves times: multiply these by 86400" if has_shares else ""
        return [f"{message}; {cause or 'correct their times, or raise --fps'}"]
    longest = max(end_s - start_s for start_s, end_s, _ in timed)
    message = f"no sample at {fps:g} per second falls into any of its {plural(len(timed), 'event')} ({short[0]})"
    is_share = longest < _MIN_EVENT_S
    remedy = "write seconds, or HH:MM:SS" if is_share else f"raise --fps to {1 / longest:.3g} or more"
    if is_share and longest * fps * _DAY_S > 1:
        remedy = (
            f"if the times come from Excel, they are shares of a day ({longest:.3g} is {longest * _DAY_S:.3g} s): "
            "multiply them by 86400, or format the cells as text before saving as CSV"
        )
    raise AnnotationError(f"{dataset.source}: {message}", remedy)


def _first_second(dataset: Dataset, durations: Mapping[str, float]) -> list[str]:
    """Warn if all events are within the first second of recordings that are longer: shares of something?"""
    ends = {
        (row.annotation.video, row.annotation.end_s)
        for row in dataset.rows
        if row.annotation.end_s is not None and row.annotation.label not in (None, dataset.background)
    }
    lengths = [durations[video] for video in {video for video, _ in ends} if video in durations]
    if len(ends) < _MIN_EVENTS or not lengths or median(lengths) < _MIN_S or max(end_s for _, end_s in ends) > 1:
        return []
    message = f"all {plural(len(ends), 'event')} are within the first second of their recordings"
    return [f"{message}: are the times shares of a day (of Excel), of the recording, or minutes?"]


def _long_clips(dataset: Dataset, durations: Mapping[str, float]) -> list[str]:
    """Warn if every label is that of a whole recording of minutes."""
    labelled = [row.annotation for row in dataset.rows if row.annotation.label not in (None, dataset.background)]
    lengths = [durations[note.video] for note in labelled if note.video in durations]
    if not lengths or any(note.start_s is not None for note in labelled) or not _LONG_S <= median(lengths) < math.inf:
        return []
    return [f"every label is about a whole recording, {median(lengths):.0f} s on average; events within need start,end"]
