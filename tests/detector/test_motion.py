"""Flow of images that move by a known amount, and pooling against sums over pixels."""

import cv2
import numpy as np
import pytest

from vidgru.detector.motion import (
    LONGER_SIDE_PX,
    MOTION_COLUMNS,
    MOTION_MIRROR_COLUMN,
    MOTION_MIRROR_SIGN,
    SCENE_MOTION_COLUMNS,
    SCENE_MOTION_MIRROR_COLUMN,
    SCENE_MOTION_MIRROR_SIGN,
    Flow,
    FlowMeter,
    object_motion,
    scene_motion,
)

WIDTH, HEIGHT = 384, 216
SCALE = LONGER_SIDE_PX / WIDTH
COLUMN = {name: i for i, name in enumerate(MOTION_COLUMNS)}
SCENE_COLUMN = {name: i for i, name in enumerate(SCENE_MOTION_COLUMNS)}


def texture(seed: int, width: int, height: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return cv2.GaussianBlur(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), (0, 0), 3)


BACKGROUND = texture(0, WIDTH + 64, HEIGHT + 64)
PATCH = texture(1, 80, 80)


def draw_scene(x: float, y: float, camera: int = 0) -> np.ndarray:
    """Draw a textured patch at (x, y) over a background shifted by camera motion."""
    image = BACKGROUND[16 : 16 + HEIGHT, 16 + camera : 16 + camera + WIDTH].copy()
    image[round(y) : round(y) + 80, round(x) : round(x) + 80] = PATCH
    return image


def box(x: float, y: float) -> np.ndarray:
    return np.array([[x / WIDTH, y / HEIGHT, (x + 80) / WIDTH, (y + 80) / HEIGHT]], np.float32)


def expanded(value: float) -> float:
    """Undo the compression of a box's rates."""
    return float(np.sign(value) * np.expm1(abs(value)) / 4)


def flow_between(first: np.ndarray, second: np.ndarray, step_s: float = 0.1) -> Flow:
    meter = FlowMeter()
    assert meter.step(first, 0.0) is None
    flow = meter.step(second, step_s)
    assert flow is not None
    return flow


def test_object_motion_gives_rate_of_patch() -> None:
    """8 px right and 4 px up in 0.1 s are 1 and -0.5 box sizes per second for a box of 80 px."""
    flow = flow_between(draw_scene(100, 60), draw_scene(108, 56))
    motion = object_motion(flow, np.concatenate([box(108, 56), box(260, 60)]))
    assert motion.dtype == np.float16
    assert motion.shape == (2, len(MOTION_COLUMNS))
    moving, still = motion.astype(float)
    assert expanded(moving[COLUMN["flow_x"]]) == pytest.approx(1.0, abs=0.1)
    assert expanded(moving[COLUMN["flow_y"]]) == pytest.approx(-0.5, abs=0.1)
    assert expanded(moving[COLUMN["speed"]]) == pytest.approx(np.hypot(1, 0.5), abs=0.1)
    assert expanded(moving[COLUMN["spread"]]) < 0.4
    assert abs(still[COLUMN["speed"]]) < 0.15
    assert moving[COLUMN["difference"]] > 5 * still[COLUMN["difference"]]


def test_object_motion_is_independent_of_step() -> None:
    slow = object_motion(flow_between(draw_scene(100, 60), draw_scene(108, 60), 0.1), box(108, 60)).astype(float)
    fast = object_motion(flow_between(draw_scene(100, 60), draw_scene(104, 60), 0.05), box(104, 60)).astype(float)
    assert expanded(slow[0, 0]) == pytest.approx(expanded(fast[0, 0]), abs=0.1)


def test_camera_motion_is_subtracted() -> None:
    """The camera pans right: the background shifts 6 px left, the patch keeps its position in the image."""
    flow = flow_between(draw_scene(150, 60), draw_scene(150, 60, camera=6))
    assert flow.camera == pytest.approx((-6 * SCALE / 0.1, 0), abs=3)
    motion = object_motion(flow, np.concatenate([box(150, 60), box(30, 100)])).astype(float)
    assert expanded(motion[0, COLUMN["flow_x"]]) == pytest.approx(6 / 80 / 0.1, abs=0.12)
    assert expanded(motion[1, COLUMN["speed"]]) < 0.1
    frame = scene_motion(flow).astype(float)
    assert np.expm1(-frame[SCENE_COLUMN["camera_x"]]) / 20 == pytest.approx(6 / WIDTH / 0.1, rel=0.1)


def test_scene_motion_locates_movement() -> None:
    frame = scene_motion(flow_between(draw_scene(20, 20), draw_scene(28, 20))).astype(float)
    assert frame.shape == (len(SCENE_MOTION_COLUMNS),)
    cells = {name: frame[i] for name, i in SCENE_COLUMN.items() if name.startswith("speed_")}
    assert max(cells, key=lambda name: cells[name]) == "speed_0_0"
    assert frame[SCENE_COLUMN["peak"]] > 3 * frame[SCENE_COLUMN["speed"]]
    assert 0.03 < frame[SCENE_COLUMN["moving"]] < 0.3


def test_motion_without_flow_is_zero() -> None:
    assert not object_motion(None, box(0, 0)).any()
    assert not scene_motion(None).any()
    assert object_motion(None, np.zeros((0, 4), np.float32)).shape == (0, len(MOTION_COLUMNS))
    meter = FlowMeter()
    meter.step(draw_scene(0, 0), 1.0)
    assert meter.step(draw_scene(8, 0), 3.5) is None, "samples more than two seconds apart are not compared"


def test_object_motion_without_objects() -> None:
    flow = flow_between(draw_scene(0, 0), draw_scene(8, 0))
    assert object_motion(flow, np.zeros((0, 4), np.float32)).shape == (0, len(MOTION_COLUMNS))


def test_object_motion_equals_sums_over_pixels() -> None:
    rng = np.random.default_rng(3)
    height, width = 108, 192
    rate = rng.standard_normal((height, width, 2)).astype(np.float32)
    grey_change = rng.integers(0, 256, (height, width), np.uint8)
    difference = grey_change / 255
    flow = Flow(rate=rate, camera=(0, 0), grey_change=grey_change)
    x0, y0, x1, y1 = 30, 24, 78, 84  # thirds and halves of this box are box_mean pixels
    boxes = np.array([[x0 / width, y0 / height, x1 / width, y1 / height]], np.float32)
    motion = object_motion(flow, boxes).astype(float)[0]
    size = np.sqrt((x1 - x0) * (y1 - y0))
    inside = rate[y0:y1, x0:x1] / size
    x, y = inside[..., 0], inside[..., 1]
    third, half = (y1 - y0) // 3, (x1 - x0) // 2
    expected = {
        "flow_x": x.mean(),
        "flow_y": y.mean(),
        "speed": np.hypot(x, y).mean(),
        "spread": np.sqrt((x**2 + y**2).mean() - x.mean() ** 2 - y.mean() ** 2),
        "widening": x[:, half:].mean() - x[:, :half].mean(),
        "heightening": y[-third:].mean() - y[:third].mean(),
        "rolling": y[:, half:].mean() - y[:, :half].mean(),
        "leaning": x[-third:].mean() - x[:third].mean(),
        "sided": np.hypot(x, y)[:, half:].mean() - np.hypot(x, y)[:, :half].mean(),
        "middle_y": y[third:-third].mean(),
        "lower_speed": np.hypot(x, y)[-third:].mean(),
    }
    for name, value in expected.items():
        assert expanded(motion[COLUMN[name]]) == pytest.approx(value, abs=2e-4), name
    box_mean = difference[y0:y1, x0:x1].mean()
    assert np.expm1(motion[COLUMN["difference"]]) / 20 == pytest.approx(box_mean, rel=2e-3)
    upper = difference[y0 : y0 + third, x0:x1].mean()
    assert np.expm1(motion[COLUMN["upper_difference"]]) / 20 == pytest.approx(upper, rel=2e-3)


def test_object_motion_of_degenerate_boxes_is_finite() -> None:
    flow = flow_between(draw_scene(0, 0), draw_scene(8, 0))
    boxes = np.array([[0, 0, 1, 1], [1, 1, 1, 1], [0.5, 0.5, 0.5, 0.9], [0.999, 0, 1, 1]], np.float32)
    assert np.isfinite(object_motion(flow, boxes)).all()


def mirrored(flow: Flow) -> Flow:
    return Flow(
        rate=flow.rate[:, ::-1] * np.array([-1, 1], np.float32),
        camera=(-flow.camera[0], flow.camera[1]),
        grey_change=np.ascontiguousarray(flow.grey_change[:, ::-1]),
    )


def test_mirror_rules_hold_for_every_column() -> None:
    flow = flow_between(draw_scene(100, 60), draw_scene(109, 55, camera=2))
    boxes = np.concatenate([box(104, 56), box(40, 90)])
    straight = object_motion(flow, boxes)
    turned = object_motion(mirrored(flow), boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0])
    ruled = straight[:, MOTION_MIRROR_COLUMN] * np.array(MOTION_MIRROR_SIGN)
    np.testing.assert_allclose(turned.astype(float), ruled.astype(float), atol=2e-3)
    frame = scene_motion(flow)[list(SCENE_MOTION_MIRROR_COLUMN)] * np.array(SCENE_MOTION_MIRROR_SIGN)
    np.testing.assert_allclose(scene_motion(mirrored(flow)).astype(float), frame.astype(float), atol=0.05)


def test_flow_is_independent_of_thread_count() -> None:
    first, second = draw_scene(100, 60), draw_scene(109, 55)
    expected = flow_between(first, second).rate
    cv2.setNumThreads(4)
    assert np.array_equal(flow_between(first, second).rate, expected)
