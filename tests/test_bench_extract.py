import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.detectors import make_weights
from tests.videos import write_video

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_extract.py"


def bench(folder: Path, *arguments: str) -> tuple[dict, str]:
    """Run it on a small video. Returns what it wrote and what it printed."""
    video = write_video(folder / "a.mp4", 60, fps=10)
    weights = make_weights(folder / "tiny.pt")
    shared = [str(video), "--weights", str(weights), "--imgsz", "64", "--repeats", "1", "--out", str(folder / "bench")]
    command = [sys.executable, str(SCRIPT), *shared, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (folder / "bench/bench_extract.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((folder / "bench/bench_extract.json").read_text()), ran.stdout


@pytest.mark.slow
def test_compares_with_ultralytics_and_the_machine(tmp_path: Path) -> None:
    report, printed = bench(tmp_path, "--loops", "2")
    names = [one["name"] for one in report["contenders"]]
    assert names[:2] == ["Ultralytics predict", "Ultralytics predict + embed"]
    assert "vidgru torch fp32" in names
    assert {one["samples"] for one in report["contenders"]} == {60}
    assert report["samples_agree"]
    assert report["stages"].keys() == report["stages_busy"].keys() == report["bounds"].keys()
    assert {f"vidgru {name}" for name in report["stages"]} <= set(names)
    for by_stage in report["stages"].values():
        assert list(by_stage) == [
            *("decode", "scale", "flow", "scene motion", "forward", "rest of detect", "object motion", "tracker"),
            "write",
        ]
    assert all(len(runs) == 1 for runs in report["repeats"].values())
    assert {"cpu", "cores", "flags", "versions"} <= report["machine"].keys()
    assert all(one["what"] in printed for one in report["targets"])


@pytest.mark.slow
def test_compares_clips_with_one_long_file(tmp_path: Path) -> None:
    report, printed = bench(tmp_path, "--clips", "5", "--size", "96x64", "--fps", "3")
    assert report["videos"] == 5
    assert {one["samples"] for one in report["contenders"]} == {30}  # six a clip; Ultralytics is fed: 10 is no multiple
    assert report["samples_agree"]
    assert "one long file / folder of clips" in printed
