"""Rows of `bench_quality.py` and `bench_labels.py`: written after each one, so that an interrupted run continues."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vidgru.storage import write_atomic, write_json

Row = dict[str, Any]


class ResultRows:
    """Rows in OUT/NAME.json, with a table in OUT/NAME.md and a chart in OUT/NAME.png.

    Args:
        out: Folder.
        name: Name of the files.
        key: Values that every row has, and that tell runs apart.
        table: Formats rows as Markdown.
        draw: Draws rows.

    Attributes:
        rows: All rows, those of earlier runs first.

    Raises:
        SystemExit: The file has rows of another version of the script.
    """

    def __init__(
        self,
        out: Path,
        name: str,
        key: Sequence[str],
        table: Callable[[Sequence[Row]], str],
        draw: Callable[[Sequence[Row]], Figure],
    ) -> None:
        self._path, self._table, self._draw = out / f"{name}.json", table, draw
        self.rows: list[Row] = json.loads(self._path.read_text()) if self._path.is_file() else []
        if missing := sorted({name for row in self.rows for name in key if name not in row}):
            raise SystemExit(
                f"{self._path} has rows without {', '.join(missing)}, of another version of this script\n"
                "  delete it, or write to another folder with --out"
            )

    def matching(self, key: Mapping[str, Any]) -> list[Row]:
        """Return the rows that have these values."""
        return [row for row in self.rows if key.items() <= row.items()]

    def add(self, row: Row) -> None:
        """Add a row and write all files."""
        self.rows.append(row)
        write_json(self._path, self.rows)
        write_atomic(self._path.with_suffix(".md"), self._table(self.rows).encode())
        self._draw(self.rows).savefig(self._path.with_suffix(".png"), dpi=100)


def panels(titles: Sequence[str]) -> tuple[Figure, Iterator[Axes]]:
    """Return a chart with a panel per title, side by side, and its panels."""
    figure = Figure(figsize=(4.2 * len(titles), 3.6), layout="constrained")
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.grid(alpha=0.3)
    return figure, iter(axes)
