import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from vidgru.model.fast_gru import repeat_input, run_members

SHAPES = [(1, 1), (1, 50), (3, 1), (4, 17), (16, 80)]  # clips, steps


def make_grus(members: int = 2, *sizes: int, **options: object) -> list[nn.GRU]:
    return [nn.GRU(*(sizes or (7, 12)), **{"batch_first": True, **options}) for _ in range(members)]


def run_apart(grus: Sequence[nn.GRU], x: Tensor, states: Sequence[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
    """What `run_members` is to return, by PyTorch."""
    pairs = [gru(x[k], None if states is None else states[k]) for k, gru in enumerate(grus)]
    return torch.stack([out for out, _ in pairs]), [state for _, state in pairs]


def gradients(run: Callable[..., object], grus: Sequence[nn.GRU], x: Tensor, h0: Tensor | None = None) -> list[Tensor]:
    """Outputs, last states, and the gradient of a number made of both by input, first states and every weight."""
    for gru in grus:
        gru.zero_grad()
    sources = [t.detach().clone().requires_grad_() for t in (x, h0) if t is not None]
    torch.manual_seed(1)  # of dropout
    out, last = run(grus, sources[0], None if h0 is None else list(sources[1]))
    results = out, torch.stack(last)
    rng = torch.Generator().manual_seed(2)
    loss = sum((t * torch.randn(t.shape, generator=rng, dtype=t.dtype)).sum() for t in results)
    loss.backward()
    weights = [p.grad for gru in grus for p in gru.parameters()]
    return [*(t.detach() for t in results), *(t.grad for t in sources), *weights]


def has_fast_path(out: Tensor) -> bool:
    """Whether our own operation made a result, as is told by what undoes it."""
    pending, visited = [out.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in visited:
            visited.add(node)
            pending += [below for below, _ in node.next_functions]
    return any("_GRULayerBackward" in node.name() for node in visited)


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Equal to rounding: 1e-6 of the largest number of each tensor, and a little more for each that was summed."""
    for actual, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6 * float(expected.abs().max().clamp(min=1)))


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(("clips", "steps"), SHAPES)
@pytest.mark.parametrize("state", [False, True])
def test_outputs_and_gradients_equal_pytorch(members: int, clips: int, steps: int, state: bool) -> None:
    grus = make_grus(members, 64, 128)
    x = torch.randn(members, clips, steps, 64)
    h0 = torch.randn(members, 1, clips, 128) if state else None
    assert has_fast_path(run_members(grus, x, None if h0 is None else list(h0))[0])
    assert_same(gradients(run_members, grus, x, h0), gradients(run_apart, grus, x, h0))


@pytest.mark.parametrize(("members", "training"), [(1, True), (1, False), (2, False)])
def test_stacked_layers_with_dropout(members: int, training: bool) -> None:
    grus = [gru.train(training) for gru in make_grus(members, 7, 12, 3, dropout=0.4)]
    x, h0 = torch.randn(members, 4, 9, 7), torch.randn(members, 3, 4, 12)
    assert has_fast_path(run_members(grus, x, None if h0 is None else list(h0))[0])
    assert_same(gradients(run_members, grus, x, h0), gradients(run_apart, grus, x, h0))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(1, 2),
        lambda x: x.movedim(2, 0),
        lambda x: x[:, :, ::2],
        lambda x: x[..., 1:],
        lambda x: x[:, :1].expand(-1, 5, -1, -1),
    ],
)
def test_input_strides(view: Callable[[Tensor], Tensor]) -> None:
    source = torch.randn(2, 6, 8, 13)
    grus = make_grus(len(view(source)), view(source).shape[3], 12)
    grads = []
    for run in (run_members, run_apart):
        x = source.clone().requires_grad_()
        out, _ = run(grus, view(x))
        out.square().sum().backward()
        grads.append(x.grad)
    assert_same([grads[0]], [grads[1]])


@pytest.mark.parametrize("layers", [1, 2])
def test_gradcheck(layers: int) -> None:
    grus = [gru.double() for gru in make_grus(2, 3, 4, layers)]
    x = torch.randn(2, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(2, layers, 2, 4, dtype=torch.float64, requires_grad=True)
    assert has_fast_path(run_members(grus, x, None if h0 is None else list(h0))[0])
    weights = [p for gru in grus for p in gru.parameters()]
    assert torch.autograd.gradcheck(lambda *_: run_members(grus, x, list(h0))[0], (x, h0, *weights))


def test_gradients_only_where_required() -> None:
    (gru,), x = make_grus(1), torch.randn(1, 2, 5, 7)
    gru.weight_ih_l0.requires_grad_(False)
    run_members([gru], x)[1][0].sum().backward()
    assert x.grad is None
    assert gru.weight_ih_l0.grad is None
    assert gru.weight_hh_l0.grad.abs().sum() > 0


def test_gradients_accumulate() -> None:
    (gru,), x = make_grus(1), torch.randn(1, 2, 5, 7)
    run_members([gru], x)[0].square().sum().backward()
    once = [p.grad.clone() for p in gru.parameters()]
    run_members([gru], x)[0].square().sum().backward()
    assert_same([p.grad for p in gru.parameters()], [2 * grad for grad in once])


def test_carried_state_equals_whole_sequence() -> None:
    grus, x = make_grus(2, 7, 12, 2), torch.randn(2, 3, 20, 7)
    whole, end = run_members(grus, x)
    states, parts = None, []
    for chunk in x.split([1, 7, 12], dim=2):
        part, states = run_members(grus, chunk, states)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(states, end, rtol=0, atol=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(run_members(grus, x)[0], whole, rtol=0, atol=1e-6)


def test_runs_are_bit_equal() -> None:
    grus, x = make_grus(2, 64, 128), torch.randn(2, 8, 30, 64)
    first = [tensor.clone() for tensor in gradients(run_members, grus, x)]
    for actual, expected in zip(first, gradients(run_members, grus, x), strict=True):
        assert torch.equal(actual, expected)


def test_deepcopy_is_independent() -> None:
    grus, x = make_grus(1), torch.randn(1, 2, 5, 7)
    before = run_members(grus, x)[0].detach().clone()
    twins = copy.deepcopy(grus)
    assert torch.equal(run_members(twins, x)[0], before)
    run_members(twins, x)[0].sum().backward()
    assert grus[0].weight_hh_l0.grad is None
    with torch.no_grad():
        twins[0].weight_hh_l0.add_(1)
    assert torch.equal(run_members(grus, x)[0], before)
    assert not torch.allclose(run_members(twins, x)[0], before)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.RNN])
def test_other_cells_run_in_pytorch(cell: type[nn.RNNBase]) -> None:
    rnns, x = [cell(7, 12, batch_first=True) for _ in range(2)], torch.randn(2, 3, 5, 7)
    out, states = run_members(rnns, x[:, :, :2])
    rest, states = run_members(rnns, x[:, :, 2:], states)
    assert not has_fast_path(out)
    expected, last = run_apart(rnns, x)
    torch.testing.assert_close(torch.cat([out, rest], dim=2), expected)
    torch.testing.assert_close(states, last)


def test_inference_and_autocast_run_in_pytorch() -> None:
    grus, x = make_grus(), torch.randn(2, 2, 5, 7)
    with torch.no_grad():
        assert torch.equal(run_members(grus, x)[0], run_apart(grus, x)[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(run_members(grus, x)[0], run_apart(grus, x)[0])


@pytest.mark.parametrize("shape", [(1, 2, 5, 8), (1, 2, 0, 7)])
def test_invalid_input_raises(shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError):
        run_members(make_grus(1), torch.randn(shape))


def test_double_backward_raises() -> None:
    x = torch.randn(2, 2, 5, 7, requires_grad=True)
    with pytest.raises(NotImplementedError, match=r"use nn\.GRU"):
        torch.autograd.grad(run_members(make_grus(), x)[0].sum(), x, create_graph=True)


def test_modified_output_raises_in_backward() -> None:
    out, _ = run_members(make_grus(), torch.randn(2, 2, 5, 7))
    out.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.filterwarnings("ignore:The tensor attributes self.grus")  # of nn.GRU itself
def test_export_runs_in_pytorch() -> None:
    class Members(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.grus = nn.ModuleList(make_grus())

        def forward(self, x: Tensor) -> Tensor:
            return run_members(list(self.grus), x)[0]

    program = torch.export.export(Members(), (torch.randn(2, 2, 5, 7),))
    assert any("gru" in str(node.target) for node in program.graph.nodes)


@pytest.mark.parametrize(("cell", "layers"), [(nn.GRU, 1), (nn.GRU, 2), (nn.LSTM, 1), (nn.RNN, 1)])
@torch.inference_mode()
def test_repeat_input_equals_single_steps_at_first(cell: type[nn.RNNBase], layers: int) -> None:
    rnns = [cell(7, 12, layers, batch_first=True) for _ in range(2)]
    x = torch.randn(2, 3, 7)
    _, states = run_members(rnns, torch.randn(2, 3, 5, 7))
    expected, last = run_members(rnns, x[:, :, None].expand(-1, -1, 70, -1), states)
    first, middle = repeat_input(rnns, x, states, 30, 10)
    second, end = repeat_input(rnns, x, middle, 40, 40)
    assert_same([first, second], expected.split([30, 40], dim=2))
    for actual, wanted in zip(end, last, strict=True):
        assert_same(actual if cell is nn.LSTM else [actual], wanted if cell is nn.LSTM else [wanted])


@torch.inference_mode()
def test_repeat_input_reaches_the_same_fixed_point() -> None:
    grus = make_grus(2, 8, 16)
    x, states = torch.randn(2, 1, 8), [torch.randn(1, 1, 16) for _ in range(2)]
    for gru in grus:
        gru.bias_ih_l0[16:32] += 3.0  # slow: it keeps 95 % of its state per step
    expected, _ = run_members(grus, x[:, :, None].expand(-1, -1, 4000, -1), states)
    out, _ = repeat_input(grus, x, states, 4000, 0)
    assert float((out - expected).abs().max()) < 0.02
    assert_same([out[:, :, -1]], [expected[:, :, -1]])
