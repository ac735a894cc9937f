"""The same detections written in each format, and helpers that import them."""

import json
from pathlib import Path

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings, ImportedDetectionSettings
from vidgru.extraction.import_detections import (
    DetectionSource,
    extract_detections,
    open_detections,
)
from vidgru.extraction.results import ExtractionResult
from vidgru.types import FrameSequence, Recording

WIDTH, HEIGHT, FPS, FRAMES = 200, 100, 10.0, 40
DETECT = DetectorSettings(fps=5.0)
Row = tuple[int, int, int, tuple[float, float, float, float], float]  # frame from 0, track, class, ltwh in px, score
SOURCE_FLAGS = {"source_fps": FPS, "source_size": f"{WIDTH}x{HEIGHT}"}


def walk_rows(frames: int = FRAMES, *, start: float = 10.0) -> list[Row]:
    """A person that walks 2 px per frame, and a car that is parked from frame 11 to 20."""
    rows: list[Row] = []
    for frame in range(frames):
        rows.append((frame, 1, 0, (start + 2 * frame, 20.0, 30.0, 50.0), 0.75))
        if 11 <= frame <= 20:
            rows.append((frame, 2, 1, (120.0, 40.0, 60.0, 30.0), 0.5))
    return rows


def write_save_txt(
    folder: Path, video: str, rows: list[Row], *, conf: bool = True, ids: bool = True, more: str = ""
) -> None:
    """Write files as Ultralytics' `save_txt` does."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame, track, kind, (left, top, width, height), score in rows:
        values = [
            kind, (left + width / 2) / WIDTH, (top + height / 2) / HEIGHT, width / WIDTH, height / HEIGHT,
            *map(float, more.split()), *([score] if conf else []), *([track] if ids else []),
        ]  # fmt: skip
        with open(folder / f"{video}_{frame + 1}.txt", "a", encoding="utf-8") as file:
            file.write(("%g " * len(values)).rstrip() % tuple(values) + "\n")


def write_mot(path: Path, rows: list[Row], *, ids: bool = True, kinds: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{frame + 1},{track if ids else -1},{','.join(map(str, box))},{score},{kind + 1 if kinds else -1},-1\n"
        for frame, track, kind, box, score in rows
    ]
    path.write_text("".join(lines))


def write_seqinfo(folder: Path, **changes: object) -> None:
    values = {"name": "a", "frameRate": 10, "seqLength": FRAMES, "imWidth": WIDTH, "imHeight": HEIGHT, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "seqinfo.ini").write_text("[Sequence]\n" + "".join(f"{name}={value}\n" for name, value in values.items()))


def write_coco(path: Path, videos: dict[str, list[Row]], *, first: int = 0, track: str = "track_id") -> None:
    """Write a JSON like MMTracking's CocoVID or TAO."""
    root: dict[str, list[dict[str, object]]] = {"videos": [], "images": [], "annotations": [], "categories": []}
    root["categories"] = [{"id": 7, "name": "car"}, {"id": 3, "name": "person"}]
    for number, (name, rows) in enumerate(videos.items(), start=1):
        root["videos"].append({"id": number, "name": name, "fps": FPS, "width": WIDTH, "height": HEIGHT})
        for frame in range(FRAMES):
            image = {"id": number * 1000 + frame, "video_id": number, "frame_id": frame + first}
            root["images"].append(image)
        for frame, track_id, kind, box, score in rows:
            root["annotations"].append(
                {
                    "id": len(root["annotations"]), "image_id": number * 1000 + frame, "category_id": (3, 7)[kind],
                    "bbox": list(box), "score": score, track: track_id,
                }
            )  # fmt: skip
    path.write_text(json.dumps(root))


def open_source(path: Path, detect: DetectorSettings = DETECT, **settings: object) -> DetectionSource:
    return open_detections(ImportedDetectionSettings(detections=str(path), **settings), detect)


def extract(
    path: Path, cache: SequenceCache, recordings: list[Recording] | None = None, **settings: object
) -> list[ExtractionResult]:
    return extract_detections(open_source(path, **settings), recordings, cache, progress=False)


def extract_one(path: Path, cache: SequenceCache, **settings: object) -> FrameSequence:
    (result,) = extract(path, cache, **settings)
    assert result.status in ("done", "reused"), result.reason
    return cache.read(result.key)


def check_walk(sequence: FrameSequence, names: tuple[str, ...], tolerance: float = 1e-6) -> None:
    """Check that every second frame is sampled, with objects in place, the best score first."""
    assert sequence.names[:2] == names
    assert np.allclose(sequence.time_s, np.arange(20) / 5)
    assert sequence.frame_index.tolist() == list(range(0, 40, 2))
    assert np.diff(sequence.offsets).tolist() == [2 if 12 <= frame <= 20 else 1 for frame in range(0, 40, 2)]
    persons = sequence.classes == 0
    left = (10 + 2 * sequence.frame_index) / WIDTH
    wanted = np.column_stack([left, np.full(20, 0.2), left + 30 / WIDTH, np.full(20, 0.7)])
    assert np.allclose(sequence.boxes[persons], wanted, atol=tolerance)
    assert np.allclose(sequence.boxes[~persons], [0.6, 0.4, 0.9, 0.7], atol=tolerance)
    assert sequence.tracks.tolist() == np.where(persons, 1, 2).tolist()
    assert sequence.scores.tolist() == np.where(persons, 0.75, 0.5).tolist()
    assert sequence.size_px == (WIDTH, HEIGHT)
    assert sequence.keypoints is sequence.motion is sequence.appearance is sequence.scene is sequence.colour is None
