"""Quiet recordings with slow and rare changes, drawn with known truth: what adaptive extraction may not miss.

They look like those of a fixed camera: sensor noise in every frame, H.264 without B frames, a key frame every two
seconds. Most of each recording is still; objects come, go and stay for long.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from vidgru.demo import renderer
from vidgru.demo.scenes import Actor

FPS = 12
DURATION_S = 60
WIDTH, HEIGHT = renderer.SIZE_PX
CODEC_OPTIONS = {"preset": "veryfast", "crf": "28", "bf": "0", "g": str(2 * FPS), "sc_threshold": "0", "threads": "1"}

Image = np.ndarray
Light = Callable[[float], float]  # brightness at a time in seconds


@dataclass(frozen=True, kw_only=True)
class QuietScene:
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

    def draw(self, time_s: float, backdrop: Image) -> Image:
        """Draw the frame at a time, RGB uint8 [HEIGHT, WIDTH, 3]."""
        image = backdrop.copy()
        if self.shadow_px_s:
            x = 40 + self.shadow_px_s * time_s
            shadow = np.zeros((HEIGHT, WIDTH), np.float32)
            renderer.polygon(shadow, [(x, 20), (x + 60, 20), (x + 90, 100), (x + 10, 100)], (0.4, 0, 0))
            image = (image * (1 - cv2.GaussianBlur(shadow, (0, 0), 6)[..., None])).astype(np.uint8)
        for actor in sorted(self.actors, key=lambda actor: actor.depth_px):
            if actor.present_s[0] <= time_s < actor.present_s[1]:
                pose = actor.pose(time_s)
                place = (pose.x, pose.y, actor.size_px, renderer.COLOURS[actor.colour])
                if actor.class_name == "person":
                    renderer.person(image, *place, pose.face, pose.stride, pose.crouch, actor.style)
                elif actor.class_name == "car":
                    renderer.car(image, *place, pose.face, actor.style)
                else:
                    renderer.bag(image, *place, actor.style)
        image = renderer.sensor(image, self.light(time_s), self.noise, round(time_s * FPS))
        if self.clock:
            text = f"2024-05-06 08:00:{int(time_s):02}"
            cv2.putText(image, text, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1, cv2.LINE_AA)
        return image

    def write(self, folder: Path) -> Path:
        """Write the recording, and return its path."""
        margin = renderer.MARGIN_PX
        backdrop = renderer.background(3)[margin : margin + HEIGHT, margin : margin + WIDTH]
        path = folder / f"{self.name.replace(' ', '_')}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options=CODEC_OPTIONS)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for index in range(DURATION_S * FPS):
                frame = av.VideoFrame.from_ndarray(self.draw(index / FPS, backdrop), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, FPS)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path


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


_END_S = float(DURATION_S)
_STANDS_UP = [(0, 160, 130, 0.8), (41, 160, 130, 0.8), (41.8, 160, 130, 0), (46, 352, 130, 0)]
_SETS_DOWN = [(30, -30, 134, 0), (33, 200, 134, 0), (34, 200, 134, 0.7), (35, 200, 134, 0), (37, 352, 134, 0)]
_STANDING = _actor("person", [(0, 100, 132, 0)], 54, 0, _END_S)
SCENES = (
    QuietScene(name="nothing", least_still=0.85),
    QuietScene(name="noise", noise=8.0),  # hides small changes: is decoded
    QuietScene(name="clock overlay", clock=True, least_still=0.2),  # which cells it changes is learnt in minutes
    QuietScene(name="parked car", actors=(_actor("car", [(0, 200, 176, 0)], 37, 0, _END_S),), least_still=0.85),
    QuietScene(name="standing person", actors=(_STANDING,), least_still=0.85),
    QuietScene(name="creeping shadow", actors=(_STANDING,), shadow_px_s=2.0),
    QuietScene(name="dawn", actors=(_STANDING,), light=lambda time_s: 0.3 + 0.7 * time_s / _END_S, least_still=0.7),
    QuietScene(name="sitting person leaves", actors=(_actor("person", _STANDS_UP, 54, 0, 46),), least_still=0.65),
    QuietScene(
        name="light goes on",
        actors=(_STANDING,),
        light=lambda time_s: 0.9 if time_s > 37.3 else 0.06,
        least_still=0.8,
    ),
    QuietScene(
        name="car parks",
        actors=(_actor("car", [(35.2, -60, 176, 0), (39, 170, 176, 0), (41, 190, 176, 0)], 37, 35.2, _END_S),),
        least_still=0.6,
    ),
    QuietScene(
        name="bag is left",
        actors=(_actor("person", _SETS_DOWN, 54, 30, 37), _actor("bag", [(0, 214, 138, 0)], 15, 34, _END_S)),
        least_still=0.6,
    ),
    QuietScene(name="bag appears", actors=(_actor("bag", [(0, 150, 140, 0)], 15, 33.3, _END_S),), least_still=0.7),
    QuietScene(name="bag vanishes", actors=(_actor("bag", [(0, 150, 140, 0)], 15, 0, 33.3),), least_still=0.7),
    QuietScene(name="car creeps", actors=(_actor("car", [(0, 40, 176, 0), (60, 280, 176, 0)], 37, 0, _END_S),)),
    QuietScene(
        name="person edges away",
        actors=(_actor("person", [(0, 60, 130, 0), (20, 60, 130, 0), (60, 140, 130, 0)], 54, 0, _END_S),),
        least_still=0.2,
    ),
)
