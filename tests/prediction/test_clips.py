"""Every event gets a file that shows it and what is around it, on videos whose frames show their own numbers."""

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
    """Number and time of each frame of a film."""
    assert path is not None
    with av.open(str(path)) as container:
        return [
            (read_counter(frame.to_ndarray(format="rgb24")), float(frame.pts * frame.time_base))
            for frame in container.decode(video=0)
        ]


def test_a_clip_shows_its_event_and_the_context(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 300)
    found = cut_clips(tmp_path / "clips", source=source, events=[event(12.0, 14.5)], context_s=1.5)
    assert found == [tmp_path / "clips" / "001_fall_12.00s.mp4"]
    frames = shown(found[0])
    assert [number for number, _ in frames] == list(range(105, 160))
    assert [time for _, time in frames] == pytest.approx([i / 10 for i in range(55)], abs=1e-4)
    assert watch(found[0]).duration_s == pytest.approx(5.5, abs=2e-3)


def test_events_that_overlap_get_a_file_each_and_gaps_are_leapt_over(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", 600, options={"g": "25"})
    spans = [(50.0, 52.0), (1.0, 3.0), (2.0, 2.5), (2.4, 6.0), (1.5, 30.0), (1.7, 2.2), (2.1, 2.2), (41.3, 41.6)]
    events = [event(*span, label=f"label {n}") for n, span in enumerate(spans)]
    found = cut_clips(tmp_path / "clips", source=source, events=events, context_s=0.5)
    for (start, end), path in zip(spans, found, strict=True):
        truth = range(round(start * 10) - 5, round(end * 10) + 5)
        assert [number for number, _ in shown(path)] == list(truth)
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == sorted(path.name for path in found if path)


def test_the_context_ends_with_the_recording(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 50)
    found = cut_clips(tmp_path / "c", source=source, events=[event(0.5, 1.0), event(4.0, 5.0)], context_s=2)
    assert [number for number, _ in shown(found[0])] == list(range(30))
    assert [number for number, _ in shown(found[1])] == list(range(20, 50))


def test_without_context_a_clip_is_its_event(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 50, ticks=[round(i * 1000 / 30) for i in range(50)])
    found = cut_clips(tmp_path / "c", source=source, events=[event(0.333, 0.999)], context_s=0)
    assert [number for number, _ in shown(found[0])] == list(range(10, 30)), "times are told to a millisecond"


def test_uneven_frames_keep_their_times_and_the_first_is_what_was_on_screen(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 6, ticks=[0, 1000, 4000, 4100, 4500, 9000], fps=1)
    found = cut_clips(tmp_path / "c", source=source, events=[event(3.0, 4.2), event(2.0, 2.001)], context_s=0)
    assert shown(found[0]) == [(1, 0.0), (2, pytest.approx(1.0)), (3, pytest.approx(1.1))]
    assert watch(found[0]).duration_s == pytest.approx(1.2, abs=2e-3)  # type: ignore[arg-type]
    assert shown(found[1]) == [(1, 0.0)]


def test_sound_is_cut_with_the_picture(tmp_path: Path) -> None:
    source = write_flash_and_beep(tmp_path / "a.mp4", 6.0, length_s=9)
    found = cut_clips(tmp_path / "c", source=source, events=[event(5.5, 6.5), event(5.9, 6.1)], context_s=0.5)
    for path, at in zip(found, (1.0, 0.6), strict=True):
        assert path is not None
        seen = watch(path)
        assert seen.flash == pytest.approx(at, abs=1e-3)
        assert seen.heard == pytest.approx((at, at + FLASH_S), abs=0.02)


def test_clips_stand_upright(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 20)
    rotate_mp4(source, 90)
    (found,) = cut_clips(tmp_path / "c", source=source, events=[event(0.5, 1.0)], context_s=0)
    assert found is not None
    with DisplayFrameReader(source) as one, DisplayFrameReader(found) as other:
        assert other.info.rotation == 0
        assert other.size_px == one.size_px == (96, 160)
        images = [list(reader.frames((96, 160)))[n].image.astype(int) for reader, n in ((one, 5), (other, 0))]
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
def test_any_label_makes_a_file_name(label: str, name: str) -> None:
    assert clip_name(7, event(1.25, 2, label)) == name
    assert clips._NAME.fullmatch(name)


def test_clips_of_an_earlier_run_go_and_other_files_stay(tmp_path: Path) -> None:
    source, folder = write_video(tmp_path / "a.mp4", 50), tmp_path / "c"
    cut_clips(folder, source=source, events=[event(1, 2), event(3, 4)], context_s=0)
    (folder / "notes.txt").write_text("mine")
    (found,) = cut_clips(folder, source=source, events=[event(1.5, 2)], context_s=0)
    assert found is not None
    assert sorted(path.name for path in folder.iterdir()) == [found.name, "notes.txt"]
    assert cut_clips(folder, source=source, events=[], context_s=0) == []
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_no_events_make_no_folder(tmp_path: Path) -> None:
    assert cut_clips(tmp_path / "c", source=tmp_path / "gone.mp4", events=[], context_s=1) == []
    assert not (tmp_path / "c").exists()


def test_an_event_without_a_frame_has_no_clip(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 50)
    found = cut_clips(tmp_path / "c", source=source, events=[event(70, 80), event(1, 2)], context_s=0)
    assert found == [None, tmp_path / "c" / "002_fall_1.00s.mp4"]


def test_progress_is_told_and_what_it_raises_leaves_whole_clips_only(tmp_path: Path) -> None:
    source, told = write_video(tmp_path / "a.mp4", 60, audio_s=6), []

    def stop(seconds: float) -> None:
        told.append(seconds)
        if seconds > 4:
            raise KeyboardInterrupt

    events = [event(1, 2), event(3.5, 5), event(3.8, 5)]
    with pytest.raises(KeyboardInterrupt):
        cut_clips(tmp_path / "c", source=source, events=events, context_s=0, progress=stop)
    truth = [*range(11, 21), *range(36, 42)]
    assert sorted(set(told) - {0.0}) == pytest.approx([n / 10 for n in truth])
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["001_fall_1.00s.mp4"]


def test_progress_is_told_too_where_frames_are_passed_over(tmp_path: Path) -> None:
    source, told = write_video(tmp_path / "a.avi", 200, codec="mpeg4", tick=Fraction(1, 10)), []
    cut_clips(tmp_path / "c", source=source, events=[event(19, 19.5)], context_s=0, progress=told.append)
    assert told.count(0.0) >= 190, "an AVI file is not sought in"


def test_a_recording_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be opened"):
        cut_clips(tmp_path / "c", source=tmp_path / "gone.mp4", events=[event(1, 2)], context_s=0)


def test_a_recording_that_changes_leaves_whole_clips_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*c: Not a directory"):
        cut_clips(tmp_path / "c", source=write_video(tmp_path / "a.mp4", 5), events=[event(0, 1)], context_s=0)
