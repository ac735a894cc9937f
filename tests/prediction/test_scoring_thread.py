"""The thread that scores recordings beside their extraction."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from vidgru.prediction.batch import ScoringThread


class FakePredictor:
    """Takes numbers for recordings."""

    def __init__(self, work: Callable[[list[Any]], None] = lambda batch: None) -> None:
        self._work = work
        self.batches: list[list[Any]] = []
        self.stopped = threading.Event()

    def process(self, items: Iterable[Any]) -> tuple[list[Any], list[Any]]:
        batch = list(items)
        if batch:
            self.batches.append(batch)
            self._work(batch)
        return [item for item in batch if item != "locked"], [item for item in batch if item == "locked"]

    def process_all(self, items: list[Any]) -> list[Any]:
        return [f"{item} before" for item in items]

    def stop(self) -> None:
        self.stopped.set()


def thread_of(predictor: FakePredictor) -> Any:
    return ScoringThread(cast(Any, predictor))


def test_scoring_thread_processes_items_in_order() -> None:
    with thread_of(FakePredictor()) as scoring:
        for number in range(1000):
            scoring.submit(number)
    assert scoring.results == list(range(1000))


def test_scoring_thread_takes_waiting_items_together() -> None:
    hold, started = threading.Event(), threading.Event()

    def work(batch: list[Any]) -> None:
        started.set()
        hold.wait(10)

    predictor = FakePredictor(work)
    with thread_of(predictor) as scoring:
        scoring.submit("a")
        started.wait(10)
        for item in "bcd":
            scoring.submit(item)
        hold.set()
    assert predictor.batches == [["a"], ["b", "c", "d"]]


def test_scoring_thread_processes_locked_items_last() -> None:
    with thread_of(FakePredictor()) as scoring:
        for item in ("locked", "a"):
            scoring.submit(item)
    assert scoring.results == ["a", "locked before"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("more", [True, False])
def test_scoring_thread_raises_errors(kind: type[BaseException], more: bool) -> None:
    def fail(batch: list[Any]) -> None:
        raise kind("spoilt")

    predictor = FakePredictor(fail)

    def run() -> None:
        with thread_of(predictor) as scoring:
            scoring.submit(0)
            while more:  # until it notices
                scoring.submit(1)

    with pytest.raises(kind, match="spoilt"):
        run()
    assert len(predictor.batches) == 1


def test_scoring_thread_stops_when_the_block_fails() -> None:
    started, ended = threading.Event(), []

    def work(batch: list[Any]) -> None:
        started.set()
        assert predictor.stopped.wait(10)
        ended.extend(batch)

    predictor = FakePredictor(work)

    def run() -> None:
        with thread_of(predictor) as scoring:
            scoring.submit(1)
            started.wait(10)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run()
    assert ended == [1], "work in progress is waited for"


def test_scoring_thread_ends_while_idle_when_the_block_fails() -> None:
    with pytest.raises(RuntimeError, match="stop"), thread_of(FakePredictor()) as scoring:
        raise RuntimeError("stop")
    scoring._thread.join(10)
    assert not scoring._thread.is_alive()


INTERRUPT = """
import os, signal, threading, time
from tests.prediction.test_scoring_thread import FakePredictor, thread_of

main = threading.main_thread()
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it

def work(batch):
    time.sleep(0.2)  # the block is left meanwhile; if not, the result is the same
    os.kill(os.getpid(), signal.SIGINT)
    assert predictor.stopped.wait(10)
    time.sleep(0.3)
    print("ended", flush=True)

predictor = FakePredictor(work)
try:
    with thread_of(predictor) as scoring:
        scoring.submit(1)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent to oneself here")
def test_scoring_thread_stops_on_ctrl_c() -> None:
    """In a process of its own: a signal that arrives late would interrupt pytest itself."""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", INTERRUPT], cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["ended", "interrupted"]), done.stderr
