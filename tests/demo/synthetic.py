"""Helpers for tests of the demo's scenes, sentences and datasets."""

import csv
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from vidgru.demo import dataset
from vidgru.demo.scenes import EVENT_KINDS, Scene
from vidgru.demo.sentences import SceneDescription, attribute_options


def all_descriptions() -> Iterator[SceneDescription]:
    """Yield every description that sentences can state."""
    for kind in EVENT_KINDS:
        options = attribute_options(kind)
        for values in product(*options.values()):
            yield SceneDescription(kind=kind, attributes=dict(zip(options, values, strict=True)))


def read_rows(folder: Path, name: str = "annotations.csv") -> list[dict[str, str]]:
    """Return the rows of an annotation file."""
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def skip_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the videos of datasets empty; scenes are still planned and annotated."""

    def touch(scene: Scene, path: Path) -> None:
        path.touch()

    monkeypatch.setattr(dataset, "write_video", touch)
