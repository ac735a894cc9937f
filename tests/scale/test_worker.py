"""A worker, without Ray: what it does with recordings that several threads bring."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.extraction.extraction_runs import RUNTIME, entry_files, extract
from tests.videos import write_video
from vidgru.config import DetectorSettings
from vidgru.errors import OutputError
from vidgru.extraction.results import ExtractionResult
from vidgru.scale.worker import Task, Worker
from vidgru.types import Recording

Weights = Callable[[str], Path]


@pytest.fixture
def task(tmp_path: Path, tiny_weights: Weights) -> Task:
    detect = DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5, conf=0.2, max_objects=6)
    return Task(cache=tmp_path / "worker", detect=detect, run=RUNTIME)


def test_several_recordings_at_a_time(tmp_path: Path, task: Task) -> None:
    paths = [write_video(tmp_path / "v" / f"{n}.mp4", 20 + n) for n in range(3)]
    worker = Worker(task)
    worker.open()
    with ThreadPoolExecutor(3) as threads:
        outcomes = list(threads.map(worker.work, range(3), [Recording(path=p, name=p.name) for p in paths]))
    assert [one.status for one in outcomes] == ["done"] * 3
    assert [one.recording.path for one in outcomes] == paths
    news = worker.news()
    assert {number: step.samples for number, step in news.steps.items()} == {0: 10, 1: 11, 2: 11}
    assert news.steps[2].seconds == pytest.approx(2.0)
    assert news.said == ["detector: yolo26n.pt, torch fp32 on cpu, 1 threads"]
    assert not worker.news().steps, "each step is told once"
    worker.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vidgru")]
    extract(tmp_path / "v", tmp_path / "local", task.detect)
    assert entry_files(tmp_path / "worker") == entry_files(tmp_path / "local")


def test_a_recording_that_is_not_on_its_machine(tmp_path: Path, task: Task) -> None:
    worker = Worker(task)
    worker.open()
    outcome = worker.work(0, Recording(path=tmp_path / "gone.mp4", name="gone.mp4"))
    worker.close()
    assert isinstance(outcome, ExtractionResult)
    assert outcome.status == "failed"
    assert "gone.mp4 is not there on" in outcome.reason
    assert "must share the disk" in outcome.reason


def test_a_disk_that_is_not_shared(tmp_path: Path, task: Task) -> None:
    worker = Worker(replace(task, marks=(tmp_path / "features" / ".0.ray",)))
    with pytest.raises(OutputError, match=r"features on .*, in the Ray cluster, is not the folder of that name here"):
        worker.open()


def test_what_ends_the_work_is_told_to_all_who_wait(tmp_path: Path, task: Task) -> None:
    path = write_video(tmp_path / "v" / "a.mp4", 20)
    (tmp_path / "worker").write_text("in the way")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        Worker(task).open()
    (tmp_path / "worker").unlink()
    worker = Worker(replace(task, run=replace(RUNTIME, device="cuda:99")))
    worker.open()
    for _ in range(2):
        with pytest.raises(Exception, match="device is 'cuda:99', which cannot be used"):
            worker.work(0, Recording(path=path, name="a.mp4"))
    worker.close()
