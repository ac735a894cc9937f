"""What happens in the demo's street scenes: each function casts one event with fresh actors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vidgru.demo.actors import Actor, colours, new_bag, new_car, new_passing_car, new_person, new_walker, pick, start_px
from vidgru.demo.draw import COLOURS
from vidgru.demo.sentences import LANGUAGES, WORDINGS, Language, Told, options, tell

# The kinds of a pair hold the same scenes, one played backwards: only the order of what happens tells them apart.
ORDER_PAIRS = (("leaves_bag", "picks_up_bag"), ("person_then_car", "car_then_person"))
KINDS = (*ORDER_PAIRS[0], *ORDER_PAIRS[1], "runs", "meet", "group_passes", "car_stops")
_COUNTS = ("no", "one", "two", "three", "four", "five")
_WAYS = {-1: "left", 1: "right"}


def lasts(actors: Sequence[Actor]) -> float:
    """When the last of them has come to the end of its path, in seconds; 0 if there is nobody."""
    return max((float(actor.path[-1, 0]) for actor in actors), default=0.0)


# The makers below give the actors of an event, from time 0, and the attributes of its sentence: `way` is where people
# go to, `back` where they come from and so go to when the film is played backwards; the same for cars.


def _leaves_bag(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    # What the reversed film would show differently (which side the bag is carried on, where it is put) is drawn by lot.
    coat, bag = colours(rng, 2)
    into, away, side, hand = (pick(rng, (-1, 1)) for _ in range(4))
    spot, y, pause_s = rng.uniform(85, 235), rng.uniform(112, 138), rng.uniform(0.6, 1.0)
    at_s = abs(spot - start_px(into)) / rng.uniform(90, 135)
    end_s = at_s + pause_s + abs(spot - start_px(-away)) / rng.uniform(90, 135)
    stops = [(0, start_px(into), 0), (at_s, spot, 0), (at_s + pause_s / 2, spot, 1), (at_s + pause_s, spot, 0)]
    owner = new_person(rng, coat, [*stops, (end_s, start_px(-away), 0)], y)
    reach, carried_y = 0.24 * owner.size_px * hand, y - 0.16 * owner.size_px
    path = [(0, start_px(into) + reach, carried_y, 0), (at_s, spot + reach, carried_y, 0)]
    path.append((at_s + pause_s / 2, spot + 0.34 * owner.size_px * side, y + 1, 0))
    left = replace(new_bag(rng, bag, path, y + 0.5), seen_s=(0, math.inf))
    return [owner, left], {"coat": coat, "bag": bag, "way": _WAYS[away], "back": _WAYS[-into]}


def _person_then_car(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    (coat, car), way, car_way = colours(rng, 2), pick(rng, (-1, 1)), pick(rng, (-1, 1))
    walker = new_walker(rng, coat, way)
    follower = new_passing_car(rng, car, car_way).later(lasts([walker]) + rng.uniform(0.1, 0.6))
    words = {"coat": coat, "way": _WAYS[way], "back": _WAYS[-way]}
    words |= {"car": car, "car_way": _WAYS[car_way], "car_back": _WAYS[-car_way]}
    return [walker, follower], words


def _runs(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    (coat,), way = colours(rng, 1), pick(rng, (-1, 1))
    return [new_walker(rng, coat, way, rng.uniform(220, 290))], {"coat": coat, "way": _WAYS[way]}


def _meet(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    coats, spot, y = colours(rng, 2), rng.uniform(100, 220), rng.uniform(112, 138)
    arrive_s = rng.uniform(1.4, 1.8)
    part_s, on = arrive_s + rng.uniform(1.0, 1.6), pick(rng, (-1, 1))  # they go on or go back
    pair = []
    for way, coat in zip((1, -1), coats, strict=True):
        stand, out = spot - way * 15, start_px(-way * on)
        leave = [(part_s, stand, 0), (part_s + abs(out - stand) / rng.uniform(90, 135), out, 0)]
        pair.append(new_person(rng, coat, [(0, start_px(way), 0), (arrive_s, stand, 0), *leave], y + way))
    pair = [replace(actor, face=way) for way, actor in zip((1, -1), pair, strict=True)]
    return pair, {"coat": coats[0], "coat2": coats[1]}


def _group_passes(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    count, way, speed = int(rng.integers(3, 6)), pick(rng, (-1, 1)), rng.uniform(90, 135)
    # Neighbours walk in different rows, so that nobody hides behind another all the way.
    rows = [rng.uniform(112, 120) + 18 * (k % 2) for k in range(count)]
    starts = np.cumsum(rng.uniform(17, 25, count)) / speed
    people = [new_walker(rng, pick(rng, list(COLOURS)), way, speed, y) for y in rows]
    people = [who.later(float(start)) for who, start in zip(people, starts - starts[0], strict=True)]
    return people, {"count": _COUNTS[count], "way": _WAYS[way]}


def _car_stops(rng: np.random.Generator) -> tuple[list[Actor], dict[str, str]]:
    (car,), way, speed, brake_s = colours(rng, 1), pick(rng, (-1, 1)), rng.uniform(220, 300), rng.uniform(0.6, 0.9)
    stop, start = rng.uniform(110, 210), start_px(way, 60)
    slow = speed * brake_s / 2  # the distance it takes to brake or to speed up
    at_s = (abs(stop - start) - slow) / speed
    off_s = at_s + brake_s + rng.uniform(0.9, 1.5)
    ease = np.linspace(0, 1, 6)
    path = [(0.0, start)]
    path += [(at_s + brake_s * u, stop - way * slow * (1 - u) ** 2) for u in ease]
    path += [(off_s + brake_s * u, stop + way * slow * u**2) for u in ease]
    end = start_px(-way, 60)
    path.append((off_s + brake_s + (abs(end - stop) - slow) / speed, end))
    return [replace(new_car(rng, car, path), face=way)], {"car": car, "way": _WAYS[way]}


def episode(kind: str, rng: np.random.Generator) -> tuple[list[Actor], float, dict[Language, str]]:
    """Actors of one event, from time 0; how long it lasts in seconds; and its sentence in each language."""
    makers = {"leaves_bag": _leaves_bag, "picks_up_bag": _leaves_bag, "person_then_car": _person_then_car}
    makers |= {"car_then_person": _person_then_car, "runs": _runs, "meet": _meet}
    makers |= {"group_passes": _group_passes, "car_stops": _car_stops}
    if kind not in makers:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    actors, words = makers[kind](rng)
    length_s = lasts(actors)
    if kind in ("picks_up_bag", "car_then_person"):
        actors = [actor.backwards(length_s) for actor in actors]
        words |= {"way": words["back"], "car_way": words.get("car_back", "")}
    told = Told(kind=kind, attributes={name: words[name] for name in options(kind)})
    # One draw, whichever number of wordings there is: what else a scene draws does not depend on its sentences.
    wording = int(rng.integers(1 << 30)) % WORDINGS
    return actors, length_s, {language: tell(told, wording, language) for language in LANGUAGES}


def nothing(rng: np.random.Generator) -> list[Actor]:
    """Passers-by that make no event, from time 0."""
    what, way, (one, other) = int(rng.integers(6)), pick(rng, (-1, 1)), colours(rng, 2)
    if what == 0:
        return []
    if what == 1:
        return [new_passing_car(rng, one, way)]
    if what == 2:  # two people who do not know each other
        return [
            new_walker(rng, one, way, y=rng.uniform(110, 120)),
            new_walker(rng, other, -way, y=rng.uniform(128, 140)),
        ]
    if what == 3:  # someone stops, and walks on
        spot, pause_s, at_s = rng.uniform(60, 260), rng.uniform(0.6, 1.4), rng.uniform(1.3, 1.9)
        off_s, out = at_s + pause_s, start_px(-way)
        path = [(0, start_px(way), 0), (at_s, spot, 0), (off_s, spot, 0), (off_s + abs(out - spot) / 110, out, 0)]
        return [new_person(rng, one, path)]
    walker = new_walker(rng, one, way)
    if what == 4:
        return [walker]
    shift = [0, 0.24 * walker.size_px * pick(rng, (-1, 1)), -0.16 * walker.size_px, 0]
    return [walker, new_bag(rng, other, list(walker.path + shift), walker.depth_px + 0.5)]


def distractors(rng: np.random.Generator, cast: Sequence[Actor]) -> list[Actor]:
    """What stands around all the time, clear of the places where the cast puts down or picks up a bag."""
    there = []
    if rng.random() < 0.35:
        there.append(new_car(rng, pick(rng, list(COLOURS)), [(0, rng.uniform(40, 280))], y=rng.uniform(147, 152)))
    for _ in range(int(rng.choice(3, p=(0.6, 0.3, 0.1)))):
        there.append(new_person(rng, pick(rng, list(COLOURS)), [(0, rng.uniform(20, 300), 0)]))
    for _ in range(int(rng.choice(3, p=(0.65, 0.25, 0.1)))):
        y = rng.uniform(112, 141)
        there.append(new_bag(rng, pick(rng, list(COLOURS)), [(0, rng.uniform(20, 300), y, 0)], y))
    spots = [float(row[1]) for actor in cast if actor.what == "bag" for row in actor.path[[0, -1]]]
    return [actor for actor in there if all(abs(actor.path[0, 1] - x) > 22 + actor.size_px for x in spots)]
