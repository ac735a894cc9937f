"""Curves thinned: few points, and every peak is there."""

import numpy as np
import pytest

from vidgru.prediction.report.packing import MAX_POINTS, bucket_starts, thin


def test_short_recordings_are_whole() -> None:
    starts = bucket_starts(MAX_POINTS, np.zeros(MAX_POINTS, bool))
    assert starts.tolist() == list(range(MAX_POINTS))
    values = np.linspace(0, 1, MAX_POINTS, dtype=np.float32)[:, None]
    curves = thin(np.arange(MAX_POINTS) / 8, values, starts)
    assert not curves.is_thinned
    assert np.abs(curves.high[0] / 255 - values[:, 0]).max() <= 0.5 / 255 + 1e-6
    assert curves.time_ms.tolist() == [125 * i for i in range(MAX_POINTS)]


@pytest.mark.parametrize("frames", [MAX_POINTS + 1, 10_007, 230_400])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 1.0])
def test_long_ones_have_few_points(frames: int, share: float) -> None:
    near = np.zeros(frames, bool)
    near[: round(frames * share)] = True
    starts = bucket_starts(frames, near)
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    assert MAX_POINTS // 4 <= 2 * len(starts) <= MAX_POINTS


def test_every_peak_and_every_dip_survives() -> None:
    rng = np.random.default_rng(0)
    frames = 230_400
    values = np.full((frames, 3), 0.5, np.float32)
    peaks, dips = rng.choice(frames, (2, 40), replace=False)
    values[peaks, 1], values[dips, 1] = 1.0, 0.0
    curves = thin(np.arange(frames) / 8, values, bucket_starts(frames, np.zeros(frames, bool)))
    assert curves.is_thinned
    for frame, extreme, found in [(f, 255, curves.high) for f in peaks] + [(f, 0, curves.low) for f in dips]:
        place = np.abs(curves.time_ms / 1000 - frame / 8).argmin()
        assert (found[1, max(place - 1, 0) : place + 2] == extreme).any()
    assert (curves.low[[0, 2]] == 128).all()
    assert (curves.high[[0, 2]] == 128).all()


def test_stretches_are_short_where_people_look() -> None:
    frames, near = 230_400, np.zeros(230_400, bool)
    near[100_000:100_500] = True
    starts = bucket_starts(frames, near)
    inside = starts[(starts >= 100_000) & (starts < 100_500)]
    assert len(inside) >= 499
    assert np.diff(starts[starts < 100_000]).max() < 200


def test_nothing() -> None:
    curves = thin(np.zeros(0), np.zeros((0, 2), np.float32), bucket_starts(0, np.zeros(0, bool)))
    assert curves.high.shape == (2, 0)
