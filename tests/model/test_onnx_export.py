"""Encoder, recurrent layer and heads as an ONNX graph, held against PyTorch."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open

from tests.model.graphs import Graph, expected, random_summaries
from tests.model.networks import make_model, random_batch, segment
from tests.sequences import make_sequence
from vidgru.config import ExportConfig
from vidgru.errors import MissingDependencyError, ModelError, SettingsError
from vidgru.model.checkpoint import EventModel
from vidgru.model.features import compute_features
from vidgru.model.onnx_export import event_graph, export_model, summary_inputs
from vidgru.model.scoring import encode_features, score_clips, score_frames
from vidgru.types import FrameSequence

PLAIN, POSES = make_sequence(60), make_sequence(60, keypoints=4, optional=False)
OBJECTS = ("geometry", "score", "class", "speed", "motion", "relations", "appearance", "colour")
SENTENCES = ("A person falls.", "Zwei Personen gehen.")


def make_distinct_model(sequence: FrameSequence = PLAIN, **shape: object) -> EventModel:
    """A model whose scores are not all alike."""
    model = make_model(sequence, **shape)
    with torch.no_grad():
        for head in (model.network.clip_head, model.network.frame_head):
            if head is not None:
                head[-1].weight.mul_(10)
    return model


MODELS = {
    "gru": make_distinct_model(timed=True),
    "keypoints": make_distinct_model(POSES, timed=True),
    "layers": make_distinct_model(timed=True, layers=3, hidden=24),
    "lstm": make_distinct_model(timed=True, cell="lstm", layers=2),
    "rnn": make_distinct_model(timed=True, cell="rnn"),
    "no memory": make_distinct_model(timed=True, cell="none"),
    "several labels": make_distinct_model(timed=True, background=False, multi_label=True),
    "clips": make_distinct_model(),
    "frames": make_distinct_model(clips=False, timed=True),
    "sentences": make_distinct_model(timed=True, sentences=SENTENCES),
    "both ways": make_distinct_model(timed=True, bidirectional=True, layers=2),
    "members": make_distinct_model(timed=True, members=3, layers=2, hidden=24),
    "lstm members": make_distinct_model(timed=True, members=2, cell="lstm", bidirectional=True),
    "lstm both ways": make_distinct_model(timed=True, bidirectional=True, cell="lstm"),
    "no objects": make_distinct_model(timed=True, drop_features=OBJECTS),
    "no scene": make_distinct_model(timed=True, drop_features=("time", "scene", "scene_motion")),
    "no classes": make_distinct_model(timed=True, drop_features=("class", "score")),
    "linear": make_distinct_model(timed=True, lookahead=3, members=2, linear=True, masked_groups=("scene", "colour")),
    "linear clips": make_distinct_model(background=False, multi_label=True, linear=True, masked_groups=("class",)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_event_graph_equals_pytorch(kind: str) -> None:
    model = MODELS[kind]
    graph = Graph(event_graph(model))
    for clips, steps, most in ((1, 1, 3), (1, 40, 0), (4, 9, 3), (7, 33, 5), (2, 150, 20), (1, 1, 0)):
        batch = random_batch(model.feature_spec, clips, steps, most, seed=clips * steps)
        summaries = random_summaries(model, clips, steps)
        arrays, expected_outputs = graph.read(batch, None, summaries), expected(model, batch, None, summaries)
        assert arrays.keys() == expected_outputs.keys()
        for name, values in expected_outputs.items():
            np.testing.assert_allclose(arrays[name], values, rtol=0, atol=1e-5, err_msg=name)


def test_models_under_test_have_distinct_scores() -> None:
    scores = expected(MODELS["gru"], random_batch(MODELS["gru"].feature_spec, 4, 30))
    assert np.ptp(scores["frame_scores"], axis=(0, 1)).min() > 0.2
    assert np.ptp(scores["clip_scores"], axis=0).min() > 0.02


@pytest.mark.parametrize("kind", ["gru", "layers", "members", "lstm", "rnn"])
def test_event_graph_starts_from_state(kind: str) -> None:
    model = MODELS[kind]
    graph, batch = Graph(event_graph(model)), random_batch(model.feature_spec, 3, 5)
    rng = torch.Generator().manual_seed(1)
    states = [torch.randn(layers, 3, wide, generator=rng) for layers, wide in graph.states.values()]
    expected_outputs = expected(model, batch, tuple(states))
    arrays = graph.read(batch, {name: state.numpy() for name, state in zip(graph.states, states, strict=True)})
    for name, values in expected_outputs.items():
        np.testing.assert_allclose(arrays[name], values, rtol=0, atol=1e-5, err_msg=name)
    assert not np.allclose(arrays["hidden"], graph.read(batch)["hidden"], atol=1e-2)


@pytest.mark.parametrize("kind", ["gru", "layers", "members", "lstm", "rnn", "no memory"])
def test_event_graph_is_independent_of_chunks(kind: str) -> None:
    model = MODELS[kind]
    graph = Graph(event_graph(model))
    objects, counts, frame, mask = random_batch(model.feature_spec, 1, 60, 4)
    whole = graph.read((objects, counts, frame, mask))
    ends = torch.nn.functional.pad(counts[0].cumsum(0), (1, 0)).tolist()
    edges, scores, attention = (0, 1, 2, 30, 37, 60), [], []
    state = None
    for a, b in itertools.pairwise(edges):
        arrays = graph.read((objects[ends[a] : ends[b]], counts[:, a:b], frame[:, a:b], mask[:, a:b]), state)
        state = {name: arrays[f"next_{name}"] for name in graph.states}
        scores.append(arrays["frame_scores"])
        attention.append(arrays["attention"])
    np.testing.assert_allclose(np.concatenate(scores, axis=1), whole["frame_scores"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.concatenate(attention), whole["attention"], rtol=0, atol=1e-5)
    for name in state or ():
        np.testing.assert_allclose(state[name], whole[f"next_{name}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["gru", "members", "no memory", "both ways", "lstm both ways"])
def test_event_graph_ignores_padding(kind: str) -> None:
    graph, batch = Graph(event_graph(MODELS[kind])), random_batch(MODELS[kind].feature_spec, 4, 9)
    together = graph.read(batch)
    for row, length in enumerate(batch[3].sum(dim=1).tolist()):
        alone = graph.read(segment(batch, row, length))
        np.testing.assert_allclose(together["clip_scores"][row], alone["clip_scores"][0], rtol=0, atol=1e-5)
        ours, file_metadata = together["frame_scores"][row, :length], alone["frame_scores"][0]
        np.testing.assert_allclose(ours, file_metadata, rtol=0, atol=1e-5)


def test_event_graph_scores_recordings_like_model() -> None:
    """Frame by frame and as a clip, with the summaries that vidgru computes."""
    model = MODELS["linear"]
    graph, features = Graph(event_graph(model)), compute_features(PLAIN)
    steps = len(PLAIN) + model.lookahead  # the last ones are padding

    def padded(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.pad(array, ((0, model.lookahead), *[(0, 0)] * (array.ndim - 1)))[None])

    mask = torch.arange(steps)[None] < len(PLAIN)
    batch = torch.from_numpy(features.objects), padded(np.diff(features.offsets)), padded(features.frame), mask
    arrays = graph.read(batch, None, summary_inputs(model, features))
    encoded = encode_features(model, [features])
    frames = arrays["frame_scores"][0, model.lookahead :]
    np.testing.assert_allclose(frames, score_frames(model, [encoded])[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(arrays["clip_scores"], score_clips(model, [encoded]), rtol=0, atol=1e-5)
    assert summary_inputs(MODELS["gru"], features) == {}
    assert summary_inputs(MODELS["linear clips"], features).keys() == {"clip_summaries"}


def test_event_graph_inputs_and_outputs() -> None:
    outputs = {kind: (graph := Graph(event_graph(MODELS[kind]))).inputs[4:] + graph.outputs for kind in MODELS}
    both = ["attention", "hidden", "frame_scores", "clip_scores"]
    assert sorted(outputs["gru"]) == sorted(["state", "next_state", *both])
    assert sorted(outputs["lstm"]) == sorted(["state", "cell", "next_state", "next_cell", *both])
    assert sorted(outputs["clips"]) == sorted(["state", "next_state", "attention", "hidden", "clip_scores"])
    assert sorted(outputs["frames"]) == sorted(["state", "next_state", "attention", "hidden", "frame_scores"])
    assert sorted(outputs["sentences"]) == sorted(["state", "next_state", *both])
    assert sorted(outputs["no memory"]) == sorted(outputs["both ways"]) == sorted(both)
    summaries = ["clip_summaries", "frame_summaries"]
    assert sorted(outputs["linear"]) == sorted(["state", "next_state", *summaries, *both])


def test_event_graph_axes_and_operators() -> None:
    graph = onnx.load_model_from_string(event_graph(MODELS["gru"])).graph
    axes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    feature_spec = MODELS["gru"].feature_spec
    assert axes == {
        "objects": ["objects", feature_spec.object_width],
        "counts": ["batch", "time"],
        "frame": ["batch", "time", feature_spec.frame_width],
        "mask": ["batch", "time"],
        "state": [1, "batch", 128],
    }
    assert [node.op_type for node in graph.node].count("GRU") == 1
    assert not {node.op_type for node in graph.node} & {"Loop", "Scan", "If"}


def test_event_graph_bytes_and_metadata(tmp_path: Path) -> None:
    content = event_graph(make_model(timed=True, lookahead=3))
    assert content == event_graph(make_model(timed=True, lookahead=3))
    model = make_model(timed=True, lookahead=3)
    model.save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="np") as file:
        file_metadata = json.loads(file.metadata()["vidgru"])
    graph_metadata = Graph(content).metadata
    columns = {name: graph_metadata.pop(name) for name in ("object_columns", "frame_columns")}
    assert graph_metadata == file_metadata
    assert columns["object_columns"]["geometry"] == [0, 8]
    assert columns["frame_columns"] == {"time": [0, 3], "scene": [3, 8], "scene_motion": [8, 12]}


# --- files ------------------------------------------------------------------------------------------------------------


def test_export_model_paths(tmp_path: Path) -> None:
    MODELS["sentences"].save(tmp_path / "best.safetensors")
    assert export_model(tmp_path, ExportConfig()) == tmp_path / "best.onnx"
    MODELS["gru"].save(tmp_path / "gru.safetensors")
    elsewhere = export_model(tmp_path / "gru.safetensors", ExportConfig(out=str(tmp_path / "sub" / "x.onnx")))
    assert elsewhere == tmp_path / "sub" / "x.onnx"
    assert elsewhere.read_bytes() == event_graph(MODELS["gru"])
    assert sorted(path.name for path in tmp_path.rglob("*.onnx")) == ["best.onnx", "x.onnx"]


def test_export_model_refuses_caption_only_model(tmp_path: Path) -> None:
    make_model(clips=False, sentences=SENTENCES).save(tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"m\.safetensors only writes captions, which cannot be exported\n  run the"):
        export_model(tmp_path / "m.safetensors", ExportConfig())


def test_export_model_refuses_other_suffix(tmp_path: Path) -> None:
    MODELS["gru"].save(tmp_path / "m.safetensors")
    with pytest.raises(SettingsError, match=r"out is '.*m\.safetensors.; it must end in \.onnx"):
        export_model(tmp_path / "m.safetensors", ExportConfig(out=str(tmp_path / "m.safetensors")))


def test_export_model_refuses_exported_model(tmp_path: Path) -> None:
    MODELS["gru"].save(tmp_path / "m.safetensors")
    exported = export_model(tmp_path / "m.safetensors", ExportConfig())
    with pytest.raises(ModelError, match=r"is an exported model \(ONNX\)"):
        export_model(exported, ExportConfig(out=str(tmp_path / "again.onnx")))


def test_event_graph_requires_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match="needs the package onnx, which is not installed") as raised:
        event_graph(MODELS["gru"])
    assert raised.value.remedy == 'pip install "vidgru[onnx]"'
