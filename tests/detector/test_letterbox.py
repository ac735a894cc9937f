"""Where frames lie in the network's input, and what is masked."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.extraction.test_pipeline import run
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.detector.preprocess import rasterize_polygons
from vidgru.errors import SettingsError

LEFT = "[[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]"


def test_masked_pixels_lie_in_the_polygons() -> None:
    assert rasterize_polygons([], (8, 4)) is None
    mask = rasterize_polygons(json.loads(LEFT), (80, 40))
    assert mask is not None
    assert mask.shape == (40, 80)
    assert mask[:, :40].all()
    assert not mask[:, 42:].any()
    both = rasterize_polygons([*json.loads(LEFT), [[0.5, 0.5], [1, 0.5], [1, 1], [0.5, 1]]], (80, 40))
    assert both is not None
    assert both[25:].all()
    assert not both[:19, 42:].any()
    overlapping = rasterize_polygons([*json.loads(LEFT), [[0.2, 0], [0.8, 0], [0.8, 1], [0.2, 1]]], (80, 40))
    assert overlapping is not None
    assert overlapping[:, :64].all()


def test_a_mask_is_a_file_or_a_list_and_is_kept_as_a_list(tmp_path: Path) -> None:
    (tmp_path / "mask.yaml").write_text("# the clock\n- [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\n")
    by_file = DetectorSettings(mask=str(tmp_path / "mask.yaml"))
    assert by_file == DetectorSettings(mask=LEFT)
    assert DetectorSettings(mask=by_file.mask) == by_file
    assert json.loads(by_file.mask) == [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]
    assert DetectorSettings().mask == ""
    assert by_file.feature_settings("") != DetectorSettings().feature_settings("")


@pytest.mark.parametrize("mask", ["[]", "[[0, 0]]", "[[[0, 0], [1, 1]]]", "[[[0, 0], [2, 0], [1, 1]]]", "[[[0, 0"])
def test_a_mask_that_cannot_be(mask: str) -> None:
    with pytest.raises(SettingsError, match="must be a list of polygons, each of three corners or more"):
        DetectorSettings(mask=mask)


def test_a_mask_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match=r"mask is 'none\.yaml', which cannot be read: No such file"):
        DetectorSettings(mask="none.yaml")


def test_nothing_is_seen_or_moves_behind_a_mask(tmp_path: Path, tiny_weights: Callable[[str], Path]) -> None:
    """The left halves of two videos differ, and are hidden: the features are the same."""

    def halves(number: int, width: int, height: int, seed: int) -> np.ndarray:
        frame = np.full((height, width, 3), 60, np.uint8)
        frame[:, width // 2 + number * 2 : width // 2 + number * 2 + 20] = 200
        frame[:, : width // 2 - 8] = np.random.default_rng([seed, number]).integers(0, 255, (height, width // 2 - 8, 3))
        return frame

    for seed in (1, 2):
        draw = lambda n, w, h, seed=seed: halves(n, w, h, seed)  # noqa: E731
        write_video(tmp_path / "v" / f"{seed}.mkv", 20, codec="ffv1", draw=draw)
    weights = str(tiny_weights("yolov8n"))
    for mask, equal in ((LEFT, True), ("", False)):
        settings = DetectorSettings(weights=weights, imgsz=64, fps=5, mask=mask)
        outcomes = run(tmp_path / "v", tmp_path / "f", settings)
        one, two = (SequenceCache(tmp_path / "f").read(str(outcome.key)) for outcome in outcomes)
        assert np.array_equal(one.scene, two.scene) == equal
        assert np.array_equal(one.scene_motion, two.scene_motion) == equal
        assert one.scene_motion is not None
        assert one.scene_motion.any(), "what is not hidden moves"
