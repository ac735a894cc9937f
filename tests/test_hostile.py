"""A small run of `scripts/check_hostile.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_hostile.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="named pipes and names that are not UTF-8")
def test_hostile_files_are_read_or_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--inputs", "400"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.rstrip().endswith("400 inputs, seed 0; 0 problems")
