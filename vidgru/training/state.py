"""Where a training run stands, on disk after every epoch, so that it goes on exactly where it was.

One safetensors file, written whole or not at all: the weights in training, their running mean, the best mean so far,
and the optimizer's moments; figures and settings are JSON in its metadata. Random numbers are drawn anew for every
epoch from the seed, so that none have to be kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vidgru.errors import ModelError, SettingsError
from vidgru.storage import write_atomic

STATE = "state.safetensors"
SEEN = "annotated recordings"  # of the identity: a digest of what is trained and validated on
# what may differ between a run and its resumption: it does not change what an epoch does
FREE = {
    "allow_missing", "backend", "classes", "detections", "detector_batch", "device", "epochs", "features", "init",
    "out", "patience", "precision", "resume", "source_fps", "source_size", "start_time", "weights",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Progress:
    """What a run has come to.

    Attributes:
        epochs: a row of figures for each that is finished.
        best_epoch: from 1; 0 before the first.
        best: its chief figure, and its loss with the sign turned.
        best_state: weights of the mean then.
        step: steps taken.
    """

    epochs: list[dict[str, float]]
    best_epoch: int
    best: tuple[float, float]
    best_state: dict[str, Tensor]
    step: int

    def after_epoch(
        self, row: dict[str, float], figures: tuple[float, float], state: dict[str, Tensor], step: int
    ) -> Progress:
        """The progress when one more epoch is finished; of equal chief figures the lower loss is the better."""
        epochs = [*self.epochs, row]
        if figures > self.best:
            return Progress(epochs=epochs, best_epoch=len(epochs), best=figures, best_state=state, step=step)
        return replace(self, epochs=epochs, step=step)


def write_state(
    path: Path,
    network: nn.Module,
    kept: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    identity: Mapping[str, Any],
) -> None:
    """Write where a run stands.

    Args:
        path: the file.
        network, kept: the weights in training, and their mean.
        optimizer: AdamW.
        progress: figures, and the best weights.
        identity: what a resumption has to have in common with the run.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"kept.{name}": value for name, value in kept.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in progress.best_state.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    facts = {
        "identity": identity,
        "epochs": progress.epochs,
        "best_epoch": progress.best_epoch,
        "best": progress.best,
        "step": progress.step,
    }
    # copied: the mean and the best weights may be the same memory, which the format does not take
    held = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    write_atomic(path, save(held, metadata={"vidgru": json.dumps(facts, ensure_ascii=False)}))


def read_state(
    path: Path,
    network: nn.Module,
    kept: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any],
) -> Progress:
    """Take up a run where it stands: fills in `network`, `kept` and `optimizer`.

    Raises:
        ModelError: there is nothing to resume.
        SettingsError: the run had other settings or data.
    """
    remedy = "leave out --resume to begin anew, or choose the run's folder with --out"
    if not path.is_file():
        raise ModelError(f"there is no run to resume in {path.parent}", remedy)
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["vidgru"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        was = facts["identity"]
        main, loss = facts["best"]
        epochs, best_epoch, step = facts["epochs"], facts["best_epoch"], facts["step"]
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} cannot be resumed from: {str(error).splitlines()[0]}", remedy) from None
    now = json.loads(json.dumps(identity))
    if was.get(SEEN) != now.get(SEEN):
        raise SettingsError(
            f"the run in {path.parent} cannot be resumed: its annotations or features have changed", remedy
        )
    if differ := sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name)):
        values = "; ".join(f"{name} is {now.get(name)!r}, was {was.get(name)!r}" for name in differ)
        raise SettingsError(f"the run in {path.parent} cannot be resumed with other settings: {values}", remedy)

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in part("optimizer.").items():
        index, _, field = name.partition(".")
        moments.setdefault(int(index), {})[field] = value
    try:
        network.load_state_dict(part("network."))
        kept.load_state_dict(part("kept."))
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{path} cannot be resumed from: {str(error).splitlines()[0]}", remedy) from None
    return Progress(epochs=epochs, best_epoch=best_epoch, best=(main, loss), best_state=part("best."), step=step)
