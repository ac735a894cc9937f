"""Captions in the files of prediction."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.model.networks import make_model, with_captions
from tests.prediction.fake_project import FakeProject
from tests.sequences import make_sequence
from vidgru.model.captioner import caption_events
from vidgru.model.checkpoint import EventModel, load_model
from vidgru.prediction.batch import predict
from vidgru.prediction.event_files import read_jsonl
from vidgru.prediction.results import PredictionResult
from vidgru.types import DESCRIBED, Event

SENTENCES = ("A man falls.", "He walks left.", "남 왼", "A man walks.")
FRAMES = {"a.mp4": 40, "b.mp4": 24, "c.mp4": 77}


@pytest.fixture
def captioning(project: FakeProject) -> FakeProject:
    """A project whose model captions events; some captions fall back to the template."""
    model = with_captions(load_model(project.model), make_sequence(77, seed=77), SENTENCES)
    for name, frames in FRAMES.items():
        project.record(name, frames=frames)
    model.save(project.model)
    results = run(project, out=project.root / "all")
    scores = sorted(event.description_score or 0.0 for result in results for event in result.events)
    set_threshold(project, (scores[2] + scores[3]) / 2)
    return project


def set_threshold(project: FakeProject, threshold: float) -> None:
    model = load_model(project.model)
    assert model.caption is not None
    replace(model, caption=replace(model.caption, threshold=threshold)).save(project.model)


def run(project: FakeProject, **settings: object) -> list[PredictionResult]:
    return predict(
        project.model, [project.videos], project.config(**{"out": str(project.out), **settings}), progress=False
    )


def expected(project: FakeProject, name: str, *, beam: int = 4) -> list[tuple[object, ...]]:
    """Captions of whole recordings, because the scores are constant."""
    model, frames = load_model(project.model), FRAMES[name]
    events = [Event(video=name, start_s=0.0, end_s=frames / 8, label=label, score=0.5) for label in ("fall", "walk")]
    captioned = caption_events(model, [make_sequence(frames, seed=frames)], events, beam=beam)
    return [(result.label, result.description, result.description_source) for result in captioned]


def test_captions_are_in_every_file(captioning: FakeProject) -> None:
    predictions = run(captioning)
    sources = set()
    with open(captioning.out / "events.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    results = json.loads((captioning.out / "activitynet.json").read_text(encoding="utf-8"))["results"]
    for result in predictions:
        name = result.recording.name
        assert [(e.label, e.description, e.description_source) for e in result.events] == expected(captioning, name)
        assert read_jsonl(captioning.out / name / "events.jsonl") == list(result.events)
        assert [(r["description"], r["description_source"]) for r in rows if r["video"] == name] == [
            (e.description, e.description_source) for e in result.events
        ]
        assert [r["sentence"] for r in results[name]] == [e.description for e in result.events]
        for kind in ("vtt", "srt"):
            text = (captioning.out / name / f"events.{kind}").read_text(encoding="utf-8")
            for event in result.events:
                assert event.description
                shown = f"[{event.description}]" if event.description_source == "template" else event.description
                assert f"\n{event.label} {event.score:.0%}\n{shown}\n" in text
                sources.add(event.description_source)
    assert sources == {"model", "template"}


def test_captions_are_recomputed_with_another_beam(captioning: FakeProject) -> None:
    first = run(captioning)
    assert {result.status for result in run(captioning)} == {"reused"}
    greedy = run(captioning, beam=1)
    assert {result.status for result in greedy} == {"done"}
    assert [[(e.label, e.description, e.description_source) for e in result.events] for result in greedy] == [
        expected(captioning, result.recording.name, beam=1) for result in greedy
    ]
    assert [result.events for result in greedy] != [result.events for result in first]
    assert {result.status for result in run(captioning, beam=1)} == {"reused"}


def test_captions_of_finished_recordings_are_kept(captioning: FakeProject) -> None:
    first = run(captioning)
    (captioning.videos / "a.mp4").touch()
    again = run(captioning)
    assert [result.status for result in again] == ["reused"] * 3
    assert [result.events for result in again] == [result.events for result in first]


def test_beam_is_ignored_without_captions(project: FakeProject) -> None:
    project.record("a.mp4")
    (result,) = run(project)
    assert all(event.description is None for event in result.events)
    assert [result.status for result in run(project, beam=1)] == ["reused"]
    assert "description" not in (project.out / "a.mp4" / "events.jsonl").read_text()


def only_described(project: FakeProject) -> EventModel:
    model = make_model(make_sequence(77, seed=63), clips=False, sentences=SENTENCES)
    model = replace(model, feature_settings=project.feature_settings, weights=str(project.weights))
    model.save(project.model)
    return model


def test_caption_only_model_covers_consecutive_windows(project: FakeProject) -> None:
    model = only_described(project)
    project.record("a.mp4", frames=40)
    project.record("short.mp4", frames=3)
    long, short = run(project, report=True)
    assert [(e.start_s, e.end_s, e.label, e.score) for e in long.events] == [
        (0.0, 2.0, DESCRIBED, 1.0), (2.0, 5.0, DESCRIBED, 1.0),
    ]  # fmt: skip
    assert [(e.start_s, e.end_s) for e in short.events] == [(0.0, 0.375)]
    events = [replace(e, description=None, description_score=None, description_source=None) for e in long.events]
    captioned = caption_events(model, [make_sequence(40, seed=40)], events)
    assert [e.description for e in long.events] == [e.description for e in captioned]
    assert len({e.description for e in captioned}) == 2, "this test needs different captions"
    for result in (long, short):
        folder: Path = project.out / result.recording.name
        assert read_jsonl(folder / "events.jsonl") == list(result.events)
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert DESCRIBED in page
    assert {result.status for result in run(project, report=True)} == {"reused"}
