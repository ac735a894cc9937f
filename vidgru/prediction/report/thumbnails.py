"""Small pictures of a recording, for browsers that cannot play it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2

from vidgru.errors import RecordingError
from vidgru.types import Array, Event
from vidgru.video.thumbnails import read_thumbnails

EVENLY = 24  # pictures over the recording
MOST = 96  # those of events included
_SIDE_PX = 480
_DECODED = 1500  # frames in all: a few seconds of work at most
_QUALITIES = (76, 55, 35, 20)  # of JPEG, the first that is small enough


def thumbnails(path: Path, duration_s: float, events: Sequence[Event], budget_bytes: int) -> list[tuple[int, str]]:
    """Pictures evenly over a recording, and one of the middle of each event, the best scored first.

    Returns:
        Milliseconds and a JPEG data URI each, by time; no picture where the recording cannot be read any more.
    """
    times = [(number + 0.5) / EVENLY * duration_s for number in range(EVENLY)]
    best = sorted(events, key=lambda event: -event.score)[: MOST - EVENLY]
    times += [(event.start_s + event.end_s) / 2 for event in best]
    found: list[tuple[int, str]] = []
    try:
        for picture in read_thumbnails(path, times, longer_side_px=_SIDE_PX, max_frames=_DECODED):
            uri = _data_uri(picture.image, budget_bytes // len(times))
            if uri:
                found.append((round(picture.time_s * 1000), uri))
    except RecordingError:
        return found
    return found


def _data_uri(image: Array, most_bytes: int) -> str:
    """The picture as well as it fits; empty where it does not."""
    for quality in _QUALITIES:
        _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        uri = "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
        if len(uri) <= most_bytes:
            return uri
    return ""
