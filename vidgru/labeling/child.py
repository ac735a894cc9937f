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
from contextlib import suppress
from typing import IO, Any

_NICE = 10


def start_child(module: str, *arguments: str, output: IO[Any] | int, errors: IO[Any] | int) -> subprocess.Popen[bytes]:
    """Start a module as a process of low priority that ends with this one. It has to call `end_with_parent`.

    Ctrl-C in the terminal does not reach it: the parent ends it, and knows that it did.

    Args:
        module: Name of the module.
        arguments: Its arguments.
        output, errors: Where its output and errors go, as for `subprocess.Popen`.
    """
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=output, stderr=errors, start_new_session=sys.platform != "win32"
    )
    if sys.platform != "win32":
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
