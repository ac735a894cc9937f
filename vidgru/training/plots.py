"""Pictures of a training run: curves from `results.csv`, and confusion matrices."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidgru.training.plot_style import fonts, save, short
from vidgru.types import Array

_MOST_COUNTED = 60  # classes; above this, counts in the cells cannot be read
_LARGEST_INCH = 24.0  # edge of a matrix with very many classes
_NOT_CURVES = ("epoch", "seconds", "time")


def plot_curves(results: Path, out: Path, *, best_epoch: int | None = None) -> None:
    """Draw a panel for each figure in a `results.csv`, train and val side by side, as a PNG.

    Args:
        results: CSV with a column `epoch`; `train_x` and `val_x` (or `train/x`, `val/x`) share the panel x, any other
            column has its own. Empty and non-numeric cells are gaps. Columns epoch, seconds and time are not drawn.
        out: the PNG.
        best_epoch: marked with a line, if given.

    Raises:
        OutputError: the file cannot be written.
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
        side, what = _panel(column)
        if np.isfinite(values).any():
            panels.setdefault(what, {})[side] = values

    wide = min(3, max(1, len(panels)))
    high = max(1, math.ceil(len(panels) / wide))
    figure = Figure(figsize=(4.2 * wide, 3.0 * high), layout="constrained")
    axes = figure.subplots(high, wide, squeeze=False).ravel()
    for axis, (what, curves) in zip(axes, panels.items(), strict=False):
        _draw_curves(axis, what, epoch, curves, best_epoch)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if not panels:
        figure.suptitle("no epoch finished yet")
    save(figure, out)


def plot_confusion(
    confusion: Sequence[Sequence[int]] | Array, names: Sequence[str], out: Path, *, title: str = ""
) -> None:
    """Draw a confusion matrix as a PNG: counts in the cells, colour is the share of the true class.

    Args:
        confusion: [C, C] counts; rows are true, columns predicted. With more than 60 classes only colour is drawn.
        names: C class names, of any length and in any language.
        out: the PNG.
        title: above the picture.

    Raises:
        OutputError: the file cannot be written.
        ValueError: shapes that do not fit.
    """
    counts = np.asarray(confusion)
    size = len(names)
    if not size or counts.shape != (size, size):
        raise ValueError(f"confusion must be [{size}, {size}], got {list(counts.shape)}")
    support = counts.sum(axis=1)
    # a class without clips has no shares: its row stays blank instead of looking like all zeros
    share = np.where(support[:, None] > 0, counts / np.maximum(support[:, None], 1), np.nan)
    cell, letters = (0.9 if size < 5 else 0.62, 10.0) if size <= 12 else (0.42, 8.0) if size <= 30 else (0.32, 6.5)
    if size > _MOST_COUNTED:
        cell, letters = min(cell, _LARGEST_INCH / size), 4.0
    # placed in inches: cells keep their size whatever the length of the names, which are outside and cropped to
    edge = cell * size
    figure = Figure(figsize=(edge + 0.45, edge))
    axis = figure.add_axes((0, 0, edge / (edge + 0.45), 1))
    scale = figure.add_axes((1 - 0.2 / (edge + 0.45), 0, 0.2 / (edge + 0.45), 1))
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, cax=scale, label="share of the true class")
    labels = [short(name) for name in names]
    upright = size > 6 or max(map(len, labels)) > 8
    axis.set_xticks(range(size), labels, rotation=90 if upright else 0)
    axis.set_yticks(range(size), [f"{name} ({number})" for name, number in zip(labels, support, strict=True)])
    family = fonts()
    for tick in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        tick.set(fontsize=letters, family=family, parse_math=False)  # a label may hold a dollar sign
    axis.set_xlabel("predicted")
    axis.set_ylabel("true (clips)")
    axis.set_title(title, family=family, parse_math=False)
    axis.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="0.9", linewidth=0.6)
    axis.tick_params(which="minor", length=0)
    if size <= _MOST_COUNTED:
        for row, column in np.argwhere(counts):
            text = _compact(int(counts[row, column]))
            dark = share[row, column] > 0.5
            fit = min(1.0, 3 / len(text)) if size > 12 else 1.0
            axis.text(
                column, row, text, ha="center", va="center", fontsize=letters * fit, color="white" if dark else "0.15"
            )
    save(figure, out)


def _panel(column: str) -> tuple[str, str]:
    for side in ("train", "val"):
        if column.startswith((f"{side}_", f"{side}/")):
            return side, column[len(side) + 1 :]
    return "", column


def _draw_curves(axis: Axes, what: str, epoch: Array, curves: dict[str, Array], best: int | None) -> None:
    for side, values in curves.items():
        colour = "tab:orange" if side == "val" else "tab:blue"
        known = np.isfinite(values)  # a figure that is taken every few epochs is still one line
        axis.plot(epoch[known], values[known], marker="." if known.sum() < 40 else "", color=colour, label=side or what)
    if best is not None:
        axis.axvline(best, color="0.6", linestyle="--", linewidth=1, label=f"best ({best})")
    axis.set_title(what.replace("_", " "), parse_math=False)
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
