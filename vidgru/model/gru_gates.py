"""What the GRU kept and what it forgot: its gates, recomputed from its weights, inputs and states."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vidgru.model.event_gru import EventGRU, RNNState
from vidgru.types import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class GRUGates:
    """Gates of the last recurrent layer at each frame, the mean over its units.

    Attributes:
        update: float32 [T], 0 to 1: the share of the old state that is kept (1: the frame changes nothing).
        reset: float32 [T], 0 to 1: how much the old state counts in what is proposed to replace it (0: it is
            forgotten there).
    """

    update: Array
    reset: Array

    def __post_init__(self) -> None:
        for name in ("update", "reset"):
            value = getattr(self, name)
            if value.dtype != np.float32 or value.shape != (len(self.update),):
                raise ValueError(
                    f"Gates.{name} must be float32 [{len(self.update)}], got {value.dtype} {list(value.shape)}"
                )

    @staticmethod
    def from_means(means: Array) -> GRUGates:
        """From `mean_gates` of one recording, float32 [T, 2]."""
        return GRUGates(update=means[:, 0], reset=means[:, 1])

    @staticmethod
    def concatenate(parts: Iterable[GRUGates]) -> GRUGates:
        """Of consecutive stretches."""
        parts = list(parts)
        nothing = np.zeros(0, np.float32)
        return GRUGates(
            update=np.concatenate([nothing, *(part.update for part in parts)]),
            reset=np.concatenate([nothing, *(part.reset for part in parts)]),
        )

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.update)


def has_gates(network: EventGRU) -> bool:
    """Whether there are such gates: a GRU's, in one direction."""
    return isinstance(network.gru, nn.GRU) and not network.gru.bidirectional


@torch.inference_mode()
def mean_gates(network: EventGRU, vectors: Tensor, hidden: Tensor, state: RNNState = None) -> Array:
    """Gates of consecutive steps, all at once: the states before each step are known from its pass over them.

    With the state h before a step and its input x, in PyTorch's variant of Cho et al. 2014 ("Learning Phrase
    Representations using RNN Encoder-Decoder"; `recurrent.py` has all of it):

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)       reset
        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)       update: h' = n + z * (h - n)

    Args:
        network: in eval mode, one that `has_gates`.
        vectors: float32 [B, T, width], frames as the encoder gives them.
        hidden: float32 [B, T, H], outputs of the recurrent layer for them, as `EventGRU.run_rnn` gives them.
        state: that of all layers before the first of these steps, [layers, B, H]; None at a recording's beginning.

    Returns:
        float32 [B, T, 2]: update and reset, the mean over units.
    """
    gru = network.gru
    assert isinstance(gru, nn.GRU)
    if not vectors.shape[1]:
        return np.zeros((len(vectors), 0, 2), np.float32)
    before = hidden.new_zeros(gru.num_layers, len(hidden), gru.hidden_size) if state is None else state
    below = vectors
    if gru.num_layers > 1:  # the last layer reads what those below it say
        lower: list[Tensor] = [weight for layer in gru.all_weights[:-1] for weight in layer]
        below, _ = torch.gru(vectors, before[:-1], lower, True, gru.num_layers - 1, 0.0, False, False, True)
    w_ih, w_hh, b_ih, b_hh = gru.all_weights[-1]
    both = slice(2 * gru.hidden_size)  # weights are stacked in the order reset, update, new
    states = torch.cat([before[-1][:, None], hidden], dim=1)[:, :-1]
    logits = nn.functional.linear(below, w_ih[both], (b_ih + b_hh)[both]) + states @ w_hh[both].t()
    reset, update = (gate.mean(dim=2) for gate in logits.sigmoid_().chunk(2, dim=2))
    means: Array = torch.stack([update, reset], dim=2).cpu().numpy()
    return means
