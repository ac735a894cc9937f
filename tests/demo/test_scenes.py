"""The demo's scenes are reproducible and truthful, and the kinds of a pair differ in order only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidgru.demo import scenes
from vidgru.demo.renderer import COLOURS, SIZE_PX
from vidgru.demo.scenes import (
    CLASSES,
    EVENT_KINDS,
    FPS,
    ORDER_PAIRS,
    Scene,
    plan_clip,
    plan_recording,
    write_video,
)
from vidgru.demo.sentences import ENGLISH, WORDINGS

PERSON, CAR, BAG = range(3)


def movers(scene: Scene, class_name: str) -> list[Any]:
    return [actor for actor in scene.actors if actor.class_name == class_name and len(actor.path) > 1]


def direction(actor: Any) -> str:
    """Return where an actor leaves the image."""
    return "left" if actor.path[-1, 1] < 0 else "right"


def test_equal_seeds_give_equal_frames_and_files(tmp_path: Path) -> None:
    first, again, other = plan_clip("meet", 4), plan_clip("meet", 4), plan_clip("meet", 5)
    for (image, boxes, classes), (image2, boxes2, classes2) in zip(first.frames(), again.frames(), strict=True):
        np.testing.assert_array_equal(image, image2)
        np.testing.assert_array_equal(boxes, boxes2)
        np.testing.assert_array_equal(classes, classes2)
    write_video(first, tmp_path / "a.mp4")
    write_video(again, tmp_path / "b.mp4")
    write_video(other, tmp_path / "c.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert (tmp_path / "a.mp4").read_bytes() != (tmp_path / "c.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "c.mp4"]


def test_write_video_has_every_frame_at_its_time(tmp_path: Path) -> None:
    scene = plan_clip("runs", 1)
    write_video(scene, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == FPS
        frames = list(container.decode(video=0))
    assert len(frames) == len(scene)
    assert [frame.time for frame in frames] == pytest.approx([k / FPS for k in range(len(scene))])
    for frame, (image, _, _) in zip(frames, scene.frames(), strict=True):
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - image).mean() < 12


@pytest.mark.parametrize("kind", [*EVENT_KINDS, None])
def test_truth_boxes_are_inside_the_image(kind: str | None) -> None:
    visible = set()
    for seed in range(6):
        scene = plan_clip(kind, seed)
        assert 3 <= scene.duration_s <= 8
        for frame in range(0, len(scene), 2):
            boxes, classes = scene.truth(frame)
            assert boxes.dtype == np.float32
            assert classes.dtype == np.int64
            assert boxes.shape == (len(classes), 4)
            assert ((boxes >= 0) & (boxes <= 1)).all()
            size_px = (boxes[:, 2:] - boxes[:, :2]) * SIZE_PX
            assert (size_px >= 6.99).all()
            visible |= set(classes.tolist())
    assert PERSON in visible
    assert kind not in ("leaves_bag", "picks_up_bag") or BAG in visible
    assert kind not in ("person_then_car", "car_then_person", "car_stops") or CAR in visible


def test_truth_boxes_fit_the_rendered_objects() -> None:
    """A car has its colour in the middle of its box, wherever the camera sways."""
    for seed in range(30):
        scene = plan_clip("car_stops", seed)
        (car,) = movers(scene, "car")
        for frame, (image, boxes, classes) in enumerate(scene.frames()):
            x = car.pose(frame / FPS).x
            if not 60 < x < SIZE_PX[0] - 60:
                continue
            box = min(boxes[classes == CAR], key=lambda b: abs((b[0] + b[2]) / 2 * SIZE_PX[0] - x))
            column, row = int((box[0] + box[2]) / 2 * SIZE_PX[0]), int((0.35 * box[1] + 0.65 * box[3]) * SIZE_PX[1])
            pixel = image[row - 1 : row + 2, column - 2 : column + 3].mean((0, 1))
            expected = np.array(COLOURS[car.colour])
            assert np.corrcoef(pixel, expected)[0, 1] > 0.9 or np.ptp(expected) < 10, (seed, frame)
            break


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_plan_clip_describes_its_actors(kind: str) -> None:
    wordings = set()
    for seed in range(20):
        scene = plan_clip(kind, seed)
        (event,) = scene.events
        assert event.label == kind
        assert 0 < event.start_s < event.end_s <= scene.duration_s
        description = ENGLISH.parse(event.description)
        assert description is not None
        assert description.kind == kind
        attributes = dict(description.attributes)
        people, cars, bags = movers(scene, "person"), movers(scene, "car"), movers(scene, "bag")
        if kind in ("leaves_bag", "picks_up_bag"):
            assert attributes == {"coat": people[0].colour, "bag": bags[0].colour, "direction": direction(people[0])}
            # Carried at one end of the event, on the ground at the other.
            lifted = bags[0].path[:, 2] < bags[0].depth_px
            assert bool(lifted[0]) == (kind == "leaves_bag")
            assert bool(lifted[-1]) == (kind == "picks_up_bag")
        elif kind in ("person_then_car", "car_then_person"):
            order = sorted([people[0], cars[0]], key=lambda actor: actor.path[0, 0])
            assert (order[0] is people[0]) == (kind == "person_then_car")
            assert order[0].path[-1, 0] <= order[1].path[0, 0]
            assert attributes == {
                "coat": people[0].colour,
                "direction": direction(people[0]),
                "car": cars[0].colour,
                "car_direction": direction(cars[0]),
            }
        elif kind == "meet":
            left, right = sorted(people, key=lambda actor: actor.path[0, 1])
            assert attributes == {"coat": left.colour, "coat2": right.colour}
        elif kind == "group_passes":
            assert {"three": 3, "four": 4, "five": 5}[attributes["count"]] == len(people)
            assert {direction(actor) for actor in people} == {attributes["direction"]}
        else:
            (actor,) = people + cars
            assert attributes == {"coat" if kind == "runs" else "car": actor.colour, "direction": direction(actor)}
        (wording,) = (n for n in range(WORDINGS) if ENGLISH.format(description, n) == event.description)
        wordings.add(wording)
    assert len(wordings) > 2


def appearance(scene: Scene) -> list[object]:
    """Return everything that decides the rendered frames."""
    cast = [
        (a.class_name, a.colour, a.size_px, a.path.tolist(), a.present_s, a.depth_px, a.face, a.style)
        for a in scene.actors
    ]
    return [cast, [(e.label, e.start_s, e.end_s) for e in scene.events], scene.seed, scene.duration_s]


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_scenes_do_not_depend_on_the_wording(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [plan_clip(kind, seed) for seed in range(5)] + [plan_recording([kind, "runs", "meet"], 1)]
    monkeypatch.setattr(scenes, "WORDINGS", 1)
    after = [plan_clip(kind, seed) for seed in range(5)] + [plan_recording([kind, "runs", "meet"], 1)]
    assert [appearance(scene) for scene in before] == [appearance(scene) for scene in after]
    assert [e.description for s in before for e in s.events] != [e.description for s in after for e in s.events]


def test_plan_clip_rejects_unknown_kind() -> None:
    with pytest.raises(ValueError, match=r"kind must be None or one of leaves_bag, .*, got 'dances'"):
        plan_clip("dances", 0)


def test_plan_recording_separates_events() -> None:
    scene = plan_recording(EVENT_KINDS, 3)
    assert [event.label for event in scene.events] == list(EVENT_KINDS)
    assert scene.events[0].start_s > 1
    for before, after in zip(scene.events[:-1], scene.events[1:], strict=True):
        assert after.start_s - before.end_s >= 1.5
    assert scene.events[-1].end_s + 1 < scene.duration_s
    bag = movers(scene, "bag")[0]
    assert bag.present_s[1] == np.inf


def frame_features(scene: Scene) -> np.ndarray[Any, Any]:
    """Return count, position, size and (last) speed per sampled frame and class; float64 [T, 3, 11]."""
    rows, before = [], np.zeros((0, 5))
    for frame in range(0, len(scene), 3):
        boxes, classes = scene.truth(frame)
        now = np.column_stack([boxes, classes])
        row = np.zeros((len(CLASSES), 11))
        for k in range(len(CLASSES)):
            boxes_k, previous_k = now[now[:, 4] == k, :4], before[before[:, 4] == k, :4]
            if not len(boxes_k):
                continue
            row[k, :2] = len(boxes_k), 1
            row[k, 2:10] = *boxes_k.mean(0), *boxes_k.std(0)
            # A new box has no speed: its nearest neighbour would be another object.
            steps = np.abs(boxes_k[:, None, ::2] - previous_k[None, :, ::2]).mean(2).min(1, initial=1)
            row[k, 10] = steps[steps < (0.3 if k == CAR else 0.15)].sum()
        rows.append(row)
        before = now
    return np.array(rows)


def fit_and_score(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], train: np.ndarray[Any, Any]) -> float:
    """Return the held-out accuracy of ridge logistic regression, fitted by Newton's method."""
    x = (x - x[train].mean(0)) / (x[train].std(0) + 1e-6)
    x = np.column_stack([x, np.ones(len(x))])
    w = np.zeros(x.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-x[train] @ w))
        hessian = (x[train].T * (p * (1 - p))) @ x[train] + 3 * np.eye(len(w))
        w -= np.linalg.solve(hessian, x[train].T @ (p - y[train]) + 3 * w)
    return float(((x[~train] @ w > 0) == (y[~train] > 0.5)).mean())


@pytest.mark.parametrize(
    ("pair", "moving"), [(ORDER_PAIRS[0], BAG), pytest.param(ORDER_PAIRS[1], CAR, marks=pytest.mark.slow)]
)
def test_order_pairs_differ_in_order_only(pair: tuple[str, str], moving: int) -> None:
    count = 120
    clips = [frame_features(plan_clip(kind, seed)) for kind in pair for seed in range(count)]
    second = np.repeat([0.0, 1.0], count)
    pooled = np.array([np.concatenate([clip.mean(0).ravel(), clip.std(0).ravel()]) for clip in clips])
    half = np.arange(2 * count) % 2 == 0
    for stop in (pooled.shape[1] // 2, pooled.shape[1]):  # the mean alone, and the mean with the deviation
        accuracy = (fit_and_score(pooled[:, :stop], second, half) + fit_and_score(pooled[:, :stop], second, ~half)) / 2
        assert accuracy < 0.62, (pair, stop)
    # The half of the clip in which the bag or the car moves tells the kinds apart.
    late = np.array(
        [np.average(np.linspace(-1, 1, len(clip)), weights=clip[:, moving, 10] + 1e-9) > 0 for clip in clips]
    )
    agree = float((late == (second > 0)).mean())
    assert max(agree, 1 - agree) > 0.95
