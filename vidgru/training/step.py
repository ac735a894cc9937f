"""One step of training: scores, losses, gradients, and what they change."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from vidgru.config import TrainConfig
from vidgru.datasets.windows import Batch
from vidgru.errors import VidgruError
from vidgru.model.checkpoint import EventTask
from vidgru.model.event_gru import EventGRU, EventLogits
from vidgru.training.distributed import ProcessGroup
from vidgru.training.losses import sentence_losses, window_losses

WARMUP = 20  # steps
_HALFWAY = 200  # steps after which the learning rate is down to 0.7
CLIP_NORM = 1.0
_AVERAGED = 8.0  # the mean of the weights is over about the last ninth of all steps


class Stepper:
    """A network in training, with its optimizer and the running mean of its weights.

    What is validated and kept is the mean (polynomial decay averaging: Shamir and Zhang 2013, "Stochastic Gradient
    Descent for Non-smooth Optimization"): it is over a part of all steps that grows with their number, so that it does
    not swing from epoch to epoch, and is right whenever training stops.

    Args:
        network: on its device.
        task: its heads.
        config: how.
        lookahead: steps by which the scores of frames lag behind.
        class_weights: float32 [K], how much each class of frames counts.
        process_group: processes that train together.

    Attributes:
        network: the weights in training.
        kept: their mean, in eval mode.
        optimizer: AdamW.
    """

    def __init__(
        self,
        network: EventGRU,
        task: EventTask,
        config: TrainConfig,
        *,
        lookahead: int,
        class_weights: Tensor,
        process_group: ProcessGroup,
    ) -> None:
        self._device = network.encoder.object_mean.device
        # moved to where it is, so that cuDNN finds the copied weights in one piece
        self.network, self.kept = network, copy.deepcopy(network).to(self._device).eval()
        self._task, self._config, self._lag, self._team = task, config, lookahead, process_group
        self._class_weights = class_weights.to(self._device)
        cuda = self._device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            _groups(network, config.weight_decay), lr=config.lr, fused=self._device.type != "mps"
        )
        # where it is not emulated; its range is that of float32, so that gradients need no scaling
        self._mixed = config.amp and cuda and torch.cuda.is_bf16_supported(including_emulation=False)

    def take(self, batch: Batch | None, size: int, step: int) -> Tensor:
        """Take a step.

        Args:
            batch: this process's share, on any device; None where it has none.
            size: windows of the whole batch.
            step: its number, from 1.

        Returns:
            The sum of the losses of this process's windows.

        Raises:
            VidgruError: a loss is not finite; names the window.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self._config.lr * learning_rate(step)
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self._device)
        if batch is not None:
            total = self._losses(batch.to(self._device)).sum()
            (total / size).backward()  # type: ignore[no-untyped-call]
        self._team.add_up(self.network)
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM)
        self.optimizer.step()
        share = min((_AVERAGED + 1) / (_AVERAGED + step), 1.0)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.kept.parameters()), list(self.network.parameters()), share)
        return total.detach()

    def _losses(self, batch: Batch) -> Tensor:
        losses = self._score_losses(batch) if batch.words is None else self._sentence_losses(batch, batch.words)
        bad = ~torch.isfinite(losses)
        if bad.any():
            index = int(bad.nonzero()[0, 0])
            raise VidgruError(
                f"the loss of {batch.sources[index]} is {float(losses[index].detach())}",
                "vidgru info --verify on the features tells whether they are sound; if they are, lower --lr",
            )
        return losses

    def _score_losses(self, batch: Batch) -> Tensor:
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._mixed):
            clips, frames = self.network(batch.objects, batch.counts, batch.frame, batch.mask)
        return window_losses(
            EventLogits(None if clips is None else clips.float(), None if frames is None else frames.float()),
            batch,
            self._task,
            lookahead=self._lag,
            class_weights=self._class_weights,
            smoothing=self._config.label_smoothing,
        )

    def _sentence_losses(self, batch: Batch, words: Tensor) -> Tensor:
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._mixed):
            logits = self.network.caption_logits(batch.objects, batch.counts, batch.frame, batch.mask, words)
        return sentence_losses(logits.float(), words, self._config.label_smoothing)


def learning_rate(step: int) -> float:
    """Share of the highest learning rate at a step, from 1.

    It rises, and falls as one over a square root (Vaswani et al. 2017): not towards an end, so that a run that is
    resumed with more epochs is what it would have been with so many from the beginning.
    """
    return min(step / WARMUP, math.sqrt(_HALFWAY / (_HALFWAY + step)))


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices, none on biases and scales."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
