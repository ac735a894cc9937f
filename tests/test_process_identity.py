import os
import subprocess
import sys

import pytest

from vidgru.process_identity import is_gone, started, this_host

ON_LINUX = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")


def test_processes_of_a_machine_agree_on_its_name() -> None:
    code = "from vidgru.process_identity import this_host; print(this_host())"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == this_host()


@ON_LINUX
def test_a_process_from_its_life_to_its_end() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        start = started(process.pid)
        assert start is not None
        assert start.isdigit()
        assert not is_gone(process.pid, start)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert started(process.pid) == "ended"
        assert is_gone(process.pid, start)
    assert is_gone(process.pid, start)
    assert is_gone(process.pid, None)


@ON_LINUX
def test_an_id_that_is_another_s_by_now() -> None:
    mine = started(os.getpid())
    assert mine is not None
    assert not is_gone(os.getpid(), mine)
    assert not is_gone(os.getpid(), None)  # nothing tells them apart
    assert is_gone(os.getpid(), str(int(mine) - 1))
