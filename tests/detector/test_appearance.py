"""Colours of boxes against their published CIELAB coordinates, and the random projection."""

import numpy as np
import pytest
import torch

from vidgru.detector.appearance import BANDS, COLOUR_COLUMNS, object_colour, random_projection

# CIELAB of sRGB under D65, in hundredths: Lindbloom's calculator (http://www.brucelindbloom.com/ColorCalculator.html).
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


def plain_image(colour: tuple[int, int, int], height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


@pytest.mark.parametrize(("rgb", "lab"), LAB.items())
def test_colour_of_plain_image_equals_published(rgb: tuple[int, int, int], lab: tuple[float, ...]) -> None:
    colour = object_colour(plain_image(rgb), boxes((0.1, 0.2, 0.6, 0.9)))
    assert (colour.dtype, colour.shape) == (np.float16, (1, len(COLOUR_COLUMNS)))
    np.testing.assert_allclose(colour[0].astype(float), lab * len(BANDS), atol=2e-3)


def test_colour_of_bands_ignores_sides() -> None:
    image = plain_image((0, 255, 0))
    box = (20, 15, 60, 45)
    bands = ((255, 255, 255), (255, 0, 0), (0, 0, 255))
    for number, rgb in enumerate(bands):
        image[15 + 10 * number : 25 + 10 * number, 30:50] = rgb  # the inner half of its width
    colour = object_colour(image, boxes(np.array(box) / [80, 60, 80, 60]))
    np.testing.assert_allclose(colour[0].astype(float), sum((LAB[rgb] for rgb in bands), ()), atol=2e-3)


def test_colour_averages_linear_light() -> None:
    """Half black, half white gives half the light: L* = 116 * 0.5 ** (1 / 3) - 16."""
    image = plain_image((0, 0, 0))
    image[:, 40:] = 255
    colour = object_colour(image, boxes((0, 0, 1, 1)))[0].astype(float)
    np.testing.assert_allclose(colour, [1.16 * 0.5 ** (1 / 3) - 0.16, 0, 0] * len(BANDS), atol=1e-3)


def test_colour_of_boxes_at_edges_and_without_area() -> None:
    image = plain_image((255, 255, 255))
    image[-1], image[:, -1] = (0, 0, 255), (255, 0, 0)
    points = object_colour(image, boxes((1, 1, 1, 1), (1, 0.5, 1, 0.5), (0, 1, 0, 1), (0, 0, 0, 0))).astype(float)
    corner = [(255, 0, 0), (255, 0, 0), (0, 0, 255), (255, 255, 255)]
    np.testing.assert_allclose(points, [LAB[rgb] * len(BANDS) for rgb in corner], atol=2e-3)


def test_colour_without_objects() -> None:
    assert object_colour(plain_image((0, 0, 0)), boxes()).shape == (0, len(COLOUR_COLUMNS))


def test_colour_is_independent_of_other_objects() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    all_boxes = np.sort(rng.random((33, 2, 2)), axis=1).reshape(-1, 4).astype(np.float32)
    all_colours = object_colour(image, all_boxes)
    for row in range(len(all_boxes)):
        assert np.array_equal(object_colour(image, all_boxes[row : row + 1])[0], all_colours[row])


def test_colour_values_are_within_one() -> None:
    steps = (0, 51, 102, 153, 204, 255)
    cube = np.array([(r, g, b) for r in steps for g in steps for b in steps])
    colour = np.concatenate([object_colour(plain_image(tuple(rgb), 2, 2), boxes((0, 0, 1, 1))) for rgb in cube])
    assert np.abs(colour.astype(float)).max() < 1.1
    lightness = colour[:, 0].astype(float)
    assert lightness.min() > -1e-3
    assert lightness.max() < 1 + 1e-3


def test_random_projection_is_fixed() -> None:
    matrix = random_projection("level 0", 64, 16)
    assert matrix.shape == (64, 16)
    assert torch.equal(matrix.abs(), torch.full((64, 16), 0.125))
    assert (matrix[0] > 0).int().tolist() == [0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1]
