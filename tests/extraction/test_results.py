"""The summary table and the progress bar."""

from pathlib import Path

import pytest

from tests.extraction.extraction_runs import RUNTIME
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.extraction.pipeline import extract_recordings
from vidgru.extraction.results import ExtractionResult, summary_table
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
