from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from vidgru.errors import OutputError
from vidgru.training import evaluation_plots
from vidgru.training.evaluation_plots import plot_average_precision, plot_precision_recall, plot_timelines
from vidgru.training.metrics.clips import clip_curves, multilabel_metrics
from vidgru.training.metrics.events import FrameScores
from vidgru.types import Annotation, Event

NAMES = ["costs $5$ or $", "站起来", "_hidden", "a very long name " * 9, "two\nlines", "walk"]


def picture(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written, to be asked what they hold."""
    figures: list[Figure] = []
    real = evaluation_plots.save

    def keep(figure: Figure, out: Path) -> None:
        figures.append(figure)
        real(figure, out)

    monkeypatch.setattr(evaluation_plots, "save", keep)
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
def test_precision_recall_names_every_class_with_its_ap(tmp_path: Path, drawn: list[Figure], classes: int) -> None:
    found, ap = curves(classes)
    plot_precision_recall(found, tmp_path / "out" / "pr.png", title="$x")
    values = [float(text.split()[-1]) for text in entries(drawn[0])]
    assert values[:classes] == pytest.approx(list(ap.values()), abs=6e-4)
    assert len(values) == classes + (classes > 1)  # and the mean
    assert values[-1] == pytest.approx(np.mean(list(ap.values())), abs=6e-4)
    assert picture(tmp_path / "out" / "pr.png").shape[1] < 1500


def test_precision_recall_of_many_names_the_lowest(tmp_path: Path, drawn: list[Figure]) -> None:
    found, ap = curves(40)
    plot_precision_recall(found, tmp_path / "pr.png")
    texts = entries(drawn[0])
    assert texts[10:] == ["30 others, all higher", f"mean  {np.mean(list(ap.values())):.3f}"]
    assert [float(text.split()[-1]) for text in texts[:10]] == pytest.approx(sorted(ap.values())[:10], abs=6e-4)
    assert len(drawn[0].axes[0].lines) == 41


def test_mean_curve_is_no_precision_beyond_what_is_found(tmp_path: Path, drawn: list[Figure]) -> None:
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
    """One recording told well, one missed, one with false alarms, and one in which nothing happens."""
    seconds = hours * 3600
    truth = [
        Annotation(video=video, start_s=seconds * at, end_s=seconds * (at + 0.2), label=NAMES[label])
        for video in ("good.mp4", "missed.mp4")
        for label, at in enumerate((0.1, 0.2, 0.5))
    ]
    truth.append(Annotation(video="quiet.mp4"))
    found = [
        Event(video=t.video, start_s=t.start_s, end_s=t.end_s, label=t.label, score=0.9)
        for t in truth
        if t.video == "good.mp4" and t.start_s is not None and t.end_s is not None and t.label
    ]
    found += [Event(video="alarms.mp4", start_s=s, end_s=s + 0.01, label="walk", score=0.6) for s in (1.0, 5.0)]
    time_s = np.arange(int(seconds * 8)) / 8
    frames = {
        video: FrameScores(
            time_s=time_s,
            scores=np.random.default_rng(0).random((len(time_s), len(NAMES))).astype(np.float32),
            duration_s=seconds,
        )
        for video in ("good.mp4", "missed.mp4", "alarms.mp4", "quiet.mp4")
    }
    return truth, found, frames


@pytest.mark.parametrize("hours", [0.01, 0.2, 3.0])
def test_timelines_of_the_worst(tmp_path: Path, drawn: list[Figure], hours: float) -> None:
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


def test_timelines_of_nothing(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_timelines([], [], {}, NAMES, tmp_path / "none.png")
    empty = FrameScores(time_s=np.zeros(0), scores=np.zeros((0, 6), np.float32), duration_s=0.0)
    plot_timelines([], [], {"deep/" * 40 + "a.mp4": empty}, NAMES, tmp_path / "empty.png")
    assert drawn[1].axes[0].get_title(loc="left").endswith("deep/a.mp4   no events, 0 false alarms")
    plot_precision_recall({}, tmp_path / "pr.png")
    plot_average_precision({"a": None}, tmp_path / "ap.png")
    for name in ("none", "empty", "pr", "ap"):
        assert picture(tmp_path / f"{name}.png").size


@pytest.mark.slow
def test_many_labels(tmp_path: Path, drawn: list[Figure]) -> None:
    labels = [f"activity {i}" for i in range(40)]
    truth = [Annotation(video="a", start_s=i, end_s=i + 1.5, label=label) for i, label in enumerate(labels)]
    scores = np.zeros((320, 41), np.float32)
    plot_timelines(truth, [], {"a": FrameScores(time_s=np.arange(320) / 8, scores=scores, duration_s=40.0)}, labels,
                   tmp_path / "t.png")  # fmt: skip
    colours = {tuple(bar.get_facecolor()[0]) for bar in drawn[0].axes[0].collections}
    assert len(colours) == 40
    assert len(drawn[0].axes[0].lines) - 3 == 6


def test_events_that_overlap_have_rows_of_their_own() -> None:
    def at(*spans: tuple[float, float]) -> list[Annotation]:
        return [Annotation(video="a", start_s=start, end_s=end, label="x") for start, end in spans]

    assert evaluation_plots._rows(at((0, 5), (1, 3), (3, 4), (5, 6))) == ([0, 1, 1, 0], 2)
    assert evaluation_plots._rows(at((5, 6), (0, 5))) == ([0, 0], 1)
    assert evaluation_plots._rows([]) == ([], 1)


def test_a_short_peak_is_seen_in_a_long_recording() -> None:
    time_s, score = np.arange(100_000) / 8, np.zeros(100_000, np.float32)
    score[54_321] = 1
    at, high = evaluation_plots._thinned(time_s, score)
    assert len(at) == len(high) == 1200
    assert high.max() == 1
    assert at[high.argmax()] == pytest.approx(time_s[54_321], abs=100_000 / 8 / 1200)


@pytest.mark.parametrize(
    ("seconds", "length", "text"), [(2.5, 10, "2.5 s"), (61, 600, "1:01"), (3661, 4000, "1:01:01"), (59.6, 600, "1:00")]
)
def test_clock(seconds: float, length: float, text: str) -> None:
    assert evaluation_plots._clock(seconds, length) == text


@pytest.mark.slow
def test_same_in_same_out_and_no_global_figures(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    for name in ("one.png", "two.png"):
        plot_timelines(*scene(), NAMES, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert plt.get_fignums() == []


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        plot_average_precision({"a": 0.5}, tmp_path / "file" / "ap.png")
