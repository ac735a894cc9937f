"""Data sets for tests: files that stand for videos, and a cache that has their features already."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.storage import sha256_file
from vidgru.types import FrameSequence

FRAMES, FPS = 16, 8.0
SIZES = {"person": (0.08, 0.3), "car": (0.3, 0.15)}  # width and height, as shares of the picture's


def crossing(first: str, then: str, seed: int, *, names: tuple[str, ...] = ("person", "car")) -> FrameSequence:
    """One object crosses the picture after the other; with `""` nothing does. Noise makes each clip another."""
    rng = np.random.default_rng(seed)
    boxes, classes, tracks, counts = [], [], [], []
    for t in range(FRAMES):
        feature_settings = (first, then)[t >= FRAMES // 2]
        counts.append(int(bool(feature_settings)))
        if feature_settings:
            wide, high = SIZES[feature_settings]
            x = 0.1 + 0.8 * (t % (FRAMES // 2)) / (FRAMES // 2) + rng.normal(0, 0.02)
            y = 0.5 + rng.normal(0, 0.02)
            boxes.append([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2])
            classes.append(names.index(feature_settings))
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


class MadeData:
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
        """A recording, its features, and a row about it; again for another row about it."""
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
        """Settings that train and eval share."""
        return {"features": str(self.features), "weights": str(self.weights), "device": "cpu", **changes}


ORDERS = {"person_then_car": ("person", "car"), "car_then_person": ("car", "person")}


def order_data(root: Path, *, train: int = 16, held: int = 6, eventless: bool = False) -> MadeData:
    """Pairs that differ in their order alone, so many of each kind."""
    data = MadeData(root)
    kinds = {**ORDERS, **({"": ("", "person")} if eventless else {})}
    seed = 0
    for split, count in (("train", train), ("val", held), ("test", held)):
        for label, order in kinds.items():
            for _ in range(count):
                seed += 1
                data.add(f"{seed:03d}.mp4", crossing(*order, seed), label, split)
    return data


SENTENCES = {
    "person_then_car": ("사람이 먼저 지나가고 then a car 🚗 follows.", "A person 다음에 자동차가 지나간다."),
    "car_then_person": ("자동차가 먼저 지나가고 then a person 🚶 follows.", "A car 다음에 사람이 지나간다."),
}


def told_data(root: Path, *, train: int = 12, held: int = 4, labels: bool = True, described: bool = True) -> MadeData:
    """`order_data` with two sentences on each clip, or with these alone, or without."""
    data = MadeData(root)
    seed = 0
    for split, count in (("train", train), ("val", held), ("test", held)):
        for label, order in ORDERS.items():
            for _ in range(count):
                seed += 1
                for sentence in SENTENCES[label] if described else ("",):
                    named = label if labels else ""
                    data.add(f"{seed:03d}.mp4", crossing(*order, seed), named, split, description=sentence)
    return data


CLASSES = {"visit": "person", "delivery": "car"}  # the object of each timed event
TOLD = {"visit": "누가 잠깐 왔다 갔다.", "delivery": "A car 한 대가 왔다 갔다."}
Span = tuple[float, float, str]  # start and end in seconds, label


def visits(
    spans: Sequence[Span], seed: int, *, frames: int = 80, names: tuple[str, ...] = ("person", "car")
) -> FrameSequence:
    """An object is there while its event lasts, its class tells which; nothing but noise is there otherwise."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(frames) / FPS
    seen = [[names.index(CLASSES[label]) for a, b, label in spans if a <= t < b] for t in time_s]
    counts = [len(some) for some in seen]
    total = sum(counts)
    classes = np.array([index for some in seen for index in some], np.int16)
    middle = rng.uniform(0.3, 0.7, (total, 2))
    half = np.array([SIZES[names[index]] for index in classes]).reshape(-1, 2) / 2
    return FrameSequence(
        time_s=time_s,
        frame_index=np.arange(frames, dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=np.concatenate([middle - half, middle + half], axis=1).astype(np.float32),
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
    data: MadeData,
    name: str,
    spans: Sequence[Span],
    split: str,
    seed: int,
    *,
    frames: int = 80,
    described: bool = False,
) -> None:
    """A recording of ten seconds with timed events, described or not, or one in which nothing happens."""
    sequence = visits(spans, seed, frames=frames)
    for start_s, end_s, label in spans:
        told = TOLD[label] if described else ""
        data.add(name, sequence, label, split, times=f"{start_s:g},{end_s:g}", description=told)
    if not spans:
        data.add(name, sequence, "", split)


def timed_data(
    root: Path, *, train: int = 8, held: int = 4, overlap: bool = False, described: bool = False
) -> MadeData:
    """Recordings with an event of each label, one after the other or overlapping; every fourth is without events.

    Either label comes first as often as the other, or a few recordings would teach their order.
    """
    data = MadeData(root)
    seed = 0
    for split, count in (("train", train), ("val", held), ("test", held)):
        for number in range(count):
            seed += 1
            rng = np.random.default_rng(seed)
            first, second = list(CLASSES)[:: 1 if (number + number // 4) % 2 else -1]
            start = round(float(rng.uniform(0.5, 2.0)) * 8) / 8
            later = start + (1.0 if overlap else 4.0)
            spans = [(start, start + 2.5, first), (later, later + 2.5, second)]
            add_visits(data, f"t{seed:03d}.mp4", spans if number % 4 < 3 else [], split, seed, described=described)
    return data


def both_data(root: Path, *, train: int = 8, held: int = 4, described: bool = False) -> MadeData:
    """`timed_data`, and clips as a whole, in which an object crosses the picture: the same labels."""
    data = timed_data(root, train=train, held=held, described=described)
    seed = 100
    for split, count in (("train", train), ("val", held), ("test", held)):
        for label, feature_settings in CLASSES.items():
            for _ in range(count):
                seed += 1
                data.add(f"c{seed}.mp4", crossing(feature_settings, feature_settings, seed), label, split)
    return data
