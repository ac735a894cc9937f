import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.detectors import DEMO
from tests.still_videos import write_still

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_adaptive.py"
SMALL = ("--size", "320x192", "--inset", "1", "--imgsz", "320", "--fps", "6", "--codecs", "crf-2s", "--threads", "1")


@pytest.mark.slow
def test_bench_adaptive_measures_drawn_recordings(tmp_path: Path) -> None:
    options = ["--weights", str(DEMO), "--model", str(DEMO.with_suffix(".safetensors")), *SMALL]
    options += ["--hours", "0.1", "--shares", "0.1", "--out", str(tmp_path / "bench")]
    options += ["--busy", str(write_still(tmp_path / "busy.mp4", 12)), "--loops", "1", "--repeats", "1"]
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
    assert all(row["same_samples"] for row in report["skipping"])
    assert {row["encoder"]: row["skippable"] > 0.3 for row in report["skipping"]} == {
        "libx264": True,
        "libx264, b-pyramid=none": True,
        "libx264, bf=0": False,
        "libx264, 4 Mbit/s, bf=0, 2 s": False,
        "libx265": True,
        "libx265, temporal-layers=3": True,
    }
    assert set(speed["stages"]) == {"hash", "packets", "key frames", "model, report", "loading", "decoding, detector"}
    assert (tmp_path / "bench/bench_adaptive.png").stat().st_size > 1000
    assert "crf-2s" in ran.stdout
    assert [path.name for path in (tmp_path / "bench").iterdir() if path.is_dir()] == []  # composed files are deleted
