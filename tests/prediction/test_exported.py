"""What works with an exported model, and what says that it does not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.model.networks import make_model as make_random
from tests.prediction.fake_project import World
from tests.prediction.report.pages import data_of
from tests.sequences import make_sequence
from vidgru.config import ExplainConfig, ExportConfig
from vidgru.errors import ModelError
from vidgru.info import info
from vidgru.model.attribution import explain
from vidgru.model.checkpoint import load_model
from vidgru.model.onnx_export import export_model
from vidgru.model.stream import score_recording
from vidgru.prediction.batch import predict
from vidgru.prediction.explain import explain_recording
from vidgru.prediction.predictor import Predictor


def exported(world: World, **changes: object) -> Path:
    """The world's model, replaced by one that finds several events in its recordings, and exported."""
    sequence = make_sequence(100, seed=100)
    model = make_random(sequence, timed=True, lookahead=2, seed=4, sentences=("A person falls.",))
    model.network.frame_head[-1].weight.data.mul_(40)
    scores = score_recording(model, [sequence], video="a.mp4", duration_s=12.5).scores
    high, low = (tuple(map(float, np.quantile(scores, q, axis=0))) for q in (0.8, 0.6))
    decode = replace(model.decode, high=high, low=low, min_s=0.2, merge_s=0.3, smooth_s=0.5)
    replace(model, decode=decode, feature_settings=world.feature_settings, weights=str(world.weights), **changes).save(
        world.model
    )
    return export_model(world.model, ExportConfig())[0]


def test_recordings_have_the_events_that_the_model_finds(world: World) -> None:
    path = exported(world)
    world.record("a.mp4", frames=100)
    world.record("b.mp4", frames=60)
    found = {}
    for model in (world.model, path):
        config = world.config(out=str(world.root / model.suffix), report=model == path)
        found[model] = [event for one in predict(model, [world.videos], config) for event in one.events]
        again = predict(model, [world.videos], config)
        assert {one.status for one in again} == {"reused"}
    ours, theirs = found[path], found[world.model]
    assert len(ours) > 2
    assert [(e.video, e.label, e.start_s, e.end_s) for e in ours] == [
        (e.video, e.label, e.start_s, e.end_s) for e in theirs
    ]
    assert [e.score for e in ours] == pytest.approx([e.score for e in theirs], abs=1e-4)
    assert all(e.description is None for e in ours)
    assert all(e.description for e in theirs)
    data = data_of(world.root / ".onnx" / "a.mp4" / "report.html")
    assert data["gates"] is None
    assert all(why["objects"] and not why["without"] for why in data["why"].values())
    assert data["notes"][-1] == (
        "The model is an exported one (ONNX): its gates and groups of features are not looked into, and events are not "
        "described."
    )
    assert json.loads((world.root / ".onnx" / "a.mp4" / "events.jsonl").read_text().splitlines()[0])["label"]


def test_reasons_are_what_can_be_told_without_weights(world: World) -> None:
    model = load_model(exported(world))
    sequence = make_sequence(100, seed=100)
    scored = score_recording(model, [sequence], video="a.mp4", duration_s=12.5, gates=True)
    why = explain(model, [sequence], scored, scored.events[:1])[0]
    assert (why.score, why.baseline, why.drop_features) == (scored.events[0].score, scored.events[0].score, {})
    assert why.objects
    assert why.kept == why.forgot == ()


def test_explain_wants_the_weights(world: World) -> None:
    path = exported(world)
    with pytest.raises(ModelError, match=r"model\.onnx is an exported model \(ONNX\), which cannot be looked into"):
        explain_recording(path, world.record("a.mp4"), ExplainConfig(features=str(world.cache.root)))


def test_info_tells_what_it_is(world: World) -> None:
    lines = info(exported(world)).lines
    assert "2 labels, exported to ONNX, " in lines[0]
    assert "descriptions: by a second graph, which vidgru does not run" in lines
    assert "reads recordings at 8 samples a second; scores come 0.25 s late" in lines


def test_a_run_tells_that_events_are_not_described(world: World) -> None:
    told: list[str] = []
    with Predictor(exported(world), world.config(), told.append):
        assert told == ["the model is an exported one: events are not described"]
