"""Recordings that come over time, from several threads, while others are worked on."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.extraction.test_decode_stage import entries, sharing
from tests.extraction.test_pipeline import HOW, run
from tests.videos import write_video
from vidgru.cache import SequenceCache
from vidgru.config import DetectorSettings
from vidgru.extraction.pipeline import Extractor
from vidgru.extraction.results import ExtractionResult, ExtractionStoppedError, ProgressBar
from vidgru.types import Recording

Weights = Callable[[str], Path]


@pytest.fixture
def settings(tiny_weights: Weights) -> DetectorSettings:
    return DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5, conf=0.2, max_objects=6)


@pytest.fixture
def quiet() -> Iterator[ProgressBar]:
    with ProgressBar([Path()] * 4, shown=False) as bar:
        yield bar


def recorded(folder: Path, name: str, frames: int) -> Recording:
    return Recording(path=write_video(folder / "v" / name, frames), name=name)


def test_recordings_that_come_over_time_give_the_same_bytes(
    tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar
) -> None:
    recordings = [recorded(tmp_path, f"{n}.mp4", frames) for n, frames in enumerate((21, 13, 40))]
    gone = Recording(path=tmp_path / "gone.mp4", name="gone.mp4")
    found: dict[int, ExtractionResult] = {}
    with Extractor(SequenceCache(tmp_path / "came"), settings, HOW, quiet) as extractor:
        extractor.submit(3, recordings[0])
        for number, outcome in extractor.results():
            found[number] = outcome
            if number == 3:  # the next come when nothing is left to do, and from other threads
                for thread in [
                    threading.Thread(target=extractor.submit, args=one)
                    for one in ((1, recordings[1]), (0, gone), (2, recordings[2]))
                ]:
                    thread.start()
                    thread.join()
                extractor.finish()
    assert {number: outcome.status for number, outcome in found.items()} == {
        3: "done",
        1: "done",
        2: "done",
        0: "failed",
    }
    assert [found[number].recording for number in (3, 1, 2)] == recordings
    run(tmp_path / "v", tmp_path / "at once", settings)
    assert entries(tmp_path / "came") == entries(tmp_path / "at once")


def test_one_that_several_share_is_not_left_for_those_that_come_later(
    tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "v" / "long.mp4", 100, options={"g": "10", "sc_threshold": "0"})
    asked = sharing(monkeypatch, decoders=2)
    with (
        Extractor(SequenceCache(tmp_path / "came"), settings, HOW, quiet) as extractor,
        ThreadPoolExecutor(1) as reader,
    ):
        results = reader.submit(lambda: list(extractor.results()))
        extractor.submit(0, Recording(path=path, name="long.mp4"))
        while len(asked) < 2:  # it has been split
            threading.Event().wait(0.01)
        for number in (1, 2, 3):
            extractor.submit(number, recorded(tmp_path, f"{number}.mp4", 10 + number))
        extractor.finish()
        assert {result.status for _, result in results.result()} == {"done"}
    assert not extractor._segment_decoder._claims, "nothing is kept of what has ended"
    assert not extractor._started
    run(tmp_path / "v", tmp_path / "at once", settings)
    assert entries(tmp_path / "came") == entries(tmp_path / "at once")


def test_the_end_of_the_block_ends_the_reading(tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar) -> None:
    ended: list[BaseException] = []

    def read() -> None:
        try:
            list(extractor.results())
        except ExtractionStoppedError as error:
            ended.append(error)

    with Extractor(SequenceCache(tmp_path / "f"), settings, HOW, quiet) as extractor:
        extractor.submit(0, recorded(tmp_path, "long.mp4", 600))
        reader = threading.Thread(target=read)
        reader.start()
        while not SequenceCache(tmp_path / "f").lock_folder.exists():
            threading.Event().wait(0.01)
    reader.join()
    assert len(ended) == 1
    assert not SequenceCache(tmp_path / "f").lock_folder.exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vidgru")]


def test_threads_bound_the_decoders(tmp_path: Path, settings: DetectorSettings, quiet: ProgressBar) -> None:
    assert len(Extractor(SequenceCache(tmp_path / "f"), settings, HOW, quiet)._decoders) == HOW.threads == 1
