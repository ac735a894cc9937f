"""Boxes between samples, against closed form."""

from dataclasses import replace

import numpy as np
import pytest

from tests.sequences import make_sequence
from vidgru.prediction.annotate_video import BoxInterpolator
from vidgru.types import FrameSequence

FPS = 4.0


def crossing(frames: int = 8, *, tracks: tuple[int, ...] = (7, -1)) -> FrameSequence:
    """Objects that move 0.02 to the right a sample, each a row below the last one's, on the tracks given."""
    n = len(tracks)
    sequence = make_sequence(frames, n, fps=FPS, optional=False)
    left = np.repeat(0.1 + 0.02 * np.arange(frames), n)
    top = np.tile(np.arange(n) * 0.2, frames)
    boxes = np.stack([left, top, left + 0.1, top + 0.1], axis=1).astype(np.float32)
    return replace(sequence, boxes=boxes, tracks=np.tile(np.array(tracks, np.int32), frames))


def rising(sequence: FrameSequence) -> np.ndarray:
    """Attention that goes over from the second of two objects to the first, 0.1 a sample."""
    first = 0.1 * np.arange(len(sequence))
    return np.stack([first, 1 - first], axis=1).reshape(-1).astype(np.float32)


def test_a_track_moves_evenly_and_the_rest_waits() -> None:
    sequence = crossing()
    moments = BoxInterpolator([sequence], rising(sequence))
    for time_s in np.arange(0, 1.75, 0.05):
        objects = moments.at(float(time_s))
        steps = time_s * FPS
        assert objects.boxes[0, 0] == pytest.approx(0.1 + 0.02 * steps, abs=1e-6)
        assert objects.boxes[1, 0] == pytest.approx(0.1 + 0.02 * np.floor(steps + 1e-9), abs=1e-6)
        assert objects.attention[0] == pytest.approx(0.1 * steps, abs=1e-6)
    assert len(moments.at(0.8)) == 2


def test_parts_make_no_difference() -> None:
    sequence = crossing(9)
    attention = rising(sequence)
    whole = BoxInterpolator([sequence], attention)
    cut = BoxInterpolator(
        [sequence.frames(0, 1), sequence.frames(1, 4), sequence.frames(4, 4), sequence.frames(4, 9)], attention
    )
    for time_s in np.arange(0, 3, 0.03):
        one, other = whole.at(float(time_s)), cut.at(float(time_s))
        assert np.array_equal(one.boxes, other.boxes)
        assert np.array_equal(one.attention, other.attention)


def test_the_samples_themselves_are_not_written_to() -> None:
    sequence = crossing()
    before = sequence.boxes.copy()
    BoxInterpolator([sequence], rising(sequence)).at(0.1)
    assert np.array_equal(sequence.boxes, before)


def test_nothing_is_shown_before_the_first_sample_and_long_after_the_last() -> None:
    sequence = crossing(3)
    late = replace(sequence, time_s=sequence.time_s + 1)
    moments = BoxInterpolator([late], rising(late))
    assert [len(moments.at(time_s)) for time_s in (0, 0.99, 1, 1.5, 1.7, 2.0, 2.01, 9)] == [0, 0, 2, 2, 2, 2, 0, 0]


def test_nothing_moves_across_a_gap() -> None:
    sequence = crossing(4)
    gap = replace(sequence, time_s=np.array([0, 0.25, 5, 5.25]))
    moments = BoxInterpolator([gap], rising(gap))
    assert moments.at(0.5).boxes[0, 0] == pytest.approx(0.12)
    assert len(moments.at(2.0)) == 0
    assert moments.at(5.125).boxes[0, 0] == pytest.approx(0.15)


def test_a_track_that_ends_stays_until_the_next_sample_and_one_that_begins_waits_for_it() -> None:
    first, second = crossing(2, tracks=(1, 2)).frames(0, 1), crossing(2, tracks=(2, 3)).frames(1, 2)
    moments = BoxInterpolator([first, second], np.full(4, 0.5, np.float32))
    assert moments.at(0.125).tracks.tolist() == [1, 2]
    assert moments.at(0.125).boxes[1].tolist() == pytest.approx([0.11, 0.1, 0.21, 0.2])  # from row 1 up to row 0
    assert moments.at(0.25).tracks.tolist() == [2, 3]


def test_recordings_without_objects_and_without_samples() -> None:
    assert len(BoxInterpolator([make_sequence(3, 0)], np.zeros(0, np.float32)).at(0.2)) == 0
    assert len(BoxInterpolator([], np.zeros(0, np.float32)).at(0.2)) == 0


def test_attention_of_another_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="attention has 3 rows"):
        BoxInterpolator([crossing()], np.ones(3, np.float32)).at(1.0)
