"""Work that goes on beside extraction, in one thread and in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

WorkItem = TypeVar("WorkItem")

_PATIENCE_S = 10.0
_WAITING = 256  # items; who submits more waits, so that what they hold does not add up


class WorkerThread(Generic[WorkItem]):
    """A thread that works off what it is given, in order, as much of it at a time as is there.

    Use it in a `with` block, which ends when all is done. The first error ends the work: the next call here raises it.
    Where the block itself fails, Ctrl-C among the reasons, the work is told to stop, and waited for a little: a process
    that ends while a thread of its is in FFmpeg or PyTorch is aborted.

    Args:
        work: takes one item or more.
        stop: set when the work is to end; `work` looks at it often, and raises whatever it likes.
        last: what is to be done when there is nothing more, in the same thread; it looks at `stop` as well.
    """

    def __init__(
        self, work: Callable[[list[WorkItem]], None], stop: threading.Event, last: Callable[[], None] = lambda: None
    ) -> None:
        self._work, self._stop, self._at_last = work, stop, last
        self._items: deque[WorkItem] = deque()
        self._change = threading.Condition()
        self._last = False  # nothing more is submitted
        self._error: BaseException | None = None
        # Not Thread.join, which up to Python 3.12 takes a thread for ended when Ctrl-C comes while it waits.
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work_off, name="vidgru-background", daemon=True)

    def __enter__(self) -> WorkerThread[WorkItem]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._change:
            self._last = True
            if error is not None:
                self._items.clear()
                self._stop.set()
            self._change.notify_all()
        if error is not None:
            self._over.wait(_PATIENCE_S)
            return
        try:
            while not self._over.wait(0.1):  # in slices, so that Ctrl-C is heard
                pass
        except BaseException:
            self._stop.set()
            self._over.wait(_PATIENCE_S)
            raise
        if self._error is not None:
            raise self._error

    def submit(self, item: WorkItem) -> None:
        """Have an item worked off after those before it; waits while many are waiting."""
        with self._change:
            while len(self._items) >= _WAITING and self._error is None:
                self._change.wait(0.1)
            if self._error is not None:
                raise self._error
            self._items.append(item)
            self._change.notify_all()

    def _work_off(self) -> None:
        try:
            self._work_all()
        finally:
            self._over.set()

    def _work_all(self) -> None:
        while True:
            with self._change:
                while not (self._items or self._last):
                    self._change.wait()
                some = list(self._items)
                self._items.clear()
                self._change.notify_all()
            try:
                if not some:
                    return self._at_last()
                self._work(some)
            except BaseException as error:
                self._error = error
                return
