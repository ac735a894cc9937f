import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.model.networks import make_network
from tests.sequences import make_sequence
from vidgru.model.event_gru import EventGRU
from vidgru.model.gru_gates import GRUGates, has_gates, mean_gates

SEQUENCE = make_sequence(20)


def network_of(**shape: object) -> EventGRU:
    return make_network(SEQUENCE, seed=3, **shape)


def frames(count: int = 40) -> Tensor:
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(1))


def remembered(network: EventGRU, vectors: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        out, state = network.run_rnn(vectors[None], torch.ones(1, len(vectors), dtype=torch.bool), state)
    return out[0], state


def gates(network: EventGRU, vectors: Tensor, hidden: Tensor, state: Tensor | None = None) -> GRUGates:
    return GRUGates.from_means(mean_gates(network, vectors[None], hidden[None], state)[0])


def step_by_step(network: EventGRU, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, update and reset gates of the last layer, a step at a time, one cell a layer."""
    cells = []
    for weights in network.gru.all_weights:
        cell = nn.GRUCell(weights[0].shape[1], network.gru.hidden_size)
        cell.load_state_dict(dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights, strict=True)))
        cells.append(cell)
    states = [torch.zeros(1, network.gru.hidden_size) for _ in cells]
    outputs, updates, resets = [], [], []
    with torch.inference_mode():
        for vector in vectors:
            below = vector[None]
            for layer, cell in enumerate(cells):
                before = states[layer]
                by_input = (below @ cell.weight_ih.T + cell.bias_ih).chunk(3, dim=1)
                by_state = (before @ cell.weight_hh.T + cell.bias_hh).chunk(3, dim=1)
                reset, update = (torch.sigmoid(by_input[i] + by_state[i]) for i in (0, 1))
                states[layer] = cell(below, before)
                proposed = torch.tanh(by_input[2] + reset * by_state[2])
                torch.testing.assert_close(states[layer], update * before + (1 - update) * proposed)
                below = states[layer]
            outputs.append(states[-1])
            updates.append(update.mean())
            resets.append(reset.mean())
    return torch.cat(outputs), torch.stack(updates), torch.stack(resets)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_as_a_loop_over_the_steps_finds_them(layers: int) -> None:
    network, vectors = network_of(layers=layers), frames()
    hidden, _ = remembered(network, vectors)
    outputs, update, reset = step_by_step(network, vectors)
    torch.testing.assert_close(hidden, outputs)
    found = gates(network, vectors, hidden)
    assert (found.update.dtype, found.update.shape) == (np.float32, (40,))
    np.testing.assert_allclose(found.update, update.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.reset, reset.numpy(), rtol=0, atol=1e-6)
    assert np.abs(found.update - found.reset).max() > 1e-3, "a mix-up of the two would not be seen"


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("edges", [[0, 1, 2, 3, 40], [0, 0, 17, 40], [0, 39, 40, 40]])
def test_stretches_give_what_the_whole_gives(layers: int, edges: list[int]) -> None:
    network, vectors = network_of(layers=layers), frames()
    whole = gates(network, vectors, remembered(network, vectors)[0])
    state, parts = None, []
    for first, stop in itertools.pairwise(edges):
        part, before = vectors[first:stop], state
        if len(part):
            hidden, state = remembered(network, part, state)
        else:
            hidden = torch.zeros(0, 128)
        parts.append(gates(network, part, hidden, before))
    joined = GRUGates.concatenate(parts)
    np.testing.assert_allclose(joined.update, whole.update, rtol=0, atol=1e-6)
    np.testing.assert_allclose(joined.reset, whole.reset, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("bias", "kept"), [(30.0, 1.0), (-30.0, 0.0)])
def test_a_gate_that_is_forced(bias: float, kept: float) -> None:
    network, vectors = network_of(), frames()
    with torch.no_grad():
        network.gru.bias_ih_l0[128:256] = bias
    hidden, _ = remembered(network, vectors)
    found = gates(network, vectors, hidden)
    np.testing.assert_allclose(found.update, kept, atol=1e-6)
    assert (hidden.abs().max() < 1e-6) == (kept == 1.0)  # a state that is kept stays what it was: empty
    assert 0.1 < found.reset.mean() < 0.9


@pytest.mark.parametrize("shape", [{"cell": "lstm"}, {"cell": "rnn"}, {"cell": "none"}, {"bidirectional": True}])
def test_networks_without_such_gates(shape: dict[str, object]) -> None:
    assert not has_gates(network_of(**shape))
    assert has_gates(network_of())


def test_recordings_side_by_side() -> None:
    network, vectors = network_of(layers=2), torch.stack([frames(), frames().flip(0)])
    hidden = torch.stack([remembered(network, one)[0] for one in vectors])
    both = mean_gates(network, vectors, hidden)
    for row in range(2):
        alone = mean_gates(network, vectors[row, None], hidden[row, None])
        np.testing.assert_allclose(both[row], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("reset", [np.zeros(3, np.float32), np.zeros(4), np.zeros((4, 1), np.float32)])
def test_gates_check_their_shapes(reset: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"Gates\.reset must be float32 \[4\], got "):
        GRUGates(update=np.zeros(4, np.float32), reset=reset)
