"""Every event cut to a file of its own, with what comes before and after it."""

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

_MOST_PX = 4096  # longer side, of what browsers play
_MOST_OPEN = 4  # films written at a time: each keeps some tens of frames in memory
_LONGEST_LABEL = 40  # characters of it in a file's name
_GRAIN = Fraction(
    1, 4000
)  # s; events are told to a millisecond: a frame that ends or begins by less within is not meant
_NAME = re.compile(r"\d{3,}_.*_\d+\.\d\ds\.mp4")


@dataclass(frozen=True, kw_only=True)
class _Clip:
    path: Path
    start: Fraction
    end: Fraction

    @property
    def shows(self) -> Interval:
        """A frame belongs to it if it is on screen at any time in this stretch."""
        return self.start + _GRAIN, self.end - _GRAIN


def cut_clips(
    folder: Path,
    *,
    source: Path,
    events: Sequence[Event],
    context_s: float,
    progress: Callable[[float], None] = lambda seconds: None,
) -> list[Path | None]:
    """Write the stretch of a recording around each event as H.264 with its sound.

    A clip's time 0 is `context_s` before its event, or the start of the recording; what is on screen then is its first
    frame. The recording is decoded once for up to four events that overlap, and only where there are events.

    Args:
        folder: where to; it is made. Clips of an earlier run that are none of these are deleted from it.
        source: the recording.
        events: found in it.
        context_s: seconds before and after each.
        progress: called with how far the recording is, in seconds, after each frame and also where frames are passed
            over. It goes back where more events overlap than can be written in one go. What it raises ends the work:
            of clips that are not finished nothing is left.

    Returns:
        A path for each event, `<number>_<label>_<start>s.mp4`; None where no frame can be decoded there.

    Raises:
        RecordingError: the recording cannot be read, or changed on the way, or FFmpeg makes no clip of it; clips that
            are finished stay.
        MissingDependencyError: PyAV has no H.264 encoder.
        OutputError: a clip cannot be written.
    """
    paths = [folder / clip_name(number, event) for number, event in enumerate(events, start=1)]
    clips = [
        _Clip(path=path, start=_exact(max(event.start_s - context_s, 0.0)), end=_exact(event.end_s + context_s))
        for path, event in zip(paths, events, strict=True)
    ]
    reached = 0.0

    def shown(seconds: float) -> None:
        nonlocal reached
        reached = seconds
        progress(seconds)

    _tidy(folder, set(paths))
    written: set[Path] = set()
    waiting = sorted(clips, key=lambda clip: (clip.start, clip.end))
    while waiting:
        now, waiting = _share_out(waiting)
        with DisplayFrameReader(source, on_progress=lambda: progress(reached)) as reader:
            size_px = fit_video_size(reader.size_px, min_px=1, max_px=_MOST_PX)
            frames = reader.frames(size_px, _stretches(now))
            written |= _cut(now, source, frames, size_px, reader.info.fps, shown)
    return [path if path in written else None for path in paths]


def clip_name(number: int, event: Event) -> str:
    """Name of an event's file: its number among the events of its recording, its label, when it starts.

    Letters and digits of any script are kept of the label; it is in the file of events as it is.
    """
    label = re.sub(r"[^\w-]+", "-", event.label)[:_LONGEST_LABEL].strip("-") or "event"
    return f"{number:03d}_{label}_{event.start_s:.2f}s.mp4"


def _cut(
    clips: list[_Clip],
    source: Path,
    frames: Iterable[DisplayFrame],
    size_px: tuple[int, int],
    fps: float | None,
    shown: Callable[[float], None],
) -> set[Path]:
    """Write clips, by start, of which no more overlap than may be open at a time; the paths of those that have frames.

    Each is closed as soon as it is whole. Where something goes wrong, those that are open are none.
    """
    waiting, written = list(reversed(clips)), set()
    films: list[tuple[_Clip, VideoWriter, ExitStack]] = []
    with ExitStack() as everything:
        for frame in frames:
            while waiting and waiting[-1].shows[0] < frame.end:
                clip = waiting.pop()
                if frame.time >= clip.shows[1]:
                    continue
                stack = everything.enter_context(ExitStack())
                sound = stack.enter_context(AudioReader(source))
                film = VideoWriter(clip.path, size_px=size_px, fps=fps, audio=sound, start=clip.start, end=clip.end)
                films.append((clip, stack.enter_context(film), stack))
            for clip, film, stack in list(films):
                if frame.time < clip.shows[1]:
                    film.write(frame.image, frame.time, frame.end)
                if frame.end >= clip.shows[1]:
                    films.remove((clip, film, stack))
                    stack.close()
                    written.add(clip.path)
            shown(float(frame.end))
        for clip, _, stack in films:  # the recording ends within them
            stack.close()
            written.add(clip.path)
    return written


def _share_out(clips: list[_Clip]) -> tuple[list[_Clip], list[_Clip]]:
    """Of clips, by start, those that can be written in one go, and those that have to wait for the next."""
    now: list[_Clip] = []
    later: list[_Clip] = []
    for clip in clips:
        overlapping = sum(other.end > clip.start for other in now)
        (now if overlapping < _MOST_OPEN else later).append(clip)
    return now, later


def _stretches(clips: list[_Clip]) -> list[Interval]:
    """What clips, by start, show of the recording, in stretches that are apart."""
    joined: list[Interval] = []
    for start, end in (clip.shows for clip in clips):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def _tidy(folder: Path, keep: set[Path]) -> None:
    """Delete the clips of an earlier run."""
    try:
        for path in folder.iterdir() if folder.exists() else ():
            if _NAME.fullmatch(path.name) and path not in keep:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {folder}: {error.strerror}", "free disk space or choose another folder with --out"
        ) from error


def _exact(seconds: float) -> Fraction:
    return Fraction(round(seconds * 1000), 1000)
