"""Pictures of an evaluation: precision against recall, average precision by class, timelines of what went worst."""

from __future__ import annotations

import unicodedata
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
from matplotlib.ticker import FuncFormatter, MultipleLocator

from vidgru.training.metrics.events import FrameScores, worst_first
from vidgru.training.plot_style import fonts, save, short
from vidgru.types import Annotation, Array, Event

_MOST_CURVES = 10  # named and coloured; colours of more cannot be told apart
_MOST_BARS = 60
_MOST_LINES = 6  # scores in one timeline
_TIMELINE_INCH = 13.0
_COLUMNS = 1200  # of a timeline that can be told apart
_LETTER = 0.0065  # width of one, as a share of a timeline
_LONGEST_TITLE = 90
_TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_GREY = "0.8"


def plot_precision_recall(curves: Mapping[str, tuple[Array, Array]], out: Path, *, title: str = "") -> None:
    """Draw precision against recall for each class, with their mean, as a PNG.

    The legend gives average precision, which is the area under each curve. Of more than ten classes the ten lowest are
    named, the others grey.

    Args:
        curves: recall and precision by class, as `event_curves` and `clip_curves` give them.
        out: the PNG.
        title: above the picture.

    Raises:
        OutputError: the file cannot be written.
    """
    area = {name: float(np.dot(np.diff(recall), precision[1:])) for name, (recall, precision) in curves.items()}
    named = list(curves) if len(curves) <= _MOST_CURVES else sorted(area, key=lambda name: area[name])[:_MOST_CURVES]
    figure = Figure(figsize=(5.6, 5.0))
    axis = figure.add_axes((0, 0, 1, 1))
    for name, (recall, precision) in curves.items():
        if name not in named:
            axis.plot(recall, precision, drawstyle="steps-pre", color=_GREY, linewidth=0.8)
    colours = _colours(named)
    entries: list[tuple[Any, str]] = []
    for name in named:
        (line,) = axis.plot(*curves[name], drawstyle="steps-pre", color=colours[name], linewidth=1.3)
        entries.append((line, f"{short(name)}  {area[name]:.3f}"))
    if len(curves) > len(named):
        entries.append((Line2D([], [], color=_GREY), f"{len(curves) - len(named)} others, all higher"))
    if len(curves) > 1:
        grid = np.linspace(0, 1, 501)
        mean = np.mean([_precision_at(grid, *curve) for curve in curves.values()], axis=0)
        (line,) = axis.plot(grid, mean, color="black", linewidth=2.2)
        entries.append((line, f"mean  {np.mean(list(area.values())):.3f}"))
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axis.grid(alpha=0.3)
    axis.set_title(title, family=fonts(), parse_math=False)
    if entries:
        _name(axis.legend(*_placeholders(entries), loc="upper left", bbox_to_anchor=(1.01, 1.0)), entries)
    else:
        axis.text(0.5, 0.5, "nothing to find", ha="center", transform=axis.transAxes)
    save(figure, out)


def plot_average_precision(ap: Mapping[str, float | None], out: Path, *, title: str = "") -> None:
    """Draw the average precision of each class as a bar, the highest on top, as a PNG.

    Args:
        ap: by class; those that are None (no true one) are left out. Of more than sixty the lowest are drawn.
        out: the PNG.
        title: above the picture.

    Raises:
        OutputError: the file cannot be written.
    """
    known = sorted(((name, value) for name, value in ap.items() if value is not None), key=lambda pair: pair[1])
    bars = known[:_MOST_BARS]
    figure = Figure(figsize=(6.0, 0.5 + 0.26 * len(bars)))
    axis = figure.add_axes((0, 0, 1, 1))
    rows = np.arange(len(bars))
    axis.barh(rows, [value for _, value in bars], color="tab:blue", height=0.75)
    for row, (_, value) in enumerate(bars):
        axis.text(value + 0.01, row, f"{value:.3f}", va="center", fontsize=8)
    axis.set_yticks(rows, [short(name) for name, _ in bars])
    family = fonts()
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
    save(figure, out)


def plot_timelines(
    truth: Sequence[Annotation],
    found: Sequence[Event],
    frames: Mapping[str, FrameScores],
    labels: Sequence[str],
    out: Path,
    *,
    worst: int = 8,
) -> None:
    """Draw what was true above what was found, over the scores of frames, for the worst told recordings, as a PNG.

    The worst have the lowest event F1, then the most false alarms. Long recordings are thinned to what can be seen:
    the highest score of each stretch, and events at least a few pixels wide.

    Args:
        truth, found, frames, labels: as for `event_metrics`.
        out: the PNG.
        worst: recordings to draw.

    Raises:
        OutputError: the file cannot be written.
        ValueError: as `event_metrics` does.
    """
    chosen = worst_first(truth, found, sorted(frames), labels)[:worst]
    names = {video for video, _, _ in chosen}
    events = {
        video: [
            [event for event in side if event.video == video and event.label is not None] for side in (truth, found)
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
            cut = video if len(video) <= _LONGEST_TITLE else "…" + video[1 - _LONGEST_TITLE :]
            text = f"{cut}   {score}, {false} false alarm{'' if false == 1 else 's'}"
            axis.set_title(text, loc="left", fontsize=9, family=fonts(), parse_math=False)
        entries: list[tuple[Any, str]] = [(Patch(color=colour), short(label)) for label, colour in colours.items()]
        if entries:
            columns = min(len(entries), 6)
            _name(figure.legend(*_placeholders(entries), loc="outside lower center", ncols=columns), entries)
    save(figure, out)


def _timeline(
    axis: Axes,
    sides: Sequence[Sequence[Annotation | Event]],
    given: FrameScores,
    lines: Sequence[int],
    labels: Sequence[str],
    colours: Mapping[str, Any],
) -> None:
    """Scores from 0 to 1; above them the rows of found events, and above those the true ones."""
    ends = [event.end_s or 0.0 for side in sides for event in side]
    length = max(given.duration_s, *ends, float(given.time_s[-1]) if len(given.time_s) else 0.0, 1e-3)
    for column in lines:
        axis.plot(*_thinned(given.time_s, given.scores[:, column]), color=colours[labels[column]], linewidth=0.8)
    bottom, ticks = 1.15, [(0.0, "0"), (1.0, "1")]
    for side, name in zip(reversed(sides), ("found", "truth"), strict=True):
        row_of, rows = _rows(side)
        for event, row in zip(side, row_of, strict=True):
            start_s, label = event.start_s or 0.0, event.label or ""
            wide = max((event.end_s or 0.0) - start_s, 2 * length / _COLUMNS)
            y = bottom + 0.3 * (rows - 1 - row)
            axis.broken_barh(
                [(start_s, wide)], (y, 0.27), facecolors=[colours[label]], edgecolor="white", linewidth=0.3
            )
            text = short(label)
            if wide > _LETTER * (_letters(text) + 1) * length:
                axis.text(
                    start_s + wide / 2, y + 0.125, text, ha="center", va="center", fontsize=7, color="black",
                    family=fonts(), parse_math=False, clip_on=True,
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
    """Columns of scores to draw: labels that are true or found here, the highest scored first; else the highest."""
    here = {event.label for side in sides for event in side}
    highest = scores[:, : len(labels)].max(axis=0, initial=0.0)
    order = [int(column) for column in np.argsort(-highest, kind="stable")]
    return [column for column in order if labels[column] in here][:_MOST_LINES] or order[:1]


def _rows(events: Sequence[Annotation | Event]) -> tuple[list[int], int]:
    """The row of each event, so that those that overlap lie above one another; and how many rows, at least one."""
    ends: list[float] = []
    rows = [0] * len(events)
    for number in sorted(range(len(events)), key=lambda i: (events[i].start_s or 0.0, events[i].end_s or 0.0)):
        start_s, end_s = events[number].start_s or 0.0, events[number].end_s or 0.0
        row = next((row for row, end in enumerate(ends) if end <= start_s), len(ends))
        ends[row : row + 1] = [end_s]
        rows[number] = row
    return rows, max(1, len(ends))


def _thinned(time_s: Array, score: Array) -> tuple[Array, Array]:
    """The highest score of each stretch, where there are more frames than columns."""
    if len(time_s) <= _COLUMNS:
        return time_s, score
    first = np.linspace(0, len(time_s), _COLUMNS, endpoint=False).astype(np.int64)
    return time_s[first], np.maximum.reduceat(score, first)


def _letters(text: str) -> int:
    """Width of a text in Latin letters: those of East Asia are twice as wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _clock(seconds: float, length: float) -> str:
    """Seconds in short recordings, m:ss or h:mm:ss in longer ones."""
    if length < 120:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if length >= 3600 else f"{minutes}:{rest:02}"


def _precision_at(grid: Array, recall: Array, precision: Array) -> Array:
    """Precision where at least this much is recalled; 0 beyond the last point."""
    at: Array = np.append(precision, 0.0)[np.searchsorted(recall, grid, side="left")]
    return at


def _colours(names: Sequence[str]) -> dict[str, Any]:
    maps = ("tab10",) if len(names) <= 10 else ("tab20", "tab20b", "tab20c")
    palette = np.concatenate([matplotlib.colormaps[map_](np.arange(matplotlib.colormaps[map_].N)) for map_ in maps])
    return {name: palette[number % len(palette)] for number, name in enumerate(names)}


def _placeholders(entries: Iterable[tuple[Any, str]]) -> tuple[list[Any], list[str]]:
    """Handles, and texts to be replaced: a legend leaves out names that begin with an underscore."""
    handles = [handle for handle, _ in entries]
    return handles, ["x"] * len(handles)


def _name(legend: Legend, entries: Iterable[tuple[Any, str]]) -> None:
    family = fonts()
    for text, (_, name) in zip(legend.get_texts(), entries, strict=True):
        text.set(text=name, fontsize=8, family=family, parse_math=False)
