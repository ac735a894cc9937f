"""Several runs over one output folder: each recording by one of them, the files of all by the last."""

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

from tests.prediction.fake_project import World, make_model
from vidgru.config import DetectorSettings
from vidgru.extraction.pipeline import ExtractionResult
from vidgru.locks import EXPIRY_S, Locks
from vidgru.prediction.batch import merge, predict
from vidgru.prediction.outputs import OutputFolder
from vidgru.prediction.predictor import PredictionStoppedError, Predictor, lock_name
from vidgru.prediction.results import PredictionResult
from vidgru.types import Recording

RUN_WIDE = ("events.jsonl", "events.csv", "activitynet.json", "index.html")


def run(world: World, **settings: object) -> list[PredictionResult]:
    return predict(world.model, [world.videos], world.config(**settings))


def states(predictions: list[PredictionResult]) -> dict[str, str]:
    return {p.recording.name: p.status for p in predictions}


def content(folder: Path) -> dict[str, bytes]:
    """Every file but the summaries, which tell how long it took and what was there before."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("summary"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def recording(world: World, name: str) -> Recording:
    return Recording(path=world.videos / name, name=name)


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def beside(world: World, other: Locks) -> Iterator["Future[list[PredictionResult]]"]:
    """A run that goes on while the block does, at whose end what it may wait for is given up."""
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(run, world)
        finally:
            other.close()


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the recordings whose files are written, as they are."""
    found: list[str] = []
    write = OutputFolder.write_events

    def note(out: OutputFolder, recording: Recording, events: object) -> None:
        found.append(recording.name)
        write(out, recording, events)  # type: ignore[arg-type]

    monkeypatch.setattr(OutputFolder, "write_events", note)
    return found


# --- recordings -----------------------------------------------------------------------------------------------------


def test_a_recording_that_another_works_on_is_left_to_the_end(
    world: World, capsys: pytest.CaptureFixture[str], scored: list[str]
) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        world.record(name)
    with Locks(world.out / ".leases") as other:
        assert other.acquire(lock_name(recording(world, "a.mp4")))
        with beside(world, other) as running:
            until(lambda: all((world.out / name / "fingerprint.json").exists() for name in ("b.mp4", "c.mp4")))
            time.sleep(0.2)
            assert sorted(scored) == ["b.mp4", "c.mp4"]
            assert not (world.out / "a.mp4").exists()
            other.close()
            assert states(running.result(30)) == {"a.mp4": "done", "b.mp4": "done", "c.mp4": "done"}
    assert "waiting for a.mp4: locked by another process" in capsys.readouterr().err
    assert not (world.out / ".leases").exists()


def test_what_another_finished_meanwhile_is_not_done_again(world: World, scored: list[str]) -> None:
    world.record("a.mp4")
    world.record("b.mp4")
    run(world, out=str(world.root / "theirs"))
    scored.clear()
    with Locks(world.out / ".leases") as other:
        assert other.acquire(lock_name(recording(world, "a.mp4")))
        with beside(world, other) as running:
            until(lambda: (world.out / "b.mp4/fingerprint.json").exists())
            shutil.copytree(world.root / "theirs/a.mp4", world.out / "a.mp4")
            other.close()
            assert states(running.result(30)) == {"a.mp4": "reused", "b.mp4": "done"}
    assert scored == ["b.mp4"]
    assert content(world.out) == content(world.root / "theirs")


def test_a_recording_that_fails_here_and_is_whole_there(world: World) -> None:
    """Its features were taken over by the other process, say."""
    world.record("a.mp4")
    run(world)
    before = content(world.out)
    with Predictor(world.model, world.config()) as predictor:
        outcome = ExtractionResult(
            recording=recording(world, "a.mp4"), status="failed", key=None, samples=0, duration_s=None,
            reason="was taken over by another process", seconds=1.0,
        )  # fmt: skip
        assert predictor.finish(outcome).status == "reused"
    assert content(world.out) == before


def test_who_loses_a_lease_writes_no_more(world: World, monkeypatch: pytest.MonkeyPatch, scored: list[str]) -> None:
    world.record("a.mp4")
    name, holds, asked = lock_name(recording(world, "a.mp4")), Locks.holds, 0

    def lost_once(locks: Locks, which: str) -> bool:
        nonlocal asked
        asked += which == name
        return holds(locks, which) and (which != name or asked != 1)

    monkeypatch.setattr(Locks, "holds", lost_once)
    assert states(run(world)) == {"a.mp4": "done"}
    assert scored == ["a.mp4"], "once, and not when the lease was lost"
    assert asked > 2


def test_runs_at_the_same_time_share_the_work(world: World, scored: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidgru.prediction.predictor._BATCH_RECORDINGS", 2)
    for number in range(12):
        world.record(f"{number:03d}.mp4", frames=16 + number)
    run(world)
    expected, names = content(world.out), sorted(scored)
    shutil.rmtree(world.out)
    scored.clear()
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda _: run(world), range(3)))
    assert sorted(scored) == names
    assert content(world.out) == expected
    for predictions in together:
        assert all(p.events == q.events for p, q in zip(predictions, together[0], strict=True))
    assert sum(p.status == "done" for predictions in together for p in predictions) == 12


# --- one at a time, for workers -------------------------------------------------------------------------------------


def outcome_of(world: World, name: str) -> ExtractionResult:
    key = world.cache.key(world.cache.sha256(world.videos / name), world.feature_settings)
    return ExtractionResult(
        recording=recording(world, name), status="done", key=key,
        samples=40, duration_s=5.0, reason="", seconds=2.0,
    )  # fmt: skip


def test_a_predictor_finishes_recordings_one_by_one_in_any_thread(world: World) -> None:
    names = [f"{number}.mp4" for number in range(8)]
    for number, name in enumerate(names):
        world.record(name, frames=20 + number)
    run(world, out=str(world.root / "theirs"))
    with Predictor(world.model, world.config()) as predictor, ThreadPoolExecutor(4) as pool:
        assert predictor.finished(recording(world, "0.mp4")) is None
        ended = list(pool.map(lambda name: predictor.finish(outcome_of(world, name)), names))
        assert [p.status for p in ended] == ["done"] * 8
        assert all(p.seconds > 2 for p in ended)
        assert [p.status for p in pool.map(lambda name: predictor.finish(outcome_of(world, name)), names)] == [
            "reused"
        ] * 8
        found = predictor.finished(recording(world, "3.mp4"))
        assert found is not None
        assert (found.status, found.events) == ("reused", ended[3].events)
        predictor.merge()
    assert content(world.out) == content(world.root / "theirs")


def test_a_predictor_that_is_closed_stops_waiting(world: World) -> None:
    world.record("a.mp4")
    with Locks(world.out / ".leases") as other, ThreadPoolExecutor(1) as pool:
        assert other.acquire(lock_name(recording(world, "a.mp4")))
        said = threading.Event()
        with Predictor(world.model, world.config(), lambda text: said.set()) as predictor:
            waiting = pool.submit(predictor.finish, outcome_of(world, "a.mp4"))
            assert said.wait(30)
        with pytest.raises(PredictionStoppedError):
            waiting.result(30)


def test_recordings_may_be_finished_elsewhere(world: World) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        world.record(name)
    config = world.config(report=True)
    (world.videos / "c.mp4").write_text("another film")

    def remote(recordings: list[Recording], detector: DetectorSettings) -> Generator[PredictionResult, None, None]:
        assert detector.weights == str(world.weights)
        with Predictor(world.model, config) as predictor:
            for recording in recordings[:-1]:
                yield predictor.finish(outcome_of(world, recording.name))
        yield PredictionResult(recording=recordings[-1], status="failed", reason="its worker died three times")

    predictions = predict(world.model, [world.videos], config, remote=remote)
    assert states(predictions) == {"a.mp4": "done", "b.mp4": "done", "c.mp4": "failed"}
    assert "its worker died three times" in (world.out / "index.html").read_text()
    assert json.loads((world.out / "c.mp4/failure.json").read_text())["reason"] == "its worker died three times"


# --- the files of the run as a whole --------------------------------------------------------------------------------


def test_the_run_that_ends_last_collects(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.record("a.mp4")
    with Locks(world.out / ".leases") as other:
        assert other.acquire("run-other")
        assert states(run(world)) == {"a.mp4": "done"}
        assert "another run is writing to" in capsys.readouterr().err
        assert not any((world.out / name).exists() for name in RUN_WIDE)
        then = time.time() - EXPIRY_S - 5
        lock = world.out / ".leases/run-other.lease"
        lock.write_text(json.dumps({"token": "ab", "host": "elsewhere", "pid": 1, "started": "1"}))
        os.utime(lock, (then, then))
        assert states(run(world)) == {"a.mp4": "reused"}
        assert (world.out / "events.csv").exists(), "a run that died is not waited for"
        assert not lock.exists()


def test_one_collects_at_a_time(world: World) -> None:
    world.record("a.mp4")
    with Locks(world.out / ".leases") as other:
        assert other.acquire("merge")
        with beside(world, other) as running:
            until(lambda: (world.out / "summary.jsonl").exists())
            time.sleep(0.05)
            assert not (world.out / "events.csv").exists()
            other.close()
            running.result(30)
    assert (world.out / "events.csv").exists()


def test_shards_come_to_the_same_as_one_run(world: World) -> None:
    for number in range(4):
        world.record(f"{number}.mp4", frames=20 + number)
    (world.videos / "empty.mp4").touch()
    run(world, out=str(world.root / "whole"), report=True)
    parts = [run(world, shard=f"{number}/2", report=True) for number in (1, 2)]
    names = [one.recording.name for part in parts for one in part]
    assert sorted(names) == sorted(path.name for path in world.videos.iterdir())
    assert content(world.out) == content(world.root / "whole")
    summaries = [[json.loads(line)["video"] for line in path.read_text().splitlines()] for path in sorted(
        world.out.glob("summary.*")
    )]  # fmt: skip
    assert [path.name for path in sorted(world.out.glob("summary*"))] == [f"summary.{n}-of-2.jsonl" for n in (1, 2)]
    assert summaries == [[one.recording.name for one in part] for part in parts]


def test_entries_of_a_cache_are_shared_out_as_well(world: World) -> None:
    for number in range(6):
        world.record(f"{number}.mp4", frames=20 + number)
    parts = [predict(world.model, [world.cache.root], world.config(shard=f"{number}/2")) for number in (1, 2)]
    assert all(parts)
    assert sorted(one.recording.name for part in parts for one in part) == [f"{number}.mp4" for number in range(6)]


# --- what failed ----------------------------------------------------------------------------------------------------


def failure(world: World) -> dict[str, object]:
    found: dict[str, object] = json.loads((world.out / "b.mp4/failure.json").read_text())
    return found


def test_a_failure_is_told_by_whoever_collects_and_goes_when_it_is_mended(world: World) -> None:
    world.record("a.mp4")
    (world.videos / "b.mp4").touch()
    run(world, report=True)
    assert failure(world)["reason"] == "is empty (0 bytes); copy it again"
    assert failure(world)["source"] == str(world.videos / "b.mp4")
    before = content(world.out)
    assert states(predict(world.model, [world.videos / "a.mp4"], world.config(report=True))) == {"a.mp4": "reused"}
    assert content(world.out) == before, "also by a run that was not given it"
    assert b"is empty (0 bytes)" in before["index.html"]
    assert states(run(world, report=True)) == {"a.mp4": "reused", "b.mp4": "failed"}
    assert content(world.out) == before, "it is tried again, and fails alike"
    world.record("b.mp4")
    assert states(run(world, report=True)) == {"a.mp4": "reused", "b.mp4": "done"}
    assert not (world.out / "b.mp4/failure.json").exists()
    assert "is empty" not in (world.out / "index.html").read_text()


def test_a_failure_whose_file_is_gone_is_not_told_any_more(world: World) -> None:
    world.record("a.mp4")
    (world.videos / "b.mp4").touch()
    run(world, report=True)
    (world.videos / "b.mp4").unlink()
    run(world, report=True)
    assert "b.mp4" not in (world.out / "index.html").read_text()


def test_a_failure_of_other_settings_is_not_told(world: World) -> None:
    world.record("a.mp4")
    (world.videos / "b.mp4").touch()
    run(world, report=True)
    predict(world.model, [world.videos / "a.mp4"], world.config(report=True, min_score=0.7))
    assert "b.mp4" not in (world.out / "index.html").read_text()


@pytest.mark.parametrize("left", ["", "[]", '{"reason": "none"}'])
def test_a_failure_that_does_not_read_is_none(world: World, left: str) -> None:
    world.record("a.mp4")
    (world.videos / "b.mp4").touch()
    run(world, report=True)
    (world.out / "b.mp4/failure.json").write_text(left)
    predict(world.model, [world.videos / "a.mp4"], world.config(report=True))
    assert "b.mp4" not in (world.out / "index.html").read_text()


# --- collecting alone -----------------------------------------------------------------------------------------------


def test_collecting_scores_nothing_and_tells_what_is_missing(world: World, scored: list[str]) -> None:
    world.record("a.mp4")
    (world.videos / "b.mp4").touch()
    run(world, report=True)
    expected = content(world.out)
    for name in RUN_WIDE:
        (world.out / name).unlink()
    world.record("c.mp4")
    world.weights.unlink()
    scored.clear()
    found = merge(world.model, [world.videos], world.config(report=True, merge_only=True))
    assert scored == []
    assert states(found) == {"a.mp4": "reused", "b.mp4": "failed", "c.mp4": "failed"}
    assert [p.reason for p in found] == [
        "", "is empty (0 bytes); copy it again", "not predicted yet; run vidgru predict on it",
    ]  # fmt: skip
    assert content(world.out) == expected
    summary = [json.loads(line) for line in (world.out / "summary.jsonl").read_text().splitlines()]
    assert [row["status"] for row in summary] == ["reused", "failed", "failed"]
    assert not (world.out / ".leases").exists()


def test_collecting_from_the_features(world: World) -> None:
    world.record("a.mp4")
    world.record("b.mp4")
    predict(world.model, [world.cache.root], world.config(shard="1/2"))
    predict(world.model, [world.cache.root], world.config(shard="2/2"))
    (world.out / "events.csv").unlink()
    shutil.rmtree(world.out / "b.mp4")
    found = merge(world.model, [world.cache.root], world.config(merge_only=True))
    assert states(found) == {"a.mp4": "reused", "b.mp4": "failed"}
    assert {line.split(",")[0] for line in (world.out / "events.csv").read_text().splitlines()[1:]} == {"a.mp4"}


def test_what_another_model_found_is_not_collected(world: World) -> None:
    world.record("a.mp4")
    run(world)
    make_model(world.model, world.feature_settings, weights=str(world.weights), fall=0.9, sit=0.8)
    (found,) = merge(world.model, [world.videos], world.config(merge_only=True))
    assert (found.status, found.reason.split(";")[0]) == ("failed", "not predicted yet")
