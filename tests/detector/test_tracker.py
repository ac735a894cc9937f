"""Track ids of boxes with known paths."""

import numpy as np
import pytest

from vidgru.detector.tracker import Tracker
from vidgru.types import Array


def walk(frames: int) -> list[tuple[Array, Array, Array]]:
    """Return frames with two boxes that pass each other at different heights, and a third from frame 10."""
    sequence = []
    for t in range(frames):
        x = t / frames * 0.8
        boxes = [[x, 0.1, x + 0.1, 0.4], [0.8 - x, 0.5, 0.9 - x, 0.8]] + [[0.4, 0.85, 0.5, 0.95]] * (t >= 10)
        count = len(boxes)
        sequence.append((np.array(boxes, np.float32), np.full(count, 0.8, np.float16), np.zeros(count, np.int16)))
    return sequence


def run(kind: str, sequence: list[tuple[Array, Array, Array]]) -> list[list[int]]:
    tracker = Tracker(kind, (640, 360))
    return [tracker.update(*frame).tolist() for frame in sequence]


@pytest.mark.parametrize("kind", ["bytetrack", "ocsort"])
def test_ids_follow_objects(kind: str) -> None:
    ids = run(kind, walk(40))
    assert ids[0] == [1, 2]
    assert all(frame[:2] == [1, 2] for frame in ids)
    assert ids[10][2] == -1, "a new object is confirmed in its second frame"
    assert all(frame[2] == 3 for frame in ids[11:])


@pytest.mark.parametrize("kind", ["bytetrack", "ocsort"])
def test_ids_are_reproducible(kind: str) -> None:
    assert run(kind, walk(20)) == run(kind, walk(20))


@pytest.mark.parametrize("kind", ["bytetrack", "ocsort"])
def test_ids_are_independent_of_object_order(kind: str) -> None:
    ids = run(kind, walk(20))
    reversed_ids = run(kind, [(boxes[::-1], scores[::-1], classes[::-1]) for boxes, scores, classes in walk(20)])
    assert [set(frame) for frame in ids] == [set(frame) for frame in reversed_ids]
    assert all(len(set(frame[:2])) == 2 for frame in reversed_ids)


def test_weak_objects_continue_but_start_no_track() -> None:
    boxes, classes = np.array([[0.1, 0.1, 0.3, 0.5]], np.float32), np.zeros(1, np.int16)
    strong, weak = np.array([0.8], np.float16), np.array([0.15], np.float16)
    tracker = Tracker("bytetrack", (640, 360))
    assert tracker.update(boxes, weak, classes).tolist() == [-1]
    tracker = Tracker("bytetrack", (640, 360))
    assert [tracker.update(boxes, s, classes).tolist() for s in (strong, weak, weak)] == [[1], [1], [1]]


def test_tracker_none_gives_no_ids() -> None:
    ids = Tracker("none", (640, 360)).update(*walk(1)[0])
    assert ids.dtype == np.int32
    assert ids.tolist() == [-1, -1]


@pytest.mark.parametrize("kind", ["bytetrack", "ocsort"])
def test_tracker_accepts_empty_frames_and_flat_boxes(kind: str) -> None:
    tracker = Tracker(kind, (640, 360))
    empty = (np.zeros((0, 4), np.float32), np.zeros(0, np.float16), np.zeros(0, np.int16))
    assert tracker.update(*empty).shape == (0,)
    flat = (np.array([[0.1, 0.1, 0.1, 0.5]], np.float32), np.ones(1, np.float16), np.zeros(1, np.int16))
    assert tracker.update(*flat).tolist() == [-1]
    assert tracker.update(*empty).shape == (0,)
