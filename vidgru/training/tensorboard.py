"""Curves in TensorBoard, where that is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vidgru.errors import OutputError

Draw = Callable[[Mapping[str, float]], None]


@contextmanager
def board(folder: Path | None, first: int) -> Iterator[Draw]:
    """A function that takes the figures of an epoch; it does nothing without TensorBoard, or without a folder.

    Args:
        folder: of the run; event files go to `tensorboard` in it. None writes none.
        first: epoch that comes next; of earlier runs, curves end before it.

    Raises:
        OutputError: they cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        folder = None
    if folder is None:
        yield lambda figures: None
        return
    try:
        events = SummaryWriter(str(folder / "tensorboard"), purge_step=first)
    except OSError as error:
        raise OutputError(
            f"cannot write {folder / 'tensorboard'}: {error.strerror}",
            "free disk space or choose another folder with --out",
        ) from error
    with events as writer:

        def draw(figures: Mapping[str, float]) -> None:
            for name, value in figures.items():
                if name != "epoch":
                    writer.add_scalar(name.replace("_", "/", 1), value, int(figures["epoch"]))

        yield draw
