"""Gates of the GRU, recomputed from its weights, inputs and states: what it kept and what it forgot."""

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
    """Gates of the last recurrent layer at each frame, averaged over its units and over members.

    Attributes:
        update: float32 [T], 0 to 1, the fraction of the old state that is kept (1: the frame changes nothing).
        reset: float32 [T], 0 to 1, the weight of the old state in its proposed replacement (0: the replacement ignores
            the old state).
    """

    update: Array
    reset: Array

    def __post_init__(self) -> None:
        for name in ("update", "reset"):
            value = getattr(self, name)
            if value.dtype != np.float32 or value.shape != (len(self.update),):
                raise ValueError(
                    f"GRUGates.{name} must be float32 [{len(self.update)}], got {value.dtype} {list(value.shape)}"
                )

    @staticmethod
    def from_means(means: Array) -> GRUGates:
        """Create from the `mean_gates` of one recording, float32 [T,2]."""
        return GRUGates(update=means[:, 0], reset=means[:, 1])

    @staticmethod
    def concatenate(parts: Iterable[GRUGates]) -> GRUGates:
        """Concatenate the gates of consecutive chunks."""
        parts = list(parts)
        empty = np.zeros(0, np.float32)
        return GRUGates(
            update=np.concatenate([empty, *(part.update for part in parts)]),
            reset=np.concatenate([empty, *(part.reset for part in parts)]),
        )

    def __len__(self) -> int:
        """Number of frames, T."""
        return len(self.update)


def has_gates(network: EventGRU) -> bool:
    """Whether the network has gates that `mean_gates` can recompute: those of a unidirectional GRU."""
    return network.architecture.cell == "gru" and not network.architecture.bidirectional


@torch.inference_mode()
def mean_gates(network: EventGRU, vectors: Tensor, hidden: Tensor, states: RNNState = None) -> Array:
    """Recompute the gates of consecutive steps, all at once from the states that the forward pass left.

    With the state h before a step and its input x, in PyTorch's variant of Cho et al. 2014 ("Learning Phrase
    Representations using RNN Encoder-Decoder"; `fast_gru.py` has the whole cell):

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)       reset
        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)       update: h' = n + z * (h - n)

    Args:
        network: Network in eval mode for which `has_gates` is true.
        vectors: float32 [members,B,T,width], encoded frames.
        hidden: float32 [members,B,T,H], outputs of `EventGRU.run_rnn` for these frames.
        states: States before the first step, as `EventGRU.run_rnn` returned them; None at the beginning of a recording.

    Returns:
        float32 [B,T,2], update and reset gates, averaged over units and members.
    """
    assert network.gru is not None
    _, batch, steps, _ = vectors.shape
    if not steps:
        return np.zeros((batch, 0, 2), np.float32)
    inputs = zip(network.gru, vectors, hidden, states or [None] * network.members, strict=True)
    means: Array = torch.stack([_member_gates(*of_member) for of_member in inputs]).mean(dim=0).cpu().numpy()
    return means


def _member_gates(gru: nn.Module, vectors: Tensor, hidden: Tensor, state: Tensor | None) -> Tensor:
    """Return the gates of one member, [B,T,2], averaged over units."""
    assert isinstance(gru, nn.GRU)
    initial = hidden.new_zeros(gru.num_layers, len(hidden), gru.hidden_size) if state is None else state
    below = vectors
    if gru.num_layers > 1:  # the last layer reads the outputs of the layers below
        lower: list[Tensor] = [weight for layer in gru.all_weights[:-1] for weight in layer]
        below, _ = torch.gru(vectors, initial[:-1], lower, True, gru.num_layers - 1, 0.0, False, False, True)
    w_ih, w_hh, b_ih, b_hh = gru.all_weights[-1]
    gates = slice(2 * gru.hidden_size)  # weights are stacked in the order reset, update, new
    before = torch.cat([initial[-1][:, None], hidden], dim=1)[:, :-1]
    logits = nn.functional.linear(below, w_ih[gates], (b_ih + b_hh)[gates]) + before @ w_hh[gates].t()
    reset, update = (gate.mean(dim=2) for gate in logits.sigmoid_().chunk(2, dim=2))
    return torch.stack([update, reset], dim=2)
