"""Spotting annotations (E2E-Spot, SoccerNet): events marked as moments, turned into intervals by a half-width.

    [{"video": ID, "num_frames": ..., "num_events": ..., "events": [{"frame": ..., "label": ..., "comment": ...}],
      "fps": ..., "width": ..., "height": ...}]
    {"UrlLocal": ..., "annotations": [{"gameTime": "1 - 00:21", "label": ..., "position": "21000", "team": ...,
     "visibility": ...}]}

Sources: github.com/jhong93/spot, README.md, "Using your own data"; github.com/SilvioGiancola/SoccerNetv2-DevKit, Data.
"""

from __future__ import annotations

import re
from pathlib import Path

from vidgru.datasets.formats.json_reader import Node
from vidgru.datasets.rows import FrameSpan, InvalidEntryError, Options, ParseResult, home_of

_GAME_TIME = re.compile(r"\s*([1-9])\s*-\s*(\d{1,3}):(\d{2})\s*", re.ASCII)
_RESOLUTIONS = ("720p", "224p", "HQ")


def read_spot(path: Path, root: Node, options: Options) -> ParseResult:
    """Parse E2E-Spot: frames counted from 0 at the given rate; a video without events is event-free."""
    result = ParseResult(home=home_of(path), half_width_s=options.half_width_s)
    with result.entry():
        for entry in root.each():
            with result.entry():
                _add_video(result, entry, options)
    return result


def _add_video(result: ParseResult, entry: Node, options: Options) -> None:
    video = entry["video"].text()
    fps = options.fps or entry["fps"].above_0()
    if "num_frames" in entry:
        result.durations[video] = entry["num_frames"].above_0() / fps
        result.frame_counts[video] = int(entry["num_frames"].above_0())
    has_events = False
    for event in entry["events"].each():
        has_events = True
        with result.entry():
            frame = event["frame"].number()
            span = FrameSpan(first=frame, stop=frame, fps=fps, half_width_s=options.half_width_s)
            result.add_moment(event.path, video, frame / fps, options.half_width_s, _label(event), frames=span)
    if not has_events:
        result.add(entry.path, video)


def read_soccernet(path: Path, root: Node, options: Options) -> ParseResult:
    """Parse SoccerNet: milliseconds from the start of a half, or seconds of `gameTime`; each half is a video.

    `UrlLocal/1` refers to `1_720p.mkv` or another resolution, beside the file or below that folder, or to the only
    video of the game (`720p.mp4`).
    """
    result = ParseResult(home=home_of(path), half_width_s=options.half_width_s)
    with result.entry():
        game = root["UrlLocal"].maybe_text().replace("\\", "/").strip("/ ") or path.parent.name
        for note in root["annotations"].each():
            with result.entry():
                half, time_s = _game_time(note)
                video = f"{game}/{half}"
                cut, whole = ([f"{game}/{head}{size}" for size in _RESOLUTIONS] for head in (f"{half}_", ""))
                result.spellings[video] = (*cut, *whole) if half == "1" else tuple(cut)
                result.add_moment(note.path, video, time_s, options.half_width_s, _label(note))
    return result


def _game_time(note: Node) -> tuple[str, float]:
    """Return the half, and seconds from its start."""
    clock = note["gameTime"]
    match = _GAME_TIME.fullmatch(clock.text())
    if match is None:
        raise clock.bad('half and time, as in "1 - 00:21"')
    if "position" in note:  # more precise than gameTime
        return match[1], note["position"].number() / 1000
    return match[1], int(match[2]) * 60.0 + int(match[3])


def _label(event: Node) -> str:
    label = event["label"].text()
    if not label.strip():
        raise InvalidEntryError(event.path, "no label", "each event needs one")
    return label


def is_spot(root: object) -> bool:
    """Whether a JSON value looks like E2E-Spot's."""
    return isinstance(root, list) and bool(root) and isinstance(root[0], dict) and {"video", "events"} <= root[0].keys()


def is_soccernet(root: object) -> bool:
    """Whether a JSON value looks like SoccerNet's labels."""
    if not isinstance(root, dict) or not isinstance(root.get("annotations"), list):
        return False
    first = next(iter(root["annotations"]), None)
    return "UrlLocal" in root or (isinstance(first, dict) and "gameTime" in first)
