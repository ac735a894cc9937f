"""Processes that end with the one that started them."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vidgru.labeling import child
from vidgru.labeling.child import ChildProcess


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module `chatty`, which children can run."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path / "chatty.py"


def test_child_ends_when_its_parent_does() -> None:
    code = "import time; from vidgru.labeling.child import end_with_parent; end_with_parent(); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()  # as when a process that holds it is killed
    assert process.wait(timeout=60) == 1


def test_output_and_errors_share_a_pipe(module: Path) -> None:
    """With a pipe each, a process that fills that of errors would wait forever."""
    module.write_text("import sys; sys.stderr.write('e' * 1_000_000); print(); print('done')")
    with ChildProcess().run("chatty", output=subprocess.PIPE) as process:
        assert process is not None
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert (len(lines[0]), lines[1], process.returncode) == (1_000_000, b"done", 0)


@pytest.mark.skipif(os.name != "posix", reason="priorities of other systems are set when a process starts")
def test_child_has_low_priority_and_ends_on_close(module: Path) -> None:
    module.write_text("import sys; sys.stdin.read()")
    runner = ChildProcess()
    with runner.run("chatty", output=subprocess.DEVNULL) as process:
        assert process is not None
        assert runner.is_running
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= min(child._NICE, 19)
        runner.close()
        assert process.wait(timeout=60) != 0
    assert not runner.is_running
    with runner.run("chatty", output=subprocess.DEVNULL) as process:
        assert process is None


def test_child_has_low_priority_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"BELOW_NORMAL_PRIORITY_CLASS": 0x4000, "CREATE_NEW_PROCESS_GROUP": 0x200}
    calls: list[dict[str, Any]] = []
    fake = SimpleNamespace(**flags, PIPE=-1, STDOUT=-2, Popen=lambda command, **options: calls.append(options))
    monkeypatch.setattr(child, "subprocess", fake)
    monkeypatch.setattr(sys, "platform", "win32")
    child._start("chatty", output=-1)
    assert calls == [{"stdin": -1, "stdout": -1, "stderr": -2, "creationflags": 0x4200}]
