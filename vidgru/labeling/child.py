"""Processes that end with the one that started them.

`python -m vidgru.labeling.child COMMAND ...` runs `vidgru COMMAND`. The parent keeps a pipe to the standard input of
such a process open. When the parent ends, even by `kill -9`, the pipe closes.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

_NICE = 10


class ChildProcess:
    """Run modules as processes of low priority, one after the other. Each has to call `end_with_parent`.

    Ctrl-C in the terminal does not reach them: the parent ends them, and knows that it did.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def close(self) -> None:
        """End the process that is running, and start no others."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.terminate()

    @contextmanager
    def run(self, module: str, *arguments: str, output: IO[Any] | int) -> Iterator[subprocess.Popen[bytes] | None]:
        """Run a module within a `with` block, whose end waits for that of the process. Gives None once closed.

        Args:
            module: Name of the module.
            arguments: Its arguments.
            output: Where output and errors go, as for `subprocess.Popen`.
        """
        with self._lock:
            process = self._process = None if self._is_closed else _start(module, *arguments, output=output)
        if process is None:
            yield None
            return
        try:
            with process:
                yield process
                process.wait()  # before its input is closed, which would end it
        finally:
            with self._lock:
                self._process = None


def _start(module: str, *arguments: str, output: IO[Any] | int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", module, *arguments]
    if sys.platform == "win32":
        flags = subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NEW_PROCESS_GROUP
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, creationflags=flags
        )
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    with suppress(OSError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
    return process


def end_with_parent() -> None:
    """End this process when its standard input is closed. Files are written atomically, so nothing is damaged."""
    threading.Thread(target=_wait_for_end, name="parent", daemon=True).start()


def _wait_for_end() -> None:
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    end_with_parent()
    runpy.run_module("vidgru", run_name="__main__", alter_sys=True)
