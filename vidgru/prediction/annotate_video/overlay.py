"""What is drawn over a frame: objects with class, track and attention, the events of the moment, the time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from vidgru.prediction.annotate_video.interpolate_boxes import DrawnObjects
from vidgru.prediction.annotate_video.palette import Rgb, colour
from vidgru.prediction.annotate_video.text_render import label, paste, render, sentence
from vidgru.prediction.event_files import one_line
from vidgru.types import Array, Event

_LINE = 1 / 400  # widths and heights as shares of the picture's shorter side
_TEXT = 1 / 36
_BAR_TEXT = 1 / 22
_SMALLEST_TEXT_PX = 18
_SMALLEST_LINE_PX = 2
_SURE = 0.25  # score from which an object without track and attention is worth a box: what `yolo predict` shows
_STANDS_OUT = 0.15  # attention beyond an equal share from which an object is highlighted
_WASH = 0.35  # opacity of the colour over an object that has all attention
_BAR_SHADE = 0.35  # what is left of the picture's light behind the bar
_MOST_SENTENCES = 2  # told at once, those of the best scored events
_DARK: Rgb = (24, 24, 24)
_SHIFT = 3  # bits of a pixel that positions are told OpenCV in


class Overlay:
    """Draws on frames of one size.

    Args:
        size_px: width and height of the frames.
        names: the detector's class names.
        labels: the model's; they choose the colours of events.
        events: of the recording, in any order.
    """

    def __init__(
        self, *, size_px: tuple[int, int], names: Sequence[str], labels: Sequence[str], events: Sequence[Event]
    ) -> None:
        self._size_px = size_px
        self._names = names
        self._colours = {label: colour(number) for number, label in enumerate(labels)}
        self._events = sorted(events, key=lambda event: (event.start_s, event.end_s))
        side = min(size_px)
        self._line = max(round(side * _LINE), _SMALLEST_LINE_PX)
        self._text = max(round(side * _TEXT), _SMALLEST_TEXT_PX)
        self._bar = max(round(side * _BAR_TEXT), _SMALLEST_TEXT_PX + 4)

    def draw(self, image: Array, time_s: float, objects: DrawnObjects) -> None:
        """Draw what there is at this moment, the time and the events too.

        Args:
            image: uint8 [height, width, 3] RGB, contiguous; it is drawn on.
            time_s: seconds from the start of the container.
            objects: what was seen then.
        """
        excess = beyond_equal(objects.attention)
        shown = (objects.scores >= _SURE) | (objects.tracks >= 0) | (excess > _STANDS_OUT)
        order = [int(row) for row in np.argsort(excess, kind="stable") if shown[row]]  # those attended to on top
        for row in order:
            self._box(image, objects, row, float(excess[row]))
        below = self._moment(image, time_s)
        for row in order:
            self._name(image, objects, row, float(excess[row]), below)

    # --- objects ----------------------------------------------------------------------------------------------------

    def _corners(self, box: Array) -> tuple[float, float, float, float]:
        width, height = self._size_px
        x0, y0, x1, y1 = (float(v) for v in box * (width, height, width, height))
        return x0, y0, x1, y1

    def _box(self, image: Array, objects: DrawnObjects, row: int, excess: float) -> None:
        shade = colour(int(objects.classes[row]))
        x0, y0, x1, y1 = self._corners(objects.boxes[row])
        wide = self._line
        if excess > _STANDS_OUT:
            wide = round(self._line * (1.25 + 1.25 * excess))
            left, top, right, bottom = (max(round(v), 0) for v in (x0, y0, x1, y1))
            inside = image[top:bottom, left:right]
            if inside.size:
                inside[:] = cv2.addWeighted(inside, 1 - _WASH * excess, np.full_like(inside, shade), _WASH * excess, 0)
        one, other = ((round(x * (1 << _SHIFT)), round(y * (1 << _SHIFT))) for x, y in ((x0, y0), (x1, y1)))
        edge = max(self._line // 2, 1)  # dark on both sides of the line, so that it is seen on its own colour too
        cv2.rectangle(image, one, other, _DARK, wide + 2 * edge, cv2.LINE_AA, _SHIFT)
        cv2.rectangle(image, one, other, shade, wide, cv2.LINE_AA, _SHIFT)

    def _name(self, image: Array, objects: DrawnObjects, row: int, excess: float, below: int) -> None:
        number, track = int(objects.classes[row]), int(objects.tracks[row])
        words = [self._names[number] if 0 <= number < len(self._names) else f"class {number}"]
        words += [str(track)] if track >= 0 else []
        piece = label(" ".join(words), self._text, colour(number))
        if excess > _STANDS_OUT:
            piece = np.hstack([piece, label(f"{objects.attention[row]:.0%}", self._text, colour(number))])
        x0, y0, _, _ = self._corners(objects.boxes[row])
        width, height = self._size_px
        x = min(max(round(x0) - self._line, 0), max(width - piece.shape[1], 0))
        y = round(y0) - self._text
        y = y if y >= below else max(round(y0), below)  # inside the box where there is no room above
        paste(image, piece, x, min(y, height - self._text))

    # --- events -----------------------------------------------------------------------------------------------------

    def _moment(self, image: Array, time_s: float) -> int:
        """A bar along the top edge, as long as there is an event, and the time, always. Returns the bar's height.

        It holds the labels of events, and below them their sentences. At the top, because players lay their controls
        over the bottom.
        """
        width = self._size_px[0]
        clock = render(clock_text(time_s), self._bar, _DARK)
        pad = max(self._bar // 4, 2)
        row, x = 0, pad
        places: list[tuple[Array, int, int]] = []
        described: list[Event] = []
        for event in self._events:
            if event.start_s > time_s:
                break
            if time_s >= event.end_s:
                continue
            piece = label(f"{event.label} {event.score:.0%}", self._bar, self._colours.get(event.label, colour(0)))
            room = width - pad - (clock.shape[1] + pad if row == 0 else 0)
            if x > pad and x + piece.shape[1] > room:
                row, x = row + 1, pad
            places.append((piece, x, row))
            x += piece.shape[1] + pad
            described += [event] if event.description else []
        labelled = (row + 1) * (self._bar + pad) + pad if places else 0
        best = sorted(described, key=lambda event: -event.score)[:_MOST_SENTENCES]
        lines = [sentence(one_line(event), self._bar, _DARK, width - 2 * pad) for event in best]
        below = labelled + len(lines) * (self._bar + pad)
        if below:
            cv2.convertScaleAbs(image[:below], image[:below], _BAR_SHADE)
        for piece, x, row in places:
            paste(image, piece, x, pad + row * (self._bar + pad))
        for number, piece in enumerate(lines):
            paste(image, piece, pad, labelled + number * (self._bar + pad))
        paste(image, clock, width - pad - clock.shape[1], pad)
        return below


def beyond_equal(attention: Array) -> Array:
    """How far each object's attention goes beyond an equal share, float [n]: 0 at or below that, 1 if it has all.

    An object that is alone has all there is to have, which says nothing: 0.
    """
    if len(attention) < 2:
        return np.zeros(len(attention), np.float32)
    equal = 1 / len(attention)
    return np.clip((attention - equal) / (1 - equal), 0, 1)


def clock_text(time_s: float) -> str:
    """A time as players show it, with a tenth of a second: 0:05.0, 12:34.5, 1:02:03.4."""
    tenths = math.floor(time_s * 10 + 1e-6)
    minutes, seconds = divmod(tenths // 10, 60)
    ahead = f"{minutes // 60}:{minutes % 60:02d}" if minutes >= 60 else str(minutes)
    return f"{ahead}:{seconds:02d}.{tenths % 10}"
