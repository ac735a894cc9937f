"""The summary table and the progress bar."""

import json
from pathlib import Path

import pytest

from tests.extraction.extraction_runs import RUNTIME
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.extraction.pipeline import extract_recordings
from vidgru.extraction.results import ExtractionResult, print_result, summary_table, summary_writer
from vidgru.sources import find_recordings
from vidgru.types import Recording


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bar_needs_a_terminal(
    tmp_path: Path,
    settings: DetectorSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
) -> None:
    write_video(tmp_path / "v" / "a.mp4", 12)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    extract_recordings(find_recordings([tmp_path / "v"]), SequenceCache(tmp_path / "f"), settings, RUNTIME)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("1/1 recordings" in shown.err) == terminal
    assert "frames/s, " in shown.err or not terminal
    assert "detector: yolo26n.pt, torch fp32 on cpu, 1 threads\n" in shown.err
    assert ("100%" in shown.err) == terminal


def test_summary_table_lists_a_few_per_reason() -> None:
    def failed(name: str, reason: str) -> ExtractionResult:
        recording = Recording(path=Path(name), name=name)
        return ExtractionResult(
            recording=recording, status="failed", key=None, samples=0, duration_s=None, reason=reason, seconds=0.0
        )

    ended = [failed(f"{n}.mp4", "is empty") for n in range(9)]
    ended.insert(1, failed("odd.mp4", "is a text"))
    assert summary_table(ended).splitlines() == [
        "failed   0.mp4: is empty",
        "failed   1.mp4: is empty",
        "failed   2.mp4: is empty",
        "failed   6 more: is empty",
        "failed   odd.mp4: is a text",
        "10 failed: 0.00 hours of video, 0 samples",
    ]
    assert "more" not in summary_table(ended[:5]), "a line that says 1 more could as well name it"
    many = summary_table([failed(f"{n}.mp4", f"reason {n}") for n in range(30)]).splitlines()
    assert many[20:] == ["... and 10 more in summary.jsonl", "30 failed: 0.00 hours of video, 0 samples"]


def test_results_count_the_seconds_of_a_span(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = ExtractionResult(
        recording=Recording(path=Path("a.mp4"), name="a.mp4"), status="done", key="0" * 64, samples=2880,
        duration_s=86400.0, reason="", seconds=9.0, span=(300, 660),
    )  # fmt: skip
    assert summary_table([result, result]) == "2 done: 0.20 hours of video, 5760 samples"
    print_result(result)
    assert capsys.readouterr().err == "done     a.mp4: 2880 samples of 360.0 s in 9.0 s, 40.0x real time\n"
    with summary_writer(tmp_path / "summary.jsonl") as results:
        results[0] = result
    row = json.loads((tmp_path / "summary.jsonl").read_text())
    assert (row["duration_s"], row["span"]) == (86400.0, [300, 660])
