import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.detectors import make_weights
from tests.videos import write_video

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_predict.py"
SMALL = ("--recordings", "2", "--frames", "150", "--repeats", "1", "--live-frames", "60", "--hours", "0.02")


def bench(folder: Path, *arguments: str) -> tuple[list[dict], str]:
    """Return the rows of the report, and the printed table."""
    command = [sys.executable, str(SCRIPT), *SMALL, "--out", str(folder / "bench"), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads((folder / "bench/bench_predict.json").read_text())["rows"], ran.stdout


@pytest.mark.slow
def test_bench_predict_measures_every_figure(tmp_path: Path) -> None:
    video, weights = write_video(tmp_path / "a.mp4", 60, fps=10), make_weights(tmp_path / "tiny.pt")
    rows, printed = bench(tmp_path, "--video", str(video), "--weights", str(weights), "--loops", "2")
    assert [row["name"] for row in rows] == [
        *(
            f"head, {objects} objects per frame, {variant}"
            for objects in (3, 20)
            for variant in ("batched", "one by one")
        ),
        *(f"live, {objects} objects per frame, model alone" for objects in (3, 20)),
        *(f"memory, 0.02 hours in chunks of {frames}" for frames in (1, 16)),
        *("end to end, cold cache", "end to end, warm cache", "live, with the detector"),
    ]
    assert all(row["value"] > 0 for row in rows if not row["name"].startswith("memory"))
    assert [row["target"] for row in rows if row["target"]] == [50_000, 20_000]
    assert all("at 10%" in row["detail"] and "at 100%" in row["detail"] for row in rows if "memory" in row["name"])
    assert len(printed.splitlines()) == len(rows)


@pytest.mark.slow
def test_bench_predict_requires_weights_with_video(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--video", "a.mp4"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
    assert ran.returncode == 2
    assert "--video and --weights go together" in ran.stderr
