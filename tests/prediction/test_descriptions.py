"""Described events in the files of prediction."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.model.networks import make_model, with_captions
from tests.prediction.fake_project import World
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
def told(world: World) -> World:
    """A world whose model describes, its sentences being told and not told."""
    model = with_captions(load_model(world.model), make_sequence(77, seed=77), SENTENCES)
    for name, frames in FRAMES.items():
        world.record(name, frames=frames)
    model.save(world.model)
    sure = sorted(event.description_score or 0.0 for one in run(world, out=world.root / "all") for event in one.events)
    set_threshold(world, (sure[2] + sure[3]) / 2)
    return world


def set_threshold(world: World, threshold: float) -> None:
    model = load_model(world.model)
    assert model.caption is not None
    replace(model, caption=replace(model.caption, threshold=threshold)).save(world.model)


def run(world: World, **settings: object) -> list[PredictionResult]:
    return predict(world.model, [world.videos], world.config(**{"out": str(world.out), **settings}), progress=False)


def expected(world: World, name: str, *, beam: int = 4) -> list[tuple[object, ...]]:
    """Of whole recordings, for the scores are the same at every moment."""
    model, frames = load_model(world.model), FRAMES[name]
    events = [Event(video=name, start_s=0.0, end_s=frames / 8, label=label, score=0.5) for label in ("fall", "walk")]
    told = caption_events(model, [make_sequence(frames, seed=frames)], events, beam=beam)
    return [(one.label, one.description, one.description_source) for one in told]


def test_descriptions_stand_in_every_file(told: World) -> None:
    predictions = run(told)
    sources = set()
    with open(told.out / "events.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    results = json.loads((told.out / "activitynet.json").read_text(encoding="utf-8"))["results"]
    for one in predictions:
        name = one.recording.name
        assert [(e.label, e.description, e.description_source) for e in one.events] == expected(told, name)
        assert read_jsonl(told.out / name / "events.jsonl") == list(one.events)
        assert [(r["description"], r["description_source"]) for r in rows if r["video"] == name] == [
            (e.description, e.description_source) for e in one.events
        ]
        assert [r["sentence"] for r in results[name]] == [e.description for e in one.events]
        for kind in ("vtt", "srt"):
            text = (told.out / name / f"events.{kind}").read_text(encoding="utf-8")
            for event in one.events:
                assert event.description
                shown = f"[{event.description}]" if event.description_source == "template" else event.description
                assert f"\n{event.label} {event.score:.0%}\n{shown}\n" in text
                sources.add(event.description_source)
    assert sources == {"model", "template"}


def test_another_beam_is_another_run(told: World) -> None:
    first = run(told)
    assert {one.status for one in run(told)} == {"reused"}
    greedy = run(told, beam=1)
    assert {one.status for one in greedy} == {"done"}
    assert [[(e.label, e.description, e.description_source) for e in one.events] for one in greedy] == [
        expected(told, one.recording.name, beam=1) for one in greedy
    ]
    assert [one.events for one in greedy] != [one.events for one in first]
    assert {one.status for one in run(told, beam=1)} == {"reused"}


def test_what_was_finished_keeps_its_descriptions(told: World) -> None:
    first = run(told)
    (told.videos / "a.mp4").touch()
    again = run(told)
    assert [one.status for one in again] == ["reused"] * 3
    assert [one.events for one in again] == [one.events for one in first]


def test_a_model_that_does_not_describe_takes_no_notice_of_beams(world: World) -> None:
    world.record("a.mp4")
    (one,) = run(world)
    assert all(event.description is None for event in one.events)
    assert [one.status for one in run(world, beam=1)] == ["reused"]
    assert "description" not in (world.out / "a.mp4" / "events.jsonl").read_text()


def only_described(world: World) -> EventModel:
    model = make_model(make_sequence(77, seed=63), clips=False, sentences=SENTENCES)
    model = replace(model, feature_settings=world.feature_settings, weights=str(world.weights))
    model.save(world.model)
    return model


def test_a_model_that_only_describes_tells_of_one_stretch_after_the_other(world: World) -> None:
    model = only_described(world)
    world.record("a.mp4", frames=40)
    world.record("short.mp4", frames=3)
    long, short = run(world, report=True)
    assert [(e.start_s, e.end_s, e.label, e.score) for e in long.events] == [
        (0.0, 2.0, DESCRIBED, 1.0), (2.0, 5.0, DESCRIBED, 1.0),
    ]  # fmt: skip
    assert [(e.start_s, e.end_s) for e in short.events] == [(0.0, 0.375)]
    events = [replace(e, description=None, description_score=None, description_source=None) for e in long.events]
    told = caption_events(model, [make_sequence(40, seed=40)], events)
    assert [e.description for e in long.events] == [e.description for e in told]
    assert len({e.description for e in told}) == 2, "a test of sentences needs different ones"
    for one in (long, short):
        folder: Path = world.out / one.recording.name
        assert read_jsonl(folder / "events.jsonl") == list(one.events)
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert DESCRIBED in page
    assert {one.status for one in run(world, report=True)} == {"reused"}
