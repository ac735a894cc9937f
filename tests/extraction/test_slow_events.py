"""Adaptive extraction of still recordings with slow events finds the objects that full extraction finds."""

from dataclasses import replace

import numpy as np
import pytest

from tests.compare_runs import CONFIDENT, missing_objects
from tests.detectors import DEMO
from tests.extraction.extraction_runs import extract
from tests.still_videos import SCENES, StillScene
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.demo.renderer import SIZE_PX
from vidgru.types import FrameSequence

DELAY_S = 0.5  # that an object may come, or go, late
Runs = dict[str, tuple[FrameSequence, FrameSequence]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The sequences of full and of adaptive extraction, by scene."""
    folder = tmp_path_factory.mktemp("still")
    settings = DetectorSettings(weights=str(DEMO), imgsz=max(SIZE_PX), fps=4)
    names = {scene.write(folder).name: scene.name for scene in SCENES}
    sequences: dict[str, list[FrameSequence]] = {name: [] for name in names.values()}
    for values in (settings, replace(settings, adaptive=True)):
        for result in extract(folder, folder / "features", values):
            sequences[names[result.recording.name]].append(SequenceCache(folder / "features").read(result.key or ""))
    return {name: (full, adaptive) for name, (full, adaptive) in sequences.items()}


def presence(sequence: FrameSequence) -> dict[str, tuple[float, float]]:
    """Times of the first and the last confident object of each class that has at least three."""
    times = np.repeat(sequence.time_s, np.diff(sequence.offsets))
    strong = sequence.scores >= CONFIDENT
    of_class = {name: times[strong & (sequence.classes == c)] for c, name in enumerate(sequence.names)}
    return {name: (float(at[0]), float(at[-1])) for name, at in of_class.items() if len(at) >= 3}


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_slow_events_are_found_by_adaptive_extraction(scene: StillScene, runs: Runs) -> None:
    full, adaptive = runs[scene.name]
    assert np.array_equal(adaptive.time_s, full.time_s)
    assert np.array_equal(adaptive.frame_index, full.frame_index)
    assert adaptive.still is not None
    assert adaptive.still.mean() >= scene.least_still
    assert presence(full).keys() == {actor.class_name for actor in scene.actors}
    assert presence(adaptive).keys() == presence(full).keys()
    for name, expected in presence(full).items():
        np.testing.assert_allclose(presence(adaptive)[name], expected, rtol=0, atol=DELAY_S, err_msg=name)
    confident = max(int((full.scores >= CONFIDENT).sum()), 1)
    assert len(missing_objects(full, adaptive)) <= 0.01 * confident
    assert len(missing_objects(adaptive, full)) <= 0.01 * confident
