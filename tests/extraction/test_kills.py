"""A small run of `scripts/check_kills.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_kills.py"


def check(*arguments: str) -> str:
    ran = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "all caches equal the undisturbed one" in ran.stdout
    return ran.stdout


@pytest.mark.slow
def test_kills_of_runs_and_decoders_leave_equal_bytes() -> None:
    printed = check("--kills", "20", "--decoder-runs", "2")
    assert printed.splitlines()[1].startswith("20 kills, ")
    assert " 0 times resumed inside a recording" not in printed
    assert "kills of decoders alone, in 2 runs" in printed


@pytest.mark.slow
def test_kills_of_adaptive_runs_leave_equal_bytes() -> None:
    printed = check("--kills", "6", "--decoder-runs", "1", "--adaptive")
    assert " 0 times resumed inside a recording" not in printed


@pytest.mark.slow
def test_two_processes_share_work_when_killed() -> None:
    printed = check("--kills", "10", "--decoder-runs", "0", "--processes", "2", "--seed", "1")
    assert "recordings extracted by each process: [" in printed
