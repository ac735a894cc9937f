"""Cut each event of a recording to a video of its own, with some context before and after."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vidgru.errors import OutputError
from vidgru.types import Event
from vidgru.video.display_frames import AudioReader, DisplayFrame, DisplayFrameReader, Interval
from vidgru.video.writer import VideoWriter, fit_video_size

_MAX_SIDE_PX = 4096  # of what browsers play
_MAX_OPEN = 4  # clips written at a time: each keeps some tens of frames in memory
_MAX_LABEL_CHARACTERS = 40  # in a file name
# Events have millisecond times: a frame that overlaps a clip by less than this is not part of it.
_TOLERANCE = Fraction(1, 4000)  # seconds
_NAME = re.compile(r"\d{3,}_.*_\d+\.\d\ds\.mp4")


@dataclass(frozen=True, kw_only=True)
class _Clip:
    path: Path
    start: Fraction
    end: Fraction

    @property
    def visible(self) -> Interval:
        """Interval in which a frame that is on screen belongs to the clip."""
        return self.start + _TOLERANCE, self.end - _TOLERANCE


def cut_clips(
    folder: Path,
    *,
    source: Path,
    events: Sequence[Event],
    context_s: float,
    progress: Callable[[float], None] = lambda seconds: None,
) -> list[Path | None]:
    """Write the part of a recording around each event, as H.264 with its sound.

    A clip starts `context_s` before its event, or with the recording; its first frame is the one on screen then. The
    recording is decoded once for up to four overlapping events, and only around events.

    Args:
        folder: Folder to write to. Other clips in it, of an earlier run, are deleted.
        source: The recording.
        events: Its events.
        context_s: Seconds before and after each.
        progress: Called with the position in the recording in seconds, after each frame and also while frames are
            skipped. It starts over if more events overlap than can be written at a time. What it raises ends the
            work, and of unfinished clips nothing is left.

    Returns:
        Path of each event's clip, `<number>_<label>_<start>s.mp4`; None if no frame can be decoded there.

    Raises:
        RecordingError: The recording cannot be read, has changed meanwhile, or FFmpeg cannot encode it. Finished clips
            stay.
        MissingDependencyError: PyAV has no H.264 encoder.
        OutputError: A clip cannot be written.
    """
    paths = [folder / clip_name(number, event) for number, event in enumerate(events, start=1)]
    clips = [
        _Clip(
            path=path,
            start=_milliseconds(max(event.start_s - context_s, 0.0)),
            end=_milliseconds(event.end_s + context_s),
        )
        for path, event in zip(paths, events, strict=True)
    ]
    position_s = 0.0

    def advance(seconds: float) -> None:
        nonlocal position_s
        position_s = seconds
        progress(seconds)

    _delete_other_clips(folder, set(paths))
    written: set[Path] = set()
    waiting = sorted(clips, key=lambda clip: (clip.start, clip.end))
    while waiting:
        clips, waiting = _first_pass(waiting)
        with DisplayFrameReader(source, on_progress=lambda: progress(position_s)) as reader:
            size_px = fit_video_size(reader.size_px, min_px=1, max_px=_MAX_SIDE_PX)
            frames = reader.frames(size_px, _merge_intervals(clip.visible for clip in clips))
            written |= _write_clips(clips, source, frames, size_px, reader.info.fps, advance)
    return [path if path in written else None for path in paths]


def clip_name(number: int, event: Event) -> str:
    """File name of an event's clip: its number in the recording, its label, its start.

    Of the label it keeps letters and digits of any script; the event files have it unchanged.
    """
    label = re.sub(r"[^\w-]+", "-", event.label)[:_MAX_LABEL_CHARACTERS].strip("-") or "event"
    return f"{number:03d}_{label}_{event.start_s:.2f}s.mp4"


def _write_clips(
    clips: list[_Clip],
    source: Path,
    frames: Iterable[DisplayFrame],
    size_px: tuple[int, int],
    fps: float | None,
    advance: Callable[[float], None],
) -> set[Path]:
    """Write clips in one pass over the recording. Returns the paths of those that have frames.

    Each is closed as soon as it is complete. If anything fails, the open ones are discarded.

    Args:
        clips: Clips by start, no more overlapping than may be open at a time.
    """
    waiting, written = list(reversed(clips)), set()
    writers: list[tuple[_Clip, VideoWriter, ExitStack]] = []
    with ExitStack() as all_open:
        for frame in frames:
            while waiting and waiting[-1].visible[0] < frame.end:
                clip = waiting.pop()
                if frame.time >= clip.visible[1]:
                    continue
                stack = all_open.enter_context(ExitStack())
                audio = stack.enter_context(AudioReader(source))
                writer = VideoWriter(clip.path, size_px=size_px, fps=fps, audio=audio, start=clip.start, end=clip.end)
                writers.append((clip, stack.enter_context(writer), stack))
            for clip, writer, stack in list(writers):
                if frame.time < clip.visible[1]:
                    writer.write(frame.image, frame.time, frame.end)
                if frame.end >= clip.visible[1]:
                    writers.remove((clip, writer, stack))
                    stack.close()
                    written.add(clip.path)
            advance(float(frame.end))
        for clip, _, stack in writers:  # the recording ends during them
            stack.close()
            written.add(clip.path)
    return written


def _first_pass(clips: list[_Clip]) -> tuple[list[_Clip], list[_Clip]]:
    """Split clips, sorted by start, into those that can be written in one pass and those for the next."""
    now: list[_Clip] = []
    later: list[_Clip] = []
    for clip in clips:
        overlapping = sum(other.end > clip.start for other in now)
        (now if overlapping < _MAX_OPEN else later).append(clip)
    return now, later


def _merge_intervals(intervals: Iterable[Interval]) -> list[Interval]:
    """Merge overlapping intervals, sorted by start."""
    merged: list[Interval] = []
    for start, end in intervals:
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged


def _delete_other_clips(folder: Path, keep: set[Path]) -> None:
    try:
        for path in folder.iterdir() if folder.exists() else ():
            if _NAME.fullmatch(path.name) and path not in keep:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {folder}: {error.strerror}", "free disk space or choose another folder with --out"
        ) from error


def _milliseconds(seconds: float) -> Fraction:
    """Seconds rounded to milliseconds, exactly."""
    return Fraction(round(seconds * 1000), 1000)
