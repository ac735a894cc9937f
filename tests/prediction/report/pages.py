"""Reports of synthetic recordings in which a red square crosses the frame, with matching boxes."""

import base64
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.prediction.fake_project import make_model
from tests.videos import write_video
from vidgru.cache import Entry
from vidgru.model.gru_gates import GRUGates
from vidgru.model.stream import ScoredRecording
from vidgru.prediction.report.page import write_page
from vidgru.types import Event, FrameSequence, Recording

SIZE = (320, 192)
FPS = 10
NAMES = ("square", "cloud")
NASTY = "</script><b onclick=\"alert('x')\">&amp;"


def square(number: int) -> tuple[int, int, int, int]:
    """Where `tests.videos.draw_counter` draws the square: left, top, right, bottom in pixels."""
    width, height = SIZE
    side = height // 4
    left = number * 2 % (width - side)
    return left, height - side, left + side, height


def sequence(frames: int) -> FrameSequence:
    """Each frame holds the square, tracked, and a cloud in the upper left quarter, untracked."""
    squares = np.array([square(number) for number in range(frames)]) / [*SIZE, *SIZE]
    clouds = np.tile([0.1, 0.1, 0.4, 0.3], (frames, 1))
    return FrameSequence(
        time_s=np.arange(frames) / FPS,
        frame_index=np.arange(frames),
        offsets=np.arange(frames + 1) * 2,
        boxes=np.stack([squares, clouds], axis=1).reshape(-1, 4).astype(np.float32),
        scores=np.tile([0.9, 0.5], frames).astype(np.float16),
        classes=np.tile([0, 1], frames).astype(np.int16),
        tracks=np.tile([7, -1], frames).astype(np.int32),
        fps=FPS,
        size_px=SIZE,
        names=NAMES,
    )


def entry(duration_s: float, **facts: Any) -> Entry:
    values = {
        "status": "done",
        "fps": float(FPS),
        "size_px": SIZE,
        "names": NAMES,
        "feature_settings": {},
        "run_info": {},
        "parts": (),
    }
    return Entry(**{"key": "0" * 64, "duration_s": duration_s, **values, **facts})


def scored(
    time_s: np.ndarray, objects: int, labels: int, events: list[Event], *, gates: bool = True
) -> ScoredRecording:
    """Scores of 0.8 within events and 0.1 elsewhere; a fifth of the attention is the second object's of each two."""
    scores = np.full((len(time_s), labels), 0.1, np.float32)
    for event in events:
        scores[(time_s >= event.start_s) & (time_s < event.end_s)] = 0.8
    wave = (0.5 + 0.4 * np.sin(time_s)).astype(np.float32)
    return ScoredRecording(
        time_s=time_s,
        scores=scores,
        attention=np.resize(np.array([0.8, 0.2], np.float32), objects),
        gates=GRUGates(update=wave, reset=1 - wave) if gates else None,
        events=events,
    )


def event(start_s: float, end_s: float, label: str = "fall", score: float = 0.8, **facts: Any) -> Event:
    return Event(video="a.mp4", start_s=start_s, end_s=end_s, label=label, score=score, **facts)


def make_page(
    root: Path,
    events: list[Event],
    *,
    name: str = "a.mp4",
    frames: int = 200,
    labels: Iterable[str] = ("fall", "walk"),
    video: bool | bytes = True,
    gates: bool = True,
    **facts: Any,
) -> Path:
    """A page below `root/events` of a recording `root/videos/NAME`: the page's path."""
    path, page = root / "videos" / name, root / "events" / name / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(video, bytes):
        path.write_bytes(video)
    elif video:
        write_video(path, frames, fps=FPS, size_px=SIZE, options={"g": "50"})
    whole = sequence(frames)
    model = make_model(
        root / "model.safetensors", {"fps": FPS}, sequence=whole, timed=True, **dict.fromkeys(labels, 0.5)
    )
    values: dict[str, Any] = {
        "model": model,
        "recording": Recording(path=path, name=name),
        "entry": entry(frames / FPS),
        "parts": [whole.frames(0, frames // 3), whole.frames(frames // 3, frames)],
        "scored": scored(whole.time_s, len(whole.boxes), len(model.labels), events, gates=gates),
        "events": events,
        "recorded_at": None,
        "damage": "",
    }
    write_page(page, **{**values, **facts})
    return page


def data_of(page: Path) -> dict[str, Any]:
    """Data of a page."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert match
    data: dict[str, Any] = json.loads(match[1])
    return data


def unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)
