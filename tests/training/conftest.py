from collections.abc import Iterator
from pathlib import Path

import pytest

from vidgru.storage import write_atomic
from vidgru.training import batches, plots

_PLOTS = {name: value for name, value in vars(plots).items() if name.startswith("plot_")}


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
        for name in _PLOTS:
            patch.setattr(plots, name, _write_empty)
        yield


@pytest.fixture
def drawn_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are drawn after all."""
    for name, plot in _PLOTS.items():
        monkeypatch.setattr(plots, name, plot)


def _write_empty(*arguments: object, **options: object) -> None:
    out = next(argument for argument in reversed(arguments) if isinstance(argument, Path))
    write_atomic(out, b"")
