"""Plots of training runs and evaluations, as PNGs.

Drawn with matplotlib's objects, not with pyplot: no global figures, no window, safe in any thread. Equal data gives
equal bytes.
"""

from __future__ import annotations

import csv
import io
import math
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from vidgru.fonts import font_families
from vidgru.storage import write_atomic
from vidgru.training.metrics.events import FrameScores, worst_first
from vidgru.types import Annotation, Array, Event

_DPI = 100
_MAX_NAME = 28  # characters
_MAX_COUNTED = 60  # classes; counts in more cells cannot be read
_MAX_MATRIX_INCH = 24.0  # edge of a confusion matrix
_NOT_CURVES = ("epoch", "seconds", "time")
_MAX_CURVES = 10  # named and coloured; more colours cannot be distinguished
_MAX_BARS = 60
_MAX_LINES = 6  # scores per timeline
_TIMELINE_INCH = 13.0
_COLUMNS = 1200  # distinguishable pixels of a timeline
_LETTER = 0.0065  # width of a letter, as a share of a timeline
_MAX_TITLE = 90
_TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_GREY = "0.8"


# --- training runs ----------------------------------------------------------------------------------------------------


def plot_curves(results: Path, out: Path, *, best_epoch: int | None = None) -> None:
    """Plot the curves of a `results.csv`, one panel per metric, train and val together.

    Args:
        results: CSV with a column `epoch`; `train_x` and `val_x` (or `train/x`, `val/x`) share the panel x, any other
            column has its own. Empty and non-numeric cells are gaps. Columns epoch, seconds and time are not drawn.
        out: The PNG.
        best_epoch: Epoch to mark with a line.

    Raises:
        OutputError: The file cannot be written.
        ValueError: `results` has no column epoch.
    """
    with open(results, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, skipinitialspace=True))
    columns = list(rows[0]) if rows else ["epoch"]
    if "epoch" not in columns:
        raise ValueError(f"{results} has no column epoch, but {columns}")
    epoch = np.array([_number(row["epoch"]) for row in rows])
    panels: dict[str, dict[str, Array]] = {}
    for column in columns:
        if column in _NOT_CURVES:
            continue
        values = np.array([_number(row[column]) for row in rows])
        side, metric = _panel(column)
        if np.isfinite(values).any():
            panels.setdefault(metric, {})[side] = values

    wide = min(3, max(1, len(panels)))
    high = max(1, math.ceil(len(panels) / wide))
    figure = Figure(figsize=(4.2 * wide, 3.0 * high), layout="constrained")
    axes = figure.subplots(high, wide, squeeze=False).ravel()
    for axis, (metric, curves) in zip(axes, panels.items(), strict=False):
        _draw_curves(axis, metric, epoch, curves, best_epoch)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if not panels:
        figure.suptitle("no epoch finished yet")
    _save(figure, out)


def plot_confusion(
    confusion: Sequence[Sequence[int]] | Array, names: Sequence[str], out: Path, *, title: str = ""
) -> None:
    """Plot a confusion matrix: counts in the cells, colour is the share of the true class.

    Args:
        confusion: [C, C] counts; rows are true, columns predicted. With more than 60 classes only colour is drawn.
        names: C class names, of any length and in any language.
        out: The PNG.
        title: Title of the plot.

    Raises:
        OutputError: The file cannot be written.
        ValueError: Shapes do not match.
    """
    counts = np.asarray(confusion)
    size = len(names)
    if not size or counts.shape != (size, size):
        raise ValueError(f"confusion must be [{size}, {size}], got {list(counts.shape)}")
    support = counts.sum(axis=1)
    # a class without clips has no shares: its row stays blank instead of looking wrong
    share = np.where(support[:, None] > 0, counts / np.maximum(support[:, None], 1), np.nan)
    cell, letters = (0.9 if size < 5 else 0.62, 10.0) if size <= 12 else (0.42, 8.0) if size <= 30 else (0.32, 6.5)
    if size > _MAX_COUNTED:
        cell, letters = min(cell, _MAX_MATRIX_INCH / size), 4.0
    # sized in inches, so that cells keep their size whatever the length of the names outside
    edge = cell * size
    figure = Figure(figsize=(edge + 0.45, edge))
    axis = figure.add_axes((0, 0, edge / (edge + 0.45), 1))
    scale = figure.add_axes((1 - 0.2 / (edge + 0.45), 0, 0.2 / (edge + 0.45), 1))
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, cax=scale, label="share of the true class")
    labels = [_short(name) for name in names]
    upright = size > 6 or max(map(len, labels)) > 8
    axis.set_xticks(range(size), labels, rotation=90 if upright else 0)
    axis.set_yticks(range(size), [f"{name} ({number})" for name, number in zip(labels, support, strict=True)])
    family = font_families(labels)
    for tick in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        tick.set(fontsize=letters, family=family, parse_math=False)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true (clips)")
    axis.set_title(title, family=family, parse_math=False)
    axis.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="0.9", linewidth=0.6)
    axis.tick_params(which="minor", length=0)
    if size <= _MAX_COUNTED:
        for row, column in np.argwhere(counts):
            text = _compact(int(counts[row, column]))
            dark = share[row, column] > 0.5
            fit = min(1.0, 3 / len(text)) if size > 12 else 1.0
            axis.text(
                column, row, text, ha="center", va="center", fontsize=letters * fit, color="white" if dark else "0.15"
            )
    _save(figure, out)


def _panel(column: str) -> tuple[str, str]:
    for side in ("train", "val"):
        if column.startswith((f"{side}_", f"{side}/")):
            return side, column[len(side) + 1 :]
    return "", column


def _draw_curves(axis: Axes, metric: str, epoch: Array, curves: dict[str, Array], best: int | None) -> None:
    for side, values in curves.items():
        colour = "tab:orange" if side == "val" else "tab:blue"
        known = np.isfinite(values)  # a metric of every few epochs is still one line
        axis.plot(
            epoch[known], values[known], marker="." if known.sum() < 40 else "", color=colour, label=side or metric
        )
    if best is not None:
        axis.axvline(best, color="0.6", linestyle="--", linewidth=1, label=f"best ({best})")
    axis.set_title(metric.replace("_", " "), parse_math=False)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.grid(alpha=0.3)
    if best is not None or "" not in curves:
        axis.legend(fontsize=8)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _compact(count: int) -> str:
    if count < 10_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 999_500 else f"{count / 1e6:.1f}M"


# --- evaluations ------------------------------------------------------------------------------------------------------


def plot_precision_recall(curves: Mapping[str, tuple[Array, Array]], out: Path, *, title: str = "") -> None:
    """Plot precision against recall of each class, and their mean.

    The legend gives average precision, the area under each curve. Of more than ten classes the ten lowest are named,
    the others grey.

    Args:
        curves: Recall and precision by class, as returned by `event_curves` and `clip_curves`.
        out: The PNG.
        title: Title of the plot.

    Raises:
        OutputError: The file cannot be written.
    """
    area = {name: float(np.dot(np.diff(recall), precision[1:])) for name, (recall, precision) in curves.items()}
    named = list(curves) if len(curves) <= _MAX_CURVES else sorted(area, key=lambda name: area[name])[:_MAX_CURVES]
    figure = Figure(figsize=(5.6, 5.0))
    axis = figure.add_axes((0, 0, 1, 1))
    for name, (recall, precision) in curves.items():
        if name not in named:
            axis.plot(recall, precision, drawstyle="steps-pre", color=_GREY, linewidth=0.8)
    colours = _colours(named)
    entries: list[tuple[Any, str]] = []
    for name in named:
        (line,) = axis.plot(*curves[name], drawstyle="steps-pre", color=colours[name], linewidth=1.3)
        entries.append((line, f"{_short(name)}  {area[name]:.3f}"))
    if len(curves) > len(named):
        entries.append((Line2D([], [], color=_GREY), f"{len(curves) - len(named)} others, all higher"))
    if len(curves) > 1:
        grid = np.linspace(0, 1, 501)
        mean = np.mean([_precision_at(grid, *curve) for curve in curves.values()], axis=0)
        (line,) = axis.plot(grid, mean, color="black", linewidth=2.2)
        entries.append((line, f"mean  {np.mean(list(area.values())):.3f}"))
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axis.grid(alpha=0.3)
    axis.set_title(title, family=font_families([title]), parse_math=False)
    if entries:
        _set_legend_texts(axis.legend(*_placeholders(entries), loc="upper left", bbox_to_anchor=(1.01, 1.0)), entries)
    else:
        axis.text(0.5, 0.5, "no true events", ha="center", transform=axis.transAxes)
    _save(figure, out)


def plot_calibration(calibration: Mapping[str, Any], out: Path, *, title: str = "") -> None:
    """Plot how often predictions of each score are correct, with the number of predictions below.

    Args:
        calibration: As returned by `calibration`.
        out: The PNG.
        title: Title of the plot.

    Raises:
        OutputError: The file cannot be written.
    """
    figure = Figure(figsize=(4.6, 5.2))
    axis, counts = figure.add_axes((0, 0.27, 1, 0.73)), figure.add_axes((0, 0, 1, 0.2))
    axis.plot([0, 1], [0, 1], color="0.5", linestyle="--", linewidth=1)
    rows = np.array(calibration["bins"], dtype=np.float64).reshape(-1, 3)
    axis.plot(rows[:, 0], rows[:, 1], marker="o", color="tab:blue")
    axis.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share correct", xticklabels=[])
    counts.bar(rows[:, 0], rows[:, 2], width=0.06, color="tab:blue")
    counts.set(xlim=(0, 1), xlabel="score", ylabel="number")
    for panel in (axis, counts):
        panel.grid(alpha=0.3)
        panel.set_axisbelow(True)
    error = calibration["error"]
    text = "no predictions" if error is None else f"expected calibration error {error:.3f}"
    axis.text(0.03, 0.95, text, transform=axis.transAxes, va="top")
    axis.set_title(title, family=font_families([title]), parse_math=False)
    _save(figure, out)


def plot_coverage(coverage: Mapping[str, Any], out: Path, *, title: str = "") -> None:
    """Plot how wrong, and how like the references, the most certain captions are, over the share of captions shown.

    Args:
        coverage: Of captions, as in the metrics `descriptions`.
        out: The PNG.
        title: Title of the plot.

    Raises:
        OutputError: The file cannot be written.
    """
    figure = Figure(figsize=(4.6, 5.2))
    axes = figure.add_axes((0, 0.55, 1, 0.45)), figure.add_axes((0, 0, 1, 0.45))
    wrong, cider_d = coverage["wrong"], coverage["cider_d"]
    for axis, values, name in zip(axes, (wrong, cider_d), ("share wrong of those shown", "CIDEr-D"), strict=True):
        axis.step(coverage["shown"], values, where="post", color="tab:blue", marker="." if len(values) < 3 else "")
        axis.set(xlim=(0, 1.02), ylim=(0, max(0.05, 1.1 * max(values))), ylabel=name)
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
    if chosen := coverage["chosen"]:
        for axis, name in zip(axes, ("wrong", "cider_d"), strict=True):
            axis.axvline(chosen["shown"], color="0.5", linestyle="--", linewidth=1)
            axis.plot(chosen["shown"], chosen[name], marker="o", color="tab:orange")
        text = f"{chosen['shown']:.0%} shown, {chosen['wrong']:.1%} of them wrong"
        axes[0].text(0.03, 0.95, text, transform=axes[0].transAxes, va="top")
    axes[0].set(xticklabels=[])
    axes[1].set(xlabel="share of captions shown, the most certain first")
    axes[0].set_title(title, family=font_families([title]), parse_math=False)
    _save(figure, out)


def plot_average_precision(ap: Mapping[str, float | None], out: Path, *, title: str = "") -> None:
    """Plot the average precision of each class as a bar, the highest on top.

    Args:
        ap: Average precision by class; classes with None (no true one) are left out. Of more than sixty classes the
            lowest are drawn.
        out: The PNG.
        title: Title of the plot.

    Raises:
        OutputError: The file cannot be written.
    """
    known = sorted(((name, value) for name, value in ap.items() if value is not None), key=lambda pair: pair[1])
    bars = known[:_MAX_BARS]
    figure = Figure(figsize=(6.0, 0.5 + 0.26 * len(bars)))
    axis = figure.add_axes((0, 0, 1, 1))
    rows = np.arange(len(bars))
    axis.barh(rows, [value for _, value in bars], color="tab:blue", height=0.75)
    for row, (_, value) in enumerate(bars):
        axis.text(value + 0.01, row, f"{value:.3f}", va="center", fontsize=8)
    axis.set_yticks(rows, [_short(name) for name, _ in bars])
    family = font_families(_short(name) for name, _ in bars)
    for tick in axis.get_yticklabels():
        tick.set(fontsize=9, family=family, parse_math=False)
    if known:
        mean = float(np.mean([value for _, value in known]))
        axis.axvline(mean, color="0.5", linestyle="--", linewidth=1)
        axis.text(mean, len(bars) - 0.4, f"mean {mean:.3f}", ha="center", va="bottom", fontsize=8)
    axis.set(xlim=(0, 1.08), ylim=(-0.6, max(0.4, len(bars) - 0.4)), xticks=np.linspace(0, 1, 6))
    axis.set_xlabel("average precision")
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    if len(known) > len(bars):
        title = f"{title} (lowest {len(bars)} of {len(known)})".strip()
    axis.set_title(title, family=family, parse_math=False, pad=16)
    _save(figure, out)


def plot_timelines(
    truth: Sequence[Annotation],
    predicted: Sequence[Event],
    frames: Mapping[str, FrameScores],
    labels: Sequence[str],
    out: Path,
    *,
    worst: int = 8,
) -> None:
    """Plot true events above predicted ones, over the scores of frames, for the worst predicted recordings.

    The worst have the lowest event F1, then the most false alarms. Long recordings are thinned to what is visible:
    the highest score per pixel, and events at least a few pixels wide.

    Args:
        truth, predicted, frames, labels: As for `event_metrics`.
        out: The PNG.
        worst: Number of recordings to draw.

    Raises:
        OutputError: The file cannot be written.
        ValueError: As raised by `event_metrics`.
    """
    chosen = worst_first(truth, predicted, sorted(frames), labels)[:worst]
    names = {video for video, _, _ in chosen}
    events = {
        video: [
            [event for event in side if event.video == video and event.label is not None] for side in (truth, predicted)
        ]
        for video in names
    }
    lines = {video: _lines(events[video], frames[video].scores, labels) for video in names}
    used = {event.label for sides in events.values() for side in sides for event in side}
    used |= {labels[column] for columns in lines.values() for column in columns}
    colours = _colours([label for label in labels if label in used])
    heights = [1.0 + 0.22 * sum(_rows(side)[1] for side in events[video]) for video, _, _ in chosen]
    figure = Figure(figsize=(_TIMELINE_INCH, sum(heights) + 0.55 * len(heights) + 0.3), layout="constrained")
    if not chosen:
        figure.suptitle("no recordings")
    else:
        axes = figure.subplots(len(chosen), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axis, (video, f1, false) in zip(axes, chosen, strict=True):
            _timeline(axis, events[video], frames[video], lines[video], labels, colours)
            score = "no events" if f1 is None else f"F1 {f1:.2f}"
            cut = video if len(video) <= _MAX_TITLE else "…" + video[1 - _MAX_TITLE :]
            text = f"{cut}   {score}, {false} false alarm{'' if false == 1 else 's'}"
            axis.set_title(text, loc="left", fontsize=9, family=font_families([text]), parse_math=False)
        entries: list[tuple[Any, str]] = [(Patch(color=colour), _short(label)) for label, colour in colours.items()]
        if entries:
            columns = min(len(entries), 6)
            _set_legend_texts(
                figure.legend(*_placeholders(entries), loc="outside lower center", ncols=columns), entries
            )
    _save(figure, out)


def _timeline(
    axis: Axes,
    sides: Sequence[Sequence[Annotation | Event]],
    frame_scores: FrameScores,
    lines: Sequence[int],
    labels: Sequence[str],
    colours: Mapping[str, Any],
) -> None:
    """Plot scores from 0 to 1; above them rows of predicted events, and above those the true ones."""
    ends = [event.end_s or 0.0 for side in sides for event in side]
    length = max(
        frame_scores.duration_s, *ends, float(frame_scores.time_s[-1]) if len(frame_scores.time_s) else 0.0, 1e-3
    )
    for column in lines:
        axis.plot(
            *_thinned(frame_scores.time_s, frame_scores.scores[:, column]), color=colours[labels[column]], linewidth=0.8
        )
    bottom, ticks = 1.15, [(0.0, "0"), (1.0, "1")]
    for side, name in zip(reversed(sides), ("predicted", "truth"), strict=True):
        row_of, rows = _rows(side)
        for event, row in zip(side, row_of, strict=True):
            start_s, label = event.start_s or 0.0, event.label or ""
            wide = max((event.end_s or 0.0) - start_s, 2 * length / _COLUMNS)
            y = bottom + 0.3 * (rows - 1 - row)
            axis.broken_barh(
                [(start_s, wide)], (y, 0.27), facecolors=[colours[label]], edgecolor="white", linewidth=0.3
            )
            text = _short(label)
            if wide > _LETTER * (_letters(text) + 1) * length:
                axis.text(
                    start_s + wide / 2, y + 0.125, text, ha="center", va="center", fontsize=7, color="black",
                    family=font_families([text]), parse_math=False, clip_on=True,
                )  # fmt: skip
        ticks.append((bottom + 0.15 * rows, name))
        bottom += 0.3 * rows + 0.12
        axis.axhline(bottom - 0.075, color=_GREY, linewidth=0.5)
    axis.axhline(1.075, color=_GREY, linewidth=0.5)
    axis.set_yticks([y for y, _ in ticks], [name for _, name in ticks], fontsize=8)
    axis.set(xlim=(0, length), ylim=(-0.03, bottom - 0.05))
    step = next((s for s in _TICKS_S if length / s <= 14), length / 10)
    axis.xaxis.set_major_locator(MultipleLocator(step))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value, length)))
    axis.tick_params(axis="x", labelsize=8)


def _lines(sides: Sequence[Sequence[Annotation | Event]], scores: Array, labels: Sequence[str]) -> list[int]:
    """Columns of scores to draw: labels that are true or predicted here, by falling score; else the highest."""
    here = {event.label for side in sides for event in side}
    highest = scores[:, : len(labels)].max(axis=0, initial=0.0)
    order = [int(column) for column in np.argsort(-highest, kind="stable")]
    return [column for column in order if labels[column] in here][:_MAX_LINES] or order[:1]


def _rows(events: Sequence[Annotation | Event]) -> tuple[list[int], int]:
    """The row of each event, so that overlapping events are above each other; and the number of rows, at least one."""
    ends: list[float] = []
    rows = [0] * len(events)
    for number in sorted(range(len(events)), key=lambda i: (events[i].start_s or 0.0, events[i].end_s or 0.0)):
        start_s, end_s = events[number].start_s or 0.0, events[number].end_s or 0.0
        row = next((row for row, end in enumerate(ends) if end <= start_s), len(ends))
        ends[row : row + 1] = [end_s]
        rows[number] = row
    return rows, max(1, len(ends))


def _thinned(time_s: Array, score: Array) -> tuple[Array, Array]:
    """Thin scores to the highest per column, if there are more frames than columns."""
    if len(time_s) <= _COLUMNS:
        return time_s, score
    first = np.linspace(0, len(time_s), _COLUMNS, endpoint=False).astype(np.int64)
    return time_s[first], np.maximum.reduceat(score, first)


def _letters(text: str) -> int:
    """Width of a text in Latin letters: East Asian characters are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _clock(seconds: float, length: float) -> str:
    """Format seconds: plain in short recordings, m:ss or h:mm:ss in longer ones."""
    if length < 120:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if length >= 3600 else f"{minutes}:{rest:02}"


def _precision_at(grid: Array, recall: Array, precision: Array) -> Array:
    """Precision at each recall of a grid; 0 beyond the last point."""
    at: Array = np.append(precision, 0.0)[np.searchsorted(recall, grid, side="left")]
    return at


def _colours(names: Sequence[str]) -> dict[str, Any]:
    maps = ("tab10",) if len(names) <= 10 else ("tab20", "tab20b", "tab20c")
    palette = np.concatenate([matplotlib.colormaps[map_](np.arange(matplotlib.colormaps[map_].N)) for map_ in maps])
    return {name: palette[number % len(palette)] for number, name in enumerate(names)}


def _placeholders(entries: Iterable[tuple[Any, str]]) -> tuple[list[Any], list[str]]:
    """Handles, and placeholder texts to be replaced: a legend drops names that begin with an underscore."""
    handles = [handle for handle, _ in entries]
    return handles, ["x"] * len(handles)


def _set_legend_texts(legend: Legend, entries: Iterable[tuple[Any, str]]) -> None:
    entries = list(entries)
    family = font_families(name for _, name in entries)
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set(text=name, fontsize=8, family=family, parse_math=False)


# --- style ------------------------------------------------------------------------------------------------------------


def _short(name: str) -> str:
    """A name on one line, truncated."""
    name = " ".join(name.split())
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "…"


def _save(figure: Figure, out: Path) -> None:
    """Write a figure as a PNG.

    Raises:
        OutputError: The file cannot be written.
    """
    data = io.BytesIO()
    with warnings.catch_warnings():
        # characters that no installed font has are drawn as boxes; training must not fail for that
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(data, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    write_atomic(out, data.getvalue())
