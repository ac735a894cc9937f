"""Annotations compared with recordings: durations, frame times, samples, copies."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.annotation_files import csv_set, write_set
from tests.videos import write_video
from vidgru.config import ConvertConfig
from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.convert import convert
from vidgru.datasets.dataset import Dataset
from vidgru.datasets.recording_checks import check_recordings
from vidgru.errors import AnnotationError

FRAMES = "video,label,start_frame,end_frame"


def frame_set(folder: Path, rows: str, fps: float) -> Dataset:
    """The dataset of a CSV that counts frames; its videos lie in `videos/`."""
    write_set(folder, f"{FRAMES}\n{rows}", name="x.csv", videos="")
    (folder / "set.yaml").write_text(f"annotations: x.csv\nfps: {fps}\n")
    return load_dataset(folder / "set.yaml")


def checked(dataset: Dataset, length_s: float = 60.0, fps: float = 8.0) -> Dataset:
    return check_recordings(dataset, dict.fromkeys(dataset.recordings, length_s), fps)


# --- durations ------------------------------------------------------------------------------------------------------


def test_check_recordings_clips_late_ends(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,1,6,walk,,", "b.mp4,1,6,walk,,", "c.mp4,1,6,walk,,", "d.mp4,,,walk,,")
    result = check_recordings(dataset, {"a.mp4": 6.0, "b.mp4": 5.5, "d.mp4": 2.0}, 8)
    assert [note.end_s for note in result.annotations] == [6.0, 5.5, 6.0, None]
    assert result.warnings == ("1 end past the end of the recording, clipped (line 3: b.mp4 ends at 5.50 s, not 6)",)
    assert result.durations == {"a.mp4": 6.0, "b.mp4": 5.5, "d.mp4": 2.0}
    assert dataset.annotations[1].end_s == 6.0


def test_check_recordings_rejects_late_starts(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,1,6,walk,,", "b.mp4,5.5,6,walk,,", "a.mp4,60,61,walk,,")
    with pytest.raises(
        AnnotationError, match=r"2 bad entries\n  line 3: start 5.5 s is past the end of b.mp4 \(5.50 s\)"
    ):
        check_recordings(dataset, {"a.mp4": 6.0, "b.mp4": 5.5}, 8)


def test_events_longer_than_the_recording(tmp_path: Path) -> None:
    warning = checked(csv_set(tmp_path, "a.mp4,5,1700,walk,,"), 9.0).warnings[0]
    assert warning.endswith("1 are longer than it: are the times milliseconds, or frames?")


def test_durations_that_differ_from_the_annotations(tmp_path: Path) -> None:
    dataset = replace(csv_set(tmp_path, "a.mp4,1,3,walk,,", "b.mp4,1,3,walk,,"), durations={"a.mp4": 12, "b.mp4": 60.9})
    message = "1 recording of another duration than annotated (first: a.mp4 has 60.0 s, the annotations say 12.0 s)"
    assert [warning.startswith(message) for warning in checked(dataset).warnings] == [True]


def test_whole_recordings_of_minutes(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,,,walk,,", "b.mp4,,,fall,,")
    message = "every label is about a whole recording, 300 s on average; events within need start,end"
    assert checked(dataset, 300).warnings == (message,)
    assert checked(dataset, 30).warnings == ()


# --- samples --------------------------------------------------------------------------------------------------------


def test_events_between_two_samples(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,1.02,1.1,walk,,", "b.mp4,1,3,walk,,", "c.mp4,,,,,")
    assert checked(dataset).warnings == (
        "1 of 2 events between two samples at 8 per second (first: line 2, 1.02 to 1.1 s), so they can hardly be "
        "learnt; correct their times, or raise --fps",
    )
    assert checked(dataset, fps=25).warnings == ()


@pytest.mark.parametrize(
    ("start", "end", "remedy"),
    [
        (
            "0.0034722",
            "0.0039352",
            "if the times come from Excel, they are shares of a day .* is 40 s.*by 86400",
        ),
        ("1.02", "1.1", "raise --fps to 12.5 or more"),
        ("0.1000001", "0.1000002", "write seconds, or HH:MM:SS"),
    ],
)
def test_no_event_with_a_sample(tmp_path: Path, start: str, end: str, remedy: str) -> None:
    dataset = csv_set(tmp_path, f"a.mp4,{start},{end},walk,,", f"b.mp4,{start},{end},fall,,", "c.mp4,,,,,")
    with pytest.raises(AnnotationError, match=f"no sample at 8 per second falls into any of its 2 .*\n  {remedy}"):
        checked(dataset)


def test_shares_of_a_day_among_other_times(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, "a.mp4,0.0000115,0.0000347,walk,,", "b.mp4,1,3,walk,,", "c.mp4,,,,,")
    assert (
        checked(dataset).warnings[0].endswith("some are shares of a day, as Excel saves times: multiply these by 86400")
    )


def test_events_all_in_the_first_second(tmp_path: Path) -> None:
    rows = ("a.mp4,0.0416667,0.25,walk,,", "b.mp4,0.125,0.9,walk,,", "c.mp4,0,0.5,walk,,")
    message = "all 3 events are within the first second of their recordings: are the times shares of a day (of Excel)"
    assert checked(csv_set(tmp_path, *rows), 60).warnings[-1].startswith(message)
    assert checked(csv_set(tmp_path, *rows), 2).warnings == ()
    assert checked(csv_set(tmp_path, *rows, "d.mp4,3,4,walk,,"), 60).warnings == ()


# --- frame times ----------------------------------------------------------------------------------------------------


def test_frames_of_a_variable_rate(tmp_path: Path) -> None:
    ticks = [*range(0, 1000, 100), *range(1000, 6000, 500)]  # 10 a second, then 2
    write_video(tmp_path / "videos" / "a.mkv", 20, ticks=ticks)
    dataset = frame_set(tmp_path, "a.mkv,walk,12,14\na.mkv,fall,18,20\n", 10)
    assert [(a.start_s, a.end_s) for a in dataset.annotations] == [(1.2, 1.4), (1.8, 2.0)]
    result = checked(dataset, 6.0)
    assert [a.start_s for a in result.annotations] == [2.0, 5.0]
    assert [a.end_s for a in result.annotations] == [3.0, pytest.approx(6.0, abs=0.5)]
    assert result.warnings == ("a.mkv has a variable frame rate: the times of its frames are used, not frame / 10",)
    messages = convert(tmp_path / "set.yaml", tmp_path / "out.csv", ConvertConfig())
    assert "a.mkv,2.0,3.0,walk" in (tmp_path / "out.csv").read_text()
    assert messages[-1] == result.warnings[0]


def test_frames_of_another_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", 30, fps=10, tick=Fraction(1, 10))
    wrong = checked(frame_set(tmp_path, "a.mp4,walk,10,20\n", 30), 3.0)
    assert (wrong.annotations[0].start_s, wrong.annotations[0].end_s) == (1.0, 2.0)
    assert wrong.warnings == ("fps is 30, but a.mp4 has 10 frames per second: the times of its frames are used",)
    right = checked(frame_set(tmp_path, "a.mp4,walk,10,20\n", 10), 3.0)
    assert right.annotations == wrong.annotations
    assert right.warnings == ()


def test_frames_without_a_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", 30, fps=10, tick=Fraction(1, 10))
    (tmp_path / "a.txt").write_text("walk\n" * 12 + "background\n" * 18)
    dataset = load_dataset(tmp_path / "a.txt")
    assert (dataset.annotations[0].start_s, dataset.annotations[0].end_s) == (0.0, 1.2)
    result = checked(dataset, 3.0)
    assert (result.annotations, result.warnings) == (dataset.annotations, ())
    short = checked(replace(dataset, frame_counts={"a.mp4": 20}), 3.0)
    message = (
        "a.mp4 has 30 frames, but its annotations count 20: from there on nothing happens; was every frame annotated"
    )
    assert short.warnings[0].startswith(message)
    convert(tmp_path / "a.txt", tmp_path / "out.csv", ConvertConfig())
    assert "a.mp4,0.0,1.2,walk" in (tmp_path / "out.csv").read_text()


def test_frames_of_another_file(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mp4", 30, fps=10, tick=Fraction(1, 10))
    dataset = frame_set(tmp_path, "a.mp4,walk,30,60\n", 30)
    resampled = checked(replace(dataset, frame_counts={"a.mp4": 90}), 3.0)  # a copy at 30 per second was annotated
    assert (resampled.annotations[0].start_s, resampled.annotations[0].end_s) == (1.0, 2.0)
    assert resampled.warnings == ()
    other = checked(replace(dataset, frame_counts={"a.mp4": 400}), 3.0)
    assert other.annotations == resampled.annotations
    assert other.warnings[0].startswith(
        "a.mp4 has 30 frames, but its annotations count 400: times are computed with fps"
    )


def test_moments_in_frames(tmp_path: Path) -> None:
    ticks = [*range(0, 500, 100), *range(500, 3000, 500)]
    write_video(tmp_path / "m.mkv", 10, ticks=ticks)
    text = '[{"video": "m", "num_frames": 10, "fps": 10, "events": [{"frame": 7, "label": "hit"}]}]'
    (tmp_path / "spot.json").write_text(text)
    result = checked(load_dataset(tmp_path / "spot.json"), 3.0)
    assert np.allclose((result.annotations[0].start_s, result.annotations[0].end_s), (1.0, 2.0))
