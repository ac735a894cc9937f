"""Clips of events, cut from videos whose frames show their own numbers."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.prediction.flash_and_beep import FLASH_S, watch, write_flash_and_beep
from tests.videos import read_counter, rotate_mp4, write_video
from vidgru.errors import OutputError, RecordingError
from vidgru.prediction import clips
from vidgru.prediction.clips import clip_name, cut_clips
from vidgru.types import Event
from vidgru.video.display_frames import DisplayFrameReader


def event(start_s: float, end_s: float, label: str = "fall") -> Event:
    return Event(video="a.mp4", start_s=start_s, end_s=end_s, label=label, score=0.9)


def shown(path: Path | None) -> list[tuple[int, float]]:
    """Number and time of each frame of a video."""
    assert path is not None
    with av.open(str(path)) as container:
        return [
            (read_counter(frame.to_ndarray(format="rgb24")), float(frame.pts * frame.time_base))
            for frame in container.decode(video=0)
        ]


def test_clip_shows_event_and_context(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 300)
    paths = cut_clips(tmp_path / "clips", source=source, events=[event(12.0, 14.5)], context_s=1.5)
    assert paths == [tmp_path / "clips" / "001_fall_12.00s.mp4"]
    frames = shown(paths[0])
    assert [number for number, _ in frames] == list(range(105, 160))
    assert [time for _, time in frames] == pytest.approx([i / 10 for i in range(55)], abs=1e-4)
    assert watch(paths[0]).duration_s == pytest.approx(5.5, abs=2e-3)


def test_clips_of_overlapping_events_and_across_gaps(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", 600, options={"g": "25"})
    spans = [(50.0, 52.0), (1.0, 3.0), (2.0, 2.5), (2.4, 6.0), (1.5, 30.0), (1.7, 2.2), (2.1, 2.2), (41.3, 41.6)]
    events = [event(*span, label=f"label {n}") for n, span in enumerate(spans)]
    paths = cut_clips(tmp_path / "clips", source=source, events=events, context_s=0.5)
    for (start, end), path in zip(spans, paths, strict=True):
        truth = range(round(start * 10) - 5, round(end * 10) + 5)
        assert [number for number, _ in shown(path)] == list(truth)
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == sorted(path.name for path in paths if path)


def test_clip_context_ends_with_the_recording(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 50)
    paths = cut_clips(tmp_path / "c", source=source, events=[event(0.5, 1.0), event(4.0, 5.0)], context_s=2)
    assert [number for number, _ in shown(paths[0])] == list(range(30))
    assert [number for number, _ in shown(paths[1])] == list(range(20, 50))


def test_clip_without_context_is_its_event(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 50, ticks=[round(i * 1000 / 30) for i in range(50)])
    paths = cut_clips(tmp_path / "c", source=source, events=[event(0.333, 0.999)], context_s=0)
    assert [number for number, _ in shown(paths[0])] == list(range(10, 30)), "times are positions to a millisecond"


def test_clip_keeps_frame_times_and_starts_on_screen(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 6, ticks=[0, 1000, 4000, 4100, 4500, 9000], fps=1)
    paths = cut_clips(tmp_path / "c", source=source, events=[event(3.0, 4.2), event(2.0, 2.001)], context_s=0)
    assert shown(paths[0]) == [(1, 0.0), (2, pytest.approx(1.0)), (3, pytest.approx(1.1))]
    assert watch(paths[0]).duration_s == pytest.approx(1.2, abs=2e-3)  # type: ignore[arg-type]
    assert shown(paths[1]) == [(1, 0.0)]


def test_clip_has_matching_sound(tmp_path: Path) -> None:
    source = write_flash_and_beep(tmp_path / "a.mp4", 6.0, length_s=9)
    paths = cut_clips(tmp_path / "c", source=source, events=[event(5.5, 6.5), event(5.9, 6.1)], context_s=0.5)
    for path, at in zip(paths, (1.0, 0.6), strict=True):
        assert path is not None
        played = watch(path)
        assert played.flash == pytest.approx(at, abs=1e-3)
        assert played.heard == pytest.approx((at, at + FLASH_S), abs=0.02)


def test_clip_is_upright(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 20)
    rotate_mp4(source, 90)
    (path,) = cut_clips(tmp_path / "c", source=source, events=[event(0.5, 1.0)], context_s=0)
    assert path is not None
    with DisplayFrameReader(source) as original, DisplayFrameReader(path) as clip:
        assert clip.info.rotation == 0
        assert clip.size_px == original.size_px == (96, 160)
        images = [list(reader.frames((96, 160)))[n].image.astype(int) for reader, n in ((original, 5), (clip, 0))]
    assert np.abs(images[0] - images[1]).mean() < 4


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("fall", "007_fall_1.25s.mp4"),
        ("Stürzt / größer: *?", "007_Stürzt-größer_1.25s.mp4"),
        ("../../etc", "007_etc_1.25s.mp4"),
        ("跌倒", "007_跌倒_1.25s.mp4"),
        ("***", "007_event_1.25s.mp4"),
        ("x" * 300, f"007_{'x' * 40}_1.25s.mp4"),
    ],
)
def test_clip_name_of_any_label(label: str, name: str) -> None:
    assert clip_name(7, event(1.25, 2, label)) == name
    assert clips._NAME.fullmatch(name)


def test_cut_clips_deletes_only_earlier_clips(tmp_path: Path) -> None:
    source, folder = write_video(tmp_path / "a.mp4", 50), tmp_path / "c"
    cut_clips(folder, source=source, events=[event(1, 2), event(3, 4)], context_s=0)
    (folder / "notes.txt").write_text("mine")
    (path,) = cut_clips(folder, source=source, events=[event(1.5, 2)], context_s=0)
    assert path is not None
    assert sorted(file.name for file in folder.iterdir()) == [path.name, "notes.txt"]
    assert cut_clips(folder, source=source, events=[], context_s=0) == []
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_cut_clips_without_events_makes_no_folder(tmp_path: Path) -> None:
    assert cut_clips(tmp_path / "c", source=tmp_path / "gone.mp4", events=[], context_s=1) == []
    assert not (tmp_path / "c").exists()


def test_cut_clips_skips_events_without_frames(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 50)
    paths = cut_clips(tmp_path / "c", source=source, events=[event(70, 80), event(1, 2)], context_s=0)
    assert paths == [None, tmp_path / "c" / "002_fall_1.00s.mp4"]


def test_cut_clips_keeps_only_finished_when_interrupted(tmp_path: Path) -> None:
    source, positions = write_video(tmp_path / "a.mp4", 60, audio_s=6), []

    def stop(seconds: float) -> None:
        positions.append(seconds)
        if seconds > 4:
            raise KeyboardInterrupt

    events = [event(1, 2), event(3.5, 5), event(3.8, 5)]
    with pytest.raises(KeyboardInterrupt):
        cut_clips(tmp_path / "c", source=source, events=events, context_s=0, progress=stop)
    truth = [*range(11, 21), *range(36, 42)]
    assert sorted(set(positions) - {0.0}) == pytest.approx([n / 10 for n in truth])
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["001_fall_1.00s.mp4"]


def test_cut_clips_reports_progress_while_skipping(tmp_path: Path) -> None:
    source, positions = write_video(tmp_path / "a.avi", 200, codec="mpeg4", tick=Fraction(1, 10)), []
    cut_clips(tmp_path / "c", source=source, events=[event(19, 19.5)], context_s=0, progress=positions.append)
    assert positions.count(0.0) >= 190, "AVI files are not seeked"


def test_cut_clips_of_missing_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be opened"):
        cut_clips(tmp_path / "c", source=tmp_path / "gone.mp4", events=[event(1, 2)], context_s=0)


def test_cut_clips_of_changing_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_video(tmp_path / "a.mp4", 50)
    original = clips.VideoWriter.write

    def touching(self: clips.VideoWriter, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        with open(source, "ab") as file:
            file.write(b"more")

    monkeypatch.setattr(clips.VideoWriter, "write", touching)
    with pytest.raises(RecordingError, match="changed while it was read"):
        cut_clips(tmp_path / "c", source=source, events=[event(1, 2), event(1, 9)], context_s=0)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["001_fall_1.00s.mp4"]


def test_cut_clips_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*c: Not a directory"):
        cut_clips(tmp_path / "c", source=write_video(tmp_path / "a.mp4", 5), events=[event(0, 1)], context_s=0)
