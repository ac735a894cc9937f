"""Data sets on disk for tests. Their videos are empty files: reading annotations opens none."""

from pathlib import Path

import pytest

from vidgru.datasets.annotations import load_dataset
from vidgru.datasets.dataset import Dataset
from vidgru.datasets.splits import assign_splits
from vidgru.errors import AnnotationError

HEADER = "video,start,end,label,description,split"


def write_set(
    folder: Path, text: str, *, name: str = "annotations.csv", videos: str = "a.mp4 b.mp4 c.mp4 d.mp4"
) -> Path:
    """`folder` with an annotation file and, under `videos/`, empty files."""
    for video in videos.split():
        path = folder / "videos" / video
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def csv_set(folder: Path, *rows: str, header: str = HEADER) -> Dataset:
    """The dataset with these rows, each video that they name existing."""
    videos = " ".join(row.split(",")[0] for row in rows)
    return load_dataset(write_set(folder, "\n".join((header, *rows)), videos=videos))


def check_rejected(path: Path, kind: str, message: str) -> None:
    """Check that a file is refused with a message, although a YAML names its format."""
    path.with_name("set.yaml").write_text(f"annotations: {path.name}\nformat: {kind}\n", encoding="utf-8")
    with pytest.raises(AnnotationError, match=message):
        load_dataset(path.with_name("set.yaml"))


def folder_set(tmp_path: Path, folders: int, *, val: int = 0) -> Dataset:
    """Two clips of each label per folder; the first folders are the val split."""
    rows = [f"cam{c}/{n}.mp4,,,{'xy'[n % 2]},,{'val' if c < val else ''}" for c in range(folders) for n in range(4)]
    return assign_splits(csv_set(tmp_path, *rows))
