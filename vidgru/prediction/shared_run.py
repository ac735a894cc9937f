"""Runs that share an output folder: the last that ends rebuilds the files of the run as a whole, once for all.

Each run holds a lease `run-<random>` while it works. At its end it gives that up while it holds the lease `collect`,
which one can at a time. So of any runs the last to come there sees no other, and those before it see one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vidgru.locks import Locks

_COLLECT = "collect"
_RUN = "run-"
_RETRY_S = 0.2


class SharedRun:
    """A run among those that share an output folder, from when it is made until it has collected.

    Args:
        locks: of the folder. Closing them ends a run that broke off.
    """

    def __init__(self, locks: Locks) -> None:
        self._locks, self._name = locks, _RUN + secrets.token_hex(8)
        locks.acquire(self._name)

    @contextmanager
    def last(self) -> Iterator[bool]:
        """End the run. The block is told whether no other is at work, so that it is to collect; nobody else does."""
        with collecting(self._locks):
            self._locks.release(self._name)
            yield not any(name.startswith(_RUN) for name in self._locks.held_by_others())


@contextmanager
def collecting(locks: Locks) -> Iterator[None]:
    """A block in which no other process rebuilds the files of the run as a whole; they are waited for."""
    while not locks.acquire(_COLLECT):
        time.sleep(_RETRY_S)
    try:
        yield
    finally:
        locks.release(_COLLECT)
