"""Recordings of one content in two splits."""

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.annotation_files import csv_set
from tests.videos import draw_counter, write_video
from vidgru.datasets.copies import warn_of_copies
from vidgru.datasets.dataset import Dataset

ROWS = ("a.mp4,1,3,walk,,train", "b.mp4,1,3,walk,,train", "c.mp4,1,3,walk,,val", "d.mp4,1,3,walk,,val")


def warnings(dataset: Dataset) -> list[str]:
    return warn_of_copies(dataset, {name: recording.path for name, recording in dataset.recordings.items()})


def draw_shifted(number: int, width: int, height: int) -> np.ndarray:
    return draw_counter(number + 300, width, height)


def test_copies_in_two_splits(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, *ROWS)
    for name, content in (("a", b"x"), ("b", b"y"), ("c", b"y"), ("d", b"z")):
        (tmp_path / "videos" / f"{name}.mp4").write_bytes(content * 1000)
    assert warnings(dataset) == [
        "1 recording under two names in two splits (first: b.mp4 in train and c.mp4 in val); results will look better "
        "than they are: delete the copies",
    ]


def test_copies_that_were_encoded_again(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, *ROWS)
    write_video(tmp_path / "videos" / "a.mp4", 20)
    write_video(tmp_path / "videos" / "d.mp4", 20, options={"crf": "32"})
    write_video(tmp_path / "videos" / "b.mp4", 20, draw=draw_shifted)
    assert warnings(dataset) == [
        "1 recording in two splits with the same images (first: a.mp4 in train and d.mp4 in val); results will look "
        "better than they are: delete the copies, or give both the same group"
    ]


@pytest.mark.parametrize("frames", [1, 8])
def test_recordings_with_the_same_start_only(tmp_path: Path, frames: int) -> None:
    dataset = csv_set(tmp_path, *ROWS)

    def draw(number: int, width: int, height: int) -> np.ndarray:
        return draw_counter(number if number < frames else number + 300, width, height)

    write_video(tmp_path / "videos" / "a.mp4", 30)
    write_video(tmp_path / "videos" / "c.mp4", 30, draw=draw)
    assert warnings(dataset) == []


def test_clips_of_one_time_of_recording(tmp_path: Path) -> None:
    dataset = csv_set(tmp_path, *ROWS)
    time = {"creation_time": "2024-05-01T10:00:00Z"}
    write_video(tmp_path / "videos" / "a.mp4", 10, metadata=time)
    write_video(tmp_path / "videos" / "c.mp4", 10, metadata=time, draw=draw_shifted)
    assert warnings(dataset) == [
        "1 recording in two splits with one time of recording (first: a.mp4 in train and c.mp4 in val); results will "
        "look better than they are: name the recording of each clip in a column group"
    ]
    for name, draw in (("a", draw_counter), ("c", draw_shifted)):
        write_video(
            tmp_path / "videos" / f"{name}.mp4", 10, metadata={"creation_time": "1970-01-01T00:00:00Z"}, draw=draw
        )
    assert warnings(dataset) == []
