"""An exported model is scored as the model that it was exported from."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.model.networks import make_model
from tests.sequences import make_sequence
from vidgru.config import ExportConfig
from vidgru.errors import MissingDependencyError, ModelError
from vidgru.model.checkpoint import EventModel, load_model
from vidgru.model.features import compute_features
from vidgru.model.onnx_export import export_model
from vidgru.model.scoring import encode
from vidgru.model.stream import EventStream, score_encoded, score_recording

SEQUENCE = make_sequence(300, seed=2)


def eager(**shape: object) -> EventModel:
    """A model that finds many events, its thresholds amid its scores."""
    model = make_model(SEQUENCE, **shape)
    with torch.no_grad():
        (model.network.frame_head or model.network.clip_head)[-1].weight.mul_(40)
    scores = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=37.5).scores
    high, low = (tuple(map(float, np.quantile(scores, q, axis=0))) for q in (0.8, 0.6))
    return replace(model, decode=replace(model.decode, high=high, low=low, min_s=0.2, merge_s=0.3, smooth_s=0.5))


def exported(model: EventModel, folder: Path) -> EventModel:
    model.save(folder / "model.safetensors")
    return load_model(export_model(folder / "model.safetensors", ExportConfig())[0])


KINDS = {
    "timed": {"timed": True, "lookahead": 3, "seed": 4},
    "clips": {"seed": 10},
    "lstm": {"timed": True, "lookahead": 8, "cell": "lstm", "layers": 2, "seed": 4},
    "no memory": {"timed": True, "cell": "none", "seed": 4},
    "labels that overlap": {"timed": True, "lookahead": 2, "background": False, "multi_label": True, "seed": 4},
    "whole": {"timed": True, "bidirectional": True, "seed": 4},
}


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    model = eager(**KINDS[kind])
    graph = exported(model, tmp_path)
    whole = score_recording(model, [SEQUENCE], video="a.mp4", duration_s=37.5)
    assert len(whole.events) > 2
    found = [score_recording(graph, [SEQUENCE], video="a.mp4", duration_s=37.5, gates=True)]
    parts = [compute_features(SEQUENCE), compute_features(SEQUENCE).frames(0, 23)]
    beside = score_encoded(graph, [(encode(graph, [part]), "a.mp4", 37.5) for part in parts], gates=True)
    for one in (*found, beside[0]):
        np.testing.assert_allclose(one.scores, whole.scores, rtol=0, atol=1e-5)
        np.testing.assert_allclose(one.attention, whole.attention, rtol=0, atol=1e-5)
        assert [(e.label, e.start_s, e.end_s) for e in one.events] == [
            (e.label, e.start_s, e.end_s) for e in whole.events
        ]
        assert [e.score for e in one.events] == pytest.approx([e.score for e in whole.events], abs=1e-5)
        assert one.gates is None
    assert len(beside[1].scores) == 23


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_what_the_whole_gives(kind: str, tmp_path: Path) -> None:
    graph = exported(eager(**KINDS[kind]), tmp_path)
    whole = score_recording(graph, [SEQUENCE], video="a.mp4", duration_s=37.5)
    stream = EventStream(graph, video="a.mp4", gates=True, beam=4)
    steps = [stream.push(SEQUENCE.frames(a, b)) for a, b in itertools.pairwise((0, 1, 2, 2, 57, 200, 300))]
    steps.append(stream.finish(37.5))
    np.testing.assert_allclose(np.concatenate([step.scores for step in steps]), whole.scores, rtol=0, atol=1e-5)
    closed = sorted((e.start_s, e.end_s, e.label) for step in steps for e in step.closed)
    assert closed == sorted((e.start_s, e.end_s, e.label) for e in whole.events)


def test_nothing_to_see_and_nothing_at_all(tmp_path: Path) -> None:
    graph = exported(make_model(timed=True, lookahead=3), tmp_path)
    assert score_recording(graph, [], video="a.mp4", duration_s=0.0).scores.shape == (0, 2)
    empty = score_recording(graph, [make_sequence(40, 0)], video="a.mp4", duration_s=5.0)
    assert empty.scores.shape == (40, 2)
    assert np.isfinite(empty.scores).all()


def test_the_facts_come_back(tmp_path: Path) -> None:
    model = make_model(timed=True, lookahead=3, sentences=("A person falls.",))
    graph = exported(model, tmp_path)
    assert graph.exported
    assert not model.exported
    assert graph.untold
    assert graph.caption is None
    for name in (
        "task",
        "feature_settings",
        "weights",
        "names",
        "decode",
        "window_s",
        "lookahead",
        "metrics",
        "feature_spec",
        "fps",
    ):
        assert getattr(graph, name) == getattr(model, name)
    assert graph.network.architecture == model.network.architecture
    assert not exported(make_model(), tmp_path).untold


def test_its_weights_are_not_at_hand(tmp_path: Path) -> None:
    graph = exported(make_model(), tmp_path)
    with pytest.raises(ModelError, match=r"exported one \(ONNX\), which can be evaluated and can predict, and nothing"):
        graph.to_bytes()


def test_a_model_that_only_describes_stays_with_pytorch(tmp_path: Path) -> None:
    model = make_model(clips=False, sentences=("A person falls.",))
    model.save(tmp_path / "m.safetensors")
    path, captions = export_model(tmp_path / "m.safetensors", ExportConfig())
    with pytest.raises(ModelError, match="only describes, which vidgru does with PyTorch"):
        load_model(path)
    with pytest.raises(ModelError, match=r"m\.captions\.onnx writes a model's descriptions, and is not the model"):
        load_model(captions)


def test_other_files_are_refused(tmp_path: Path) -> None:
    text, foreign, broken = (tmp_path / name for name in ("text.onnx", "foreign.onnx", "broken.onnx"))
    text.write_text("no graph")
    with pytest.raises(ModelError, match=r"text\.onnx is not an ONNX file"):
        load_model(text)
    foreign.write_bytes(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])).SerializeToString())
    with pytest.raises(ModelError, match=r"foreign\.onnx is not a vidgru model: its metadata has no key vidgru"):
        load_model(foreign)
    make_model().save(tmp_path / "m.safetensors")
    (path,) = export_model(tmp_path / "m.safetensors", ExportConfig())
    graph = onnx.load(path)
    graph.graph.node[5].op_type = "Elsewhere"
    broken.write_bytes(graph.SerializeToString())
    with pytest.raises(
        ModelError, match=r"broken\.onnx is not a sound vidgru model: its graph cannot .*\n  export it again"
    ):
        load_model(broken)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_a_package_the_line_that_installs_it_is_told(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model().save(tmp_path / "m.safetensors")
    (path,) = export_model(tmp_path / "m.safetensors", ExportConfig())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=f"need the package {package}, which is not installed") as raised:
        load_model(path)
    assert raised.value.remedy == 'pip install "vidgru[onnx]"'
