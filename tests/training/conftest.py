from collections.abc import Iterator
from pathlib import Path

import pytest

from vidgru.storage import write_atomic
from vidgru.training import batches, evaluate, plots, run

_PLOTS = {run: ["plot_curves"], evaluate: [name for name in vars(evaluate) if name.startswith("plot_")]}


@pytest.fixture(scope="session", autouse=True)
def _single_passes() -> Iterator[None]:
    """Epochs pass over the clips once, however few there are: enough for tests, and many times faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_MIN_CLIP_BATCHES", 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def _empty_plots() -> Iterator[None]:
    """Plots are empty files: drawing takes longer than training for a few epochs."""
    with pytest.MonkeyPatch.context() as patch:
        for module, names in _PLOTS.items():
            for name in names:
                patch.setattr(module, name, _write_empty)
        yield


@pytest.fixture
def drawn_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are drawn after all."""
    for module, names in _PLOTS.items():
        for name in names:
            monkeypatch.setattr(module, name, getattr(plots, name))


def _write_empty(*arguments: object, **options: object) -> None:
    out = next(argument for argument in reversed(arguments) if isinstance(argument, Path))
    write_atomic(out, b"")
