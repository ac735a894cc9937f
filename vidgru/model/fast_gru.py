"""The recurrent layers of all members; GRUs are trained, and read equal frames, faster than by `nn.GRU`.

On CPUs PyTorch uses oneDNN for the LSTM only; its GRU is a chain of small operations that autograd records and reverses
one by one. Here a layer of all members is a single autograd function. Its backward pass takes three kernels per step,
and everything that does not depend on the next step is computed for all steps at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

aten = torch.ops.aten

# Of consecutive equal inputs, steps after the first 64 are taken together, 1/64 of those before at a time. Measured in
# still stretches of 17 minutes with a GRU trained for 8 s: scores change by 0.1, and differ by 0.002 on average (at
# most 0.007) from those of single steps; with 32, by 0.003 (0.012).
_SINGLE_STEPS = 64


def run_members(rnns: Sequence[nn.RNNBase], x: Tensor, states: Sequence[Any] | None = None) -> tuple[Tensor, list[Any]]:
    """Run the recurrent layers of each member over its own input.

    With gradients on CPUs, GRUs run side by side in `_GRULayer`, equal to `nn.GRU` up to rounding except that double
    backward is not supported. Everything else runs one member after the other in PyTorch: other cells and devices,
    inference, autocast, tracing and export.

    Args:
        rnns: An `nn.GRU`, `nn.LSTM` or `nn.RNN` per member, of equal shape, unidirectional and with `batch_first`.
        x: [members,B,T,inputs].
        states: State of each member as it takes it, [layers,B,hidden] for a GRU; None for zeros.

    Returns:
        Outputs of the last layer, [members,B,T,hidden], and the last state of each member.
    """
    if _has_fast_path(rnns, x, states):
        return _run_grus(rnns, x, states)
    pairs = [rnn(inputs, state) for rnn, inputs, state in zip(rnns, x, states or [None] * len(rnns), strict=True)]
    return torch.stack([out for out, _ in pairs]), [state for _, state in pairs]


def repeat_input(
    rnns: Sequence[nn.RNNBase], x: Tensor, states: Sequence[Any], steps: int, first: int
) -> tuple[Tensor, list[Any]]:
    """Run the recurrent layers over equal inputs, in a number of steps that grows with the logarithm of theirs.

    The state of a GRU takes minutes to settle, and moves ever more slowly. With constant gates k steps are
    h' = n + z^k * (h - n), in the words of `_GRULayer`, which has the fixed point of single steps and is stable for any
    k. Other cells, and several layers, take single steps.

    Args:
        rnns: As for `run_members`.
        x: [members,B,inputs].
        states: As for `run_members`; not None.
        steps: Number of steps, at least 1.
        first: Number of earlier steps with this input.

    Returns:
        As `run_members`.
    """
    if not isinstance(rnns[0], nn.GRU) or rnns[0].num_layers > 1:
        return run_members(rnns, x[:, :, None].expand(-1, -1, steps, -1), states)
    weights = zip(*(gru.all_weights[0] for gru in rnns), strict=True)
    w_ih, w_hh, b_ih, b_hh = (torch.stack(of_members) for of_members in weights)
    inputs = torch.baddbmm(b_ih[:, None], x, w_ih.transpose(1, 2))
    h, outputs = torch.stack([state[0] for state in states]), []
    while steps:
        leap = min(max(first // _SINGLE_STEPS, 1), steps)
        recurrent = torch.baddbmm(b_hh[:, None], h, w_hh.transpose(1, 2))
        (r_x, z_x, n_x), (r_h, z_h, n_h) = inputs.chunk(3, dim=2), recurrent.chunk(3, dim=2)
        n = (n_x + (r_x + r_h).sigmoid_() * n_h).tanh_()[:, :, None]
        powers = torch.arange(1, leap + 1, device=h.device)[:, None]
        out = n + (z_x + z_h).sigmoid_()[:, :, None] ** powers * (h[:, :, None] - n)
        outputs.append(out)
        h, first, steps = out[:, :, -1], first + leap, steps - leap
    return torch.cat(outputs, dim=2), [state[None] for state in h]


def _has_fast_path(rnns: Sequence[nn.RNNBase], x: Tensor, states: Sequence[Any] | None) -> bool:
    """Whether the members are GRUs, gradients are needed, and `_GRULayer` supports the input."""
    return (
        isinstance(rnns[0], nn.GRU)
        and x.numel() > 0
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and torch.is_grad_enabled()
        and any(t.requires_grad for t in (x, *(states or ()), *(p for rnn in rnns for p in rnn.parameters())))
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and not torch.compiler.is_compiling()
    )


def _run_grus(grus: Sequence[nn.RNNBase], x: Tensor, states: Sequence[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
    first = grus[0]
    below = x.transpose(1, 2)
    members, _, batch, _ = below.shape
    if states is None:
        h0 = x.new_zeros(first.num_layers, members, batch, first.hidden_size)
    else:
        h0 = torch.stack(list(states), dim=1)
    last = []
    for layer in range(first.num_layers):
        if layer:
            below = F.dropout(below, first.dropout, first.training)
        weights = zip(*(gru.all_weights[layer] for gru in grus), strict=True)
        below = _GRULayer.apply(below, h0[layer], *(torch.stack(of_members) for of_members in weights))
        last.append(below[:, -1])
    return below.transpose(1, 2), list(torch.stack(last, dim=1))


class _GRULayer(torch.autograd.Function):
    """One unidirectional layer of all members, time before batch.

    With gates r (reset) and z (update), and hu = W_hn h + b_hn (Cho et al. 2014, "Learning Phrase Representations using
    RNN Encoder-Decoder", in PyTorch's variant: the reset gate is applied after the product):

        n = tanh(W_in x + b_in + r * hu)        h' = n + z * (h - n)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        """Map [E,T,B,I] and states [E,B,H] to [E,T,B,H], for E members.

        Weights [E,3H,I] and [E,3H,H] and biases [E,3H] are stacked in the order r, z, n.
        """
        members, steps, batch, width = x.shape
        hidden = h0.shape[2]
        two, three = 2 * hidden, 3 * hidden
        # Each row of `gates` holds r, z and hu. What depends on inputs and biases is computed for all steps at once.
        weight = torch.cat([w_ih[:, :two], w_ih.new_zeros(members, hidden, width)], dim=1)
        bias = torch.cat([b_ih[:, :two] + b_hh[:, :two], b_hh[:, two:]], dim=1)
        rows = x.reshape(members, steps * batch, width)
        gates = torch.baddbmm(bias[:, None], rows, weight.transpose(1, 2)).view(members, steps, batch, three)
        proposals = torch.baddbmm(b_ih[:, None, two:], rows, w_ih[:, two:].transpose(1, 2))
        proposals = proposals.view(members, steps, batch, hidden)
        out = x.new_empty(members, steps, batch, hidden)
        recurrent = w_hh.transpose(1, 2).contiguous()
        h = h0
        for r_z_hu, r_z, r, z, hu, n, after in zip(
            gates.unbind(1),
            gates[..., :two].unbind(1),
            *(gate.unbind(1) for gate in gates.chunk(3, dim=3)),
            proposals.unbind(1),
            out.unbind(1),
            strict=True,
        ):
            r_z_hu.baddbmm_(h, recurrent)
            r_z.sigmoid_()
            n.addcmul_(r, hu).tanh_()
            h = torch.lerp(n, h, z, out=after)
        ctx.save_for_backward(x, h0, w_ih, w_hh, gates, proposals, out)
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of all inputs.

        Raises:
            NotImplementedError: The gradients are to be differentiated again (`create_graph=True`).
        """
        if torch.is_grad_enabled():  # the in-place operations below would silently count as constants
            raise NotImplementedError("vidgru's GRU does not support double backward; use nn.GRU")
        x, h0, w_ih, w_hh, gates, n, out = ctx.saved_tensors
        members, steps, batch, hidden = out.shape
        r, z, hu = gates.chunk(3, dim=3)
        before = torch.cat([h0[:, None], out[:, :-1]], dim=1)
        # Derivatives of h' with respect to hu, n, and the pre-activations of r and z; each step multiplies its own
        # gradient by them.
        by = out.new_empty(members, steps, batch, 3, hidden)
        by_r, by_z, by_hu = by.unbind(3)
        by_n = aten.tanh_backward(1 - z, n)
        torch.mul(by_n, r, out=by_hu)
        aten.sigmoid_backward.grad_input(by_n * hu, r, grad_input=by_r)
        aten.sigmoid_backward.grad_input(before - n, z, grad_input=by_z)
        dh = torch.cat([torch.zeros_like(d_out[:, :1]), d_out], dim=1)
        dhs, zs, by_steps, flat_steps = dh.unbind(1), z.unbind(1), by.unbind(1), by.flatten(3).unbind(1)
        for t in reversed(range(steps)):
            by_steps[t].mul_(dhs[t + 1][:, :, None])
            dhs[t].addcmul_(dhs[t + 1], zs[t]).baddbmm_(flat_steps[t], w_hh)
        rows = by.view(members, steps * batch, 3 * hidden)
        d_w_hh, d_b_hh = rows.transpose(1, 2) @ before.view(members, steps * batch, hidden), rows.sum(1)
        torch.mul(by_n, dh[:, 1:], out=by_hu)  # the input reaches n without the reset gate
        d_w_ih, d_b_ih = rows.transpose(1, 2) @ x.reshape(members, steps * batch, -1), rows.sum(1)
        return (rows @ w_ih).view_as(x), dh[:, 0], d_w_ih, d_w_hh, d_b_ih, d_b_hh
