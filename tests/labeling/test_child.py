"""Processes that end with the one that started them."""

import subprocess
import sys


def test_child_ends_when_its_parent_does() -> None:
    code = "import time; from vidgru.labeling.child import end_with_parent; end_with_parent(); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()  # as when a process that holds it is killed
    assert process.wait(timeout=60) == 1
