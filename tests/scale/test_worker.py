"""A worker without Ray, called from several threads."""

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
from vidgru.scale.worker import RayWorker, WorkerTask
from vidgru.types import Recording

Weights = Callable[[str], Path]


@pytest.fixture
def task(tmp_path: Path, tiny_weights: Weights) -> WorkerTask:
    detect = DetectorSettings(weights=str(tiny_weights("yolo26n")), imgsz=64, fps=5, conf=0.2, max_objects=6)
    return WorkerTask(cache=tmp_path / "worker", detect=detect, run=RUNTIME)


def test_worker_processes_several_recordings_at_a_time(tmp_path: Path, task: WorkerTask) -> None:
    paths = [write_video(tmp_path / "v" / f"{n}.mp4", 20 + n) for n in range(3)]
    worker = RayWorker(task)
    worker.start()
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(worker.process, range(3), [Recording(path=p, name=p.name) for p in paths]))
    assert [result.status for result in results] == ["done"] * 3
    assert [result.recording.path for result in results] == paths
    progress = worker.take_progress()
    assert {number: recording.samples for number, recording in progress.recordings.items()} == {0: 10, 1: 11, 2: 11}
    assert progress.recordings[2].seconds == pytest.approx(2.0)
    assert progress.messages == ["detector: yolo26n.pt, torch fp32 on cpu, 1 threads"]
    assert not worker.take_progress().recordings, "progress is reported once"
    worker.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vidgru")]
    extract(tmp_path / "v", tmp_path / "local", task.detect)
    assert entry_files(tmp_path / "worker") == entry_files(tmp_path / "local")


def test_worker_fails_a_missing_recording(tmp_path: Path, task: WorkerTask) -> None:
    worker = RayWorker(task)
    worker.start()
    result = worker.process(0, Recording(path=tmp_path / "gone.mp4", name="gone.mp4"))
    worker.close()
    assert isinstance(result, ExtractionResult)
    assert result.status == "failed"
    assert "gone.mp4 does not exist on" in result.reason
    assert "must share the disk" in result.reason


def test_worker_rejects_folders_that_are_not_shared(tmp_path: Path, task: WorkerTask) -> None:
    worker = RayWorker(replace(task, markers=(tmp_path / "features" / ".0.ray",)))
    with pytest.raises(OutputError, match=r"features on .*, a node of the Ray cluster, is not the same folder as here"):
        worker.start()


def test_worker_raises_the_same_error_in_every_call(tmp_path: Path, task: WorkerTask) -> None:
    path = write_video(tmp_path / "v" / "a.mp4", 20)
    (tmp_path / "worker").write_text("in the way")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        RayWorker(task).start()
    (tmp_path / "worker").unlink()
    worker = RayWorker(replace(task, run=replace(RUNTIME, device="cuda:99")))
    worker.start()
    for _ in range(2):
        with pytest.raises(Exception, match="device is 'cuda:99', which cannot be used"):
            worker.process(0, Recording(path=path, name="a.mp4"))
    worker.close()
