"""Killed runs that resume, and recordings that are split among several decoders."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.extraction.extraction_runs import KEY_FRAMES, RUNTIME, entry_files, extract, set_part_samples
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.extraction import decode_process, decode_task, pipeline
from vidgru.extraction.pipeline import Extractor
from vidgru.extraction.results import ProgressBar
from vidgru.types import Recording

# --- killed runs ------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing is tidied up behind it."""


def requests(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What decoders are asked to decode from now on."""
    asked: list[dict[str, Any]] = []
    ask = decode_process.DecoderProcess.request

    def noted(self: decode_process.DecoderProcess, request: dict[str, Any]) -> Any:
        if request["kind"] != "probe":
            asked.append(request)
        return ask(self, request)

    monkeypatch.setattr(decode_process.DecoderProcess, "request", noted)
    return asked


def kill_after(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    """The next runs end when so many samples have been worked off."""
    seen = iter(range(samples))

    def sampled(*arguments: Any) -> None:
        if next(seen, None) is None:
            raise Killed

    monkeypatch.setattr("vidgru.extraction.results.ProgressBar.advance", sampled)


@pytest.mark.parametrize("suffix", ["mp4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mkv", "ts"))])
def test_killed_run_resumes_inside_the_recording(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    set_part_samples(monkeypatch, 10)
    write_video(tmp_path / "v" / f"a.{suffix}", 160, options=KEY_FRAMES)
    extract(tmp_path / "v", tmp_path / "whole", settings)
    asked = requests(monkeypatch)
    with monkeypatch.context() as killing:
        kill_after(killing, 33)
        with pytest.raises(Killed):
            extract(tmp_path / "v", tmp_path / "cut", settings)
    left = SequenceCache(tmp_path / "cut").incomplete_entries()
    assert len(left) == 1
    assert len(list(left[0][1].glob("part-*"))) == 3
    asked.clear()
    result = extract(tmp_path / "v", tmp_path / "cut", settings)[0]
    assert (result.status, result.samples) == ("done", 80)
    assert (asked[0]["resume_from"]["samples"], asked[0]["resume_from"]["index"]) == (30, 58)
    assert asked[0]["resume_from"]["key_index"] == 50, "decoding restarts at the key frame before"
    assert len(asked) == 1, "and comes by the same frame"
    assert entry_files(tmp_path / "cut") == entry_files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [{"key_pts": 7}, {"image": "0"}])
def test_lost_resume_point_is_reached_from_the_start(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    set_part_samples(monkeypatch, 10)
    write_video(tmp_path / "v" / "a.mp4", 100, options=KEY_FRAMES)
    extract(tmp_path / "v", tmp_path / "whole", settings)
    with monkeypatch.context() as killing:
        kill_after(killing, 33)
        with pytest.raises(Killed):
            extract(tmp_path / "v", tmp_path / "cut", settings)
    place = decode_task.ResumePoint
    misled = lambda **facts: replace(place(**facts), **(wrong if facts["samples"] == 30 else {}))  # noqa: E731
    monkeypatch.setattr(decode_task, "ResumePoint", misled)
    extract(tmp_path / "v", tmp_path / "cut", settings)
    assert entry_files(tmp_path / "cut") == entry_files(tmp_path / "whole")


@pytest.mark.slow
def test_damaged_recording_resumes(tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    set_part_samples(monkeypatch, 10)
    path = write_video(tmp_path / "v" / "a.mkv", 160, options=KEY_FRAMES)
    data = bytearray(path.read_bytes())
    for position in np.random.default_rng(3).integers(len(data) // 10, len(data) // 3, 8):
        data[position] ^= 0xFF
    path.write_bytes(data)
    assert extract(tmp_path / "v", tmp_path / "whole", settings)[0].status == "partial"
    with monkeypatch.context() as killing:
        kill_after(killing, 43)
        with pytest.raises(Killed):
            extract(tmp_path / "v", tmp_path / "cut", settings)
    extract(tmp_path / "v", tmp_path / "cut", settings)
    assert entry_files(tmp_path / "cut") == entry_files(tmp_path / "whole")


# --- split recordings -------------------------------------------------------------------------------------------------


def sharing(monkeypatch: pytest.MonkeyPatch, decoders: int = 3) -> list[dict[str, Any]]:
    """Let several decoders share every recording; returns what they were asked for."""
    monkeypatch.setattr(pipeline, "count_threads", lambda run: decoders)
    monkeypatch.setattr(decode_task, "SEGMENT_SAMPLES", 10)
    monkeypatch.setattr("vidgru.extraction.detector_pool.DetectorPool.is_idle", lambda self: True)
    return requests(monkeypatch)


def segment_bounds(asked: list[dict[str, Any]]) -> list[tuple[int, int | None]]:
    """The sample after which each begins, and with which it ends."""
    return sorted(
        (request["resume_from"]["samples"] if request["resume_from"] else 0, request["stop_after"]) for request in asked
    )


@pytest.mark.parametrize(("suffix", "bframes"), [
    ("mp4", "2"), *(pytest.param(*rest, marks=pytest.mark.slow) for rest in (("mp4", "0"), ("mkv", "0"), ("mkv", "2"))),
])  # fmt: skip
def test_split_recording_gives_the_same_bytes(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch, suffix: str, bframes: str
) -> None:
    write_video(tmp_path / "v" / f"a.{suffix}", 200, options={**KEY_FRAMES, "bf": bframes})
    extract(tmp_path / "v", tmp_path / "whole", settings)
    asked = sharing(monkeypatch)
    assert extract(tmp_path / "v", tmp_path / "cut", settings)[0].status == "done"
    assert segment_bounds(asked) == [
        (0, None),
        (11, 21),
        (21, 31),
        (31, 41),
        (41, 51),
        (51, 61),
        (61, 71),
        (71, 81),
        (81, 91),
        (91, None),
    ]
    assert entry_files(tmp_path / "cut") == entry_files(tmp_path / "whole")


@pytest.mark.parametrize(
    "where", [pytest.param(0.1, marks=pytest.mark.slow), 0.5, pytest.param(0.9, marks=pytest.mark.slow)]
)
def test_damaged_split_recording_gives_the_same_bytes(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch, where: float
) -> None:
    path = write_video(tmp_path / "v" / "a.mp4", 200, options=KEY_FRAMES)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat")
    middle = start + int((data.index(b"moov") - start) * where)
    for position in np.random.default_rng(3).integers(middle - 1500, middle + 1500, 6):
        data[position] ^= 0xFF
    path.write_bytes(data)
    assert extract(tmp_path / "v", tmp_path / "whole", settings)[0].status == "partial"
    asked = sharing(monkeypatch)
    extract(tmp_path / "v", tmp_path / "cut", settings)
    assert len(asked) > 1
    assert entry_files(tmp_path / "cut") == entry_files(tmp_path / "whole")


def test_changed_split_recording_fails_once(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v" / "a.mp4", 200, options=KEY_FRAMES)
    asked = sharing(monkeypatch)
    ask = decode_process.DecoderProcess.request

    def touched(self: decode_process.DecoderProcess, request: dict[str, Any]) -> Any:
        if len(asked) == 2:
            os.utime(path, ns=(5, 5))
        return ask(self, request)

    monkeypatch.setattr(decode_process.DecoderProcess, "request", touched)
    ended: list[str] = []
    result = extract(tmp_path / "v", tmp_path / "f", settings, on_result=lambda one: ended.append(one.reason))[0]
    assert result.status == "failed"
    assert ended == ["changed while it was read; run again when it is complete"]


def test_late_submissions_do_not_stall_a_split_recording(
    tmp_path: Path, settings: DetectorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v" / "long.mp4", 100, options={"g": "10", "sc_threshold": "0"})
    asked = sharing(monkeypatch, decoders=2)
    with (
        Extractor(
            SequenceCache(tmp_path / "came"), settings, RUNTIME, ProgressBar([Path()] * 4, shown=False)
        ) as extractor,
        ThreadPoolExecutor(1) as reader,
    ):
        results = reader.submit(lambda: list(extractor.results()))
        extractor.submit(0, Recording(path=path, name="long.mp4"))
        while len(asked) < 2:  # it has been split
            threading.Event().wait(0.01)
        for number in (1, 2, 3):
            extractor.submit(
                number, Recording(path=write_video(tmp_path / "v" / f"{number}.mp4", 10 + number), name=f"{number}.mp4")
            )
        extractor.finish()
        assert {result.status for _, result in results.result()} == {"done"}
    assert not extractor._segment_decoder._claims, "nothing is kept of what has ended"
    assert not extractor._started
    extract(tmp_path / "v", tmp_path / "at once", settings)
    assert entry_files(tmp_path / "came") == entry_files(tmp_path / "at once")
