import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.detectors import make_weights
from tests.videos import write_video

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_scale.py"


@pytest.mark.slow
def test_bench_scale_compares_all_variants(tmp_path: Path) -> None:
    for number in range(3):
        write_video(tmp_path / "videos" / f"{number}.mp4", 20 + number, fps=10)
    weights = make_weights(tmp_path / "tiny.pt")
    command = [sys.executable, str(SCRIPT), "videos", "--weights", str(weights), "--fps", "5", "--imgsz", "64"]
    command += ["--repeats", "1", "--out", "bench"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert ran.returncode == 0, ran.stderr
    report = json.loads((tmp_path / "bench" / "bench_scale.json").read_text())
    assert report["samples"] == 10 + 11 + 11
    assert report["same_bytes"]
    assert list(report["variants"]) == [
        "one process", "shards, 1 worker", "shards, 2 workers", "the same command twice", "Ray, 1 worker",
        "Ray, 2 workers",
    ]  # fmt: skip
    assert all(name in ran.stdout for name in report["variants"])
