import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.detectors import DEMO

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_adaptive.py"
SMALL = ("--size", "320x192", "--inset", "1", "--imgsz", "320", "--fps", "6", "--codecs", "crf-2s", "--threads", "1")


@pytest.mark.slow
def test_bench_adaptive_measures_drawn_recordings(tmp_path: Path) -> None:
    options = ["--weights", str(DEMO), "--model", str(DEMO.with_suffix(".safetensors")), *SMALL]
    options += ["--hours", "0.1", "--shares", "0.1", "--out", str(tmp_path / "bench")]
    command = [sys.executable, str(SCRIPT), *options]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert ran.returncode == 0, ran.stderr
    report = json.loads((tmp_path / "bench/bench_adaptive.json").read_text())
    (agreement,), (speed,) = report["agreement"], report["speed"]
    assert agreement["same_samples"]
    assert agreement["events"] > 0
    assert agreement["f1"] >= 0.99
    assert min(agreement["objects"], agreement["objects_of_full"]) >= 0.98
    assert speed["decoded"] < 0.5 < agreement["decoded"]
    assert speed["real_time"] > 0
    assert set(speed["stages"]) == {"hash", "packets", "key frames", "model, report", "loading", "decoding, detector"}
    assert (tmp_path / "bench/bench_adaptive.png").stat().st_size > 1000
    assert "crf-2s" in ran.stdout
    assert [path.name for path in (tmp_path / "bench").iterdir() if path.is_dir()] == []  # composed files are deleted
