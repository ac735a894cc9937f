from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from vidgru.errors import OutputError
from vidgru.training import plots
from vidgru.training.metrics.clips import clip_curves, multilabel_metrics
from vidgru.training.metrics.events import FrameScores
from vidgru.training.plots import (
    plot_average_precision,
    plot_confusion,
    plot_coverage,
    plot_curves,
    plot_precision_recall,
    plot_timelines,
)
from vidgru.types import Annotation, Event

RESULTS = """epoch,train_loss,val_loss,val_accuracy,lr,seconds
1,1.0,1.2,,0.1,3
2,0.5,0.9,0.7,0.1,3
3,0.3,nan,,0.05,3
"""


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


@pytest.mark.parametrize("classes", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_confusion_of_any_size(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 30, (classes, classes)) * (rng.random((classes, classes)) < 0.1)
    plot_confusion(counts.tolist(), [f"activity {i}" for i in range(classes)], tmp_path / "out" / "c.png", title="test")
    high, wide = picture(tmp_path / "out" / "c.png").shape[:2]
    assert high >= 0.3 * 100 * min(classes, 60)
    assert max(high, wide) < 3600


def test_confusion_colour_is_share_of_true_class(tmp_path: Path) -> None:
    def inked(counts: list[list[int]]) -> float:
        plot_confusion(counts, ["a", "b"], tmp_path / "c.png")
        return float((picture(tmp_path / "c.png")[:, :, 2] < 60).mean())  # the darkest blue

    few, many = inked([[1, 0], [0, 9]]), inked([[1000, 0], [0, 9]])
    assert few > 0.1
    assert many == pytest.approx(few, rel=0.2)  # the numbers differ, not the colours
    assert inked([[5, 5], [5, 5]]) < 0.5 * few
    blank = inked([[0, 0], [0, 9]])
    assert blank == pytest.approx(few / 2, rel=0.4)  # a class without clips is not drawn as wrong


def test_confusion_with_odd_names(tmp_path: Path) -> None:
    names = ["costs $5$ or $", "站起来", "a_b^{c}", "\\frac", "a very long name " * 9, "two\nlines"]
    plot_confusion(np.eye(6, dtype=int), names, tmp_path / "c.png", title="$x")
    assert picture(tmp_path / "c.png").shape[1] < 2000


def test_confusion_with_wrong_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"confusion must be \[3, 3\], got \[2, 2\]"):
        plot_confusion([[1, 0], [0, 1]], ["a", "b", "c"], tmp_path / "c.png")


def test_curves_of_results(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(RESULTS)
    plot_curves(tmp_path / "results.csv", tmp_path / "plain.png")
    plot_curves(tmp_path / "results.csv", tmp_path / "marked.png", best_epoch=2)
    plain, marked = picture(tmp_path / "plain.png"), picture(tmp_path / "marked.png")
    assert not np.array_equal(plain, marked)
    assert plain.shape[1] > 3 * plain.shape[0]  # loss, accuracy and lr side by side; seconds are not drawn


@pytest.mark.parametrize(
    "text", ["", "epoch,val_loss\n", "epoch,val_loss\n1,\n", "epoch, train/loss, val/loss\n1, 2, 3\n"]
)
def test_curves_of_sparse_results(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.csv").write_text(text)
    plot_curves(tmp_path / "results.csv", tmp_path / "r.png")
    assert picture(tmp_path / "r.png").size


def test_curves_without_epochs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("loss\n1\n")
    with pytest.raises(ValueError, match=r"results.csv has no column epoch, but \['loss'\]"):
        plot_curves(tmp_path / "results.csv", tmp_path / "r.png")


def test_confusion_is_reproducible(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        plot_confusion([[1, 0], [0, 1]], ["a", "b"], tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_coverage_marks_the_threshold(tmp_path: Path) -> None:
    coverage = {"shown": [0.5, 1.0], "wrong": [0.0, 0.5], "cider_d": [3.0, 2.0], "chosen": None}
    plot_coverage(coverage, tmp_path / "none.png")
    plot_coverage(coverage | {"chosen": {"shown": 0.5, "wrong": 0.0, "cider_d": 3.0}}, tmp_path / "marked.png")
    assert picture(tmp_path / "none.png").shape == picture(tmp_path / "marked.png").shape
    assert not np.array_equal(picture(tmp_path / "none.png"), picture(tmp_path / "marked.png"))


def test_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        plot_confusion([[1]], ["a"], tmp_path / "file" / "c.png")


def test_plots_use_no_global_figures(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    others = plt.get_fignums()  # of the notebook's test
    plot_confusion([[1]], ["a"], tmp_path / "c.png")
    plot_timelines(*scene(), NAMES, tmp_path / "t.png")
    assert plt.get_fignums() == others


# --- evaluations ----------------------------------------------------------------------------------------------------

NAMES = ["costs $5$ or $", "站起来", "_hidden", "a very long name " * 9, "two\nlines", "walk"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written."""
    figures: list[Figure] = []
    real = plots._save

    def keep(figure: Figure, out: Path) -> None:
        figures.append(figure)
        real(figure, out)

    monkeypatch.setattr(plots, "_save", keep)
    return figures


def curves(classes: int) -> tuple[dict[str, Any], dict[str, float]]:
    rng = np.random.default_rng(0)
    truth = rng.random((80, classes)) < 0.4
    scores = np.clip(rng.normal(0.3 + 0.2 * truth, 0.2), 0, 1).round(2)
    names = [*NAMES, *(f"activity {i}" for i in range(classes))][:classes]
    per_class = multilabel_metrics(scores, truth, names)["per_class"]
    return clip_curves(scores, truth, names), {name: per_class[name]["ap"] for name in names}


def entries(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend() or figure.legends[0]
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("classes", [1, 6, 10])
def test_precision_recall_names_classes_with_ap(tmp_path: Path, drawn: list[Figure], classes: int) -> None:
    predicted, ap = curves(classes)
    plot_precision_recall(predicted, tmp_path / "out" / "pr.png", title="$x")
    values = [float(text.split()[-1]) for text in entries(drawn[0])]
    assert values[:classes] == pytest.approx(list(ap.values()), abs=6e-4)
    assert len(values) == classes + (classes > 1)  # and the mean
    assert values[-1] == pytest.approx(np.mean(list(ap.values())), abs=6e-4)
    assert picture(tmp_path / "out" / "pr.png").shape[1] < 1500


def test_precision_recall_of_many_names_lowest(tmp_path: Path, drawn: list[Figure]) -> None:
    predicted, ap = curves(40)
    plot_precision_recall(predicted, tmp_path / "pr.png")
    texts = entries(drawn[0])
    assert texts[10:] == ["30 others, all higher", f"mean  {np.mean(list(ap.values())):.3f}"]
    assert [float(text.split()[-1]) for text in texts[:10]] == pytest.approx(sorted(ap.values())[:10], abs=6e-4)
    assert len(drawn[0].axes[0].lines) == 41


def test_mean_curve_is_zero_beyond_last_recall(tmp_path: Path, drawn: list[Figure]) -> None:
    half, whole = np.array([0.0, 0.5]), np.array([0.0, 1.0])
    plot_precision_recall({"a": (half, np.ones(2)), "b": (whole, np.ones(2))}, tmp_path / "pr.png")
    recall, precision = drawn[0].axes[0].lines[-1].get_data()
    assert set(np.asarray(precision)[np.asarray(recall) <= 0.5]) == {1.0}
    assert set(np.asarray(precision)[np.asarray(recall) > 0.51]) == {0.5}


@pytest.mark.parametrize("classes", [1, 6, 40, 200])
def test_average_precision_bars(tmp_path: Path, drawn: list[Figure], classes: int) -> None:
    ap: dict[str, float | None] = {f"{NAMES[i % 6]} {i}": (i * 7 % classes) / classes for i in range(classes)}
    plot_average_precision({**ap, "absent": None}, tmp_path / "ap.png", title="test")
    axis = drawn[0].axes[0]
    heights = [bar.get_width() for bar in axis.patches]
    assert heights == sorted(v for v in ap.values() if v is not None)[:60]
    assert axis.get_title() == ("test" if classes < 60 else "test (lowest 60 of 200)")
    assert picture(tmp_path / "ap.png").shape[0] < 2000


def scene(hours: float = 0.01) -> tuple[list[Annotation], list[Event], dict[str, FrameScores]]:
    """A recording predicted well, one missed, one with false alarms, and an event-free one."""
    seconds = hours * 3600
    truth = [
        Annotation(video=video, start_s=seconds * at, end_s=seconds * (at + 0.2), label=NAMES[label])
        for video in ("good.mp4", "missed.mp4")
        for label, at in enumerate((0.1, 0.2, 0.5))
    ]
    truth.append(Annotation(video="quiet.mp4"))
    predicted = [
        Event(video=t.video, start_s=t.start_s, end_s=t.end_s, label=t.label, score=0.9)
        for t in truth
        if t.video == "good.mp4" and t.start_s is not None and t.end_s is not None and t.label
    ]
    predicted += [Event(video="alarms.mp4", start_s=s, end_s=s + 0.01, label="walk", score=0.6) for s in (1.0, 5.0)]
    time_s = np.arange(int(seconds * 8)) / 8
    frames = {
        video: FrameScores(
            time_s=time_s,
            scores=np.random.default_rng(0).random((len(time_s), len(NAMES))).astype(np.float32),
            duration_s=seconds,
        )
        for video in ("good.mp4", "missed.mp4", "alarms.mp4", "quiet.mp4")
    }
    return truth, predicted, frames


@pytest.mark.parametrize("hours", [0.01, *(pytest.param(hours, marks=pytest.mark.slow) for hours in (0.2, 3.0))])
def test_timelines_of_worst_recordings(tmp_path: Path, drawn: list[Figure], hours: float) -> None:
    plot_timelines(*scene(hours), NAMES, tmp_path / "t.png", worst=3)
    titles = [axis.get_title(loc="left") for axis in drawn[0].axes]
    assert titles == [
        "alarms.mp4   F1 0.00, 2 false alarms",
        "missed.mp4   F1 0.00, 0 false alarms",
        "good.mp4   F1 1.00, 0 false alarms",
    ]
    assert entries(drawn[0]) == [" ".join(NAMES[i].split()) for i in (0, 1, 2, 5)]  # of those that are drawn
    alarms, missed, good = drawn[0].axes
    assert [len(axis.collections) for axis in (alarms, missed, good)] == [2, 3, 6]
    assert [len(axis.lines) - 3 for axis in (alarms, missed, good)] == [1, 3, 3]  # scores; three lines part the rows
    for axis in (alarms, missed, good):
        assert axis.get_xlim() == pytest.approx((0, hours * 3600))
        assert 3 <= len([x for x in axis.get_xticks() if 0 <= x <= hours * 3600]) <= 15
    widths = [np.ptp(bar.get_paths()[0].vertices[:, 0]) for bar in alarms.collections]
    assert min(widths) >= hours * 3600 / 1000  # a hundredth of a second can still be seen
    image = picture(tmp_path / "t.png")
    assert image.shape[1] < 1600


def test_plots_of_nothing(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_timelines([], [], {}, NAMES, tmp_path / "none.png")
    empty = FrameScores(time_s=np.zeros(0), scores=np.zeros((0, 6), np.float32), duration_s=0.0)
    plot_timelines([], [], {"deep/" * 40 + "a.mp4": empty}, NAMES, tmp_path / "empty.png")
    assert drawn[1].axes[0].get_title(loc="left").endswith("deep/a.mp4   no events, 0 false alarms")
    plot_precision_recall({}, tmp_path / "pr.png")
    plot_average_precision({"a": None}, tmp_path / "ap.png")
    for name in ("none", "empty", "pr", "ap"):
        assert picture(tmp_path / f"{name}.png").size


@pytest.mark.slow
def test_timelines_with_many_labels(tmp_path: Path, drawn: list[Figure]) -> None:
    labels = [f"activity {i}" for i in range(40)]
    truth = [Annotation(video="a", start_s=i, end_s=i + 1.5, label=label) for i, label in enumerate(labels)]
    scores = np.zeros((320, 41), np.float32)
    plot_timelines(truth, [], {"a": FrameScores(time_s=np.arange(320) / 8, scores=scores, duration_s=40.0)}, labels,
                   tmp_path / "t.png")  # fmt: skip
    colours = {tuple(bar.get_facecolor()[0]) for bar in drawn[0].axes[0].collections}
    assert len(colours) == 40
    assert len(drawn[0].axes[0].lines) - 3 == 6


def test_overlapping_events_have_separate_rows() -> None:
    def at(*spans: tuple[float, float]) -> list[Annotation]:
        return [Annotation(video="a", start_s=start, end_s=end, label="x") for start, end in spans]

    assert plots._rows(at((0, 5), (1, 3), (3, 4), (5, 6))) == ([0, 1, 1, 0], 2)
    assert plots._rows(at((5, 6), (0, 5))) == ([0, 0], 1)
    assert plots._rows([]) == ([], 1)


def test_thinning_keeps_short_peaks() -> None:
    time_s, score = np.arange(100_000) / 8, np.zeros(100_000, np.float32)
    score[54_321] = 1
    at, high = plots._thinned(time_s, score)
    assert len(at) == len(high) == 1200
    assert high.max() == 1
    assert at[high.argmax()] == pytest.approx(time_s[54_321], abs=100_000 / 8 / 1200)


@pytest.mark.parametrize(
    ("seconds", "length", "text"), [(2.5, 10, "2.5 s"), (61, 600, "1:01"), (3661, 4000, "1:01:01"), (59.6, 600, "1:00")]
)
def test_clock_format(seconds: float, length: float, text: str) -> None:
    assert plots._clock(seconds, length) == text


@pytest.mark.slow
def test_timelines_are_reproducible(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        plot_timelines(*scene(), NAMES, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
