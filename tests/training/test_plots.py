from pathlib import Path

import cv2
import numpy as np
import pytest

from vidgru.errors import OutputError
from vidgru.training.plots import plot_confusion, plot_curves

RESULTS = """epoch,train_loss,val_loss,val_accuracy,lr,seconds
1,1.0,1.2,,0.1,3
2,0.5,0.9,0.7,0.1,3
3,0.3,nan,,0.05,3
"""


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


@pytest.mark.parametrize("classes", [1, 2, 60, 61])
def test_confusion_of_any_size(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 30, (classes, classes)) * (rng.random((classes, classes)) < 0.1)
    plot_confusion(counts.tolist(), [f"activity {i}" for i in range(classes)], tmp_path / "out" / "c.png", title="test")
    high, wide = picture(tmp_path / "out" / "c.png").shape[:2]
    assert high >= 0.3 * 100 * min(classes, 60)
    assert max(high, wide) < 3600


def test_colour_is_the_share_of_the_true_class(tmp_path: Path) -> None:
    def inked(counts: list[list[int]]) -> float:
        plot_confusion(counts, ["a", "b"], tmp_path / "c.png")
        return float((picture(tmp_path / "c.png")[:, :, 2] < 60).mean())  # the darkest blue

    few, many = inked([[1, 0], [0, 9]]), inked([[1000, 0], [0, 9]])
    assert few > 0.1
    assert many == pytest.approx(few, rel=0.2)  # the numbers differ, not the colours
    assert inked([[5, 5], [5, 5]]) < 0.5 * few
    blank = inked([[0, 0], [0, 9]])
    assert blank == pytest.approx(few / 2, rel=0.4)  # a class without clips is not drawn as wrong


def test_names_of_any_kind(tmp_path: Path) -> None:
    names = ["costs $5$ or $", "站起来", "a_b^{c}", "\\frac", "a very long name " * 9, "two\nlines"]
    plot_confusion(np.eye(6, dtype=int), names, tmp_path / "c.png", title="$x")
    assert picture(tmp_path / "c.png").shape[1] < 2000


def test_confusion_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"confusion must be \[3, 3\], got \[2, 2\]"):
        plot_confusion([[1, 0], [0, 1]], ["a", "b", "c"], tmp_path / "c.png")


def test_curves(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(RESULTS)
    plot_curves(tmp_path / "results.csv", tmp_path / "plain.png")
    plot_curves(tmp_path / "results.csv", tmp_path / "marked.png", best_epoch=2)
    plain, marked = picture(tmp_path / "plain.png"), picture(tmp_path / "marked.png")
    assert not np.array_equal(plain, marked)
    assert plain.shape[1] > 3 * plain.shape[0]  # loss, accuracy and lr side by side; seconds are not drawn


@pytest.mark.parametrize(
    "text", ["", "epoch,val_loss\n", "epoch,val_loss\n1,\n", "epoch, train/loss, val/loss\n1, 2, 3\n"]
)
def test_curves_of_little(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.csv").write_text(text)
    plot_curves(tmp_path / "results.csv", tmp_path / "r.png")
    assert picture(tmp_path / "r.png").size


def test_curves_need_epochs(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("loss\n1\n")
    with pytest.raises(ValueError, match=r"results.csv has no column epoch, but \['loss'\]"):
        plot_curves(tmp_path / "results.csv", tmp_path / "r.png")


def test_same_in_same_out(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        plot_confusion([[1, 0], [0, 1]], ["a", "b"], tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        plot_confusion([[1]], ["a"], tmp_path / "file" / "c.png")


def test_no_global_figures(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    plot_confusion([[1]], ["a"], tmp_path / "c.png")
    assert plt.get_fignums() == []
