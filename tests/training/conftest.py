from collections.abc import Iterator

import pytest

from vidgru.training import batches


@pytest.fixture(scope="session", autouse=True)
def _single_passes() -> Iterator[None]:
    """Epochs pass over the clips once, however few there are: enough for tests, and many times faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_MIN_CLIP_BATCHES", 1)
        yield


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are laid out but written empty: rendering takes longer than training for a few epochs."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, out, **options: None)
