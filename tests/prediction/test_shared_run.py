"""Several runs sharing an output folder: each recording is written once, and the last run merges."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.prediction.fake_project import FakeProject, make_model
from vidgru.config import DetectorSettings
from vidgru.extraction.pipeline import ExtractionResult
from vidgru.locks import EXPIRY_S, Locks
from vidgru.prediction.batch import merge, predict
from vidgru.prediction.outputs import OutputFolder
from vidgru.prediction.predictor import PredictionStoppedError, Predictor, lock_name
from vidgru.prediction.results import PredictionResult
from vidgru.types import Recording

RUN_WIDE = ("events.jsonl", "events.csv", "activitynet.json", "index.html")


def run(project: FakeProject, **settings: object) -> list[PredictionResult]:
    return predict(project.model, [project.videos], project.config(**settings))


def statuses(predictions: list[PredictionResult]) -> dict[str, str]:
    return {p.recording.name: p.status for p in predictions}


def content(folder: Path) -> dict[str, bytes]:
    """Contents of every file but the summaries, which hold run times and statuses."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("summary"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def recording(project: FakeProject, name: str) -> Recording:
    return Recording(path=project.videos / name, name=name)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def running_beside(project: FakeProject, other: Locks) -> Iterator["Future[list[PredictionResult]]"]:
    """Start a run in another thread. At the end of the block, release the locks that it may wait for."""
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(run, project)
        finally:
            other.close()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the recordings written so far."""
    names: list[str] = []
    write = OutputFolder.write_events

    def write_and_note(out: OutputFolder, recording: Recording, events: object) -> None:
        names.append(recording.name)
        write(out, recording, events)  # type: ignore[arg-type]

    monkeypatch.setattr(OutputFolder, "write_events", write_and_note)
    return names


# --- recordings -----------------------------------------------------------------------------------------------------


def test_run_processes_locked_recordings_last(
    project: FakeProject, capsys: pytest.CaptureFixture[str], written: list[str]
) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        project.record(name)
    with Locks(project.out / ".locks") as other:
        assert other.acquire(lock_name(recording(project, "a.mp4")))
        with running_beside(project, other) as running:
            wait_until(lambda: all((project.out / name / "fingerprint.json").exists() for name in ("b.mp4", "c.mp4")))
            time.sleep(0.2)
            assert sorted(written) == ["b.mp4", "c.mp4"]
            assert not (project.out / "a.mp4").exists()
            other.close()
            assert statuses(running.result(30)) == {"a.mp4": "done", "b.mp4": "done", "c.mp4": "done"}
    assert "waiting for a.mp4: locked by another process" in capsys.readouterr().err
    assert not (project.out / ".locks").exists()


def test_run_reuses_what_another_finished_meanwhile(project: FakeProject, written: list[str]) -> None:
    project.record("a.mp4")
    project.record("b.mp4")
    run(project, out=str(project.root / "theirs"))
    written.clear()
    with Locks(project.out / ".locks") as other:
        assert other.acquire(lock_name(recording(project, "a.mp4")))
        with running_beside(project, other) as running:
            wait_until(lambda: (project.out / "b.mp4/fingerprint.json").exists())
            shutil.copytree(project.root / "theirs/a.mp4", project.out / "a.mp4")
            other.close()
            assert statuses(running.result(30)) == {"a.mp4": "reused", "b.mp4": "done"}
    assert written == ["b.mp4"]
    assert content(project.out) == content(project.root / "theirs")


def test_failure_does_not_replace_finished_files(project: FakeProject) -> None:
    """As when another process has taken over the extraction."""
    project.record("a.mp4")
    run(project)
    before = content(project.out)
    with Predictor(project.model, project.config()) as predictor:
        outcome = ExtractionResult(
            recording=recording(project, "a.mp4"), status="failed", key=None, samples=0, duration_s=None,
            reason="was taken over by another process", seconds=1.0,
        )  # fmt: skip
        assert predictor.process_extracted(outcome).status == "reused"
    assert content(project.out) == before


def test_run_stops_writing_when_lock_is_lost(
    project: FakeProject, monkeypatch: pytest.MonkeyPatch, written: list[str]
) -> None:
    project.record("a.mp4")
    name, holds, asked = lock_name(recording(project, "a.mp4")), Locks.holds, 0

    def lost_once(locks: Locks, which: str) -> bool:
        nonlocal asked
        asked += which == name
        return holds(locks, which) and (which != name or asked != 1)

    monkeypatch.setattr(Locks, "holds", lost_once)
    assert statuses(run(project)) == {"a.mp4": "done"}
    assert written == ["a.mp4"], "once, and not when the lease was lost"
    assert asked > 2


def test_simultaneous_runs_share_the_work(
    project: FakeProject, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidgru.prediction.predictor._BATCH_RECORDINGS", 2)
    for number in range(12):
        project.record(f"{number:03d}.mp4", frames=16 + number)
    run(project)
    expected, names = content(project.out), sorted(written)
    shutil.rmtree(project.out)
    written.clear()
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda _: run(project), range(3)))
    assert sorted(written) == names
    assert content(project.out) == expected
    for predictions in together:
        assert all(p.events == q.events for p, q in zip(predictions, together[0], strict=True))
    assert sum(p.status == "done" for predictions in together for p in predictions) == 12


# --- recordings one by one, in workers ------------------------------------------------------------------------------


def outcome_of(project: FakeProject, name: str) -> ExtractionResult:
    key = project.cache.key(project.cache.sha256(project.videos / name), project.feature_settings)
    return ExtractionResult(
        recording=recording(project, name), status="done", key=key,
        samples=40, duration_s=5.0, reason="", seconds=2.0,
    )  # fmt: skip


def test_predictor_finish_in_several_threads(project: FakeProject) -> None:
    names = [f"{number}.mp4" for number in range(8)]
    for number, name in enumerate(names):
        project.record(name, frames=20 + number)
    run(project, out=str(project.root / "theirs"))
    with Predictor(project.model, project.config()) as predictor, ThreadPoolExecutor(4) as pool:
        assert predictor.existing_result(recording(project, "0.mp4")) is None
        ended = list(pool.map(lambda name: predictor.process_extracted(outcome_of(project, name)), names))
        assert [p.status for p in ended] == ["done"] * 8
        assert all(p.seconds > 2 for p in ended)
        assert [
            p.status for p in pool.map(lambda name: predictor.process_extracted(outcome_of(project, name)), names)
        ] == ["reused"] * 8
        result = predictor.existing_result(recording(project, "3.mp4"))
        assert result is not None
        assert (result.status, result.events) == ("reused", ended[3].events)
        predictor.merge()
    assert content(project.out) == content(project.root / "theirs")


def test_predictor_stops_waiting_when_closed(project: FakeProject) -> None:
    project.record("a.mp4")
    with Locks(project.out / ".locks") as other, ThreadPoolExecutor(1) as pool:
        assert other.acquire(lock_name(recording(project, "a.mp4")))
        announced = threading.Event()
        with Predictor(project.model, project.config(), lambda text: announced.set()) as predictor:
            waiting = pool.submit(predictor.process_extracted, outcome_of(project, "a.mp4"))
            assert announced.wait(30)
        with pytest.raises(PredictionStoppedError):
            waiting.result(30)


def test_predict_accepts_remote_results(project: FakeProject) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        project.record(name)
    config = project.config(report=True)
    (project.videos / "c.mp4").write_text("another film")

    def remote(recordings: list[Recording], detector: DetectorSettings) -> Generator[PredictionResult, None, None]:
        assert detector.weights == str(project.weights)
        with Predictor(project.model, config) as predictor:
            for recording in recordings[:-1]:
                yield predictor.process_extracted(outcome_of(project, recording.name))
        yield PredictionResult(recording=recordings[-1], status="failed", reason="its worker died three times")

    predictions = predict(project.model, [project.videos], config, remote=remote)
    assert statuses(predictions) == {"a.mp4": "done", "b.mp4": "done", "c.mp4": "failed"}
    assert "its worker died three times" in (project.out / "index.html").read_text()
    assert json.loads((project.out / "c.mp4/failure.json").read_text())["reason"] == "its worker died three times"


# --- merging --------------------------------------------------------------------------------------------------------


def test_last_run_merges(project: FakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    project.record("a.mp4")
    with Locks(project.out / ".locks") as other:
        assert other.acquire("run-other")
        assert statuses(run(project)) == {"a.mp4": "done"}
        assert "another run is writing to" in capsys.readouterr().err
        assert not any((project.out / name).exists() for name in RUN_WIDE)
        then = time.time() - EXPIRY_S - 5
        lock = project.out / ".locks/run-other.lock"
        lock.write_text(json.dumps({"token": "ab", "host": "elsewhere", "pid": 1, "started": "1"}))
        os.utime(lock, (then, then))
        assert statuses(run(project)) == {"a.mp4": "reused"}
        assert (project.out / "events.csv").exists(), "a run that died is not waited for"
        assert not lock.exists()


def test_merge_waits_for_another_merge(project: FakeProject) -> None:
    project.record("a.mp4")
    with Locks(project.out / ".locks") as other:
        assert other.acquire("merge")
        with running_beside(project, other) as running:
            wait_until(lambda: (project.out / "summary.jsonl").exists())
            time.sleep(0.05)
            assert not (project.out / "events.csv").exists()
            other.close()
            running.result(30)
    assert (project.out / "events.csv").exists()


def test_shards_equal_a_single_run(project: FakeProject) -> None:
    for number in range(4):
        project.record(f"{number}.mp4", frames=20 + number)
    (project.videos / "empty.mp4").touch()
    settings = {"report": True, "threshold": {"run": 0.1, "walk": 0.7}}
    (first, *_) = run(project, out=str(project.root / "whole"), **settings)
    assert [event.label for event in first.events] == ["fall", "run"]
    parts = [run(project, shard=f"{number}/2", **settings) for number in (1, 2)]
    names = [result.recording.name for part in parts for result in part]
    assert sorted(names) == sorted(path.name for path in project.videos.iterdir())
    assert content(project.out) == content(project.root / "whole")
    summaries = [[json.loads(line)["video"] for line in path.read_text().splitlines()] for path in sorted(
        project.out.glob("summary.*")
    )]  # fmt: skip
    assert [path.name for path in sorted(project.out.glob("summary*"))] == [f"summary.{n}-of-2.jsonl" for n in (1, 2)]
    assert summaries == [[result.recording.name for result in part] for part in parts]


def test_shards_of_a_cache(project: FakeProject) -> None:
    for number in range(6):
        project.record(f"{number}.mp4", frames=20 + number)
    parts = [predict(project.model, [project.cache.root], project.config(shard=f"{number}/2")) for number in (1, 2)]
    assert all(parts)
    assert sorted(result.recording.name for part in parts for result in part) == [
        f"{number}.mp4" for number in range(6)
    ]


# --- failures -------------------------------------------------------------------------------------------------------


def read_failure(project: FakeProject) -> dict[str, object]:
    failure: dict[str, object] = json.loads((project.out / "b.mp4/failure.json").read_text())
    return failure


def test_failure_is_listed_until_mended(project: FakeProject) -> None:
    project.record("a.mp4")
    (project.videos / "b.mp4").touch()
    run(project, report=True)
    assert read_failure(project)["reason"] == "is empty (0 bytes); copy it again"
    assert read_failure(project)["source"] == str(project.videos / "b.mp4")
    before = content(project.out)
    assert statuses(predict(project.model, [project.videos / "a.mp4"], project.config(report=True))) == {
        "a.mp4": "reused"
    }
    assert content(project.out) == before, "also in a run without it"
    assert b"is empty (0 bytes)" in before["index.html"]
    assert statuses(run(project, report=True)) == {"a.mp4": "reused", "b.mp4": "failed"}
    assert content(project.out) == before, "it is tried again, and fails in the same way"
    project.record("b.mp4")
    assert statuses(run(project, report=True)) == {"a.mp4": "reused", "b.mp4": "done"}
    assert not (project.out / "b.mp4/failure.json").exists()
    assert "is empty" not in (project.out / "index.html").read_text()


def test_failure_of_deleted_file_is_not_listed(project: FakeProject) -> None:
    project.record("a.mp4")
    (project.videos / "b.mp4").touch()
    run(project, report=True)
    (project.videos / "b.mp4").unlink()
    run(project, report=True)
    assert "b.mp4" not in (project.out / "index.html").read_text()


def test_failure_of_other_settings_is_not_listed(project: FakeProject) -> None:
    project.record("a.mp4")
    (project.videos / "b.mp4").touch()
    run(project, report=True)
    predict(project.model, [project.videos / "a.mp4"], project.config(report=True, threshold=0.7))
    assert "b.mp4" not in (project.out / "index.html").read_text()


@pytest.mark.parametrize("left", ["", "[]", '{"reason": "none"}'])
def test_corrupt_failure_is_ignored(project: FakeProject, left: str) -> None:
    project.record("a.mp4")
    (project.videos / "b.mp4").touch()
    run(project, report=True)
    (project.out / "b.mp4/failure.json").write_text(left)
    predict(project.model, [project.videos / "a.mp4"], project.config(report=True))
    assert "b.mp4" not in (project.out / "index.html").read_text()


# --- merging only ---------------------------------------------------------------------------------------------------


def test_merge_scores_nothing_and_reports_missing(project: FakeProject, written: list[str]) -> None:
    project.record("a.mp4")
    (project.videos / "b.mp4").touch()
    run(project, report=True)
    expected = content(project.out)
    for name in RUN_WIDE:
        (project.out / name).unlink()
    project.record("c.mp4")
    project.weights.unlink()
    written.clear()
    results = merge(project.model, [project.videos], project.config(report=True, merge_only=True))
    assert written == []
    assert statuses(results) == {"a.mp4": "reused", "b.mp4": "failed", "c.mp4": "failed"}
    assert [p.reason for p in results] == [
        "", "is empty (0 bytes); copy it again", "not predicted yet; run vidgru predict on it",
    ]  # fmt: skip
    assert content(project.out) == expected
    summary = [json.loads(line) for line in (project.out / "summary.jsonl").read_text().splitlines()]
    assert [row["status"] for row in summary] == ["reused", "failed", "failed"]
    assert not (project.out / ".locks").exists()


def test_merge_from_cache(project: FakeProject) -> None:
    project.record("a.mp4")
    project.record("b.mp4")
    predict(project.model, [project.cache.root], project.config(shard="1/2"))
    predict(project.model, [project.cache.root], project.config(shard="2/2"))
    (project.out / "events.csv").unlink()
    shutil.rmtree(project.out / "b.mp4")
    results = merge(project.model, [project.cache.root], project.config(merge_only=True))
    assert statuses(results) == {"a.mp4": "reused", "b.mp4": "failed"}
    assert {line.split(",")[0] for line in (project.out / "events.csv").read_text().splitlines()[1:]} == {"a.mp4"}


def test_merge_skips_other_models(project: FakeProject) -> None:
    project.record("a.mp4")
    run(project)
    make_model(project.model, project.feature_settings, weights=str(project.weights), fall=0.9, sit=0.8)
    (result,) = merge(project.model, [project.videos], project.config(merge_only=True))
    assert (result.status, result.reason.split(";")[0]) == ("failed", "not predicted yet")
