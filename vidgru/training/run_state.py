"""The state of a training run, written after every epoch, from which a resumed run continues exactly.

One safetensors file, written atomically: the weights in training, their average, the best average so far, and the
moments of the optimizer; metrics and settings are JSON in its metadata. Random numbers are drawn anew from the seed in
every epoch, so that no generator has to be stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from msgspec import convert
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vidgru.errors import ModelError, SettingsError
from vidgru.storage import parse_json, write_atomic
from vidgru.training.state_file import METADATA

DATA = "annotated recordings"  # key of the identity: a digest of the examples
# settings that may differ between a run and its continuation: they do not change what an epoch computes
UNCHECKED = {
    "allow_missing", "backend", "classes", "detections", "detector_batch", "device", "epochs", "exist_ok", "features",
    "init", "out", "patience", "plots", "precision", "resume", "source_fps", "source_size", "start_time", "videos",
    "weights",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class RunProgress:
    """Progress of a training run.

    Attributes:
        epochs: Metrics of each finished epoch.
        best_epoch: Number of the best epoch, from 1; 0 before the first.
        best: Its main metric, and its negated loss.
        best_weights: Its averaged weights.
        step: Number of steps taken.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best: tuple[float, float] = (-math.inf, -math.inf)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0

    def after_epoch(
        self, row: dict[str, float], score: tuple[float, float], weights: dict[str, Tensor], step: int
    ) -> RunProgress:
        """Return the progress after one more epoch. Ties between main metrics go to the lower loss."""
        epochs = [*self.epochs, row]
        if score > self.best:
            return RunProgress(epochs=epochs, best_epoch=len(epochs), best=score, best_weights=weights, step=step)
        return replace(self, epochs=epochs, step=step)


@dataclass(frozen=True, kw_only=True)
class _Metadata:
    """What a state holds beside its tensors; see `RunProgress`."""

    identity: dict[str, Any]
    epochs: list[dict[str, int | float]]  # or numbers of epochs would become 1.0, 2.0, ...
    best_epoch: int
    best: tuple[float, float]
    step: int


def write_state(
    path: Path,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: RunProgress,
    identity: Mapping[str, Any],
) -> None:
    """Write the state of a run.

    Args:
        path: The file.
        network: The weights in training.
        averaged: Their average.
        optimizer: AdamW.
        progress: Metrics and best weights.
        identity: Settings and data that a resumed run must share.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"kept.{name}": value for name, value in averaged.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in progress.best_weights.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    metadata = {
        "identity": identity,
        "epochs": progress.epochs,
        "best_epoch": progress.best_epoch,
        "best": progress.best,
        "step": progress.step,
    }
    # copied, because weights may share memory, which safetensors refuses
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    write_atomic(path, save(copies, metadata={METADATA: json.dumps(metadata, ensure_ascii=False)}))


def read_state(
    path: Path,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any],
) -> RunProgress:
    """Restore the state of a run into `network`, `averaged` and `optimizer`.

    Raises:
        ModelError: There is no run to resume, or its state is corrupt.
        SettingsError: The run had other settings or data.
    """
    remedy = "leave out --resume to start anew, or choose the run's folder with --out"
    if not path.is_file():
        raise ModelError(f"there is no run to resume in {path.parent}", remedy)
    try:
        with safe_open(path, framework="pt") as file:
            state = convert(parse_json((file.metadata() or {})[METADATA]), _Metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if infinite := sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all()):
            raise ValueError(f"{infinite[0]} holds numbers that are not finite")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} cannot be resumed from: {str(error).splitlines()[0]}", remedy) from None
    before, now = state.identity, json.loads(json.dumps(identity))
    if before.get(DATA) != now.get(DATA):
        raise SettingsError(
            f"the run in {path.parent} cannot be resumed: its annotations or features have changed", remedy
        )
    if differ := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
        values = "; ".join(f"{name} is {now.get(name)!r}, was {before.get(name)!r}" for name in differ)
        raise SettingsError(f"the run in {path.parent} cannot be resumed with other settings: {values}", remedy)

    def tensors_of(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    moments: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        for name, value in tensors_of("optimizer.").items():
            index, _, key = name.partition(".")
            if key != "step" and parameters[int(index)].shape != value.shape:
                raise ValueError(f"optimizer.{name} is {list(value.shape)}")
            moments.setdefault(int(index), {})[key] = value
        network.load_state_dict(tensors_of("network."))
        averaged.load_state_dict(tensors_of("kept."))
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    except (RuntimeError, ValueError, IndexError) as error:
        raise ModelError(f"{path} cannot be resumed from: {str(error).splitlines()[0]}", remedy) from None
    fields = {name: value for name, value in vars(state).items() if name != "identity"}
    return RunProgress(**fields, best_weights=tensors_of("best."))
