"""Summaries of frames, clips and windows, compared with their definitions and with values known in closed form."""

import itertools

import numpy as np
import pytest
import torch

from tests.sequences import make_sequence
from vidgru.model.feature_spec import FeatureSpec
from vidgru.model.features import compute_features
from vidgru.model.summaries import FrameSummaries, WindowSummaries, summarize_clip
from vidgru.types import Features

SEQUENCE = make_sequence(80, seed=3)
SPEC = FeatureSpec.from_sequence(SEQUENCE)


def without_objects(features: Features, first: int, stop: int) -> Features:
    """The features of a recording in which nothing is detected for some frames."""
    counts = np.diff(features.offsets)
    frame_of = np.repeat(np.arange(len(features)), counts)
    kept = (frame_of < first) | (frame_of >= stop)
    counts[first:stop] = 0
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Features(
        objects=features.objects[kept], offsets=offsets, frame=features.frame, time_s=features.time_s
    )  # fmt: skip


FEATURES = without_objects(compute_features(SEQUENCE), 20, 60)  # five seconds
CHUNKINGS = ([0, 80], range(81), [0, 0, 1, 19, 33, 33, 61, 80])


def by_definition(features: Features, drop_groups: tuple[str, ...]) -> np.ndarray:
    def columns(groups: dict[str, slice], dropped: tuple[str, ...]) -> list[int]:
        return [c for name, at in groups.items() if name not in dropped for c in range(at.start, at.stop)]

    objects, frame = columns(SPEC.object_groups(), (*drop_groups, "class")), columns(SPEC.frame_groups(), drop_groups)
    score = SPEC.object_groups()["score"].start
    best, best_s, rows = np.zeros(len(objects)), -np.inf, []
    for t, time_s in enumerate(features.time_s):
        detected = features.objects[features.offsets[t] : features.offsets[t + 1]]
        mean = highest = np.zeros(len(objects))
        if len(detected):
            best, best_s = detected[detected[:, score].argmax(), objects], time_s
            mean, highest = detected[:, objects].mean(axis=0), detected[:, objects].max(axis=0)
        rows.append(np.concatenate([best, [min(time_s - best_s, 3)], mean, highest, features.frame[t, frame]]))
    return np.array(rows)


@pytest.mark.parametrize("drop_groups", [(), ("appearance", "colour", "scene"), ("score", "time", "no such group")])
def test_frame_summaries_of_any_chunks(drop_groups: tuple[str, ...]) -> None:
    expected = by_definition(FEATURES, drop_groups)
    for edges in CHUNKINGS:
        frames = FrameSummaries(SPEC, drop_groups)
        pieces = [frames.push(FEATURES.frames(a, b)) for a, b in itertools.pairwise(edges)]
        summaries = np.concatenate(pieces)
        assert summaries.dtype == np.float32
        assert frames.width == summaries.shape[1]
        np.testing.assert_allclose(summaries, expected, rtol=0, atol=1e-6)


def test_frame_summaries_carry_best_object_over_gaps() -> None:
    spec = FeatureSpec(classes=1)
    dropped = ("geometry", "speed", "relations", "time")
    objects = np.zeros((3, spec.object_width), np.float32)
    objects[:, spec.object_groups()["score"]] = [[0.5, -1], [0.75, -2], [0.25, -3]]
    features = Features(
        objects=objects,
        offsets=np.array([0, 0, 2, 2, 3, 3]),
        frame=np.zeros((5, spec.frame_width), np.float32),
        time_s=np.array([0.0, 1.0, 1.5, 2.0, 9.0]),
    )
    # the best object and its age, the mean and the maximum over objects
    expected = [
        [0, 0, 3, 0, 0, 0, 0],
        [0.75, -2, 0, 0.625, -1.5, 0.75, -1],
        [0.75, -2, 0.5, 0, 0, 0, 0],
        [0.25, -3, 0, 0.25, -3, 0.25, -3],
        [0.25, -3, 3, 0, 0, 0, 0],
    ]
    frames = FrameSummaries(spec, dropped)
    np.testing.assert_array_equal(frames.push(features), expected)
    assert frames.clip_columns.tolist() == [3, 4, 5, 6]
    assert frames.window_columns.tolist() == [0, 1, 2]


@pytest.mark.parametrize("drop_groups", [(), ("motion", "scene")])
def test_group_columns_are_those_that_a_group_changes(drop_groups: tuple[str, ...]) -> None:
    features = compute_features(make_sequence(30, 1))  # one object: its score decides nothing
    groups = {**SPEC.object_groups(), **SPEC.frame_groups()}
    before = FrameSummaries(SPEC, drop_groups).push(features)
    for name, at in groups.items():
        objects, frame = features.objects.copy(), features.frame.copy()
        (objects if name in SPEC.object_groups() else frame)[:, at] += 1
        frames = FrameSummaries(SPEC, drop_groups)
        changed = Features(objects=objects, offsets=features.offsets, frame=frame, time_s=features.time_s)
        differ = np.flatnonzero((frames.push(changed) != before).any(axis=0))
        assert differ.tolist() == sorted(frames.group_columns(name)), name
    assert FrameSummaries(SPEC, drop_groups).group_columns("keypoints").tolist() == []


def test_summaries_of_no_frames() -> None:
    frames, windows = FrameSummaries(SPEC), WindowSummaries(5, 8.0, 3)
    assert frames.push(FEATURES.frames(0, 0)).shape == (0, frames.width)
    assert windows.push(np.zeros((0, 5), np.float32)).shape == (0, windows.width)
    assert windows.finish().shape == (0, windows.width)


def test_summarize_clip_closed_form() -> None:
    clip = torch.tensor([[0.0, 5.0], [2.0, 5.0], [1.0, 5.0]])
    expected = [1, 5, (2 / 3) ** 0.5, 0, 2, 5, 1.5, 0]  # mean, standard deviation, maximum, mean change
    torch.testing.assert_close(summarize_clip(clip), torch.tensor(expected))
    torch.testing.assert_close(summarize_clip(clip[:1]), torch.tensor([0.0, 5, 0, 0, 0, 5, 0, 0]))


# --- windows ----------------------------------------------------------------------------------------------------------


def test_window_summaries_of_a_ramp() -> None:
    """At two samples per second, windows of one, three and six frames, and two frames ahead."""
    ramp = np.arange(20, dtype=np.float32)[:, None]
    windows = WindowSummaries(1, 2.0, 2)
    summaries = np.concatenate([windows.push(ramp), windows.finish()])[2:]
    assert summaries.shape == (20, windows.width) == (20, 11)
    for t in (5, 12, 17):
        expected = [t, t + 1, t, 0, 1, t - 1, (2 / 3) ** 0.5, 2, t - 2.5, (35 / 12) ** 0.5, 3.5]
        np.testing.assert_allclose(summaries[t], expected, atol=1e-5)
    # a recording stands still before its beginning and after its end
    np.testing.assert_allclose(summaries[0], [0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1], atol=1e-5)
    np.testing.assert_allclose(summaries[19][:5], [19, 19, 19, 0, 0], atol=1e-5)


@pytest.mark.parametrize("lookahead", [0, 1, 9, 100])
@pytest.mark.parametrize("fps", [0.2, 8.0])
def test_window_summaries_of_any_chunks(lookahead: int, fps: float) -> None:
    frames = np.random.default_rng(0).standard_normal((80, 3)).astype(np.float32) + 5
    lengths = [max(round(seconds * fps), 1) for seconds in (0.5, 1.5, 3.0)]
    before = max(lengths)
    padded = np.pad(frames, ((before, lookahead), (0, 0)), mode="edge")
    expected = []
    for t in range(before, before + 80):
        ahead = padded[t : t + lookahead + 1].mean(axis=0)
        parts = [padded[t], ahead]
        for length in lengths:
            window = padded[t + 1 - length : t + 1]
            parts += [window.mean(axis=0), window.std(axis=0), ahead - window.mean(axis=0)]
        expected.append(np.concatenate(parts))
    for edges in CHUNKINGS:
        windows = WindowSummaries(3, fps, lookahead)
        pushed = [windows.push(frames[a:b]) for a, b in itertools.pairwise(edges)]
        assert [len(piece) for piece in pushed] == [b - a for a, b in itertools.pairwise(edges)]
        summaries = np.concatenate([*pushed, windows.finish()])[lookahead:]
        np.testing.assert_allclose(summaries, expected, rtol=0, atol=2e-5)
