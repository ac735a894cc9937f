"""Street scenes with known truth: drawn, seeded, and written as H.264 video.

People walk, run, meet and carry bags, and cars drive past and stop, before textured backgrounds, with sensor noise,
changing light and a camera that sways. Who is where at which time is planned first and drawn after, so that the truth
can be read without pixels. Equal seeds give equal frames, and equal bytes from one build of the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from vidgru.demo import draw
from vidgru.demo.actors import Actor, Pose
from vidgru.demo.draw import COLOURS, SIZE_PX
from vidgru.demo.episodes import KINDS, ORDER_PAIRS, distractors, episode, lasts, nothing
from vidgru.demo.sentences import Language

__all__ = [
    "CLASSES",
    "COLOURS",
    "FPS",
    "KINDS",
    "ORDER_PAIRS",
    "SIZE_PX",
    "Scene",
    "SceneEvent",
    "plan_clip",
    "plan_recording",
    "write_video",
]

CLASSES = ("person", "car", "bag")
FPS = 12

_WIDTH, _HEIGHT = SIZE_PX
# An object counts as visible from this part of its box on, and this visible width and height.
_VISIBLE_PART = 0.3
_VISIBLE_PX = {"person": (7, 20), "car": (18, 12), "bag": (8, 8)}


@dataclass(frozen=True, kw_only=True)
class SceneEvent:
    """What happens in a scene: a kind, seconds `[start_s, end_s)`, and a true sentence in each language."""

    label: str
    start_s: float
    end_s: float
    sentences: Mapping[Language, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A planned clip or recording.

    Attributes:
        fps: frames a second; frame k is at k / fps seconds.
        duration_s: a whole number of frames.
        size_px: width and height.
        events: what happens, in order; empty if nothing does.
        actors: who is there.
        seed: of background, light, noise and camera.
    """

    fps: int = FPS
    duration_s: float
    size_px: tuple[int, int] = SIZE_PX
    events: tuple[SceneEvent, ...]
    actors: tuple[Actor, ...]
    seed: int

    def __len__(self) -> int:
        """Number of frames."""
        return round(self.duration_s * self.fps)

    def truth(self, frame: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What can be seen in a frame, without drawing it.

        Returns:
            Boxes of the visible parts, float32 [n, 4], xyxy, normalised to 0..1; and classes, int64 [n], index into
            `CLASSES`. What is hidden for the most part, or too small, is left out.
        """
        placed = self._placed(frame)
        boxes = [actor.box(pose) for actor, pose in placed]
        owner = np.full((_HEIGHT, _WIDTH), -1, np.int16)
        spans = [
            (slice(max(0, math.floor(y0)), max(0, math.ceil(y1))), slice(max(0, math.floor(x0)), max(0, math.ceil(x1))))
            for x0, y0, x1, y1 in boxes
        ]
        for k, span in enumerate(spans):
            owner[span] = k
        seen: list[tuple[float, float, float, float]] = []
        classes: list[int] = []
        for k, ((actor, _), (x0, y0, x1, y1), (rows, columns)) in enumerate(zip(placed, boxes, spans, strict=True)):
            mine = owner[rows, columns] == k
            if mine.sum() < _VISIBLE_PART * (x1 - x0) * (y1 - y0):
                continue
            ys, xs = np.flatnonzero(mine.any(1)) + rows.start, np.flatnonzero(mine.any(0)) + columns.start
            x0, x1, y0, y1 = max(x0, xs[0]), min(x1, xs[-1] + 1), max(y0, ys[0]), min(y1, ys[-1] + 1)
            least = _VISIBLE_PX[actor.what]
            if x1 - x0 >= least[0] and y1 - y0 >= least[1]:
                seen.append((x0 / _WIDTH, y0 / _HEIGHT, x1 / _WIDTH, y1 / _HEIGHT))
                classes.append(CLASSES.index(actor.what))
        return np.array(seen, np.float32).reshape(-1, 4), np.array(classes, np.int64)

    def frames(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]]:
        """Draw the frames in order: image uint8 [H, W, 3] RGB, and boxes and classes as `truth` gives them."""
        backdrop = draw.background(self.seed)
        gain, swing, noise = np.random.default_rng(self.seed).uniform((0.72, 0, 2), (1.12, 0.08, 6))
        for frame in range(len(self)):
            dx, dy = (draw.MARGIN_PX - shift for shift in self._sway(frame))
            image = backdrop[dy : dy + _HEIGHT, dx : dx + _WIDTH].copy()
            for actor, pose in self._placed(frame):
                look = (pose.x, pose.y, actor.size_px, COLOURS[actor.colour])
                if actor.what == "person":
                    draw.person(image, *look, pose.face, pose.stride, pose.crouch, actor.style)
                elif actor.what == "car":
                    draw.car(image, *look, pose.face, actor.style)
                else:
                    draw.bag(image, *look, actor.style)
            light = gain * (1 + swing * math.sin(0.9 * frame / self.fps + self.seed))
            yield draw.sensor(image, light, noise, self.seed + frame), *self.truth(frame)

    def _sway(self, frame: int) -> tuple[int, int]:
        # Two cameras in five are not fixed well.
        reach = (0, 0, 0, 1, 2)[self.seed % 5]
        turn = 2 * math.pi * 0.4 * frame / self.fps + self.seed
        return round(reach * math.sin(turn)), round(reach * math.cos(1.3 * turn))

    def _placed(self, frame: int) -> list[tuple[Actor, Pose]]:
        # Who is there, from back to front, as the camera sees it.
        time_s, (dx, dy) = frame / self.fps, self._sway(frame)
        there = [actor for actor in self.actors if actor.seen_s[0] <= time_s < actor.seen_s[1]]
        poses = [(actor, actor.pose(time_s)) for actor in sorted(there, key=lambda actor: actor.depth_px)]
        return [(actor, replace(pose, x=pose.x + dx, y=pose.y + dy)) for actor, pose in poses]


def _whole(seconds: float) -> float:
    return math.ceil(seconds * FPS) / FPS


def plan_clip(kind: str | None, seed: int) -> Scene:
    """Plan a clip of one event, or of none if `kind` is None: 3 to 7 seconds.

    Raises:
        ValueError: `kind` is not in `KINDS`.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be None or one of {', '.join(KINDS)}, got {kind!r}")
    rng = np.random.default_rng([seed, len(KINDS) if kind is None else KINDS.index(kind)])
    # A clip's first frame is at 0 and its last one before the end: one frame more makes both sides alike.
    before_s, after_s = rng.uniform(0.1, 0.6, 2) + np.array([0, 1 / FPS])
    events = []
    if kind is None:
        actors = nothing(rng)
        length_s = lasts(actors)
    else:
        actors, length_s, sentences = episode(kind, rng)
        events.append(SceneEvent(label=kind, start_s=before_s, end_s=before_s + length_s, sentences=sentences))
    duration_s = _whole(max(3.0, before_s + length_s + after_s))
    cast = [*distractors(rng, actors), *(actor.later(before_s) for actor in actors)]
    return Scene(duration_s=duration_s, events=tuple(events), actors=tuple(cast), seed=int(rng.integers(1 << 30)))


def plan_recording(kinds: Sequence[str], seed: int) -> Scene:
    """Plan a recording in which events of these kinds follow one another, with eventless gaps of 3 to 9 seconds.

    A bag that is left stays to the end, and one that is picked up lies there from the beginning.
    """
    rng = np.random.default_rng([seed, 100])
    actors: list[Actor] = []
    events: list[SceneEvent] = []
    now_s = 0.0
    for kind in (*kinds, None):
        # Passers-by keep well clear of events: someone shortly before a car would be an event.
        now_s += rng.uniform(1.5, 3)
        if rng.random() < 0.4 and (passers := nothing(rng)):
            actors += [actor.later(now_s) for actor in passers]
            now_s += lasts(passers) + rng.uniform(1.5, 2.5)
        if kind is None:
            break
        cast, length_s, sentences = episode(kind, rng)
        actors += [actor.later(now_s) for actor in cast]
        events.append(SceneEvent(label=kind, start_s=now_s, end_s=now_s + length_s, sentences=sentences))
        now_s += length_s
    actors += distractors(rng, actors)
    return Scene(duration_s=_whole(now_s), events=tuple(events), actors=tuple(actors), seed=int(rng.integers(1 << 30)))


def write_video(scene: Scene, path: Path) -> None:
    """Draw a scene and write it as H.264 (yuv420p, MP4), at exactly its frame rate.

    Equal scenes give equal bytes. The file appears whole or not at all.
    """
    part = path.with_name(path.name + ".part")
    with av.open(str(part), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # Without mbtree=0 the encoder gives other bytes in one run out of three, even with one thread.
        options = {"crf": "26", "preset": "veryfast", "x264-params": "threads=1:lookahead-threads=1:mbtree=0"}
        stream = container.add_stream("libx264", rate=scene.fps, options=options)
        stream.width, stream.height, stream.pix_fmt = *scene.size_px, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, scene.fps)
        for index, (image, _, _) in enumerate(scene.frames()):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, scene.fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    part.replace(path)
