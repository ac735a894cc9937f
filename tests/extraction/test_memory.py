"""A small run of `scripts/check_memory.py`, which must also detect growing memory."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LEAKY = """
import sys
sys.path.insert(0, "scripts")
import check_memory
from vidgru.extraction import pipeline
to_sequence, kept = pipeline.to_sequence, []
def keeping(rows, *arguments, **options):
    kept.append(list(rows))
    return to_sequence(rows, *arguments, **options)
pipeline.to_sequence = keeping
sys.exit(check_memory.main())
"""


def check(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_memory_is_independent_of_length() -> None:
    ran = check("scripts/check_memory.py")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "equal within 10%" in ran.stdout
    assert "2880 samples in 144 parts" in ran.stdout


@pytest.mark.slow
def test_memory_check_detects_a_leak() -> None:
    ran = check("-c", LEAKY)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "the longer run takes +" in ran.stdout
