"""Annotated videos: objects, tracks, attention, events and the time drawn on every frame of a recording."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from vidgru.prediction.event_files import one_line
from vidgru.prediction.text_render import Rgb, colour, paste, render_label, render_sentence, render_text
from vidgru.types import Array, Event, FrameSequence
from vidgru.video.display_frames import AudioReader, DisplayFrameReader
from vidgru.video.writer import VideoWriter, fit_video_size

_MIN_SIDE_PX = 640  # smaller frames are enlarged, so that labels can be read and hide little
_MAX_SIDE_PX = 1920  # larger ones are reduced: every browser plays this
_ADJACENT_STEPS = 2  # samples up to so many steps of the sampling grid apart are interpolated; beyond is a gap
_LINE_SHARE = 1 / 400  # widths and heights as shares of the frame's shorter side
_TEXT_SHARE = 1 / 36
_BAR_TEXT_SHARE = 1 / 22
_MIN_TEXT_PX = 18
_MIN_LINE_PX = 2
_MIN_SCORE = 0.25  # of objects drawn without a track or attention: the default of `yolo predict`
_HIGHLIGHT = 0.15  # attention beyond an equal share from which an object is highlighted
_TINT_OPACITY = 0.35  # over an object that has all of the attention
_BAR_LIGHT = 0.35  # share of the frame's light that remains behind the bar
_MAX_SENTENCES = 2  # at a time, of the best scored events
_DARK: Rgb = (24, 24, 24)
_SHIFT = 3  # fractional bits of coordinates passed to OpenCV


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
    """Write a recording with its detections and events drawn on it, as H.264 with its sound.

    Every frame of the recording is shown at its time. Of a damaged recording, the frames that can be decoded are.

    Args:
        path: Video to write; its name should end in .mp4.
        source: The recording.
        parts: Consecutive parts of its frame sequence, read while the video is written.
        attention: float32 [M], share of each object in its frame's attention, rows as in the sequence.
        events: Events of the recording.
        names: Class names of the detector.
        labels: Labels of the model; their order decides the colours.
        progress: Called after each frame with its end in seconds. What it raises ends the work, and nothing is left.

    Raises:
        RecordingError: The recording cannot be read, has changed meanwhile, or FFmpeg cannot encode it.
        MissingDependencyError: PyAV has no H.264 encoder.
        OutputError: The video cannot be written.
    """
    with DisplayFrameReader(source) as reader, AudioReader(source) as audio:
        size_px = fit_video_size(reader.size_px, min_px=_MIN_SIDE_PX, max_px=_MAX_SIDE_PX)
        overlay = Overlay(size_px=size_px, names=names, labels=labels, events=events)
        boxes = BoxInterpolator(parts, attention)
        with VideoWriter(path, size_px=size_px, fps=reader.info.fps, audio=audio) as writer:
            for frame in reader.frames(size_px):
                overlay.draw(frame.image, float(frame.time), boxes.at(float(frame.time)))
                writer.write(frame.image, frame.time, frame.end)
                progress(float(frame.end))


# --- boxes between samples ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnObjects:
    """The n objects of one frame.

    Attributes:
        boxes: float32 [n, 4], xyxy, normalised to the upright frame.
        scores: float16 [n].
        classes: int16 [n], index into the detector's names.
        tracks: int32 [n], -1 if not tracked.
        attention: float32 [n], share of each in the frame's attention.
    """

    boxes: Array
    scores: Array
    classes: Array
    tracks: Array
    attention: Array

    def __len__(self) -> int:
        return len(self.boxes)


_NO_OBJECTS = DrawnObjects(
    boxes=np.zeros((0, 4), np.float32),
    scores=np.zeros(0, np.float16),
    classes=np.zeros(0, np.int16),
    tracks=np.zeros(0, np.int32),
    attention=np.zeros(0, np.float32),
)


@dataclass(frozen=True, kw_only=True)
class _SampledObjects:
    time_s: float
    max_gap_s: float  # how long the sample is shown, and how far away the next may be
    objects: DrawnObjects


class BoxInterpolator:
    """Objects of a recording at increasing times.

    A tracked box moves in a straight line between adjacent samples. An object without a track, or without a next
    position, stays until the next sample. In a gap nothing is shown.

    Args:
        parts: Consecutive parts of the frame sequence; only two samples are held at a time.
        attention: float32 [M], rows as in the sequence.

    Raises:
        ValueError: While reading: attention does not have one row per object.
    """

    def __init__(self, parts: Iterable[FrameSequence], attention: Array) -> None:
        self._samples = _samples(parts, attention)
        self._current: _SampledObjects | None = None
        self._next = next(self._samples, None)

    def at(self, time_s: float) -> DrawnObjects:
        """Return the objects at a time in seconds, which must not be before that of the last call."""
        while self._next is not None and self._next.time_s <= time_s:
            self._current, self._next = self._next, next(self._samples, None)
        current, after = self._current, self._next
        if current is None or time_s - current.time_s > current.max_gap_s:
            return _NO_OBJECTS
        if after is None or after.time_s - current.time_s > current.max_gap_s or time_s == current.time_s:
            return current.objects
        fraction = (time_s - current.time_s) / (after.time_s - current.time_s)
        return _interpolate(current.objects, after.objects, fraction)


def _samples(parts: Iterable[FrameSequence], attention: Array) -> Iterator[_SampledObjects]:
    first_row = 0
    for part in parts:
        for t in range(len(part)):
            rows = slice(int(part.offsets[t]), int(part.offsets[t + 1]))
            shares = attention[first_row + rows.start : first_row + rows.stop]
            if len(shares) != rows.stop - rows.start:
                raise ValueError(f"attention has {len(attention)} rows, but the sequence has more objects")
            columns = {name: getattr(part, name)[rows] for name in ("boxes", "scores", "classes", "tracks")}
            objects = DrawnObjects(**columns, attention=shares)
            yield _SampledObjects(time_s=float(part.time_s[t]), max_gap_s=_ADJACENT_STEPS / part.fps, objects=objects)
        first_row += len(part.boxes)


def _interpolate(current: DrawnObjects, after: DrawnObjects, fraction: float) -> DrawnObjects:
    """Move the tracked objects of one sample `fraction` of the way to the next."""
    row_of_track = {int(track): row for row, track in enumerate(after.tracks) if track >= 0}
    pairs = [(row, row_of_track[int(track)]) for row, track in enumerate(current.tracks) if int(track) in row_of_track]
    if not pairs:
        return current
    here, there = (list(side) for side in zip(*pairs, strict=True))
    boxes, attention = current.boxes.copy(), current.attention.copy()
    boxes[here] += np.float32(fraction) * (after.boxes[there] - boxes[here])
    attention[here] += np.float32(fraction) * (after.attention[there] - attention[here])
    return replace(current, boxes=boxes, attention=attention)


# --- drawing --------------------------------------------------------------------------------------------------------


class Overlay:
    """Draws on frames of one size.

    Args:
        size_px: Width and height of the frames.
        names: Class names of the detector.
        labels: Labels of the model; their order decides the colours of events.
        events: Events of the recording, in any order.
    """

    def __init__(
        self, *, size_px: tuple[int, int], names: Sequence[str], labels: Sequence[str], events: Sequence[Event]
    ) -> None:
        self._size_px = size_px
        self._names = names
        self._colours = {label: colour(number) for number, label in enumerate(labels)}
        self._events = sorted(events, key=lambda event: (event.start_s, event.end_s))
        side = min(size_px)
        self._line_px = max(round(side * _LINE_SHARE), _MIN_LINE_PX)
        self._text_px = max(round(side * _TEXT_SHARE), _MIN_TEXT_PX)
        self._bar_px = max(round(side * _BAR_TEXT_SHARE), _MIN_TEXT_PX + 4)

    def draw(self, image: Array, time_s: float, objects: DrawnObjects) -> None:
        """Draw objects, current events and the time.

        Args:
            image: uint8 [height, width, 3] RGB, contiguous; modified in place.
            time_s: Seconds from the start of the container.
            objects: Objects at that time.
        """
        excess = attention_excess(objects.attention)
        visible = (objects.scores >= _MIN_SCORE) | (objects.tracks >= 0) | (excess > _HIGHLIGHT)
        rows = [int(row) for row in np.argsort(excess, kind="stable") if visible[row]]  # most attention on top
        for row in rows:
            self._draw_box(image, objects, row, float(excess[row]))
        bar_height = self._draw_bar(image, time_s)
        for row in rows:
            self._draw_name(image, objects, row, float(excess[row]), bar_height)

    def _corners(self, box: Array) -> tuple[float, float, float, float]:
        width, height = self._size_px
        x0, y0, x1, y1 = (float(v) for v in box * (width, height, width, height))
        return x0, y0, x1, y1

    def _draw_box(self, image: Array, objects: DrawnObjects, row: int, excess: float) -> None:
        box_colour = colour(int(objects.classes[row]))
        x0, y0, x1, y1 = self._corners(objects.boxes[row])
        line_px = self._line_px
        if excess > _HIGHLIGHT:
            line_px = round(self._line_px * (1.25 + 1.25 * excess))
            left, top, right, bottom = (max(round(v), 0) for v in (x0, y0, x1, y1))
            inside = image[top:bottom, left:right]
            if inside.size:
                opacity = _TINT_OPACITY * excess
                inside[:] = cv2.addWeighted(inside, 1 - opacity, np.full_like(inside, box_colour), opacity, 0)
        first, second = [(round(x * (1 << _SHIFT)), round(y * (1 << _SHIFT))) for x, y in ((x0, y0), (x1, y1))]
        # Dark on both sides of the line, so that it is visible on its own colour too.
        outline_px = line_px + 2 * max(self._line_px // 2, 1)
        cv2.rectangle(image, first, second, _DARK, outline_px, cv2.LINE_AA, _SHIFT)
        cv2.rectangle(image, first, second, box_colour, line_px, cv2.LINE_AA, _SHIFT)

    def _draw_name(self, image: Array, objects: DrawnObjects, row: int, excess: float, bar_height: int) -> None:
        class_number, track = int(objects.classes[row]), int(objects.tracks[row])
        known = 0 <= class_number < len(self._names)
        name = self._names[class_number] if known else f"class {class_number}"
        background = colour(class_number)
        piece = render_label(f"{name} {track}" if track >= 0 else name, self._text_px, background)
        if excess > _HIGHLIGHT:
            piece = np.hstack([piece, render_label(f"{objects.attention[row]:.0%}", self._text_px, background)])
        x0, y0, _, _ = self._corners(objects.boxes[row])
        width, height = self._size_px
        x = min(max(round(x0) - self._line_px, 0), max(width - piece.shape[1], 0))
        y = round(y0) - self._text_px
        if y < bar_height:  # no room above the box: inside it
            y = max(round(y0), bar_height)
        paste(image, piece, x, min(y, height - self._text_px))

    def _draw_bar(self, image: Array, time_s: float) -> int:
        """Draw the time, and during events a bar with their labels and captions. Returns the bar's height.

        The bar is at the top, because players put their controls over the bottom.
        """
        width = self._size_px[0]
        clock = render_text(clock_text(time_s), self._bar_px, _DARK)
        pad = max(self._bar_px // 4, 2)
        row, x = 0, pad
        labels: list[tuple[Array, int, int]] = []  # image, x, row
        captioned: list[Event] = []
        for event in self._events:
            if event.start_s > time_s:
                break
            if time_s >= event.end_s:
                continue
            label_colour = self._colours.get(event.label, colour(0))
            piece = render_label(f"{event.label} {event.score:.0%}", self._bar_px, label_colour)
            right = width - pad - (clock.shape[1] + pad if row == 0 else 0)
            if x > pad and x + piece.shape[1] > right:
                row, x = row + 1, pad
            labels.append((piece, x, row))
            x += piece.shape[1] + pad
            if event.description:
                captioned.append(event)
        labels_height = (row + 1) * (self._bar_px + pad) + pad if labels else 0
        best = sorted(captioned, key=lambda event: -event.score)[:_MAX_SENTENCES]
        sentences = [render_sentence(one_line(event), self._bar_px, _DARK, width - 2 * pad) for event in best]
        height = labels_height + len(sentences) * (self._bar_px + pad)
        if height:
            cv2.convertScaleAbs(image[:height], image[:height], _BAR_LIGHT)
        for piece, x, row in labels:
            paste(image, piece, x, pad + row * (self._bar_px + pad))
        for number, piece in enumerate(sentences):
            paste(image, piece, pad, labels_height + number * (self._bar_px + pad))
        paste(image, clock, width - pad - clock.shape[1], pad)
        return height


def attention_excess(attention: Array) -> Array:
    """How far each object's attention exceeds an equal share, float [n]: 0 at or below it, 1 if it has all.

    A single object always has all of the attention, which says nothing: 0.
    """
    if len(attention) < 2:
        return np.zeros(len(attention), np.float32)
    equal = 1 / len(attention)
    return np.clip((attention - equal) / (1 - equal), 0, 1)


def clock_text(time_s: float) -> str:
    """Format a time as players show it, with tenths of a second: 0:05.0, 12:34.5, 1:02:03.4."""
    tenths = math.floor(time_s * 10 + 1e-6)
    minutes, seconds = divmod(tenths // 10, 60)
    hours_minutes = f"{minutes // 60}:{minutes % 60:02d}" if minutes >= 60 else str(minutes)
    return f"{hours_minutes}:{seconds:02d}.{tenths % 10}"
