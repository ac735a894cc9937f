"""The demo's scenes: reproducible, truthful, and with pairs of kinds that differ in order only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vidgru.demo import episodes
from vidgru.demo.scene import (
    CLASSES,
    COLOURS,
    FPS,
    KINDS,
    ORDER_PAIRS,
    SIZE_PX,
    Scene,
    plan_clip,
    plan_recording,
    write_video,
)
from vidgru.demo.sentences import LANGUAGES, WORDINGS, parse, tell

PERSON, CAR, BAG = range(3)


def movers(scene: Scene, what: str) -> list[Any]:
    return [actor for actor in scene.actors if actor.what == what and len(actor.path) > 1]


def way(actor: Any) -> str:
    """Where it leaves the picture."""
    return "left" if actor.path[-1, 1] < 0 else "right"


def test_equal_seeds_give_equal_frames_and_bytes(tmp_path: Path) -> None:
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


def test_video_has_every_frame_at_its_time(tmp_path: Path) -> None:
    scene = plan_clip("runs", 1)
    write_video(scene, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == FPS
        frames = list(container.decode(video=0))
    assert len(frames) == len(scene)
    assert [frame.time for frame in frames] == pytest.approx([k / FPS for k in range(len(scene))])
    for frame, (image, _, _) in zip(frames, scene.frames(), strict=True):
        assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - image).mean() < 12


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_boxes_are_inside_and_what_is_drawn_is_there(kind: str | None) -> None:
    seen = set()
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
            seen |= set(classes.tolist())
    assert PERSON in seen
    assert kind not in ("leaves_bag", "picks_up_bag") or BAG in seen
    assert kind not in ("person_then_car", "car_then_person", "car_stops") or CAR in seen


def test_boxes_fit_what_is_drawn() -> None:
    """A white coat, bag or car is bright in the middle of its box, wherever the camera sways."""
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
            want = np.array(COLOURS[car.colour])
            assert np.corrcoef(pixel, want)[0, 1] > 0.9 or np.ptp(want) < 10, (seed, frame)
            break


@pytest.mark.parametrize("kind", KINDS)
def test_events_lie_in_the_clip_and_sentences_are_true(kind: str) -> None:
    wordings = set()
    for seed in range(20):
        scene = plan_clip(kind, seed)
        (event,) = scene.events
        assert event.label == kind
        assert 0 < event.start_s < event.end_s <= scene.duration_s
        told = [parse(event.sentences[language], language) for language in LANGUAGES]
        assert told[0] is not None
        assert all(one == told[0] for one in told)
        assert told[0].kind == kind
        says = dict(told[0].attributes)
        people, cars, bags = movers(scene, "person"), movers(scene, "car"), movers(scene, "bag")
        if kind in ("leaves_bag", "picks_up_bag"):
            assert says == {"coat": people[0].colour, "bag": bags[0].colour, "way": way(people[0])}
            # Carried at one end of the event, on the ground at the other.
            lifted = bags[0].path[:, 2] < bags[0].depth_px
            assert bool(lifted[0]) == (kind == "leaves_bag")
            assert bool(lifted[-1]) == (kind == "picks_up_bag")
        elif kind in ("person_then_car", "car_then_person"):
            order = sorted([people[0], cars[0]], key=lambda actor: actor.path[0, 0])
            assert (order[0] is people[0]) == (kind == "person_then_car")
            assert order[0].path[-1, 0] <= order[1].path[0, 0]
            assert says == {
                "coat": people[0].colour, "way": way(people[0]), "car": cars[0].colour, "car_way": way(cars[0]),
            }  # fmt: skip
        elif kind == "meet":
            left, right = sorted(people, key=lambda actor: actor.path[0, 1])
            assert says == {"coat": left.colour, "coat2": right.colour}
        elif kind == "group_passes":
            assert {"three": 3, "four": 4, "five": 5}[says["count"]] == len(people)
            assert {way(actor) for actor in people} == {says["way"]}
        else:
            (actor,) = people + cars
            assert says == {"coat" if kind == "runs" else "car": actor.colour, "way": way(actor)}
        (wording,) = (n for n in range(WORDINGS) if tell(told[0], n, "en") == event.sentences["en"])
        assert event.sentences["ko"] == tell(told[0], wording, "ko")
        wordings.add(wording)
    assert len(wordings) > 2


def looks(scene: Scene) -> list[object]:
    """All that is drawn and when, without the sentences."""
    cast = [(a.what, a.colour, a.size_px, a.path.tolist(), a.seen_s, a.depth_px, a.face, a.style) for a in scene.actors]
    return [cast, [(e.label, e.start_s, e.end_s) for e in scene.events], scene.seed, scene.duration_s]


@pytest.mark.parametrize("kind", KINDS)
def test_videos_do_not_depend_on_the_wording(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [plan_clip(kind, seed) for seed in range(5)] + [plan_recording([kind, "runs", "meet"], 1)]
    monkeypatch.setattr(episodes, "WORDINGS", 1)
    after = [plan_clip(kind, seed) for seed in range(5)] + [plan_recording([kind, "runs", "meet"], 1)]
    assert [looks(scene) for scene in before] == [looks(scene) for scene in after]
    assert [e.sentences for s in before for e in s.events] != [e.sentences for s in after for e in s.events]


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kind must be None or one of leaves_bag, .*, got 'dances'"):
        plan_clip("dances", 0)


def test_recording_has_its_events_apart_and_in_order() -> None:
    scene = plan_recording(KINDS, 3)
    assert [event.label for event in scene.events] == list(KINDS)
    assert scene.events[0].start_s > 1
    for before, after in zip(scene.events[:-1], scene.events[1:], strict=True):
        assert after.start_s - before.end_s >= 1.5
    assert scene.events[-1].end_s + 1 < scene.duration_s
    left = movers(scene, "bag")[0]
    assert left.seen_s[1] == np.inf


def frame_features(scene: Scene) -> np.ndarray[Any, Any]:
    """Per sampled frame and class: how many, where, how large, and (last) how fast; float64 [T, 3, 11]."""
    rows, before = [], np.zeros((0, 5))
    for frame in range(0, len(scene), 3):
        boxes, classes = scene.truth(frame)
        now = np.column_stack([boxes, classes])
        row = np.zeros((len(CLASSES), 11))
        for k in range(len(CLASSES)):
            mine, old = now[now[:, 4] == k, :4], before[before[:, 4] == k, :4]
            if not len(mine):
                continue
            row[k, :2] = len(mine), 1
            row[k, 2:10] = *mine.mean(0), *mine.std(0)
            # A box that has just come in has no speed: its nearest neighbour would be another object.
            steps = np.abs(mine[:, None, ::2] - old[None, :, ::2]).mean(2).min(1, initial=1)
            row[k, 10] = steps[steps < (0.3 if k == CAR else 0.15)].sum()
        rows.append(row)
        before = now
    return np.array(rows)


def fit_and_score(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], train: np.ndarray[Any, Any]) -> float:
    """Held-out accuracy of ridge logistic regression, by Newton's method."""
    x = (x - x[train].mean(0)) / (x[train].std(0) + 1e-6)
    x = np.column_stack([x, np.ones(len(x))])
    w = np.zeros(x.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-x[train] @ w))
        hessian = (x[train].T * (p * (1 - p))) @ x[train] + 3 * np.eye(len(w))
        w -= np.linalg.solve(hessian, x[train].T @ (p - y[train]) + 3 * w)
    return float(((x[~train] @ w > 0) == (y[~train] > 0.5)).mean())


@pytest.mark.parametrize(("pair", "moving"), [(ORDER_PAIRS[0], BAG), (ORDER_PAIRS[1], CAR)])
def test_order_pairs_look_alike_without_order(pair: tuple[str, str], moving: int) -> None:
    count = 120
    clips = [frame_features(plan_clip(kind, seed)) for kind in pair for seed in range(count)]
    second = np.repeat([0.0, 1.0], count)
    pooled = np.array([np.concatenate([clip.mean(0).ravel(), clip.std(0).ravel()]) for clip in clips])
    half = np.arange(2 * count) % 2 == 0
    for stop in (pooled.shape[1] // 2, pooled.shape[1]):  # the mean alone, and the mean with the deviation
        accuracy = (fit_and_score(pooled[:, :stop], second, half) + fit_and_score(pooled[:, :stop], second, ~half)) / 2
        assert accuracy < 0.62, (pair, stop)
    # In which half of the clip the bag or the car moves says it all.
    late = np.array(
        [np.average(np.linspace(-1, 1, len(clip)), weights=clip[:, moving, 10] + 1e-9) > 0 for clip in clips]
    )
    agree = float((late == (second > 0)).mean())
    assert max(agree, 1 - agree) > 0.95
