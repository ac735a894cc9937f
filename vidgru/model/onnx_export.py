"""Export a model as an ONNX graph, which runs without PyTorch and without vidgru (`scripts/onnx_events.py`).

The graph holds the encoder, the recurrent layer and the heads of all members, and averages their probabilities and
their attention; captions are not exported. Its metadata holds what the metadata of the model file holds, as JSON under
the key `vidgru`.

Axes: B clips or streams, T frames, M objects in all frames, clip after clip; B, T and M are dynamic. Scores of heads
and states that the model lacks are missing.

| input | dtype, shape | |
|---|---|---|
| `objects` | float32 [M,F] | `Features.objects`; the metadata's `object_columns` name the columns |
| `counts` | int64 [B,T] | objects per frame; M in total |
| `frame` | float32 [B,T,G] | `Features.frame`; the metadata's `frame_columns` name the columns |
| `mask` | bool [B,T] | True for frames; padding comes last |
| `clip_summaries` | float32 [B,P] | of models with a linear path of clips: `summarize_clip` of the frames |
| `frame_summaries` | float32 [B,T,Q] | of models with a linear path of frames: step t as `WindowSummaries` returns it |
| `state`, `cell` | float32 [members*layers,B,H] | recurrent states, zeros at the beginning; `cell` for an LSTM |

| output | dtype, shape | |
|---|---|---|
| `frame_scores` | float32 [B,T,K] | 0 to 1; step t scores frame t - `lookahead`; the background is the last column |
| `clip_scores` | float32 [B,C] | 0 to 1; the frames as one clip |
| `attention` | float32 [M] | attention to each object in its frame |
| `next_state`, `next_cell` | as `state` | states after the last step, input for the next frames |
| `hidden` | float32 [members,B,T,H] | outputs of the recurrent layers |

A bidirectional model reads whole recordings and has no state. `summary_inputs` computes the summaries of a recording.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import nn

from vidgru.config import ExportConfig
from vidgru.errors import ModelError, SettingsError
from vidgru.model.checkpoint import EventModel, HeadSpec, load_model, model_file
from vidgru.model.encoder import MAX_DEVIATION, MIN_SCORE, Encoder
from vidgru.model.event_gru import EventGRU
from vidgru.model.linear_path import MAX_SUMMARY_DEVIATION, LinearPath, LogitMix
from vidgru.model.member_layers import MemberLayerNorm, MemberLinear
from vidgru.model.onnx_graph import GraphWriter, ints, numbers, recurrent_weights
from vidgru.model.summaries import FrameSummaries, WindowSummaries, summarize_clip
from vidgru.storage import user_path, write_atomic
from vidgru.types import Array, Features

_OPERATOR = {"gru": "GRU", "lstm": "LSTM", "rnn": "RNN"}


def export_model(model_path: str | Path, config: ExportConfig) -> Path:
    """Export a model as an ONNX graph.

    Args:
        model_path: A model file or the folder of a training run.
        config: Path of the exported file.

    Returns:
        Path of the file written.

    Raises:
        ModelError: There is no such model, or it only writes captions.
        SettingsError: `out` does not end in .onnx.
        MissingDependencyError: The package `onnx` is not installed.
        OutputError: The file cannot be written.
    """
    file = model_file(model_path)
    out = user_path(config.out) if config.out else file.with_suffix(".onnx")
    if out.suffix.lower() != ".onnx":
        raise SettingsError(f"out is {config.out!r}; it must end in .onnx", "pass a file name that ends in .onnx")
    model = load_model(file)
    if not (model.task.clip_head or model.task.frame_head):
        raise ModelError(
            f"{file} only writes captions, which cannot be exported", "run the model with vidgru predict instead"
        )
    write_atomic(out, event_graph(model))
    return out


def summary_inputs(model: EventModel, features: Features) -> dict[str, Array]:
    """Return the summaries of a recording that the graph of a model reads.

    Args:
        model: The model.
        features: The whole recording, of at least one frame.

    Returns:
        `clip_summaries`, float32 [1,P], and `frame_summaries`, float32 [1,T + lookahead,Q], each if the graph has that
        input. The last rows are of the padding steps that score the last frames.
    """
    if model.linear is None:
        return {}
    frames = FrameSummaries(model.feature_spec, model.linear.drop_groups)
    summaries = frames.push(features)
    inputs = {}
    if model.linear.clips:
        clip = summarize_clip(torch.from_numpy(summaries[:, frames.clip_columns]))
        inputs["clip_summaries"] = clip[None].numpy()
    if model.linear.frames:
        windows = WindowSummaries(len(frames.window_columns), model.fps, model.lookahead)
        pushed = windows.push(summaries[:, frames.window_columns])
        inputs["frame_summaries"] = np.concatenate([pushed, windows.finish()])[None]
    return inputs


def event_graph(model: EventModel) -> bytes:
    """Return an ONNX file with a model's encoder, recurrent layer, heads and linear paths, and the model's metadata.

    Raises:
        MissingDependencyError: The package `onnx` is not installed.
    """
    network, linear = model.network, model.linear
    feature_spec = model.feature_spec
    graph = GraphWriter("vidgru events")
    objects = graph.input("objects", np.float32, ["objects", feature_spec.object_width])
    counts = graph.input("counts", np.int64, ["batch", "time"])
    frame = graph.input("frame", np.float32, ["batch", "time", feature_spec.frame_width])
    mask = graph.input("mask", np.bool_, ["batch", "time"])
    encoded = _encode(graph, network.encoder, objects, counts, frame, model.masked_groups)
    hidden = _run_rnn(graph, network, encoded.vectors, mask)
    graph.output("attention", encoded.attention, ["objects"])
    if model.task.frame_head and network.frame_head is not None:
        outputs = model.task.num_outputs(model.task.frame_head)
        logits = _step_logits(graph, network.frame_head, hidden, mask)
        if linear and linear.frames:
            width = linear.frames.weight.shape[1]
            summaries = graph.input("frame_summaries", np.float32, ["batch", "time", width])
            logits = _mix(graph, linear.frame_mix, logits, _linear_logits(graph, linear.frames, summaries))
        graph.output("frame_scores", _scores(graph, model.task.frame_head, logits), ["batch", "time", outputs])
    if model.task.clip_head and network.clip_head is not None:
        outputs = model.task.num_outputs(model.task.clip_head)
        steps = _step_logits(graph, network.clip_head, hidden, mask)
        logits = _pool(graph, steps, mask, network.gru is None)
        if linear and linear.clips:
            summaries = graph.input("clip_summaries", np.float32, ["batch", linear.clips.weight.shape[1]])
            logits = _mix(graph, linear.clip_mix, logits, _linear_logits(graph, linear.clips, summaries))
        graph.output("clip_scores", _scores(graph, model.task.clip_head, logits), ["batch", outputs])
    graph.output("hidden", hidden, [network.members, "batch", "time", network.hidden_width])
    columns = {"object_columns": feature_spec.object_groups(), "frame_columns": feature_spec.frame_groups()}
    ranges = {kind: {name: [at.start, at.stop] for name, at in groups.items()} for kind, groups in columns.items()}
    return graph.to_bytes(model.metadata() | ranges)


# --- encoder ----------------------------------------------------------------------------------------------------------


class _Encoded(NamedTuple):
    """Names of the frames' vectors, float32 [members,B*T,width], and of the objects' attention, float32 [M]."""

    vectors: str
    attention: str


def _encode(
    graph: GraphWriter, encoder: Encoder, objects: str, counts: str, frame: str, masked_groups: tuple[str, ...]
) -> _Encoded:
    """Add `Encoder.forward`. Objects are padded per frame, so that attention needs no scattered sums."""
    parts = []
    if encoder.frame_groups:
        frame = graph.reshape(frame, -1, encoder.feature_spec.frame_width)
        normal = _normal(graph, frame, numbers(encoder.frame_mean), numbers(encoder.frame_std), MAX_DEVIATION)
        parts.append(_project_groups(graph, encoder, encoder.frame_groups, frame, normal, masked_groups))
    flat = graph.reshape(counts, -1)
    index, mask = graph.rows(flat)
    if not encoder.object_groups:
        sizes = graph.cast(graph.add("Unsqueeze", flat, ints(1)), np.float32)
        uniform = graph.add("Expand", graph.add("Div", 1.0, sizes), graph.add("Shape", mask))
        return _Encoded(_join(graph, encoder, parts), graph.compress(uniform, mask))
    normal = _normal(graph, objects, numbers(encoder.object_mean), numbers(encoder.object_std), MAX_DEVIATION)
    projected = _project_groups(graph, encoder, encoder.object_groups, objects, normal, masked_groups)
    linear, norm = cast(MemberLinear, encoder.object[0]), cast(MemberLayerNorm, encoder.object[1])
    vectors = graph.add("Relu", graph.norm(graph.linear(projected, linear), norm))
    logits = graph.linear(vectors, encoder.query)
    if "score" in encoder.object_groups:
        column = encoder.object_groups["score"].start
        score = graph.add("Max", graph.add("Slice", objects, ints(column), ints(column + 1), ints(1)), MIN_SCORE)
        trust = numbers(encoder.trust)[:, None, None]
        logits = graph.add("Add", logits, graph.add("Mul", graph.add("Log", score), trust))
    pooled, attention = _attend(graph, vectors, logits, index, mask, *encoder.query.weight.shape)
    return _Encoded(_join(graph, encoder, [pooled, *parts]), attention)


def _normal(graph: GraphWriter, value: str, mean: Array, std: Array, max_deviation: float) -> str:
    return graph.add("Clip", graph.add("Mul", graph.add("Sub", value, mean), 1 / std), -max_deviation, max_deviation)


def _project_groups(
    graph: GraphWriter,
    encoder: Encoder,
    groups: dict[str, slice],
    value: str,
    normal: str,
    masked_groups: tuple[str, ...],
) -> str:
    """Project and concatenate groups of [n,width]: classes are looked up from the raw value, others are normalized."""
    parts = []
    for name, columns in groups.items():
        bounds = [ints(at) for at in (columns.start, columns.stop, 1)]
        if name in masked_groups:
            layer = encoder.classes if name == "class" else cast(MemberLinear, encoder.project[name]).bias
            assert layer is not None
            zeros = np.zeros((len(layer), 1, layer.shape[-1]), np.float32)
            rows = graph.add("Concat", ints(1), graph.size(value, 0), ints(1), axis=0)
            parts.append(graph.add("Expand", zeros, rows))
        elif name == "class":
            table = numbers(encoder.classes)
            index = graph.cast(graph.reshape(graph.add("Slice", value, *bounds), -1), np.int64)
            index = graph.add("Clip", index, ints(), np.array(table.shape[1] - 1))
            parts.append(graph.add("Gather", table, index, axis=1))
        else:
            parts.append(graph.linear(graph.add("Slice", normal, *bounds), cast(MemberLinear, encoder.project[name])))
    return graph.add("Relu", graph.add("Concat", *parts, axis=2))


def _attend(
    graph: GraphWriter, vectors: str, logits: str, index: str, mask: str, members: int, heads: int, width: int
) -> tuple[str, str]:
    """Pool the objects of each frame: the pooled vectors [members,B*T,width] and the attention to each object [M]."""
    # One row more, for the padding indices.
    padded_vectors = graph.add("Concat", vectors, np.zeros((members, 1, width), np.float32), axis=1)
    padded_logits = graph.add("Concat", logits, np.zeros((members, 1, heads), np.float32), axis=1)
    head_mask = graph.add("Unsqueeze", mask, ints(2))
    weights = graph.add("Softmax", graph.masked(graph.add("Gather", padded_logits, index, axis=1), head_mask), axis=2)
    weights = graph.add("Mul", weights, graph.cast(head_mask, np.float32))  # frames without objects pool to zeros
    # Every head weights all columns, then only its own are kept: cheaper than transposing the objects' heads.
    products = graph.add(
        "MatMul", graph.add("Transpose", weights, perm=[0, 1, 3, 2]), graph.add("Gather", padded_vectors, index, axis=1)
    )
    own_columns = np.eye(heads, dtype=np.float32)[..., None]
    kept = graph.add("Mul", graph.reshape(products, members, -1, heads, heads, width // heads), own_columns)
    pooled = graph.reshape(graph.add("ReduceSum", kept, ints(2), keepdims=0), members, -1, width)
    return pooled, graph.compress(graph.add("ReduceMean", weights, ints(0, 3), keepdims=0), mask)


def _join(graph: GraphWriter, encoder: Encoder, parts: list[str]) -> str:
    norm, linear = cast(MemberLayerNorm, encoder.join[0]), cast(MemberLinear, encoder.join[2])
    return graph.linear(graph.norm(graph.add("Concat", *parts, axis=2), norm), linear)


# --- recurrent layer and heads ----------------------------------------------------------------------------------------


def _run_rnn(graph: GraphWriter, network: EventGRU, vectors: str, mask: str) -> str:
    """Add `EventGRU.run_rnn` and return its outputs [members,B,T,hidden]; declares the states as inputs and outputs."""
    batch, steps = graph.size(mask, 0), graph.size(mask, 1)
    a = network.architecture
    vectors = graph.reshape(vectors, network.members, batch, steps, a.width)
    vectors = graph.add("Mul", vectors, graph.add("Unsqueeze", graph.cast(mask, np.float32), ints(2)))
    if network.gru is None:
        return graph.add("Relu", vectors)
    names = () if a.bidirectional else ("state", "cell") if a.cell == "lstm" else ("state",)
    states = [graph.input(name, np.float32, [network.members * a.layers, "batch", a.hidden]) for name in names]
    lengths = ""
    if a.bidirectional:  # the backward direction would read the padding first
        lengths = graph.add(
            "Max", graph.add("ReduceSum", graph.cast(mask, np.int32), ints(1), keepdims=0), np.ones(1, np.int32)
        )
    outputs, next_states = [], []
    for member, rnn in enumerate(network.gru):
        below = graph.add("Transpose", graph.add("Gather", vectors, np.array(member), axis=0), perm=[1, 0, 2])
        for layer in range(a.layers):
            row = member * a.layers + layer
            layer_states = [graph.add("Slice", state, ints(row), ints(row + 1), ints(0)) for state in states]
            out, *last = graph.add_many(
                _OPERATOR[a.cell],
                1 + max(len(names), 1),
                below,
                *recurrent_weights(cast(nn.RNNBase, rnn), layer),
                lengths,
                *layer_states,
                hidden_size=a.hidden,
                direction="bidirectional" if a.bidirectional else "forward",
                **({"linear_before_reset": 1} if a.cell == "gru" else {}),
            )
            next_states.append(last)
            out = graph.add("Transpose", out, perm=[0, 2, 1, 3])  # [T,B,directions,hidden]
            below = graph.reshape(out, steps, batch, network.hidden_width)
        outputs.append(graph.add("Unsqueeze", graph.add("Transpose", below, perm=[1, 0, 2]), ints(0)))
    for number, name in enumerate(names):
        value = graph.add("Concat", *(last[number] for last in next_states), axis=0)
        graph.output(f"next_{name}", value, [network.members * a.layers, "batch", a.hidden])
    return graph.add("Concat", *outputs, axis=0)


def _step_logits(graph: GraphWriter, head: nn.Sequential, hidden: str, mask: str) -> str:
    """Add a head on every step, from [members,B,T,hidden] to [members,B,T,C]."""
    layer = cast(MemberLinear, head[-1])
    members, outputs, width = layer.weight.shape
    logits = graph.linear(graph.reshape(hidden, members, -1, width), layer)
    return graph.reshape(logits, members, graph.size(mask, 0), graph.size(mask, 1), outputs)


def _pool(graph: GraphWriter, steps: str, mask: str, mean: bool) -> str:
    """Pool the logits of steps, [members,B,T,C], into those of clips, [members,B,C].

    Clips have the mean of their steps, or the log of the mean of exponentials.
    """
    step_mask = graph.add("Unsqueeze", mask, ints(2))
    weights = graph.cast(step_mask, np.float32)
    lengths = graph.add("Max", graph.add("ReduceSum", weights, ints(1), keepdims=0), 1.0)
    if mean:
        return graph.add("Div", graph.add("ReduceSum", graph.add("Mul", steps, weights), ints(2), keepdims=0), lengths)
    masked = graph.masked(steps, step_mask)
    highest = graph.add("ReduceMax", masked, ints(2), keepdims=1)
    powers = graph.add("Exp", graph.add("Sub", masked, highest))
    sums = graph.add("Div", graph.add("ReduceSum", powers, ints(2), keepdims=0), lengths)
    return graph.add("Add", graph.add("Squeeze", highest, ints(2)), graph.add("Log", sums))


def _linear_logits(graph: GraphWriter, path: LinearPath, summaries: str) -> str:
    """Add `LinearPath.forward`."""
    normal = _normal(graph, summaries, numbers(path.mean), numbers(path.std), MAX_SUMMARY_DEVIATION)
    return graph.add("Add", graph.add("MatMul", normal, numbers(path.weight).T), numbers(path.bias))


def _mix(graph: GraphWriter, mix: LogitMix, network: str, linear: str) -> str:
    """Add `LogitMix.__call__`, of logits [members,...,C] and [...,C]."""
    mixed = graph.add("Add", graph.add("Mul", network, mix.network), graph.add("Mul", linear, mix.linear))
    return graph.add("Add", mixed, np.array(mix.bias, np.float32)) if mix.bias else mixed


def _scores(graph: GraphWriter, head: HeadSpec, logits: str) -> str:
    """Add `HeadSpec.probabilities` of each member, averaged."""
    probabilities = graph.add("Sigmoid", logits) if head.multi_label else graph.add("Softmax", logits, axis=-1)
    return graph.add("ReduceMean", probabilities, ints(0), keepdims=0)
