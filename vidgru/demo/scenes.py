"""Street scenes with known truth: planned from a seed, rendered, and written as H.264 video.

People walk, run, meet and carry bags, and cars drive past and stop, before textured backgrounds, with sensor noise,
changing light and a swaying camera. A scene is planned before it is rendered, so its truth is known without pixels.
Equal seeds give equal frames, and equal files from the same build of the encoder: the order of random draws matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from vidgru.demo import renderer
from vidgru.demo.renderer import COLOURS, SIZE_PX
from vidgru.demo.sentences import ENGLISH, WORDINGS, SceneDescription, attribute_options

CLASSES = ("person", "car", "bag")
FPS = 12
# The kinds of a pair share their scenes, one played backwards, so only the order in time tells them apart.
ORDER_PAIRS = (("leaves_bag", "picks_up_bag"), ("person_then_car", "car_then_person"))
EVENT_KINDS = (*ORDER_PAIRS[0], *ORDER_PAIRS[1], "runs", "meet", "group_passes", "car_stops")

_WIDTH, _HEIGHT = SIZE_PX
_MARGIN_PX = 28.0  # people start and end this far outside the image, which hides what they carry too
_CAR_MARGIN_PX = 60.0
_ALWAYS = (-math.inf, math.inf)
_COUNT_WORDS = ("no", "one", "two", "three", "four", "five")
_DIRECTION_WORDS = {-1: "left", 1: "right"}
# An object counts as visible if this share of its box, and this width and height, can be seen.
_MIN_VISIBLE_SHARE = 0.3
_MIN_VISIBLE_PX = {"person": (7, 20), "car": (18, 12), "bag": (8, 8)}
_T = TypeVar("_T")


# --- actors -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pose:
    """An actor at one time.

    Attributes:
        x, y: Middle of its lower edge, in pixels.
        crouch: 0 (upright) to 1.
        face: Direction it faces, -1 (left) or 1 (right).
        stride: Distance between the feet, as a share of its height.
    """

    x: float
    y: float
    crouch: float
    face: int
    stride: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Actor:
    """A person, car or bag with a path through time.

    Attributes:
        class_name: One of `CLASSES`.
        colour: Of coat, body or bag, a key of `COLOURS`.
        size_px: Height when upright.
        path: float64 [K, 4], rows of time_s, x_px, y_px, crouch; linear between rows, constant before and after.
        present_s: Half-open interval in which it exists.
        depth_px: Where it stands on the ground; nearer actors have larger values and are drawn later.
        face: Direction it faces while it stands still, -1 or 1.
        style: Seed of hair, trousers, shape and the like.
    """

    class_name: str
    colour: str
    size_px: float
    path: NDArray[np.float64]
    present_s: tuple[float, float] = _ALWAYS
    depth_px: float
    face: int
    style: int

    def delay(self, seconds: float) -> Actor:
        """Return the same actor, this many seconds later."""
        present_s = (self.present_s[0] + seconds, self.present_s[1] + seconds)
        return replace(self, path=self.path + np.array([seconds, 0, 0, 0]), present_s=present_s)

    def reverse(self, length_s: float) -> Actor:
        """Return the actor in a video of this length played backwards, except that people still walk face first."""
        present_s = (length_s - self.present_s[1], length_s - self.present_s[0])
        return replace(self, path=self.path[::-1] * [-1, 1, 1, 1] + [length_s, 0, 0, 0], present_s=present_s)

    def pose(self, time_s: float) -> Pose:
        """Return its pose at a time."""
        times = self.path[:, 0]
        x, y, crouch = (float(np.interp(time_s, times, self.path[:, k])) for k in (1, 2, 3))
        row = int(np.searchsorted(times, time_s, side="right"))
        speed = float(np.divide(*(self.path[row] - self.path[row - 1])[[1, 0]])) if 0 < row < len(times) else 0.0
        if abs(speed) < 1:
            return Pose(x, y, crouch, self.face, 0.05)
        # Legs follow the distance covered: a double step is 0.8 of the height when walking, more when running.
        phase = 2 * math.pi * x / (self.size_px * (0.5 + abs(speed) / 300))
        return Pose(x, y, crouch, 1 if speed > 0 else -1, min(0.12 + abs(speed) / 1600, 0.28) * math.sin(phase))

    def box(self, pose: Pose) -> tuple[float, float, float, float]:
        """Return its box in pixels, xyxy, not clipped to the image."""
        half_width = {"person": max(0.18, abs(pose.stride) + 0.07), "car": 1.29, "bag": 0.58}[self.class_name]
        half_px = half_width * self.size_px
        return pose.x - half_px, pose.y - self.size_px * (1 - 0.28 * pose.crouch), pose.x + half_px, pose.y

    def draw(self, image: NDArray[np.uint8], pose: Pose) -> None:
        """Draw it onto an image, uint8 [H, W, 3] RGB."""
        shape = (pose.x, pose.y, self.size_px, COLOURS[self.colour])
        if self.class_name == "person":
            renderer.person(image, *shape, pose.face, pose.stride, pose.crouch, self.style)
        elif self.class_name == "car":
            renderer.car(image, *shape, pose.face, self.style)
        else:
            renderer.bag(image, *shape, self.style)


def _choose(rng: np.random.Generator, choices: Sequence[_T]) -> _T:
    return choices[int(rng.integers(len(choices)))]


def _choose_direction(rng: np.random.Generator) -> int:
    return _choose(rng, (-1, 1))


def _choose_colours(rng: np.random.Generator, count: int) -> list[str]:
    return [str(name) for name in rng.permutation(list(COLOURS))[:count]]


def _start_x(direction: int, margin_px: float = _MARGIN_PX) -> float:
    """Return where an actor that will go left (-1) or right (1) waits outside the image."""
    return -margin_px if direction > 0 else _WIDTH + margin_px


def _last_time(actors: Sequence[Actor]) -> float:
    """Return when the last actor reaches the end of its path, in seconds; 0 without actors."""
    return max((float(actor.path[-1, 0]) for actor in actors), default=0.0)


def _actor(
    rng: np.random.Generator,
    class_name: str,
    colour: str,
    path: Sequence[Sequence[float]],
    depth_px: float,
    size_px: float,
) -> Actor:
    rows = np.array(path, np.float64)
    present_s = (float(rows[0, 0]), float(rows[-1, 0])) if len(rows) > 1 else _ALWAYS
    face, style = _choose_direction(rng), int(rng.integers(1 << 30))
    return Actor(
        class_name=class_name,
        colour=colour,
        size_px=size_px,
        path=rows,
        present_s=present_s,
        depth_px=depth_px,
        face=face,
        style=style,
    )


def _person(rng: np.random.Generator, colour: str, path: Sequence[tuple[float, float, float]], y: float = 0) -> Actor:
    """Return a person with path rows of time_s, x_px, crouch; at `y` on the pavement, or at a random place on it."""
    y = y or rng.uniform(110, 140)
    size_px = (43 + 0.5 * (y - 110)) * rng.uniform(0.96, 1.1)
    return _actor(rng, "person", colour, [(time_s, x, y, crouch) for time_s, x, crouch in path], y, size_px)


def _walker(rng: np.random.Generator, colour: str, direction: int, speed: float = 0, y: float = 0) -> Actor:
    """Return a person who crosses the image, from time 0; speed in pixels per second, random if 0."""
    length_s = (_WIDTH + 2 * _MARGIN_PX) / (speed or rng.uniform(90, 135))
    return _person(rng, colour, [(0, _start_x(direction), 0), (length_s, _start_x(-direction), 0)], y)


def _car(rng: np.random.Generator, colour: str, path: Sequence[tuple[float, float]], y: float = 0) -> Actor:
    """Return a car with path rows of time_s, x_px; on the road, or parked at `y`."""
    y = y or rng.uniform(166, 184)
    return _actor(rng, "car", colour, [(time_s, x, y, 0) for time_s, x in path], y, rng.uniform(33, 41))


def _passing_car(rng: np.random.Generator, colour: str, direction: int) -> Actor:
    """Return a car that drives across the image, from time 0."""
    length_s = (_WIDTH + 2 * _CAR_MARGIN_PX) / rng.uniform(220, 330)
    path = [(0, _start_x(direction, _CAR_MARGIN_PX)), (length_s, _start_x(-direction, _CAR_MARGIN_PX))]
    return _car(rng, colour, path)


def _bag(rng: np.random.Generator, colour: str, path: Sequence[Sequence[float]], depth_px: float) -> Actor:
    """Return a bag with path rows of time_s, x_px, y_px, 0."""
    return _actor(rng, "bag", colour, path, depth_px, rng.uniform(14, 19))


# --- events -----------------------------------------------------------------------------------------------------------
#
# Each function below casts one event: its actors, from time 0, and the attributes of its sentence. `direction` is where
# people go, and `origin` where they came from and so go when the scene is played backwards; likewise for cars.


def _cast_bag_left(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    # What would look different backwards (the hand that carries the bag, the side it is put down on) is random.
    coat, bag = _choose_colours(rng, 2)
    arrival, departure, side, hand = (_choose_direction(rng) for _ in range(4))
    spot, y, pause_s = rng.uniform(85, 235), rng.uniform(112, 138), rng.uniform(0.6, 1.0)
    arrive_s = abs(spot - _start_x(arrival)) / rng.uniform(90, 135)
    end_s = arrive_s + pause_s + abs(spot - _start_x(-departure)) / rng.uniform(90, 135)
    stop = [(arrive_s, spot, 0), (arrive_s + pause_s / 2, spot, 1), (arrive_s + pause_s, spot, 0)]
    owner = _person(rng, coat, [(0, _start_x(arrival), 0), *stop, (end_s, _start_x(-departure), 0)], y)
    reach, carried_y = 0.24 * owner.size_px * hand, y - 0.16 * owner.size_px
    path = [(0, _start_x(arrival) + reach, carried_y, 0), (arrive_s, spot + reach, carried_y, 0)]
    path.append((arrive_s + pause_s / 2, spot + 0.34 * owner.size_px * side, y + 1, 0))
    left_bag = replace(_bag(rng, bag, path, y + 0.5), present_s=(0, math.inf))
    directions = {"direction": _DIRECTION_WORDS[departure], "origin": _DIRECTION_WORDS[-arrival]}
    return [owner, left_bag], {"coat": coat, "bag": bag, **directions}


def _cast_person_then_car(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    (coat, colour), direction, car_direction = _choose_colours(rng, 2), _choose_direction(rng), _choose_direction(rng)
    walker = _walker(rng, coat, direction)
    car = _passing_car(rng, colour, car_direction).delay(_last_time([walker]) + rng.uniform(0.1, 0.6))
    words = {"coat": coat, "direction": _DIRECTION_WORDS[direction], "origin": _DIRECTION_WORDS[-direction]}
    words |= {"car": colour, "car_direction": _DIRECTION_WORDS[car_direction]}
    words |= {"car_origin": _DIRECTION_WORDS[-car_direction]}
    return [walker, car], words


def _cast_runner(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    (coat,), direction = _choose_colours(rng, 1), _choose_direction(rng)
    runner = _walker(rng, coat, direction, rng.uniform(220, 290))
    return [runner], {"coat": coat, "direction": _DIRECTION_WORDS[direction]}


def _cast_meeting(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    coats, spot, y = _choose_colours(rng, 2), rng.uniform(100, 220), rng.uniform(112, 138)
    meet_s = rng.uniform(1.4, 1.8)
    part_s, onward = meet_s + rng.uniform(1.0, 1.6), _choose_direction(rng)  # 1: both walk on; -1: both turn back
    people = []
    for direction, coat in zip((1, -1), coats, strict=True):
        stand, exit_x = spot - direction * 15, _start_x(-direction * onward)
        leave = [(part_s, stand, 0), (part_s + abs(exit_x - stand) / rng.uniform(90, 135), exit_x, 0)]
        path = [(0, _start_x(direction), 0), (meet_s, stand, 0), *leave]
        people.append(_person(rng, coat, path, y + direction))
    people = [replace(person, face=direction) for direction, person in zip((1, -1), people, strict=True)]
    return people, {"coat": coats[0], "coat2": coats[1]}


def _cast_group(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    count, direction, speed = int(rng.integers(3, 6)), _choose_direction(rng), rng.uniform(90, 135)
    # Neighbours walk in different rows, so that nobody is hidden all the way.
    rows = [rng.uniform(112, 120) + 18 * (k % 2) for k in range(count)]
    starts = np.cumsum(rng.uniform(17, 25, count)) / speed
    people = [_walker(rng, _choose(rng, list(COLOURS)), direction, speed, y) for y in rows]
    people = [person.delay(float(start)) for person, start in zip(people, starts - starts[0], strict=True)]
    return people, {"count": _COUNT_WORDS[count], "direction": _DIRECTION_WORDS[direction]}


def _cast_stopping_car(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    (colour,), direction = _choose_colours(rng, 1), _choose_direction(rng)
    speed, brake_s = rng.uniform(220, 300), rng.uniform(0.6, 0.9)
    stop, start, end = rng.uniform(110, 210), _start_x(direction, _CAR_MARGIN_PX), _start_x(-direction, _CAR_MARGIN_PX)
    brake_px = speed * brake_s / 2  # distance covered while braking, and while speeding up
    brake_at_s = (abs(stop - start) - brake_px) / speed
    leave_s = brake_at_s + brake_s + rng.uniform(0.9, 1.5)
    steps = np.linspace(0, 1, 6)
    path = [(0.0, start)]
    path += [(brake_at_s + brake_s * u, stop - direction * brake_px * (1 - u) ** 2) for u in steps]
    path += [(leave_s + brake_s * u, stop + direction * brake_px * u**2) for u in steps]
    path.append((leave_s + brake_s + (abs(end - stop) - brake_px) / speed, end))
    car = replace(_car(rng, colour, path), face=direction)
    return [car], {"car": colour, "direction": _DIRECTION_WORDS[direction]}


def _cast_event(kind: str, rng: np.random.Generator) -> tuple[list[Actor], float, str]:
    """Return the actors of an event, from time 0; its length in seconds; and its sentence."""
    casts = {"leaves_bag": _cast_bag_left, "picks_up_bag": _cast_bag_left, "person_then_car": _cast_person_then_car}
    casts |= {"car_then_person": _cast_person_then_car, "runs": _cast_runner, "meet": _cast_meeting}
    casts |= {"group_passes": _cast_group, "car_stops": _cast_stopping_car}
    actors, words = casts[kind](rng)
    length_s = _last_time(actors)
    if kind in ("picks_up_bag", "car_then_person"):
        actors = [actor.reverse(length_s) for actor in actors]
        words |= {"direction": words["origin"], "car_direction": words.get("car_origin", "")}
    description = SceneDescription(kind=kind, attributes={name: words[name] for name in attribute_options(kind)})
    # A single draw from a fixed range, so that the rest of a scene does not depend on the number of wordings.
    wording = int(rng.integers(1 << 30)) % WORDINGS
    return actors, length_s, ENGLISH.format(description, wording)


def _cast_passers_by(rng: np.random.Generator) -> list[Actor]:
    """Return people and cars that pass without an event, from time 0."""
    case, direction, (colour, other_colour) = int(rng.integers(6)), _choose_direction(rng), _choose_colours(rng, 2)
    if case == 0:
        return []
    if case == 1:
        return [_passing_car(rng, colour, direction)]
    if case == 2:  # two people who pass without meeting
        return [
            _walker(rng, colour, direction, y=rng.uniform(110, 120)),
            _walker(rng, other_colour, -direction, y=rng.uniform(128, 140)),
        ]
    if case == 3:  # a person who stops and walks on
        spot, pause_s, stop_s = rng.uniform(60, 260), rng.uniform(0.6, 1.4), rng.uniform(1.3, 1.9)
        leave_s, exit_x = stop_s + pause_s, _start_x(-direction)
        path = [(0, _start_x(direction), 0), (stop_s, spot, 0), (leave_s, spot, 0)]
        return [_person(rng, colour, [*path, (leave_s + abs(exit_x - spot) / 110, exit_x, 0)])]
    walker = _walker(rng, colour, direction)
    if case == 4:
        return [walker]
    carried = [0, 0.24 * walker.size_px * _choose_direction(rng), -0.16 * walker.size_px, 0]
    return [walker, _bag(rng, other_colour, list(walker.path + carried), walker.depth_px + 0.5)]


def _cast_bystanders(rng: np.random.Generator, cast: Sequence[Actor]) -> list[Actor]:
    """Return what stands still in the whole scene, clear of the places where the cast puts down or picks up a bag."""
    bystanders = []
    if rng.random() < 0.35:
        colour, x = _choose(rng, list(COLOURS)), rng.uniform(40, 280)
        bystanders.append(_car(rng, colour, [(0, x)], y=rng.uniform(147, 152)))
    for _ in range(int(rng.choice(3, p=(0.6, 0.3, 0.1)))):
        bystanders.append(_person(rng, _choose(rng, list(COLOURS)), [(0, rng.uniform(20, 300), 0)]))
    for _ in range(int(rng.choice(3, p=(0.65, 0.25, 0.1)))):
        y = rng.uniform(112, 141)
        bystanders.append(_bag(rng, _choose(rng, list(COLOURS)), [(0, rng.uniform(20, 300), y, 0)], y))
    spots = [float(row[1]) for actor in cast if actor.class_name == "bag" for row in actor.path[[0, -1]]]
    return [actor for actor in bystanders if all(abs(actor.path[0, 1] - x) > 22 + actor.size_px for x in spots)]


# --- scenes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SceneEvent:
    """An event of a scene: its kind, its interval `[start_s, end_s)`, and a true sentence about it."""

    label: str
    start_s: float
    end_s: float
    description: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A planned clip or recording. Frame k is at k / `FPS` seconds.

    Attributes:
        duration_s: A whole number of frames.
        events: Events in order; may be empty.
        actors: All actors.
        seed: Of background, light, noise and camera.
    """

    duration_s: float
    events: tuple[SceneEvent, ...]
    actors: tuple[Actor, ...]
    seed: int

    def __len__(self) -> int:
        """Number of frames."""
        return round(self.duration_s * FPS)

    def truth(self, frame: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the visible objects of a frame, without rendering it.

        Returns:
            Boxes of the visible parts, float32 [N, 4], xyxy, normalised to 0..1; and classes, int64 [N], indices into
            `CLASSES`. Objects that are mostly hidden, or too small, are left out.
        """
        placed = self._placed_actors(frame)
        boxes = [actor.box(pose) for actor, pose in placed]
        front_actor = np.full((_HEIGHT, _WIDTH), -1, np.int16)  # index of the actor seen at each pixel
        spans = [
            (slice(max(0, math.floor(y0)), max(0, math.ceil(y1))), slice(max(0, math.floor(x0)), max(0, math.ceil(x1))))
            for x0, y0, x1, y1 in boxes
        ]
        for k, span in enumerate(spans):
            front_actor[span] = k
        visible: list[tuple[float, float, float, float]] = []
        classes: list[int] = []
        for k, ((actor, _), (x0, y0, x1, y1), (rows, columns)) in enumerate(zip(placed, boxes, spans, strict=True)):
            mask = front_actor[rows, columns] == k
            if mask.sum() < _MIN_VISIBLE_SHARE * (x1 - x0) * (y1 - y0):
                continue
            ys, xs = np.flatnonzero(mask.any(1)) + rows.start, np.flatnonzero(mask.any(0)) + columns.start
            x0, x1, y0, y1 = max(x0, xs[0]), min(x1, xs[-1] + 1), max(y0, ys[0]), min(y1, ys[-1] + 1)
            min_width, min_height = _MIN_VISIBLE_PX[actor.class_name]
            if x1 - x0 >= min_width and y1 - y0 >= min_height:
                visible.append((x0 / _WIDTH, y0 / _HEIGHT, x1 / _WIDTH, y1 / _HEIGHT))
                classes.append(CLASSES.index(actor.class_name))
        return np.array(visible, np.float32).reshape(-1, 4), np.array(classes, np.int64)

    def frames(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]]:
        """Render the frames in order: image uint8 [H, W, 3] RGB, and boxes and classes as `truth` returns them."""
        backdrop = renderer.background(self.seed)
        gain, swing, noise = np.random.default_rng(self.seed).uniform((0.72, 0, 2), (1.12, 0.08, 6))
        for frame in range(len(self)):
            dx, dy = (renderer.MARGIN_PX - shift for shift in self._sway(frame))
            image = backdrop[dy : dy + _HEIGHT, dx : dx + _WIDTH].copy()
            for actor, pose in self._placed_actors(frame):
                actor.draw(image, pose)
            light = gain * (1 + swing * math.sin(0.9 * frame / FPS + self.seed))
            yield renderer.sensor(image, light, noise, self.seed + frame), *self.truth(frame)

    def _sway(self, frame: int) -> tuple[int, int]:
        # Two cameras in five are loosely mounted.
        reach = (0, 0, 0, 1, 2)[self.seed % 5]
        turn = 2 * math.pi * 0.4 * frame / FPS + self.seed
        return round(reach * math.sin(turn)), round(reach * math.cos(1.3 * turn))

    def _placed_actors(self, frame: int) -> list[tuple[Actor, Pose]]:
        """Return the actors of a frame with their poses as the camera sees them, from back to front."""
        time_s, (dx, dy) = frame / FPS, self._sway(frame)
        present = [actor for actor in self.actors if actor.present_s[0] <= time_s < actor.present_s[1]]
        poses = [(actor, actor.pose(time_s)) for actor in sorted(present, key=lambda actor: actor.depth_px)]
        return [(actor, replace(pose, x=pose.x + dx, y=pose.y + dy)) for actor, pose in poses]


def plan_clip(kind: str | None, seed: int) -> Scene:
    """Plan a clip of 3 to 7 seconds with one event, or with none if `kind` is None.

    Raises:
        ValueError: `kind` is not one of `EVENT_KINDS`.
    """
    if kind is not None and kind not in EVENT_KINDS:
        raise ValueError(f"kind must be None or one of {', '.join(EVENT_KINDS)}, got {kind!r}")
    rng = np.random.default_rng([seed, len(EVENT_KINDS) if kind is None else EVENT_KINDS.index(kind)])
    # A clip's first frame is at 0 and its last before the end: one more frame makes both sides alike.
    before_s, after_s = rng.uniform(0.1, 0.6, 2) + np.array([0, 1 / FPS])
    events = []
    if kind is None:
        actors = _cast_passers_by(rng)
        length_s = _last_time(actors)
    else:
        actors, length_s, description = _cast_event(kind, rng)
        events.append(SceneEvent(label=kind, start_s=before_s, end_s=before_s + length_s, description=description))
    duration_s = _whole_frames(max(3.0, before_s + length_s + after_s))
    cast = (*_cast_bystanders(rng, actors), *(actor.delay(before_s) for actor in actors))
    return Scene(duration_s=duration_s, events=tuple(events), actors=cast, seed=int(rng.integers(1 << 30)))


def plan_recording(kinds: Sequence[str], seed: int) -> Scene:
    """Plan a recording with events of these kinds in order, separated by eventless gaps of 3 to 9 seconds.

    A bag that is left stays until the end, and one that is picked up has been there from the start.
    """
    rng = np.random.default_rng([seed, 100])
    actors: list[Actor] = []
    events: list[SceneEvent] = []
    now_s = 0.0
    for kind in (*kinds, None):
        # Passers-by keep clear of events: a person shortly before a car would be an event.
        now_s += rng.uniform(1.5, 3)
        if rng.random() < 0.4 and (passers_by := _cast_passers_by(rng)):
            actors += [actor.delay(now_s) for actor in passers_by]
            now_s += _last_time(passers_by) + rng.uniform(1.5, 2.5)
        if kind is None:
            break
        cast, length_s, description = _cast_event(kind, rng)
        actors += [actor.delay(now_s) for actor in cast]
        events.append(SceneEvent(label=kind, start_s=now_s, end_s=now_s + length_s, description=description))
        now_s += length_s
    actors += _cast_bystanders(rng, actors)
    duration_s = _whole_frames(now_s)
    return Scene(duration_s=duration_s, events=tuple(events), actors=tuple(actors), seed=int(rng.integers(1 << 30)))


def _whole_frames(seconds: float) -> float:
    return math.ceil(seconds * FPS) / FPS


def write_video(scene: Scene, path: Path) -> None:
    """Render a scene and write it as H.264 (yuv420p, MP4) at exactly `FPS`.

    Equal scenes give equal bytes. The file appears complete or not at all.
    """
    part = path.with_name(path.name + ".part")
    with av.open(str(part), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # Without mbtree=0 the encoder's output differs in a third of the runs, even with one thread.
        options = {"crf": "26", "preset": "veryfast", "x264-params": "threads=1:lookahead-threads=1:mbtree=0"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE_PX, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, FPS)
        for index, (image, _, _) in enumerate(scene.frames()):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    part.replace(path)
