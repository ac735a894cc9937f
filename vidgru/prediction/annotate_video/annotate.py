"""A recording as an annotated film: objects, tracks, attention, events and the time drawn over every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vidgru.prediction.annotate_video.interpolate_boxes import BoxInterpolator
from vidgru.prediction.annotate_video.overlay import Overlay
from vidgru.types import Array, Event, FrameSequence
from vidgru.video.display_frames import AudioReader, DisplayFrameReader
from vidgru.video.writer import VideoWriter, fit_video_size

_LEAST_PX = 640  # longer side below which a picture is enlarged, so that labels can be read and hide little
_MOST_PX = 1920  # and above which it is made smaller: what every browser plays


def save_video(
    path: Path,
    *,
    source: Path,
    parts: Iterable[FrameSequence],
    attention: Array,
    events: Sequence[Event],
    names: Sequence[str],
    labels: Sequence[str],
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Write a recording with what was seen and found in it drawn on its frames, as H.264 with its sound.

    Every frame of the recording is there, at its time. Of a damaged recording there is what can be decoded.

    Args:
        path: the film to write; its name should end in .mp4.
        source: the recording.
        parts: the stretches of its sequence, read as the film goes on.
        attention: float32 [M], share of each object in its frame, rows as in the sequence.
        events: found in it.
        names: the detector's class names.
        labels: the model's, in its order: they choose the colours.
        progress: called after each frame with how far the film is, in seconds. What it raises ends the work, and
            nothing of the film is left.

    Raises:
        RecordingError: the recording cannot be read, or changed on the way, or FFmpeg makes no film of it; nothing is
            written.
        MissingDependencyError: PyAV has no H.264 encoder.
        OutputError: the film cannot be written.
    """
    with DisplayFrameReader(source) as reader, AudioReader(source) as sound:
        size_px = fit_video_size(reader.size_px, min_px=_LEAST_PX, max_px=_MOST_PX)
        overlay = Overlay(size_px=size_px, names=names, labels=labels, events=events)
        moments = BoxInterpolator(parts, attention)
        with VideoWriter(path, size_px=size_px, fps=reader.info.fps, audio=sound) as film:
            for frame in reader.frames(size_px):
                overlay.draw(frame.image, float(frame.time), moments.at(float(frame.time)))
                film.write(frame.image, frame.time, frame.end)
                progress(float(frame.end))
