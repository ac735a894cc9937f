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


def run_network(network: EventGRU, vectors: Tensor, state: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
    with torch.inference_mode():
        out, state = network.run_rnn(vectors[None, None], torch.ones(1, len(vectors), dtype=torch.bool), state)
    return out[0, 0], state


def gates(network: EventGRU, vectors: Tensor, hidden: Tensor, state: list[Tensor] | None = None) -> GRUGates:
    return GRUGates.from_means(mean_gates(network, vectors[None, None], hidden[None, None], state)[0])


def step_by_step(network: EventGRU, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, update and reset gates of the last layer, a step at a time, one cell a layer."""
    cells = []
    (gru,) = network.gru
    for weights in gru.all_weights:
        cell = nn.GRUCell(weights[0].shape[1], gru.hidden_size)
        cell.load_state_dict(dict(zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), weights, strict=True)))
        cells.append(cell)
    states = [torch.zeros(1, gru.hidden_size) for _ in cells]
    outputs, updates, resets = [], [], []
    with torch.inference_mode():
        for vector in vectors:
            below = vector[None]
            for layer, cell in enumerate(cells):
                previous = states[layer]
                by_input = (below @ cell.weight_ih.T + cell.bias_ih).chunk(3, dim=1)
                by_state = (previous @ cell.weight_hh.T + cell.bias_hh).chunk(3, dim=1)
                reset, update = (torch.sigmoid(by_input[i] + by_state[i]) for i in (0, 1))
                states[layer] = cell(below, previous)
                proposed = torch.tanh(by_input[2] + reset * by_state[2])
                torch.testing.assert_close(states[layer], update * previous + (1 - update) * proposed)
                below = states[layer]
            outputs.append(states[-1])
            updates.append(update.mean())
            resets.append(reset.mean())
    return torch.cat(outputs), torch.stack(updates), torch.stack(resets)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_mean_gates_equal_loop_over_steps(layers: int) -> None:
    network, vectors = network_of(layers=layers), frames()
    hidden, _ = run_network(network, vectors)
    outputs, update, reset = step_by_step(network, vectors)
    torch.testing.assert_close(hidden, outputs)
    result = gates(network, vectors, hidden)
    assert (result.update.dtype, result.update.shape) == (np.float32, (40,))
    np.testing.assert_allclose(result.update, update.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.reset, reset.numpy(), rtol=0, atol=1e-6)
    assert np.abs(result.update - result.reset).max() > 1e-3, "a mix-up of the two would not be seen"


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("edges", [[0, 1, 2, 3, 40], [0, 0, 17, 40], [0, 39, 40, 40]])
def test_mean_gates_are_independent_of_chunks(layers: int, edges: list[int]) -> None:
    network, vectors = network_of(layers=layers), frames()
    whole = gates(network, vectors, run_network(network, vectors)[0])
    state, parts = None, []
    for first, stop in itertools.pairwise(edges):
        part, previous = vectors[first:stop], state
        if len(part):
            hidden, state = run_network(network, part, state)
        else:
            hidden = torch.zeros(0, 128)
        parts.append(gates(network, part, hidden, previous))
    joined = GRUGates.concatenate(parts)
    np.testing.assert_allclose(joined.update, whole.update, rtol=0, atol=1e-6)
    np.testing.assert_allclose(joined.reset, whole.reset, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("bias", "expected"), [(30.0, 1.0), (-30.0, 0.0)])
def test_mean_gates_of_saturated_update_gate(bias: float, expected: float) -> None:
    network, vectors = network_of(), frames()
    with torch.no_grad():
        network.gru[0].bias_ih_l0[128:256] = bias
    hidden, _ = run_network(network, vectors)
    result = gates(network, vectors, hidden)
    np.testing.assert_allclose(result.update, expected, atol=1e-6)
    assert (hidden.abs().max() < 1e-6) == (expected == 1.0)  # a state that is kept stays what it was: empty
    assert 0.1 < result.reset.mean() < 0.9


@pytest.mark.parametrize("shape", [{"cell": "lstm"}, {"cell": "rnn"}, {"cell": "none"}, {"bidirectional": True}])
def test_has_gates(shape: dict[str, object]) -> None:
    assert not has_gates(network_of(**shape))
    assert has_gates(network_of())


def test_mean_gates_of_batch() -> None:
    network, vectors = network_of(layers=2), torch.stack([frames(), frames().flip(0)])
    hidden = torch.stack([run_network(network, vector_sequence)[0] for vector_sequence in vectors])
    batch = mean_gates(network, vectors[None], hidden[None])
    for row in range(2):
        alone = mean_gates(network, vectors[None, row, None], hidden[None, row, None])
        np.testing.assert_allclose(batch[row], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("reset", [np.zeros(3, np.float32), np.zeros(4), np.zeros((4, 1), np.float32)])
def test_gru_gates_check_shapes(reset: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"Gates\.reset must be float32 \[4\], got "):
        GRUGates(update=np.zeros(4, np.float32), reset=reset)
