"""How far figures would move if other recordings had been drawn: the percentile bootstrap, in whole recordings.

Clips and events of one recording are alike, so that drawing those would make intervals too narrow (the cluster
bootstrap: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). A resample is a weight
for each recording: how often it was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vidgru.types import Array

_LEVEL = 0.95


def draws(recordings: int, *, resamples: int, seed: int) -> Array:
    """float64 [resamples, recordings]: how often each recording is drawn; every row sums to `recordings`."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    rng = np.random.default_rng(seed)
    rows = (rng.integers(recordings, size=recordings) for _ in range(resamples))
    return np.stack([np.bincount(row, minlength=recordings) for row in rows]).astype(np.float64)


def interval(values: Array) -> list[float] | None:
    """[low, high] of the middle 95 % of values; those that are NaN (not defined) are left out; None if all are."""
    known = values[~np.isnan(values)]
    tail = (1 - _LEVEL) / 2
    return [float(q) for q in np.quantile(known, (tail, 1 - tail))] if len(known) else None


def bootstrap(
    statistics: Callable[[Array], dict[str, float | None]],
    videos: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, list[float] | None]:
    """95 % intervals of figures about clips.

    Args:
        statistics: from a weight for each clip, float64 [n], to figures by name.
        videos: n recordings that the clips are from.
        resamples: how often to draw; at least 1.
        seed: of the draws.

    Returns:
        [low, high] by name; None with fewer than two recordings, or where the figure is not defined.
    """
    names, member = np.unique(np.asarray(videos, dtype=np.str_), return_inverse=True)
    if len(names) < 2:
        return dict.fromkeys(statistics(np.ones(len(member))))
    results = [statistics(drawn[member]) for drawn in draws(len(names), resamples=resamples, seed=seed)]
    return {name: interval(np.array([result[name] for result in results], dtype=np.float64)) for name in results[0]}
