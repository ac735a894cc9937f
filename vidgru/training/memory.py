"""Memory of a training step, measured in a process of its own: `python -m vidgru.training.memory`.

Within a process that has trained other networks the system's figure says nothing: what was freed is not given back, and
the peak never falls. Tensors of PyTorch can be counted, but not what its kernels take beside them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from vidgru.datasets.windows import Batch
from vidgru.errors import VidgruError
from vidgru.model.checkpoint import EventModel, EventTask, HeadSpec, build_network
from vidgru.model.event_gru import Architecture
from vidgru.model.feature_spec import FeatureSpec
from vidgru.training.losses import window_losses

_STEPS = 3
_SMALL = (1, 8, 8)  # B, T, M: loads what is loaded once, and costs nothing
_BALLAST = 1 << 15  # numbers of 8 bytes


def step_bytes(model: EventModel, shape: tuple[int, int, int]) -> int:
    """What training on a CPU needs on top of a process in which PyTorch has been loaded: bytes at its peak.

    Weights, gradients, the optimizer's state, the batch, what going back needs, and what the kernels take.

    Args:
        model: its network's shape is what matters.
        shape: B, T and M of a batch.

    Raises:
        VidgruError: the process failed.
    """
    facts = {
        "layout": asdict(model.feature_spec),
        "task": asdict(model.task),
        "architecture": asdict(model.network.architecture),
        "lookahead": model.lookahead,
        "shape": shape,
    }
    command = [sys.executable, "-m", "vidgru.training.memory"]
    done = subprocess.run(command, input=json.dumps(facts), capture_output=True, text=True, check=False)
    if done.returncode:
        problem = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        raise VidgruError(f"measuring memory failed: {problem}", "free some memory and run it again")
    return int(done.stdout)


def _batch(task: EventTask, feature_spec: FeatureSpec, shape: tuple[int, int, int]) -> Batch:
    clips, steps, objects = shape
    each, more = divmod(objects, clips * steps)
    counts = each + (torch.arange(clips * steps) < more).long()
    head = task.frame_head or task.clip_head
    outputs = task.num_outputs(head)
    return Batch(
        objects=torch.zeros(objects, feature_spec.object_width),
        counts=counts.view(clips, steps),
        frame=torch.zeros(clips, steps, feature_spec.frame_width),
        mask=torch.ones(clips, steps, dtype=torch.bool),
        targets=torch.ones(clips, steps, outputs) if task.frame_head else None,
        weights=torch.ones(clips, steps) if task.frame_head else None,
        labels=None if task.frame_head else torch.ones(clips, outputs),
    )


def _train(facts: dict[str, Any], shape: tuple[int, int, int]) -> None:
    feature_spec = FeatureSpec(**facts["layout"])
    heads = {name: HeadSpec(**head) for name in ("clip_head", "frame_head") if (head := facts["task"][name])}
    task = EventTask(labels=tuple(facts["task"]["labels"]), **heads)
    network = build_network(feature_spec, task, Architecture(**facts["architecture"])).train()
    optimizer = torch.optim.AdamW(network.parameters())
    class_weights = torch.ones(task.num_outputs(task.frame_head))
    for _ in range(_STEPS):
        batch = _batch(task, feature_spec, shape)
        scores = network(batch.objects, batch.counts, batch.frame, batch.mask)
        optimizer.zero_grad()
        losses = window_losses(
            scores, batch, task, lookahead=facts["lookahead"], class_weights=class_weights, smoothing=0.0
        )
        losses.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _peak() -> int:
    """The most memory that this process has held so far, in bytes."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # Linux counts in KiB


if __name__ == "__main__":
    given = json.load(sys.stdin)
    torch.set_num_threads(1)
    _train(given, _SMALL)
    before, ballast = _peak(), []
    while _peak() == before:  # loading took more for a moment, which would hide what a small step needs
        ballast.append(np.ones(_BALLAST))
    before = _peak()
    _train(given, given["shape"])
    print(_peak() - before)
