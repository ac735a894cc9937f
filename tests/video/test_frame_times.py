from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.videos import write_video
from vidgru.video.frame_times import packet_times


def test_packet_times_of_avi(tmp_path: Path) -> None:
    """Frames are not in the order of their packets, but timestamps of some writers are."""
    for codec in ("mpeg4", "libx264"):
        path = tmp_path / f"{codec}.avi"
        write_video(path, 30, codec=codec, tick=Fraction(1, 10), options={"bf": "2"})
        with av.open(str(path)) as container:
            num_decoded = sum(1 for _ in container.decode(video=0))
        times, tick_s, end_s = packet_times(path)
        assert len(times) == num_decoded == 30
        assert np.allclose(np.diff(times), 0.1)
        assert (tick_s, end_s) == (pytest.approx(0.1), pytest.approx(times[-1] + 0.1))
