import av
import numpy as np

from tests.videos import draw_counter, read_counter
from vidgru.video.scaling import FrameScaler


def test_scaled_frames_are_upright() -> None:
    for rotation in (0, 90, 180, 270):
        upright = draw_counter(421, 160, 96)
        stored = np.ascontiguousarray(np.rot90(upright, rotation // 90))
        scaler = FrameScaler((80, 48), rotation)
        image = scaler.upright(scaler.scale(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        assert image.shape == (48, 80, 3)
        assert read_counter(image) == 421
