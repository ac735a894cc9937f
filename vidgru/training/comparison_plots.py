"""Charts of a comparison: what each row costs and is worth, and how far back each cell remembers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vidgru.training.plot_style import fonts, save, short

_COSTS = {
    "cell_parameters": ("parameters of the recurrent layer", 1.0),
    "epoch_s": ("seconds an epoch", 1.0),
    "frames_per_s": ("frames a second, whole network", 1.0),
    "cell_frames_per_s": ("frames a second, recurrent layer and head", 1.0),
    "step_bytes": ("memory of a training step, MB", 1e6),
}
_COLUMNS = 3
_BAR_INCH = 0.32


def plot_comparison(rows: Sequence[Mapping[str, Any]], out: Path, *, title: str = "") -> None:
    """Draw a panel for each metric and each cost, a bar a row of the comparison, as a PNG.

    Args:
        rows: `Row` of `vidgru.training.compare` as mappings, at least one.
        out: the PNG.
        title: above the panels.

    Raises:
        OutputError: the file cannot be written.
    """
    metrics = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    names = [short(row["name"]) for row in rows]
    high = math.ceil((len(metrics) + len(_COSTS)) / _COLUMNS)
    figure = Figure(figsize=(4.6 * _COLUMNS, high * (1.1 + _BAR_INCH * len(rows))), layout="constrained")
    axes = figure.subplots(high, _COLUMNS, squeeze=False).ravel()
    at, family = np.arange(len(rows)), fonts()
    for number, axis in enumerate(axes):
        if number < len(metrics):
            what, colour = metrics[number], "tab:blue"
            values = [row["metrics"].get(what, math.nan) for row in rows]
            spread = [row["spread"].get(what, 0.0) for row in rows]
            axis.barh(at, values, xerr=spread if any(spread) else None, color=colour, height=0.7, ecolor="0.3")
            axis.set_xlim(0, max(1.0, *(v + s for v, s in zip(values, spread, strict=True) if math.isfinite(v))))
            axis.set_title(what.replace("_", " "), fontsize=10)
        elif number < len(metrics) + len(_COSTS):
            name = list(_COSTS)[number - len(metrics)]
            what, unit = _COSTS[name]
            axis.barh(at, [row[name] / unit for row in rows], color="tab:grey", height=0.7)
            axis.set_title(what, fontsize=10)
        else:
            axis.set_axis_off()
            continue
        axis.set_yticks(at, names, fontsize=9)
        for tick in axis.get_yticklabels():
            tick.set(family=family, parse_math=False)
        axis.invert_yaxis()
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    figure.suptitle(title, family=family, parse_math=False)
    save(figure, out)


def plot_probe(found: Mapping[str, Mapping[int, Sequence[float]]], out: Path, *, chance: float) -> None:
    """Draw accuracy over the distance, a line a cell and a dot a network, as a PNG.

    Args:
        found: of each cell, as `probe` gives it.
        out: the PNG.
        chance: drawn as a line.

    Raises:
        OutputError: the file cannot be written.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axis = figure.subplots()
    for number, (cell, shares) in enumerate(found.items()):
        colour = f"C{number}"
        distances = sorted(shares)
        # a little aside, so that lines on top of each other are still seen
        x = np.array(distances) * 1.04 ** (number - (len(found) - 1) / 2)
        axis.plot(x, [float(np.mean(shares[d])) for d in distances], marker="o", color=colour, label=cell)
        for place, distance in zip(x, distances, strict=True):
            axis.plot([place] * len(shares[distance]), shares[distance], ".", color=colour, alpha=0.4)
    axis.axhline(chance, color="0.5", linestyle="--", linewidth=1, label="chance")
    axis.set_xscale("log", base=2)
    ticks = sorted({distance for shares in found.values() for distance in shares})
    axis.set_xticks(ticks, [str(distance) for distance in ticks])
    axis.minorticks_off()
    axis.set_ylim(0, 1.03)
    axis.set_xlabel("frames between what decides and the event")
    axis.set_ylabel("accuracy")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left")
    save(figure, out)
