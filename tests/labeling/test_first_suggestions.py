"""What to label first, before there is a model."""

import json
from pathlib import Path

import pytest
import yaml

from tests.prediction.fake_project import FakeProject
from vidgru.errors import SourceError
from vidgru.labeling.first_suggestions import suggest_first


def write_inputs(project: FakeProject, *videos: Path) -> tuple[Path, Path, Path]:
    settings, sources = project.root / "settings.yaml", project.root / "recordings.txt"
    values = {"weights": str(project.weights), "features": str(project.cache.root), "threads": 1, "only": []}
    settings.write_text(yaml.safe_dump(values))
    sources.write_text("".join(f"{video}\n" for video in videos))
    return settings, sources, project.root / "first.jsonl"


def test_recordings_with_features_are_suggested(tmp_path: Path) -> None:
    project = FakeProject(tmp_path)
    ready = [project.record("a.mp4"), project.record("b.mp4", frames=80)]
    (project.videos / "c.mp4").write_text("not extracted yet")
    settings, sources, out = write_inputs(project, *ready, project.videos / "c.mp4")
    suggest_first(settings, sources, 1, out)
    assert len(out.read_text().splitlines()) == 1
    suggest_first(settings, sources, 9, out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["video"] for row in rows} == {"videos/a.mp4", "videos/b.mp4"}
    assert {row["reason"] for row in rows} <= {"unlike anything labelled", "random"}
    assert all(row["start"] < row["end"] for row in rows)


def test_without_features_the_reason_is_given(tmp_path: Path) -> None:
    project = FakeProject(tmp_path)
    (project.videos / "a.mp4").write_text("not extracted yet")
    settings, sources, out = write_inputs(project, project.videos / "a.mp4")
    with pytest.raises(SourceError, match="no recording has features yet") as error:
        suggest_first(settings, sources, 9, out)
    assert error.value.remedy == "wait until one has"
