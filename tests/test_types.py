import doctest
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import vidgru.types
from tests.sequences import make_sequence, sequences_equal
from vidgru.types import Annotation, Event, Features, FrameSequence, Recording


def rebuild(sequence: FrameSequence, **changes: object) -> FrameSequence:
    facts = {"fps": sequence.fps, "size_px": sequence.size_px, "names": sequence.names}
    return FrameSequence(**{**sequence.tensors(), **facts, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": np.zeros((4, 4))}, r"FrameSequence.boxes must be float32 \[4, 4\], got float64"),
        ({"scores": np.zeros((4, 1), np.float16)}, r"FrameSequence.scores must be float16 \[4\], got float16 \[4, 1\]"),
        ({"keypoints": np.zeros((4, 17, 2), np.float16)}, r"FrameSequence.keypoints must be float16 \[4, \*, 3\]"),
        ({"scene": np.zeros((3, 5), np.float16)}, r"FrameSequence.scene must be float16 \[2, \*\]"),
        ({"offsets": np.array([0, 3, 5])}, "offsets must rise from 0 to 4 objects"),
        ({"offsets": np.array([0, 5, 4])}, "offsets must rise from 0 to 4 objects"),
        ({"offsets": np.array([0, 4])}, r"offsets must be int64 \[3\]"),
        ({"time_s": np.array([0.5, 0.5])}, "time_s must be strictly increasing"),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"flip_idx": (0, 2, 1)}, r"flip_idx is \[0, 2, 1\]; it must pair the 0 keypoints"),
    ],
)
def test_frame_sequence_rejects_invalid_tensors(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rebuild(make_sequence(2, 2), **changes)


def test_frames_returns_views_of_their_rows() -> None:
    sequence = make_sequence(20, seed=3)
    part = sequence.frames(5, 9)
    assert len(part) == 4
    assert part.offsets[0] == 0
    for t in range(4):
        boxes = part.boxes[part.offsets[t] : part.offsets[t + 1]]
        expected = sequence.boxes[sequence.offsets[5 + t] : sequence.offsets[6 + t]]
        assert np.array_equal(boxes, expected)
    assert np.shares_memory(part.boxes, sequence.boxes)


def test_frames_stops_at_the_end() -> None:
    sequence = make_sequence(5, 2)
    assert len(sequence.frames(3, 99)) == 2
    assert len(sequence.frames(7, 99)) == 0
    assert len(sequence.frames(3, 2)) == 0


@pytest.mark.parametrize("cuts", [(0,), (1, 2, 3), (7,), (4, 4, 19)])
def test_concatenate_inverts_frames(cuts: tuple[int, ...]) -> None:
    sequence = make_sequence(20, seed=1, keypoints=3, flip_idx=(0, 2, 1))
    edges = [0, *cuts, 20]
    parts = [sequence.frames(a, b) for a, b in pairwise(edges)]
    assert sequences_equal(FrameSequence.concatenate(parts), sequence)


def test_concatenate_needs_a_part() -> None:
    with pytest.raises(ValueError, match="at least one part"):
        FrameSequence.concatenate([])


def test_repr_lists_shapes() -> None:
    assert re.fullmatch(
        r"FrameSequence\(3 frames at 8 fps, last at 0.25 s, boxes=\[6, 4\], motion=\[6, 6\].*",
        repr(make_sequence(3, 2)),
    )


def test_frame_sequence_without_objects() -> None:
    empty = make_sequence(4, 0)
    assert len(empty.boxes) == 0
    assert sequences_equal(FrameSequence.concatenate([empty.frames(0, 2), empty.frames(2, 4)]), empty)


@pytest.mark.parametrize("times", [(1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (0.0, float("nan"))])
def test_intervals_are_validated(times: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="needs 0 <= start_s < end_s"):
        Annotation(video="a.mp4", start_s=times[0], end_s=times[1])
    with pytest.raises(ValueError, match="needs 0 <= start_s < end_s"):
        Event(video="a.mp4", start_s=times[0], end_s=times[1], label="x", score=0.5)


def test_annotation_needs_both_times_or_neither() -> None:
    with pytest.raises(ValueError, match="both start_s and end_s or neither"):
        Annotation(video="a.mp4", start_s=1.0)


def test_event_score_is_a_probability() -> None:
    with pytest.raises(ValueError, match=r"score must be within 0 and 1, got 1\.5"):
        Event(video="a.mp4", start_s=0, end_s=1, label="x", score=1.5)


@pytest.mark.parametrize("name", ["", "/a.mp4", "../a.mp4"])
def test_recording_name_stays_under_the_root(tmp_path, name: str) -> None:
    with pytest.raises(ValueError, match="must be a path under the source root"):
        Recording(path=tmp_path / "a.mp4", name=name)


def test_features_rejects_mismatched_arrays() -> None:
    with pytest.raises(ValueError, match="Features do not fit"):
        Features(
            objects=np.zeros((3, 2), np.float32),
            offsets=np.array([0, 2]),
            frame=np.zeros((1, 2), np.float32),
            time_s=np.zeros(1),
        )
    with pytest.raises(ValueError, match=r"tracks \[2\]"):
        Features(
            objects=np.zeros((3, 2), np.float32),
            offsets=np.array([0, 3]),
            frame=np.zeros((1, 2), np.float32),
            time_s=np.zeros(1),
            tracks=np.zeros(2, np.int32),
        )


# --- from detections ------------------------------------------------------------------------------------------------

DETECTIONS = {
    "frame": [2, 0, 1, 4], "boxes": [[20, 0, 30, 50], [0, 0, 10, 50], [10, 0, 20, 50], [190, 0, 240, 50]],
    "size_px": (200, 100), "names": ("person", "dog"), "source_fps": 10.0, "fps": 5.0,
}  # fmt: skip


def from_detections(**changes: object) -> FrameSequence:
    return FrameSequence.from_detections(**{**DETECTIONS, **changes})


def test_from_detections_samples_and_sorts() -> None:
    sequence = from_detections(frames=7, classes=[0, 1, 0, 0], tracks=[5, 5, 5, 6])
    assert sequence.frame_index.tolist() == [0, 2, 4, 6]
    assert sequence.time_s.tolist() == [0.0, 0.2, 0.4, 0.6]
    assert sequence.offsets.tolist() == [0, 1, 2, 3, 3]
    assert np.allclose(sequence.boxes, [[0, 0, 0.05, 0.5], [0.1, 0, 0.15, 0.5], [0.95, 0, 1, 0.5]])
    assert (sequence.classes.tolist(), sequence.tracks.tolist()) == ([1, 0, 0], [5, 5, 6])
    assert sequence.scores.tolist() == [1.0, 1.0, 1.0]
    scaled = np.array(DETECTIONS["boxes"]) / [200, 100, 200, 100]
    assert sequences_equal(
        from_detections(frames=7, boxes=scaled, normalised=True, classes=[0, 1, 0, 0], tracks=[5, 5, 5, 6]), sequence
    )


def test_from_detections_drops_boxes_outside() -> None:
    boxes = [[20, 0, 20, 50], [0, 0, 10, 50], [300, 0, 320, 50], [190, 0, 240, 50]]
    sequence = from_detections(boxes=boxes, frames=7, tracks=[1, 2, 3, 4])
    assert sequence.tracks.tolist() == [2, 4]
    assert sequence.offsets.tolist() == [0, 1, 1, 2, 2]


def test_from_detections_with_uneven_frame_times() -> None:
    """A frame half a tick early is on time, and a gap gives fewer samples."""
    sequence = from_detections(source_fps=None, frame_times_s=[0.0, 0.1995, 0.25, 0.3, 1.0])
    assert sequence.time_s.tolist() == [0.0, 0.1995, 1.0]
    late = from_detections(source_fps=None, frame_times_s=[0.0, 0.1995, 0.25, 0.3, 1.0], tick_s=1e-6)
    assert late.time_s.tolist() == [0.0, 0.25, 1.0]


def test_from_detections_without_objects() -> None:
    sequence = from_detections(frame=[], boxes=[], frames=4, keypoints=np.zeros((0, 17, 3)))
    assert (len(sequence), len(sequence.boxes)) == (2, 0)
    assert sequence.keypoints is not None
    assert sequence.keypoints.shape == (0, 17, 3)
    assert len(from_detections(frame=[], boxes=[])) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": [[0, 0, 1, 1]]}, r"boxes must be \[4, 4\], one row per entry of frame, got \[1, 4\]"),
        ({"boxes": [[0, 0, 1, 1]] * 3 + [[5, 0, 1, 1]]}, r"boxes\[3\] ends before it begins: \[5, 0, 1, 1\]"),
        ({"boxes": [[0, 0, 1, float("nan")]] * 4}, r"boxes\[0\] is not a number"),
        ({"classes": [0, 0, 2, 0]}, r"classes\[2\] is 2, but there are 2 names"),
        ({"classes": [0, 0.5, 2, 0]}, r"classes\[1\] is 0.5; it must be a whole number"),
        ({"scores": [0.1, 1.5, 0, 0]}, r"scores\[1\] is 1.5; scores are from 0 to 1"),
        ({"frames": 3}, r"frame\[3\] is 4, but there are 3, counted from 0"),
        ({"frame_times_s": [0.0, 1.0]}, "give either source_fps or frame_times_s"),
        ({"source_fps": None}, "give either source_fps or frame_times_s"),
        ({"source_fps": 0.0}, r"source_fps is 0.0; it must be above 0"),
        ({"source_fps": None, "frame_times_s": [0.0, 0.0]}, "frame_times_s must be seconds, .* strictly increasing"),
        ({"source_fps": None, "frame_times_s": [0.0], "frames": 1}, "frames is for source_fps"),
        ({"tracks": [1, 2**31, 1, 1]}, r"tracks\[1\] is 2147483648; it must be from -1 to 2147483647"),
        ({"tracks": [1, 2.0**60, 1, 1]}, r"tracks\[1\] is 1.15292e\+18, which is out of range"),
        ({"tracks": [1, -2, 1, 1]}, r"tracks\[1\] is -2; it must be from -1"),
        ({"classes": [0, 0, 40_000, 0], "names": ["x"] * 50_000}, r"classes\[2\] is 40000; it must be .* to 32767"),
        ({"size_px": (0, 100)}, r"size_px is \(0, 100\); give width and height, at least 1"),
        ({"names": "person"}, r"names is 'person'; give one string per class"),
        ({"names": [3]}, r"names is \[3\]; give one string per class"),
        ({"normalised": True}, r"boxes\[0\] is \[20.0, 0.0, 30.0, 50.0\]; normalised boxes are from 0 to 1"),
        ({"keypoints": np.zeros((4, 17, 4))}, r"keypoints must be \[4, \*, 3\]"),
    ],
)
def test_from_detections_rejects_invalid_arguments(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_detections(**changes)


def test_docstring_examples() -> None:
    result = doctest.testmod(vidgru.types)
    assert result.attempted
    assert not result.failed


def test_from_detections_keypoints_without_boxes() -> None:
    points = [[[10, 20], [30, np.nan], [50, 60]], [[np.nan] * 2] * 3]
    sequence = FrameSequence.from_detections(
        frame=[0, 1], keypoints=points, size_px=(100, 100), names=["mouse"], source_fps=5, frames=2, fps=5
    )
    assert sequence.keypoints is not None
    assert np.allclose(sequence.keypoints[0], [[0.1, 0.2, 1], [0, 0, 0], [0.5, 0.6, 1]], atol=1e-3)
    assert np.allclose(sequence.boxes, [[0.1, 0.2, 0.5, 0.6]])
    assert sequence.offsets.tolist() == [0, 1, 1]  # nothing of the second was seen


def test_from_detections_rejects_unclear_boxes() -> None:
    settings: dict[str, Any] = {"frame": [0], "size_px": (640, 480), "names": ["a"], "source_fps": 5, "fps": 5}
    with pytest.raises(ValueError, match="boxes are all within one pixel; if they are from 0 to 1, pass norm"):
        FrameSequence.from_detections(boxes=[[0.1, 0.2, 0.3, 0.4]], **settings)
    with pytest.raises(ValueError, match="boxes and keypoints are missing; give one of them"):
        FrameSequence.from_detections(**settings)


def test_from_detections_numbers_text_track_ids() -> None:
    sequence = FrameSequence.from_detections(
        frame=[0, 0, 0],
        boxes=[[10, 10, 20, 20]] * 3,
        tracks=["mouse b", "mouse a", None],
        size_px=(100, 100),
        names=["mouse"],
        source_fps=5,
        fps=5,
    )
    assert sequence.tracks.tolist() == [1, 0, -1]
