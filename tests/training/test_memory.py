import pytest

from tests.model.networks import make_model
from vidgru.errors import VidgruError
from vidgru.training.memory import step_bytes


@pytest.mark.slow
@pytest.mark.parametrize("timed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_memory_of_a_step_grows_with_the_batch(timed: bool) -> None:
    model = make_model(cell="lstm", clips=not timed, timed=timed)
    small, large = (step_bytes(model, shape) for shape in ((2, 16, 32), (32, 100, 12800)))
    assert small < 10e6
    # every object's 64 numbers are kept for going back, and more than once: a bound from below
    assert 32 * 100 * 4 * 64 * 4 * 2 < large < 500e6


@pytest.mark.slow
def test_a_process_that_fails_is_told_of() -> None:
    with pytest.raises(VidgruError, match=r"measuring memory failed: .+Error"):
        step_bytes(make_model(), (-1, 16, 1))
