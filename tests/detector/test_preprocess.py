import numpy as np

from tests.videos import draw_counter
from vidgru.detector.motion import FlowMeter
from vidgru.detector.preprocess import PAD_VALUE, FramePreprocessor

UPPER_LEFT = [[[0.0, 0.0], [0.5, 0.0], [0.5, 0.5], [0.0, 0.5]]]


def test_frames_lie_in_the_letterbox() -> None:
    prepare = FramePreprocessor((160, 90), 160, 32, [])
    image = draw_counter(5, 160, 90)
    canvas, flow = prepare(image, 0.0)
    assert flow is None
    assert canvas.shape == (96, 160, 3)
    assert np.array_equal(canvas[3:93], image)
    assert (canvas[:3] == PAD_VALUE).all()
    assert (canvas[93:] == PAD_VALUE).all()


def test_what_is_masked_is_neither_seen_nor_moves() -> None:
    prepare = FramePreprocessor((160, 96), 160, 32, UPPER_LEFT)
    meter = FlowMeter()
    for number, time_s in ((0, 0.0), (1023, 0.2)):
        image = draw_counter(number, 160, 96)
        canvas, flow = prepare(image, time_s)
        assert (canvas[:47, :79] == PAD_VALUE).all()
        assert np.array_equal(canvas[49:], image[49:])
        bare = meter.step(image, time_s)
    assert flow is not None
    assert bare is not None
    height, width = flow.grey_change.shape
    corner = np.s_[: height // 2 - 2, : width // 2 - 2]
    assert (flow.grey_change[corner] == 0).all()
    assert (bare.grey_change[corner] > 0).any()
