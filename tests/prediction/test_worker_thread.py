import signal
import threading
import time

import pytest

from vidgru.prediction.worker_thread import WorkerThread


def test_items_are_worked_off_in_order_and_waited_for() -> None:
    done: list[int] = []
    with WorkerThread(done.extend, threading.Event()) as background:
        for number in range(1000):
            background.submit(number)
    assert done == list(range(1000))


def test_what_waits_is_worked_off_together() -> None:
    hold, begun, batches = threading.Event(), threading.Event(), []

    def work(items: list[str]) -> None:
        batches.append(items)
        begun.set()
        hold.wait(10)

    with WorkerThread(work, threading.Event()) as background:
        background.submit("a")
        begun.wait(10)
        for item in "bcd":
            background.submit(item)
        hold.set()
    assert batches == [["a"], ["b", "c", "d"]]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("more", [True, False])
def test_an_error_is_raised_and_ends_the_work(kind: type[BaseException], more: bool) -> None:
    seen: list[list[int]] = []

    def fail(items: list[int]) -> None:
        seen.append(items)
        raise kind("spoilt")

    def run() -> None:
        with WorkerThread(fail, threading.Event()) as background:
            background.submit(0)
            while more:  # until it is noticed
                background.submit(1)

    with pytest.raises(kind, match="spoilt"):
        run()
    assert len(seen) == 1


def test_a_block_that_fails_stops_the_work() -> None:
    stop, begun, ended = threading.Event(), threading.Event(), []

    def work(items: list[int]) -> None:
        begun.set()
        assert stop.wait(10)
        ended.extend(items)

    background = WorkerThread(work, stop)

    def run() -> None:
        with background:
            background.submit(1)
            begun.wait(10)
            background.submit(2)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run()
    assert ended == [1], "what goes on is waited for, what waits is not begun"


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals cannot be sent to threads here")
def test_ctrl_c_while_the_end_is_waited_for_stops_the_work() -> None:
    stop, ended = threading.Event(), []
    main = threading.get_ident()

    def work(items: list[int]) -> None:
        time.sleep(0.5)  # the block has been left by now
        signal.pthread_kill(main, signal.SIGINT)
        assert stop.wait(10)
        time.sleep(0.3)
        ended.extend(items)

    def run() -> None:
        with WorkerThread(work, stop) as background:
            background.submit(1)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [1]
