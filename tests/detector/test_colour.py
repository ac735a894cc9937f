"""Colours of drawn boxes against their published coordinates in CIELAB."""

import numpy as np
import pytest

from vidgru.detector.appearance import BANDS, COLOUR_COLUMNS, object_colour

# Of sRGB under D65, in hundredths: Lindbloom's calculator (http://www.brucelindbloom.com/ColorCalculator.html).
LAB = {
    (255, 255, 255): (1.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (119, 119, 119): (0.5003, 0.0, 0.0),
    (255, 0, 0): (0.5324, 0.8009, 0.6720),
    (0, 255, 0): (0.8774, -0.8618, 0.8318),
    (0, 0, 255): (0.3230, 0.7919, -1.0786),
    (10, 10, 10): (0.0274, 0.0, 0.0),  # on the straight part of both curves
}


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def picture(colour: tuple[int, int, int], height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


@pytest.mark.parametrize(("rgb", "lab"), LAB.items())
def test_a_plain_picture_has_its_published_colour(rgb: tuple[int, int, int], lab: tuple[float, ...]) -> None:
    seen = object_colour(picture(rgb), boxes((0.1, 0.2, 0.6, 0.9)))
    assert (seen.dtype, seen.shape) == (np.float16, (1, len(COLOUR_COLUMNS)))
    np.testing.assert_allclose(seen[0].astype(float), lab * len(BANDS), atol=2e-3)


def test_each_third_has_its_own_colour_and_the_sides_do_not_count() -> None:
    image = picture((0, 255, 0))
    box = (20, 15, 60, 45)
    bands = ((255, 255, 255), (255, 0, 0), (0, 0, 255))
    for number, rgb in enumerate(bands):
        image[15 + 10 * number : 25 + 10 * number, 30:50] = rgb  # the inner half of its width
    seen = object_colour(image, boxes(np.array(box) / [80, 60, 80, 60]))
    np.testing.assert_allclose(seen[0].astype(float), sum((LAB[rgb] for rgb in bands), ()), atol=2e-3)


def test_light_is_averaged() -> None:
    """Half black, half white gives half the light: L* = 116 * 0.5 ** (1 / 3) - 16."""
    image = picture((0, 0, 0))
    image[:, 40:] = 255
    seen = object_colour(image, boxes((0, 0, 1, 1)))[0].astype(float)
    np.testing.assert_allclose(seen, [1.16 * 0.5 ** (1 / 3) - 0.16, 0, 0] * len(BANDS), atol=1e-3)


def test_boxes_at_the_edges_and_without_area() -> None:
    image = picture((255, 255, 255))
    image[-1], image[:, -1] = (0, 0, 255), (255, 0, 0)
    points = object_colour(image, boxes((1, 1, 1, 1), (1, 0.5, 1, 0.5), (0, 1, 0, 1), (0, 0, 0, 0))).astype(float)
    corner = [(255, 0, 0), (255, 0, 0), (0, 0, 255), (255, 255, 255)]
    np.testing.assert_allclose(points, [LAB[rgb] * len(BANDS) for rgb in corner], atol=2e-3)


def test_a_frame_without_objects() -> None:
    assert object_colour(picture((0, 0, 0)), boxes()).shape == (0, len(COLOUR_COLUMNS))


def test_an_object_does_not_depend_on_the_others() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    many = np.sort(rng.random((33, 2, 2)), axis=1).reshape(-1, 4).astype(np.float32)
    together = object_colour(image, many)
    for row in range(len(many)):
        assert np.array_equal(object_colour(image, many[row : row + 1])[0], together[row])


def test_every_colour_is_within_about_one() -> None:
    steps = (0, 51, 102, 153, 204, 255)
    cube = np.array([(r, g, b) for r in steps for g in steps for b in steps])
    seen = np.concatenate([object_colour(picture(tuple(rgb), 2, 2), boxes((0, 0, 1, 1))) for rgb in cube])
    assert np.abs(seen.astype(float)).max() < 1.1
    lightness = seen[:, 0].astype(float)
    assert lightness.min() > -1e-3
    assert lightness.max() < 1 + 1e-3
