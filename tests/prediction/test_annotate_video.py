"""Annotated videos: what is drawn where and when, and boxes between samples."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.prediction.flash_and_beep import FLASH_S, watch, write_flash_and_beep
from tests.sequences import make_sequence
from tests.video.test_writer import largest_file
from tests.videos import rotate_mp4, write_video
from vidgru.errors import OutputError, RecordingError
from vidgru.prediction.annotate_video import (
    BoxInterpolator,
    DrawnObjects,
    Overlay,
    attention_excess,
    clock_text,
    save_video,
)
from vidgru.prediction.text_render import colour
from vidgru.types import Array, Event, FrameSequence
from vidgru.video.display_frames import DisplayFrameReader

NAMES, LABELS = ("person", "car", "bag"), ("walk", "fall")
EVENT = Event(video="a.mp4", start_s=1.0, end_s=2.0, label="fall", score=0.9)
WIDTH, HEIGHT = 640, 384


def dark(number: int, width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), 40, np.uint8)


def moving(frames: int = 25, fps: float = 5.0) -> FrameSequence:
    """One tracked car, 0.2 of the frame wide, whose left edge starts at 0.1 and moves by 0.1 per second."""
    sequence = make_sequence(frames, 1, fps=fps, optional=False)
    left = 0.1 + 0.1 * sequence.time_s
    boxes = np.stack([left, np.full(frames, 0.4), left + 0.2, np.full(frames, 0.8)], axis=1).astype(np.float32)
    return replace(sequence, boxes=boxes, classes=np.ones(frames, np.int16), tracks=np.full(frames, 3, np.int32))


def save(path: Path, source: Path, *parts: FrameSequence) -> dict[float, Array]:
    """Write the annotated video, and return its frames by time."""
    rows = sum(len(part.boxes) for part in parts)
    save_video(
        path, source=source, parts=iter(parts), attention=np.ones(rows, np.float32), events=[EVENT], names=NAMES,
        labels=LABELS,
    )  # fmt: skip
    with DisplayFrameReader(path) as reader:
        return {float(picture.time): picture.image for picture in reader.frames(reader.size_px)}


def left_edge(image: Array) -> float | None:
    """Position of the box's left edge as a share of the width."""
    blue = (np.abs(image[round(0.6 * HEIGHT)].astype(int) - colour(1)).max(-1) < 60).nonzero()[0]
    return float(blue[0]) / WIDTH if len(blue) else None


def barred(image: Array) -> bool:
    return bool((image[2, WIDTH // 2] < 30).all())


def test_save_video_draws_boxes_and_bar_at_their_times(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 75, fps=25, size_px=(320, 192), draw=dark)
    frames = save(tmp_path / "o.mp4", source, moving().frames(0, 4), moving().frames(4, 15))
    assert list(frames) == pytest.approx([i / 25 for i in range(75)], abs=1e-4)
    for time_s, image in frames.items():
        assert image.shape == (HEIGHT, WIDTH, 3), "enlarged, so that labels can be read"
        assert left_edge(image) == pytest.approx(0.1 + 0.1 * min(time_s, 2.8), abs=3 / WIDTH)
        assert barred(image) is (1.0 <= round(time_s, 3) < 2.0)


def test_save_video_keeps_frame_times_rotation_and_sound(tmp_path: Path) -> None:
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


def test_save_video_keeps_sound_in_sync(tmp_path: Path) -> None:
    source = write_flash_and_beep(tmp_path / "a.mkv", sound="pcm_s16le")
    save(tmp_path / "o.mp4", source, moving())
    played = watch(tmp_path / "o.mp4")
    assert played.flash == pytest.approx(2.0, abs=1e-3)
    assert played.heard == pytest.approx((2.0, 2.0 + FLASH_S), abs=0.02)


def test_save_video_with_short_or_empty_sequence(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 75, fps=25, size_px=(320, 192), draw=dark)
    frames = list(save(tmp_path / "o.mp4", source, moving(4)).values())
    assert [left_edge(image) is None for image in (frames[15], frames[30], frames[74])] == [False, True, True]
    assert all(left_edge(image) is None for image in save(tmp_path / "o.mp4", source).values())
    assert len(frames) == 75


def test_save_video_of_damaged_recording(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", 75, fps=25, audio_s=3, codec="ffv1")
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 2 // 3])
    times = list(save(tmp_path / "o.mp4", source, moving()))
    assert 30 < len(times) < 70
    assert times == pytest.approx([i / 25 for i in range(len(times))], abs=1e-4)


def test_save_video_reports_progress(tmp_path: Path) -> None:
    source, seconds = write_video(tmp_path / "a.mp4", 10), []
    nothing = np.zeros(0, np.float32)
    save_video(
        tmp_path / "o.mp4", source=source, parts=(), attention=nothing, events=(), names=(), labels=(),
        progress=seconds.append,
    )  # fmt: skip
    assert seconds == pytest.approx([(i + 1) / 10 for i in range(10)])


def test_save_video_leaves_nothing_when_interrupted(tmp_path: Path) -> None:
    source, positions = write_video(tmp_path / "a.mp4", 40, audio_s=4), []

    def stop(seconds: float) -> None:
        positions.append(seconds)
        if seconds > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_video(
            tmp_path / "out" / "o.mp4", source=source, parts=(), attention=np.zeros(0, np.float32), events=(),
            names=(), labels=(), progress=stop,
        )  # fmt: skip
    assert len(positions) == 21
    assert list((tmp_path / "out").iterdir()) == []


def test_save_video_of_missing_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be opened: No such file"):
        save(tmp_path / "out" / "o.mp4", tmp_path / "gone.mp4", moving())
    assert not (tmp_path / "out").exists()


def test_save_video_on_full_disk(tmp_path: Path) -> None:
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
def test_save_video_uses_constant_memory(tmp_path: Path) -> None:
    """Tracks and attention change from frame to frame, so there are new labels all the time."""

    def peak_mb(seconds: int) -> int:
        source = write_video(tmp_path / f"{seconds}.mp4", 25 * seconds, fps=25, size_px=(640, 360), audio_s=seconds)
        command = [sys.executable, "-c", PEAK, str(source), str(tmp_path / "o.mp4"), str(seconds)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert peak_mb(80) < 1.15 * peak_mb(20)


# --- boxes between samples, against closed form ---------------------------------------------------------------------


FPS = 4.0


def crossing(frames: int = 8, *, tracks: tuple[int, ...] = (7, -1)) -> FrameSequence:
    """Objects that move 0.02 to the right per sample, one below the other."""
    n = len(tracks)
    sequence = make_sequence(frames, n, fps=FPS, optional=False)
    left = np.repeat(0.1 + 0.02 * np.arange(frames), n)
    top = np.tile(np.arange(n) * 0.2, frames)
    boxes = np.stack([left, top, left + 0.1, top + 0.1], axis=1).astype(np.float32)
    return replace(sequence, boxes=boxes, tracks=np.tile(np.array(tracks, np.int32), frames))


def rising(sequence: FrameSequence) -> np.ndarray:
    """Attention that moves from the second of two objects to the first, 0.1 per sample."""
    first = 0.1 * np.arange(len(sequence))
    return np.stack([first, 1 - first], axis=1).reshape(-1).astype(np.float32)


def test_interpolator_moves_tracked_boxes_linearly() -> None:
    sequence = crossing()
    interpolator = BoxInterpolator([sequence], rising(sequence))
    for time_s in np.arange(0, 1.75, 0.05):
        objects = interpolator.at(float(time_s))
        steps = time_s * FPS
        assert objects.boxes[0, 0] == pytest.approx(0.1 + 0.02 * steps, abs=1e-6)
        assert objects.boxes[1, 0] == pytest.approx(0.1 + 0.02 * np.floor(steps + 1e-9), abs=1e-6)
        assert objects.attention[0] == pytest.approx(0.1 * steps, abs=1e-6)
    assert len(interpolator.at(0.8)) == 2


def test_interpolator_does_not_depend_on_parts() -> None:
    sequence = crossing(9)
    attention = rising(sequence)
    whole = BoxInterpolator([sequence], attention)
    cut = BoxInterpolator(
        [sequence.frames(0, 1), sequence.frames(1, 4), sequence.frames(4, 4), sequence.frames(4, 9)], attention
    )
    for time_s in np.arange(0, 3, 0.03):
        first, second = whole.at(float(time_s)), cut.at(float(time_s))
        assert np.array_equal(first.boxes, second.boxes)
        assert np.array_equal(first.attention, second.attention)


def test_interpolator_does_not_modify_samples() -> None:
    sequence = crossing()
    before = sequence.boxes.copy()
    BoxInterpolator([sequence], rising(sequence)).at(0.1)
    assert np.array_equal(sequence.boxes, before)


def test_interpolator_is_empty_outside_the_samples() -> None:
    sequence = crossing(3)
    late = replace(sequence, time_s=sequence.time_s + 1)
    interpolator = BoxInterpolator([late], rising(late))
    assert [len(interpolator.at(time_s)) for time_s in (0, 0.99, 1, 1.5, 1.7, 2.0, 2.01, 9)] == [0, 0, 2, 2, 2, 2, 0, 0]


def test_interpolator_stops_at_gaps() -> None:
    sequence = crossing(4)
    gap = replace(sequence, time_s=np.array([0, 0.25, 5, 5.25]))
    interpolator = BoxInterpolator([gap], rising(gap))
    assert interpolator.at(0.5).boxes[0, 0] == pytest.approx(0.12)
    assert len(interpolator.at(2.0)) == 0
    assert interpolator.at(5.125).boxes[0, 0] == pytest.approx(0.15)


def test_interpolator_with_starting_and_ending_tracks() -> None:
    first, second = crossing(2, tracks=(1, 2)).frames(0, 1), crossing(2, tracks=(2, 3)).frames(1, 2)
    interpolator = BoxInterpolator([first, second], np.full(4, 0.5, np.float32))
    assert interpolator.at(0.125).tracks.tolist() == [1, 2]
    assert interpolator.at(0.125).boxes[1].tolist() == pytest.approx([0.11, 0.1, 0.21, 0.2])  # from row 1 up to row 0
    assert interpolator.at(0.25).tracks.tolist() == [2, 3]


def test_interpolator_without_objects_or_samples() -> None:
    assert len(BoxInterpolator([make_sequence(3, 0)], np.zeros(0, np.float32)).at(0.2)) == 0
    assert len(BoxInterpolator([], np.zeros(0, np.float32)).at(0.2)) == 0


def test_interpolator_rejects_attention_of_wrong_length() -> None:
    with pytest.raises(ValueError, match="attention has 3 rows"):
        BoxInterpolator([crossing()], np.ones(3, np.float32)).at(1.0)


# --- what is drawn is where it should be, at the time it should be there --------------------------------------------


SIZE = (640, 400)
GREY = 128


def objects(
    *boxes: tuple[float, float, float, float], attention: tuple[float, ...] = (), **values: object
) -> DrawnObjects:
    n = len(boxes)
    return DrawnObjects(
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        scores=np.asarray(values.get("scores", (0.9,) * n), np.float16),
        classes=np.asarray(values.get("classes", range(n)), np.int16),
        tracks=np.asarray(values.get("tracks", range(n)), np.int32),
        attention=np.asarray(attention or (1 / max(n, 1),) * n, np.float32),
    )


def event(start_s: float, end_s: float, label: str = "fall", score: float = 0.9, **facts: Any) -> Event:
    return Event(video="a.mp4", start_s=start_s, end_s=end_s, label=label, score=score, **facts)


def drawn(shown: DrawnObjects, *events: Event, time_s: float = 1.0, size_px: tuple[int, int] = SIZE) -> np.ndarray:
    overlay = Overlay(size_px=size_px, names=("person", "car", "bag"), labels=("fall", "walk", "run"), events=events)
    image = np.full((*size_px[::-1], 3), GREY, np.uint8)
    overlay.draw(image, time_s, shown)
    return image


def lines(image: np.ndarray) -> int:
    """Number of captions in the bar; each is a strip of one dark colour."""
    dark = (image[:, 7] == (24, 24, 24)).all(-1)
    return int((np.diff(dark.astype(int), prepend=0) == 1).sum())


def near(pixel: np.ndarray, shade: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - shade).max() <= 3)


def bar(image: np.ndarray) -> bool:
    """Whether the top edge is darkened in the middle, where no label is."""
    return bool((image[1, SIZE[0] // 2] < GREY - 40).all())


def test_overlay_draws_box_edges_in_class_colour() -> None:
    image = drawn(objects((0.25, 0.5, 0.5, 0.75), classes=(2,)))
    left, top, right, bottom = 160, 200, 320, 300
    for x, y in ((left, 250), (right, 250), (240, top), (240, bottom)):
        assert near(image[y, x], colour(2))
    assert near(image[250, 240], (GREY,) * 3), "the inside is not drawn on"
    rows, columns = np.nonzero((image != GREY).any(-1) & (np.arange(SIZE[1]) > 60)[:, None])  # without the time
    assert (rows.min() >= top - 30, columns.min() >= left - 8) == (True, True)
    assert (rows.max() <= bottom + 4, columns.max() <= right + 4) == (True, True)


def test_overlay_highlights_attended_objects() -> None:
    two = ((0.1, 0.4, 0.3, 0.8), (0.6, 0.4, 0.8, 0.8))
    equal, first = drawn(objects(*two)), drawn(objects(*two, attention=(0.9, 0.1)))
    x, y = 128, 240
    assert near(equal[y, x], (GREY,) * 3)
    assert np.abs(first[y, x].astype(int) - GREY).max() > 15, "tinted in its colour"
    assert near(first[y, 448], (GREY,) * 3), "the other is not"
    shade = [(np.abs(image[y].astype(int) - colour(0)).max(-1) <= 3).sum() for image in (equal, first)]
    assert shade[1] > shade[0], "thicker edges"
    strip = slice(160 - 18, 160 - 1)
    assert not np.array_equal(equal[strip, :260], first[strip, :260]), "its label shows the share"


def test_overlay_does_not_highlight_single_object() -> None:
    box = (0.1, 0.4, 0.3, 0.8)
    assert near(drawn(objects(box, attention=(1.0,)))[240, 128], (GREY,) * 3)


@pytest.mark.parametrize(
    ("attention", "beyond"),
    [
        ((), ()),
        ((1.0,), (0.0,)),
        ((0.5, 0.5), (0.0, 0.0)),
        ((1.0, 0.0), (1.0, 0.0)),
        ((0.75, 0.25), (0.5, 0.0)),
        ((0.4, 0.2, 0.2, 0.2), (0.2, 0.0, 0.0, 0.0)),
    ],
)
def test_attention_excess(attention: tuple[float, ...], beyond: tuple[float, ...]) -> None:
    assert attention_excess(np.array(attention, np.float32)).tolist() == pytest.approx(beyond, abs=1e-6)


def test_overlay_draws_low_scores_with_track_or_attention() -> None:
    box, away = (0.1, 0.5, 0.3, 0.8), (0.8, 0.9, 0.9, 0.95)
    edge = (260, 64)

    def is_drawn(**values: object) -> bool:
        return not near(drawn(objects(box, away, **values))[edge], (GREY,) * 3)

    assert is_drawn(scores=(0.3, 0.9), tracks=(-1, -1))
    assert not is_drawn(scores=(0.12, 0.9), tracks=(-1, -1))
    assert is_drawn(scores=(0.12, 0.9), tracks=(5, -1))
    assert is_drawn(scores=(0.12, 0.9), tracks=(-1, -1), attention=(0.9, 0.1))


def test_overlay_draws_bar_during_events() -> None:
    nothing = objects()
    for time_s, there in ((0.99, False), (1.0, True), (2.49, True), (2.5, False)):
        assert bar(drawn(nothing, event(1, 2.5), time_s=time_s)) is there
    assert near(drawn(nothing, event(1, 2.5))[10, 8], colour(0)), "the label in its colour"
    assert near(drawn(nothing, event(1, 2.5, "walk"))[10, 8], colour(1))


def test_overlay_always_draws_the_time() -> None:
    images = [drawn(objects(), time_s=time_s) for time_s in (1.0, 1.05, 1.1)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[1], images[2])
    assert (images[0][:, : SIZE[0] // 2] == GREY).all()


def test_overlay_arranges_simultaneous_events() -> None:
    few = drawn(objects(), event(0, 3), event(0, 3, "walk"))
    assert near(few[10, 8], colour(0))
    assert any(near(few[10, x], colour(1)) for x in range(60, 250))
    many = drawn(objects(), *(event(0, 3, label) for label in ("a" * 30, "b" * 30, "run", "walk")))
    height = [int((image[:, -2] < GREY - 40).all(-1).sum()) for image in (few, many)]
    assert height[1] > 1.5 * height[0]


def test_overlay_draws_captions_below_labels() -> None:
    captioned = event(1, 2.5, description="A person in red comes\nfrom the left")
    assert [lines(drawn(objects(), captioned, time_s=time_s)) for time_s in (0.99, 1.0, 2.49, 2.5)] == [0, 1, 1, 0]
    assert near(drawn(objects(), captioned)[10, 8], colour(0)), "the label is still there"
    marked = drawn(objects(), replace(captioned, description_source="template"))
    assert lines(marked) == 1
    assert not np.array_equal(marked, drawn(objects(), captioned)), "templates are in brackets"
    crowd = [event(0, 3, score=n / 10, description=f"Number {n} " * 20) for n in range(9)]
    whole = drawn(objects(), *crowd)
    assert lines(whole) == 2, "at most two, so that the picture stays visible"
    assert np.array_equal(whole[100:], drawn(objects(), *reversed(crowd))[100:])
    best = drawn(objects(), *(replace(e, description=None) if e.score < 0.65 else e for e in crowd))
    assert np.array_equal(whole, best), "the best scored are shown"


def test_overlay_moves_names_below_the_bar() -> None:
    image = drawn(objects((0.2, 0.0, 0.9, 0.9)), event(0, 3))
    assert (image[2, 140:500] < GREY).all(), "nothing is drawn over the bar"
    assert any(near(image[y, 132], colour(0)) for y in range(22, 50))


@pytest.mark.parametrize("size_px", [(2, 2), (16, 16), (64, 640), (1920, 1080), (4096, 20)])
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.99, 0.99, 1, 1), (0, 0, 0, 0), (0.3, 0.3, 0.30001, 0.9)])
def test_overlay_handles_tiny_frames_and_boxes(
    size_px: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    shown = objects(box, (0.5, 0.5, 0.6, 0.6), classes=(99, -1), attention=(0.9, 0.1))
    assert drawn(shown, event(0, 3, "Stürzt über den Stuhl"), size_px=size_px).shape == (*size_px[::-1], 3)


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(0, "0:00.0"), (5.04, "0:05.0"), (59.99, "0:59.9"), (60, "1:00.0"), (754.5, "12:34.5"), (3723.4, "1:02:03.4")],
)
def test_clock_text(time_s: float, text: str) -> None:
    assert clock_text(time_s) == text
