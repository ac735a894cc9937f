import re
from itertools import pairwise

import numpy as np
import pytest

from tests.sequences import make_sequence, same
from vidgru.types import Annotation, Event, Features, Recording, Sequence


def rebuilt(sequence: Sequence, **changes: object) -> Sequence:
    facts = {"fps": sequence.fps, "size_px": sequence.size_px, "names": sequence.names}
    return Sequence(**{**sequence.tensors(), **facts, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.zeros((4, 4))}, r"Sequence.boxes must be float32 \[4, 4\], got float64"),
        ({"scores": np.zeros((4, 1), np.float16)}, r"Sequence.scores must be float16 \[4\], got float16 \[4, 1\]"),
        ({"keypoints": np.zeros((4, 17, 2), np.float16)}, r"Sequence.keypoints must be float16 \[4, \*, 3\]"),
        ({"scene": np.zeros((3, 5), np.float16)}, r"Sequence.scene must be float16 \[2, \*\]"),
        ({"offsets": np.array([0, 3, 5])}, "offsets must rise from 0 to 4 objects"),
        ({"offsets": np.array([0, 5, 4])}, "offsets must rise from 0 to 4 objects"),
        ({"offsets": np.array([0, 4])}, r"offsets must be int64 \[3\]"),
        ({"time_s": np.array([0.5, 0.5])}, "time_s must be strictly increasing"),
        ({"fps": 0.0}, "fps must be above 0"),
    ],
)
def test_sequence_refuses_what_does_not_fit(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rebuilt(make_sequence(2, 2), **changes)


def test_frames_are_the_rows_of_those_frames() -> None:
    sequence = make_sequence(20, seed=3)
    part = sequence.frames(5, 9)
    assert len(part) == 4
    assert part.offsets[0] == 0
    for t in range(4):
        mine = part.boxes[part.offsets[t] : part.offsets[t + 1]]
        theirs = sequence.boxes[sequence.offsets[5 + t] : sequence.offsets[6 + t]]
        assert np.array_equal(mine, theirs)
    assert np.shares_memory(part.boxes, sequence.boxes)


def test_frames_past_the_end_are_left_out() -> None:
    sequence = make_sequence(5, 2)
    assert len(sequence.frames(3, 99)) == 2
    assert len(sequence.frames(7, 99)) == 0
    assert len(sequence.frames(3, 2)) == 0


@pytest.mark.parametrize("cuts", [(0,), (1, 2, 3), (7,), (4, 4, 19)])
def test_concatenate_joins_what_frames_cut(cuts: tuple[int, ...]) -> None:
    sequence = make_sequence(20, seed=1, keypoints=3)
    edges = [0, *cuts, 20]
    parts = [sequence.frames(a, b) for a, b in pairwise(edges)]
    assert same(Sequence.concatenate(parts), sequence)


def test_concatenate_needs_a_part() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        Sequence.concatenate([])


def test_repr_tells_shapes() -> None:
    assert re.fullmatch(
        r"Sequence\(3 frames at 8 fps, last at 0.25 s, boxes=\[6, 4\], motion=\[6, 6\].*", repr(make_sequence(3, 2))
    )


def test_sequence_without_objects() -> None:
    empty = make_sequence(4, 0)
    assert len(empty.boxes) == 0
    assert same(Sequence.concatenate([empty.frames(0, 2), empty.frames(2, 4)]), empty)


@pytest.mark.parametrize("times", [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (0.0, float("nan"))])
def test_intervals_are_checked(times: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="needs 0 <= start_s < end_s"):
        Annotation(video="a.mp4", start_s=times[0], end_s=times[1])
    with pytest.raises(ValueError, match="needs 0 <= start_s < end_s"):
        Event(video="a.mp4", start_s=times[0], end_s=times[1], label="x", score=0.5)


def test_annotation_has_both_times_or_neither() -> None:
    with pytest.raises(ValueError, match="both start_s and end_s or neither"):
        Annotation(video="a.mp4", start_s=1.0)


def test_event_score_is_a_probability() -> None:
    with pytest.raises(ValueError, match=r"score must be within 0 and 1, got 1\.5"):
        Event(video="a.mp4", start_s=0, end_s=1, label="x", score=1.5)


@pytest.mark.parametrize("name", ["", "/a.mp4", "../a.mp4"])
def test_recording_name_stays_under_its_root(tmp_path, name: str) -> None:
    with pytest.raises(ValueError, match="must be a path under the source root"):
        Recording(path=tmp_path / "a.mp4", name=name)


def test_features_fit_together() -> None:
    with pytest.raises(ValueError, match="Features do not fit"):
        Features(
            objects=np.zeros((3, 2), np.float32),
            offsets=np.array([0, 2]),
            frame=np.zeros((1, 2), np.float32),
            time_s=np.zeros(1),
        )
