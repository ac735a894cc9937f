import pytest


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are laid out but written empty: rendering takes longer than training for a few epochs."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, out, **options: None)
