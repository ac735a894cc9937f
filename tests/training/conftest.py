import pytest


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are put together but come out empty: drawing them takes longer than a training of a few epochs."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, out, **options: None)
