import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vidgru.model.fast_gru import GRU

SHAPES = [(1, 1), (1, 50), (3, 1), (4, 17), (16, 80)]  # clips, steps


def pair(*sizes: int, **options: object) -> tuple[GRU, nn.GRU]:
    """One of ours and PyTorch's own, equal in every weight."""
    sizes = sizes or (7, 12)
    ours, theirs = GRU(*sizes, **{"batch_first": True, **options}), nn.GRU(*sizes, **{"batch_first": True, **options})
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def run(gru: nn.GRU, x: Tensor, h0: Tensor | None = None) -> list[Tensor]:
    """Outputs, last state, and the gradient of a number made of both by input, first state and every weight."""
    gru.zero_grad()
    sources = [t.detach().clone().requires_grad_() for t in (x, h0) if t is not None]
    torch.manual_seed(1)  # of dropout
    out, last = gru(*sources)
    rng = torch.Generator().manual_seed(2)
    loss = sum((t * torch.randn(t.shape, generator=rng, dtype=t.dtype)).sum() for t in (out, last))
    loss.backward()
    return [out.detach(), last.detach(), *(t.grad for t in sources), *(p.grad for p in gru.parameters())]


def has_fast_path(out: Tensor) -> bool:
    """Whether our own operation made a result, as is told by what undoes it."""
    pending, visited = [out.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in visited:
            visited.add(node)
            pending += [below for below, _ in node.next_functions]
    return any("_GRULayerBackward" in node.name() for node in visited)


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Equal to rounding: 1e-6 of the largest number of each tensor, and a little more for each that was summed."""
    for actual, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6 * float(expected.abs().max().clamp(min=1)))


@pytest.mark.parametrize(("clips", "steps"), SHAPES)
@pytest.mark.parametrize("state", [False, True])
def test_outputs_and_gradients_equal_pytorch(clips: int, steps: int, state: bool) -> None:
    ours, theirs = pair(64, 128)
    x = torch.randn(clips, steps, 64)
    h0 = torch.randn(1, clips, 128) if state else None
    assert has_fast_path(ours(x, h0)[0])
    assert_same(run(ours, x, h0), run(theirs, x, h0))


@pytest.mark.parametrize("training", [True, False])
def test_stacked_layers_with_dropout(training: bool) -> None:
    ours, theirs = (gru.train(training) for gru in pair(7, 12, 3, dropout=0.4))
    x, h0 = torch.randn(4, 9, 7), torch.randn(3, 4, 12)
    assert has_fast_path(ours(x, h0)[0])
    assert_same(run(ours, x, h0), run(theirs, x, h0))


def test_time_first() -> None:
    ours, theirs = pair(batch_first=False)
    x, h0 = torch.randn(9, 4, 7), torch.randn(1, 4, 12)
    assert has_fast_path(ours(x, h0)[0])
    assert_same(run(ours, x, h0), run(theirs, x, h0))


@pytest.mark.parametrize(
    "view", [lambda x: x.transpose(0, 1), lambda x: x[:, ::2], lambda x: x[..., 1:], lambda x: x[:1].expand(5, -1, -1)]
)
def test_input_strides(view: Callable[[Tensor], Tensor]) -> None:
    source = torch.randn(6, 8, 13)
    ours, theirs = pair(view(source).shape[2], 12)
    grads = []
    for gru in (ours, theirs):
        x = source.clone().requires_grad_()
        out, _ = gru(view(x))
        out.square().sum().backward()
        grads.append(x.grad)
    assert_same([grads[0]], [grads[1]])


@pytest.mark.parametrize("layers", [1, 2])
def test_gradcheck(layers: int) -> None:
    gru = GRU(3, 4, layers, batch_first=True).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(layers, 2, 4, dtype=torch.float64, requires_grad=True)
    assert has_fast_path(gru(x, h0)[0])
    assert torch.autograd.gradcheck(lambda *_: gru(x, h0), (x, h0, *gru.parameters()))


def test_gradients_only_where_required() -> None:
    gru, x = GRU(7, 12, batch_first=True), torch.randn(2, 5, 7)
    gru.weight_ih_l0.requires_grad_(False)
    gru(x)[1].sum().backward()
    assert x.grad is None
    assert gru.weight_ih_l0.grad is None
    assert gru.weight_hh_l0.grad.abs().sum() > 0


def test_gradients_accumulate() -> None:
    gru, x = GRU(7, 12, batch_first=True), torch.randn(2, 5, 7)
    gru(x)[0].square().sum().backward()
    once = [p.grad.clone() for p in gru.parameters()]
    gru(x)[0].square().sum().backward()
    assert_same([p.grad for p in gru.parameters()], [2 * grad for grad in once])


def test_carried_state_equals_whole_sequence() -> None:
    gru, x = GRU(7, 12, 2, batch_first=True), torch.randn(3, 20, 7)
    whole, end = gru(x)
    state, parts = None, []
    for chunk in x.split([1, 7, 12], dim=1):
        part, state = gru(chunk, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(state, end, rtol=0, atol=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(gru(x)[0], whole, rtol=0, atol=1e-6)


def test_runs_are_bit_equal() -> None:
    gru, x = GRU(64, 128, batch_first=True), torch.randn(8, 30, 64)
    first = [tensor.clone() for tensor in run(gru, x)]
    for actual, expected in zip(first, run(gru, x), strict=True):
        assert torch.equal(actual, expected)


def test_initial_weights_equal_pytorch() -> None:
    torch.manual_seed(0)
    ours = GRU(7, 12, batch_first=True)
    torch.manual_seed(0)
    theirs = nn.GRU(7, 12, batch_first=True)
    assert isinstance(ours, nn.GRU)
    assert list(ours.state_dict()) == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


def test_deepcopy_is_independent() -> None:
    gru, x = GRU(7, 12, batch_first=True), torch.randn(2, 5, 7)
    before = gru(x)[0].detach().clone()
    twin = copy.deepcopy(gru)
    assert torch.equal(twin(x)[0], before)
    twin(x)[0].sum().backward()
    assert gru.weight_hh_l0.grad is None
    with torch.no_grad():
        twin.weight_hh_l0.add_(1)
    assert torch.equal(gru(x)[0], before)
    assert not torch.allclose(twin(x)[0], before)


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"bias": False}])
def test_unsupported_options_fall_back(options: dict[str, object]) -> None:
    ours, theirs = pair(**options)
    x = torch.randn(2, 5, 7)
    assert not has_fast_path(ours(x)[0])
    for actual, expected in zip(run(ours, x), run(theirs, x), strict=True):
        assert torch.equal(actual, expected)


def test_unsupported_inputs_fall_back() -> None:
    ours, theirs = pair()
    x = torch.randn(2, 5, 7)
    assert torch.equal(ours(x[0])[0], theirs(x[0])[0])
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True)
    assert torch.equal(ours(packed)[0].data, theirs(packed)[0].data)
    with torch.no_grad():
        assert torch.equal(ours(x)[0], theirs(x)[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x)[0], theirs(x)[0])


def test_invalid_input_raises_as_pytorch() -> None:
    ours, theirs = pair()
    for arguments in [(torch.randn(2, 5, 8),), (torch.randn(2, 5, 7), torch.randn(1, 3, 12)), (torch.randn(2, 0, 7),)]:
        with pytest.raises(RuntimeError) as theirs_error:
            theirs(*arguments)
        with pytest.raises(RuntimeError) as ours_error:
            ours(*arguments)
        assert str(ours_error.value) == str(theirs_error.value)


def test_double_backward_raises() -> None:
    gru, x = GRU(7, 12, batch_first=True), torch.randn(2, 5, 7, requires_grad=True)
    with pytest.raises(NotImplementedError, match=r"use nn\.GRU"):
        torch.autograd.grad(gru(x)[0].sum(), x, create_graph=True)


def test_modified_output_raises_in_backward() -> None:
    gru, x = GRU(7, 12, batch_first=True), torch.randn(2, 5, 7)
    out, _ = gru(x)
    out.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.filterwarnings("ignore:The tensor attributes self._flat_weights")  # of nn.GRU itself
def test_export_falls_back() -> None:
    gru = GRU(7, 12, batch_first=True)
    program = torch.export.export(gru, (torch.randn(2, 5, 7),))
    assert any("gru" in str(node.target) for node in program.graph.nodes)
