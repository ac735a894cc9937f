"""Curves in TensorBoard, where that is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Draw = Callable[[Mapping[str, float]], None]


@contextmanager
def board(folder: Path | None) -> Iterator[Draw]:
    """A function that takes the figures of an epoch; it does nothing without TensorBoard, or without a folder.

    Args:
        folder: of the run; event files go to `tensorboard` in it. None writes none.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        folder = None
    if folder is None:
        yield lambda figures: None
        return
    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def draw(figures: Mapping[str, float]) -> None:
            for name, value in figures.items():
                if name != "epoch":
                    writer.add_scalar(name.replace("_", "/", 1), value, int(figures["epoch"]))

        yield draw
