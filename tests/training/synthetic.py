"""Datasets for tests: placeholder video files, and a cache that already has their features."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.storage import sha256_file
from vidgru.types import FrameSequence

FRAMES, FPS = 16, 8.0
SIZES = {"person": (0.08, 0.3), "car": (0.3, 0.15)}  # width and height, as shares of the frame


def crossing(first: str, then: str, seed: int, *, names: tuple[str, ...] = ("person", "car")) -> FrameSequence:
    """One object crosses the frame after the other; with `""` none does. Noise makes every clip different."""
    rng = np.random.default_rng(seed)
    boxes, classes, tracks, counts = [], [], [], []
    for t in range(FRAMES):
        kind = (first, then)[t >= FRAMES // 2]
        counts.append(int(bool(kind)))
        if kind:
            width, height = SIZES[kind]
            x = 0.1 + 0.8 * (t % (FRAMES // 2)) / (FRAMES // 2) + rng.normal(0, 0.02)
            y = 0.5 + rng.normal(0, 0.02)
            boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            classes.append(names.index(kind))
            tracks.append(1 + (t >= FRAMES // 2))
    total = len(boxes)
    return FrameSequence(
        time_s=np.arange(FRAMES) / FPS,
        frame_index=np.arange(FRAMES, dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=np.array(boxes, np.float32).reshape(total, 4),
        scores=np.full(total, 0.8, np.float16),
        classes=np.array(classes, np.int16),
        tracks=np.array(tracks, np.int32),
        appearance=rng.standard_normal((total, 4)).astype(np.float16),
        scene=rng.standard_normal((FRAMES, 6)).astype(np.float16),
        fps=FPS,
        size_px=(320, 192),
        names=names,
    )


class FakeDataset:
    """A folder with `videos/`, `annotations.csv`, `features/` and `detector.pt`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.weights, self.features = root / "detector.pt", root / "features"
        (root / "videos").mkdir(parents=True)
        self.weights.write_bytes(b"a detector")
        self.rows: list[str] = []

    def feature_settings(self) -> dict[str, object]:
        return DetectorSettings().feature_settings(sha256_file(self.weights))

    def add(
        self, name: str, sequence: FrameSequence, label: str, split: str, *, times: str = ",", description: str = ""
    ) -> None:
        """Add a recording with its features and a row; called again, only another row."""
        path = self.root / "videos" / name
        if not path.exists():
            path.write_bytes(name.encode())
            cache = SequenceCache(self.features)
            key = cache.key(cache.sha256(path), self.feature_settings())
            with cache.writer(key, {}) as writer:
                writer.append(sequence)
                writer.finish(
                    status="done", duration_s=len(sequence) / sequence.fps, fps=sequence.fps, size_px=sequence.size_px,
                    names=sequence.names, feature_settings=self.feature_settings(),
                )  # fmt: skip
            cache.set_last_entry(path, key)
        self.rows.append(f"{name},{times},{label},{description},{split}")
        self.write()

    def write(self) -> None:
        text = "\n".join(["video,start,end,label,description,split", *self.rows]) + "\n"
        (self.root / "annotations.csv").write_text(text, encoding="utf-8")

    def settings(self, **changes: object) -> dict[str, object]:
        """Flags that train and eval share."""
        return {"features": str(self.features), "weights": str(self.weights), "device": "cpu", **changes}

    def train_settings(self, **changes: object) -> dict[str, object]:
        """Flags for training a single network, for tests that are not about ensembles."""
        return self.settings(**{"members": 1, **changes})


ORDERS = {"person_then_car": ("person", "car"), "car_then_person": ("car", "person")}


def order_data(root: Path, *, train: int = 16, val: int = 6, eventless: bool = False) -> FakeDataset:
    """Clips that differ only in the order of their objects, `train` or `val` of each order per split."""
    data = FakeDataset(root)
    kinds = {**ORDERS, **({"": ("", "person")} if eventless else {})}
    seed = 0
    for split, count in (("train", train), ("val", val), ("test", val)):
        for label, order in kinds.items():
            for _ in range(count):
                seed += 1
                data.add(f"{seed:03d}.mp4", crossing(*order, seed), label, split)
    return data


SENTENCES = {
    "person_then_car": ("사람이 먼저 지나가고 then a car 🚗 follows.", "A person 다음에 자동차가 지나간다."),
    "car_then_person": ("자동차가 먼저 지나가고 then a person 🚶 follows.", "A car 다음에 사람이 지나간다."),
}


def captioned_data(
    root: Path, *, train: int = 12, val: int = 4, labels: bool = True, captions: bool = True
) -> FakeDataset:
    """`order_data` with two descriptions per clip; or with descriptions only, or without."""
    data = FakeDataset(root)
    seed = 0
    for split, count in (("train", train), ("val", val), ("test", val)):
        for label, order in ORDERS.items():
            for _ in range(count):
                seed += 1
                for sentence in SENTENCES[label] if captions else ("",):
                    sequence = crossing(*order, seed)
                    data.add(f"{seed:03d}.mp4", sequence, label if labels else "", split, description=sentence)
    return data


CLASSES = {"visit": "person", "delivery": "car"}  # the object of each timed event
EVENT_SENTENCES = {"visit": "누가 잠깐 왔다 갔다.", "delivery": "A car 한 대가 왔다 갔다."}
Span = tuple[float, float, str]  # start and end in seconds, label


def visits(
    spans: Sequence[Span], seed: int, *, frames: int = 80, names: tuple[str, ...] = ("person", "car")
) -> FrameSequence:
    """An object is visible while its event lasts, and its class says which event; otherwise the frames are empty."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(frames) / FPS
    visible = [[names.index(CLASSES[label]) for a, b, label in spans if a <= t < b] for t in time_s]
    counts = [len(indices) for indices in visible]
    total = sum(counts)
    classes = np.array([index for indices in visible for index in indices], np.int16)
    centre = rng.uniform(0.3, 0.7, (total, 2))
    half = np.array([SIZES[names[index]] for index in classes]).reshape(-1, 2) / 2
    return FrameSequence(
        time_s=time_s,
        frame_index=np.arange(frames, dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=np.concatenate([centre - half, centre + half], axis=1).astype(np.float32),
        scores=np.full(total, 0.8, np.float16),
        classes=classes,
        tracks=np.full(total, -1, np.int32),
        appearance=rng.standard_normal((total, 4)).astype(np.float16),
        scene=rng.standard_normal((frames, 6)).astype(np.float16),
        fps=FPS,
        size_px=(320, 192),
        names=names,
    )


def add_visits(
    data: FakeDataset,
    name: str,
    spans: Sequence[Span],
    split: str,
    seed: int,
    *,
    frames: int = 80,
    captions: bool = False,
) -> None:
    """Add a recording with timed events, with descriptions or without, or an event-free one."""
    sequence = visits(spans, seed, frames=frames)
    for start_s, end_s, label in spans:
        sentence = EVENT_SENTENCES[label] if captions else ""
        data.add(name, sequence, label, split, times=f"{start_s:g},{end_s:g}", description=sentence)
    if not spans:
        data.add(name, sequence, "", split)


def timed_data(
    root: Path, *, train: int = 8, val: int = 4, overlap: bool = False, captions: bool = False
) -> FakeDataset:
    """Recordings with an event of each label, consecutive or overlapping; every fourth is event-free.

    Each label comes first equally often, or a few recordings would teach their order.
    """
    data = FakeDataset(root)
    seed = 0
    for split, count in (("train", train), ("val", val), ("test", val)):
        for number in range(count):
            seed += 1
            rng = np.random.default_rng(seed)
            first, second = list(CLASSES)[:: 1 if (number + number // 4) % 2 else -1]
            start = round(float(rng.uniform(0.5, 2.0)) * 8) / 8
            later = start + (1.0 if overlap else 4.0)
            spans = [(start, start + 2.5, first), (later, later + 2.5, second)]
            add_visits(data, f"t{seed:03d}.mp4", spans if number % 4 < 3 else [], split, seed, captions=captions)
    return data


def both_data(root: Path, *, train: int = 8, val: int = 4, captions: bool = False) -> FakeDataset:
    """`timed_data`, and whole clips with the same labels in which an object crosses the frame."""
    data = timed_data(root, train=train, val=val, captions=captions)
    seed = 100
    for split, count in (("train", train), ("val", val), ("test", val)):
        for label, kind in CLASSES.items():
            for _ in range(count):
                seed += 1
                data.add(f"c{seed}.mp4", crossing(kind, kind, seed), label, split)
    return data
