"""Synthetic surveillance video: still except at known times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from tests.videos import write_video
from vidgru.demo import renderer
from vidgru.demo.scenes import Actor

FPS = 10
OPTIONS = {"g": "20", "sc_threshold": "0", "preset": "ultrafast"}  # a key frame every two seconds
WALK_S = (30.0, 34.0)
SIZE_PX = (96, 64)


def draw_still(number: int, width: int, height: int, noise: float = 0.0) -> np.ndarray:
    """Draw an empty scene, RGB uint8 [height, width, 3]."""
    ramp = np.linspace(60, 180, width)[None, :, None].repeat(height, 0).repeat(3, 2)
    if noise:
        ramp = ramp + np.random.default_rng(number).normal(0, noise, (height, width, 1))
    return ramp.clip(0, 255).astype(np.uint8)


def draw_walk(number: int, width: int, height: int) -> np.ndarray:
    """Draw somebody who crosses the scene during WALK_S."""
    image, time_s = draw_still(number, width, height), number / FPS
    if WALK_S[0] <= time_s < WALK_S[1]:
        x = int((time_s - WALK_S[0]) * (width - 12) / (WALK_S[1] - WALK_S[0]))
        image[height // 4 : height // 4 + 24, x : x + 10] = (200, 40, 40)
    return image


def write_still(
    path: Path,
    seconds: float = 80.0,
    draw: Callable[[int, int, int], np.ndarray] = draw_walk,
    codec: str = "libx264",
    **options: str,
) -> Path:
    """Write a surveillance video, with further encoder options."""
    frames = int(seconds * FPS)
    codec_options = {**OPTIONS, **options} if codec == "libx264" else options
    return write_video(path, frames, fps=FPS, size_px=SIZE_PX, draw=draw, codec=codec, options=codec_options)


# --- scenes with slow and rare changes, which adaptive extraction must not miss --------------------------------------

SCENE_FPS = 12
SCENE_S = 60
# As those of a fixed camera: without B-frames, a key frame every two seconds.
SCENE_OPTIONS = {"preset": "veryfast", "crf": "28", "bf": "0", "g": str(2 * SCENE_FPS), "sc_threshold": "0"}

Light = Callable[[float], float]  # brightness at a time in seconds


@dataclass(frozen=True, kw_only=True)
class StillScene:
    """A recording of one minute.

    Attributes:
        name: What happens in it.
        actors: People, cars and bags.
        light: Brightness over time.
        shadow_px_s: Speed of a shadow that creeps across the wall; 0 for none.
        clock: Whether a clock is burnt into a corner.
        noise: Standard deviation of the sensor noise.
        least_still: Share of the samples that an adaptive run has to find still.
    """

    name: str
    actors: tuple[Actor, ...] = ()
    light: Light = lambda time_s: 0.9
    shadow_px_s: float = 0.0
    clock: bool = False
    noise: float = 2.0
    least_still: float = 0.0

    def draw(self, time_s: float, backdrop: np.ndarray) -> np.ndarray:
        """Draw the frame at a time, RGB uint8 as the backdrop."""
        image, (height, width) = backdrop.copy(), backdrop.shape[:2]
        if self.shadow_px_s:
            x = 40 + self.shadow_px_s * time_s
            shadow = np.zeros((height, width), np.float32)
            renderer.polygon(shadow, [(x, 20), (x + 60, 20), (x + 90, 100), (x + 10, 100)], (0.4, 0, 0))
            image = (image * (1 - cv2.GaussianBlur(shadow, (0, 0), 6)[..., None])).astype(np.uint8)
        for actor in sorted(self.actors, key=lambda actor: actor.depth_px):
            if actor.present_s[0] <= time_s < actor.present_s[1]:
                actor.draw(image, actor.pose(time_s))
        image = renderer.sensor(image, self.light(time_s), self.noise, round(time_s * SCENE_FPS))
        if self.clock:
            text = f"2024-05-06 08:00:{int(time_s):02}"
            cv2.putText(image, text, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1, cv2.LINE_AA)
        return image

    def write(self, folder: Path) -> Path:
        """Write the recording, and return its path."""
        margin, (width, height) = renderer.MARGIN_PX, renderer.SIZE_PX
        backdrop = renderer.background(3)[margin : margin + height, margin : margin + width]
        return write_video(
            folder / f"{self.name.replace(' ', '_')}.mp4",
            SCENE_S * SCENE_FPS,
            fps=SCENE_FPS,
            size_px=renderer.SIZE_PX,
            tick=Fraction(1, SCENE_FPS),
            options=SCENE_OPTIONS,
            draw=lambda number, width, height: self.draw(number / SCENE_FPS, backdrop),
        )


def _actor(class_name: str, path: Sequence[tuple[float, ...]], size_px: float, from_s: float, to_s: float) -> Actor:
    """An actor with path rows of time_s, x_px, y_px and crouch, in the scene for a time."""
    rows = np.array(path, np.float64)
    return Actor(
        class_name=class_name,
        colour={"person": "red", "car": "blue", "bag": "yellow"}[class_name],
        size_px=size_px,
        path=rows,
        present_s=(from_s, to_s),
        depth_px=float(rows[0, 2]),
        face=1,
        style=5,
    )


_END_S = float(SCENE_S)
_STANDS_UP = [(0, 160, 130, 0.8), (41, 160, 130, 0.8), (41.8, 160, 130, 0), (46, 352, 130, 0)]
_SETS_DOWN = [(30, -30, 134, 0), (33, 200, 134, 0), (34, 200, 134, 0.7), (35, 200, 134, 0), (37, 352, 134, 0)]
_STANDING = _actor("person", [(0, 100, 132, 0)], 54, 0, _END_S)
SCENES = (
    StillScene(name="nothing", least_still=0.85),
    StillScene(name="noise", noise=8.0),  # hides small changes: is decoded
    StillScene(name="clock overlay", clock=True, least_still=0.2),  # which cells it changes is learnt in minutes
    StillScene(name="parked car", actors=(_actor("car", [(0, 200, 176, 0)], 37, 0, _END_S),), least_still=0.85),
    StillScene(name="standing person", actors=(_STANDING,), least_still=0.85),
    StillScene(name="creeping shadow", actors=(_STANDING,), shadow_px_s=2.0),
    StillScene(name="dawn", actors=(_STANDING,), light=lambda time_s: 0.3 + 0.7 * time_s / _END_S, least_still=0.7),
    StillScene(name="sitting person leaves", actors=(_actor("person", _STANDS_UP, 54, 0, 46),), least_still=0.65),
    StillScene(
        name="light goes on",
        actors=(_STANDING,),
        light=lambda time_s: 0.9 if time_s > 37.3 else 0.06,
        least_still=0.8,
    ),
    StillScene(
        name="car parks",
        actors=(_actor("car", [(35.2, -60, 176, 0), (39, 170, 176, 0), (41, 190, 176, 0)], 37, 35.2, _END_S),),
        least_still=0.6,
    ),
    StillScene(
        name="bag is left",
        actors=(_actor("person", _SETS_DOWN, 54, 30, 37), _actor("bag", [(0, 214, 138, 0)], 15, 34, _END_S)),
        least_still=0.6,
    ),
    StillScene(name="bag appears", actors=(_actor("bag", [(0, 150, 140, 0)], 15, 33.3, _END_S),), least_still=0.7),
    StillScene(name="bag vanishes", actors=(_actor("bag", [(0, 150, 140, 0)], 15, 0, 33.3),), least_still=0.7),
    StillScene(name="car creeps", actors=(_actor("car", [(0, 40, 176, 0), (60, 280, 176, 0)], 37, 0, _END_S),)),
    StillScene(
        name="person edges away",
        actors=(_actor("person", [(0, 60, 130, 0), (20, 60, 130, 0), (60, 140, 130, 0)], 54, 0, _END_S),),
        least_still=0.2,
    ),
)
