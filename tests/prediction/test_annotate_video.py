"""A recording as an annotated film: read back, boxes and bar are there when and where they should be."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from tests.prediction.flash_and_beep import FLASH_S, watch, write_flash_and_beep
from tests.sequences import make_sequence
from tests.video.test_writer import largest_file
from tests.videos import rotate_mp4, write_video
from vidgru.errors import OutputError, RecordingError
from vidgru.prediction.annotate_video import save_video
from vidgru.prediction.text_render import colour
from vidgru.types import Array, Event, FrameSequence
from vidgru.video.display_frames import DisplayFrameReader

NAMES, LABELS = ("person", "car", "bag"), ("walk", "fall")
EVENT = Event(video="a.mp4", start_s=1.0, end_s=2.0, label="fall", score=0.9)
WIDTH, HEIGHT = 640, 384


def dark(number: int, width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), 40, np.uint8)


def moving(frames: int = 25, fps: float = 5.0) -> FrameSequence:
    """One tracked car, 0.2 of the picture wide, whose left edge is at 0.1 + 0.1 a second."""
    sequence = make_sequence(frames, 1, fps=fps, optional=False)
    left = 0.1 + 0.1 * sequence.time_s
    boxes = np.stack([left, np.full(frames, 0.4), left + 0.2, np.full(frames, 0.8)], axis=1).astype(np.float32)
    return replace(sequence, boxes=boxes, classes=np.ones(frames, np.int16), tracks=np.full(frames, 3, np.int32))


def save(path: Path, source: Path, *parts: FrameSequence) -> dict[float, Array]:
    """Frames of the film by their time."""
    rows = sum(len(part.boxes) for part in parts)
    save_video(
        path, source=source, parts=iter(parts), attention=np.ones(rows, np.float32), events=[EVENT], names=NAMES,
        labels=LABELS,
    )  # fmt: skip
    with DisplayFrameReader(path) as reader:
        return {float(picture.time): picture.image for picture in reader.frames(reader.size_px)}


def left_edge(image: Array) -> float | None:
    """Where the box's left edge is, as a share of the width, on a line through its middle."""
    blue = (np.abs(image[round(0.6 * HEIGHT)].astype(int) - colour(1)).max(-1) < 60).nonzero()[0]
    return float(blue[0]) / WIDTH if len(blue) else None


def barred(image: Array) -> bool:
    return bool((image[2, WIDTH // 2] < 30).all())


def test_boxes_move_with_the_frames_and_the_bar_is_there_during_the_event(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 75, fps=25, size_px=(320, 192), draw=dark)
    frames = save(tmp_path / "o.mp4", source, moving().frames(0, 4), moving().frames(4, 15))
    assert list(frames) == pytest.approx([i / 25 for i in range(75)], abs=1e-4)
    for time_s, image in frames.items():
        assert image.shape == (HEIGHT, WIDTH, 3), "enlarged, so that labels can be read"
        assert left_edge(image) == pytest.approx(0.1 + 0.1 * min(time_s, 2.8), abs=3 / WIDTH)
        assert barred(image) is (1.0 <= round(time_s, 3) < 2.0)


def test_uneven_frames_rotation_and_sound(tmp_path: Path) -> None:
    ticks = [0, 40, 500, 1000, 1500, 1700, 2500, 2600, 3300]
    source = write_video(tmp_path / "a.mp4", len(ticks), ticks=ticks, size_px=(192, 320), draw=dark, audio_s=3)
    rotate_mp4(source, 90)
    frames = save(tmp_path / "o.mp4", source, moving())
    assert list(frames) == pytest.approx([tick / 1000 for tick in ticks], abs=1e-4)
    for time_s, image in frames.items():
        assert image.shape == (HEIGHT, WIDTH, 3)
        assert left_edge(image) == pytest.approx(0.1 + 0.1 * time_s, abs=3 / WIDTH)
        assert barred(image) is (1.0 <= round(time_s, 3) < 2.0)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0
        assert container.streams.audio[0].codec_context.name == "aac"


def test_flash_and_beep_stay_together(tmp_path: Path) -> None:
    source = write_flash_and_beep(tmp_path / "a.mkv", sound="pcm_s16le")
    save(tmp_path / "o.mp4", source, moving())
    found = watch(tmp_path / "o.mp4")
    assert found.flash == pytest.approx(2.0, abs=1e-3)
    assert found.heard == pytest.approx((2.0, 2.0 + FLASH_S), abs=0.02)


def test_a_sequence_that_ends_early_or_saw_nothing(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 75, fps=25, size_px=(320, 192), draw=dark)
    frames = list(save(tmp_path / "o.mp4", source, moving(4)).values())
    assert [left_edge(image) is None for image in (frames[15], frames[30], frames[74])] == [False, True, True]
    assert all(left_edge(image) is None for image in save(tmp_path / "o.mp4", source).values())
    assert len(frames) == 75


def test_of_a_damaged_recording_there_is_what_can_be_decoded(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", 75, fps=25, audio_s=3, codec="ffv1")
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 2 // 3])
    times = list(save(tmp_path / "o.mp4", source, moving()))
    assert 30 < len(times) < 70
    assert times == pytest.approx([i / 25 for i in range(len(times))], abs=1e-4)


def test_progress_is_told(tmp_path: Path) -> None:
    source, seconds = write_video(tmp_path / "a.mp4", 10), []
    nothing = np.zeros(0, np.float32)
    save_video(
        tmp_path / "o.mp4", source=source, parts=(), attention=nothing, events=(), names=(), labels=(),
        progress=seconds.append,
    )  # fmt: skip
    assert seconds == pytest.approx([(i + 1) / 10 for i in range(10)])


def test_what_progress_raises_ends_the_film_and_nothing_is_left(tmp_path: Path) -> None:
    source, told = write_video(tmp_path / "a.mp4", 40, audio_s=4), []

    def stop(seconds: float) -> None:
        told.append(seconds)
        if seconds > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_video(
            tmp_path / "out" / "o.mp4", source=source, parts=(), attention=np.zeros(0, np.float32), events=(),
            names=(), labels=(), progress=stop,
        )  # fmt: skip
    assert len(told) == 21
    assert list((tmp_path / "out").iterdir()) == []


def test_a_recording_that_is_gone_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be opened: No such file"):
        save(tmp_path / "out" / "o.mp4", tmp_path / "gone.mp4", moving())
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 50)
    with largest_file(3000), pytest.raises(OutputError, match=r"cannot write .*o\.mp4"):
        save(tmp_path / "out" / "o.mp4", source, moving())
    assert list((tmp_path / "out").iterdir()) == []


PEAK = """
import resource, sys
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from tests.sequences import make_sequence
from vidgru.prediction.annotate_video import save_video

def parts(seconds):
    for start in range(0, seconds, 5):
        part = make_sequence(40, 4, seed=start, optional=False)
        yield replace(part, time_s=part.time_s + start, tracks=part.tracks + start)

source, out, seconds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
attention = np.random.default_rng(0).dirichlet(np.ones(4), 8 * seconds).astype(np.float32).reshape(-1)
save_video(out, source=source, parts=parts(seconds), attention=attention, events=(), names=("a",), labels=())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """Objects come and go, and their shares of the attention change from frame to frame: new labels all the time."""

    def peak_mb(seconds: int) -> int:
        source = write_video(tmp_path / f"{seconds}.mp4", 25 * seconds, fps=25, size_px=(640, 360), audio_s=seconds)
        command = [sys.executable, "-c", PEAK, str(source), str(tmp_path / "o.mp4"), str(seconds)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert peak_mb(80) < 1.15 * peak_mb(20)
