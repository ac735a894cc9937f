"""Exported graphs for tests: run as a user without vidgru runs them."""

import json
from typing import Any

import numpy as np
import onnxruntime
import torch

from tests.model.networks import Inputs
from vidgru.model.checkpoint import EventModel


class Graph:
    """A graph, its facts, and the sizes of its states."""

    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.metadata: dict[str, Any] = json.loads(self._session.get_modelmeta().custom_metadata_map["vidgru"])
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]
        self.states = {v.name: (v.shape[0], v.shape[2]) for v in self._session.get_inputs() if v.name in STATES}

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self._session.run(self.outputs, inputs), strict=True))

    def read(
        self, batch: Inputs, state: dict[str, np.ndarray] | None = None, summaries: dict[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Outputs for a batch as a network takes it, from an empty state or a given one."""
        named = dict(zip(("objects", "counts", "frame", "mask"), (tensor.numpy() for tensor in batch), strict=True))
        if state is None:
            clips = len(batch[1])
            state = {name: np.zeros((layers, clips, wide), np.float32) for name, (layers, wide) in self.states.items()}
        return self.run(**named, **state, **(summaries or {}))


STATES = ("state", "cell")


def random_summaries(model: EventModel, clips: int, steps: int) -> dict[str, np.ndarray]:
    """Summaries for the linear paths of a model, if it has any, of so many clips."""
    rng, summaries = torch.Generator().manual_seed(clips * steps), {}
    shapes = {"clips": ("clip_summaries", (clips,)), "frames": ("frame_summaries", (clips, steps))}
    for path_name, (name, shape) in shapes.items():
        if model.linear and (path := getattr(model.linear, path_name)):
            normal = 2 * torch.randn(*shape, len(path.mean), generator=rng)  # some are clipped
            summaries[name] = (path.mean + path.std * normal).numpy()
    return summaries


def expected(
    model: EventModel, batch: Inputs, state: Any = None, summaries: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """What the first graph should say, by PyTorch."""
    network, (objects, counts, frame, mask) = model.network, batch
    rows = {name: torch.from_numpy(values) for name, values in (summaries or {}).items()}
    with torch.inference_mode():
        encoded = network.encode(objects, counts, frame, model.masked_groups)
        reading = network.step(encoded.vectors, mask, None if state is None else split_states(model, state))
        arrays = {"attention": encoded.attention, "hidden": reading.hidden}
        if model.task.frame_head:
            logits = reading.frames
            if model.linear:
                logits = model.linear.frame_mix(logits, model.linear.frames(rows["frame_summaries"]))
            arrays["frame_scores"] = model.task.frame_head.probabilities(logits).mean(dim=0)
        if model.task.clip_head and state is None:
            logits = network.event_logits(encoded.vectors, mask).clips
            if model.linear:
                logits = model.linear.clip_mix(logits, model.linear.clips(rows["clip_summaries"]))
            arrays["clip_scores"] = model.task.clip_head.probabilities(logits).mean(dim=0)
        if reading.states is not None:
            pairs = [state if isinstance(state, tuple) else (state,) for state in reading.states]
            arrays |= {f"next_{name}": torch.cat(parts) for name, parts in zip(STATES, zip(*pairs), strict=False)}  # noqa: B905 (members have equal states)
    return {name: tensor.numpy() for name, tensor in arrays.items()}


def split_states(model: EventModel, states: tuple[torch.Tensor, ...]) -> list[Any]:
    """States of a graph, [members * layers,B,H] each, as a network takes them."""
    parts = zip(*(state.chunk(model.network.members) for state in states), strict=True)
    return [part if len(part) > 1 else part[0] for part in parts]
