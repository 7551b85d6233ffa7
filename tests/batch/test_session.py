"""How a job is told to stop, and when it gives up waiting for nodes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from serve_app.batch.session import CapacityWatch, Stopped, exit_deadline, stoppable, watched
from serve_app.core.errors import ClusterError


@pytest.fixture(autouse=True)
def handler_is_put_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == before


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def terminate_and_wait() -> None:
    terminate()
    threading.Event().wait(60)


def test_sigterm_interrupts_a_wait_of_the_main_thread() -> None:
    killer = threading.Timer(0.1, terminate)
    killer.start()
    with pytest.raises(Stopped), stoppable(), stoppable():
        threading.Event().wait(60)
    killer.join()


def test_second_sigterm_does_not_interrupt_the_shutdown() -> None:
    cleaned_up: list[bool] = []

    def work() -> None:
        try:
            with stoppable():
                terminate_and_wait()
        finally:
            terminate()
            cleaned_up.append(True)

    with pytest.raises(Stopped), stoppable():
        work()
    assert cleaned_up
    # It counts again for the next job of the same process.
    with pytest.raises(Stopped), stoppable():
        terminate_and_wait()


def test_process_exits_even_if_the_shutdown_hangs() -> None:
    left = threading.Event()
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        left.set()

    def work() -> None:
        try:
            terminate_and_wait()
        finally:
            assert left.wait(60)

    with exit_deadline(0.05, leave), pytest.raises(Stopped), stoppable():
        work()
    assert codes == [1]


def test_process_that_ends_by_itself_is_left_alone() -> None:
    codes: list[int] = []
    with exit_deadline(60.0, codes.append), pytest.raises(Stopped), stoppable():
        terminate_and_wait()
    assert codes == []


def test_cluster_that_lost_a_node_is_waited_for_and_then_given_up() -> None:
    cores, now_s = 4.0, 0.0
    watch = CapacityWatch(3.0, 60.0, lambda: cores, lambda: now_s)
    assert watch.check() is None
    cores = 2.0
    assert watch.check() is None
    now_s = 59.0
    assert watch.check() is None
    cores = 4.0
    assert watch.check() is None  # the node is back
    cores, now_s = 2.0, 100.0
    assert watch.check() is None
    now_s = 160.0
    assert "reserves 3 cores, and the cluster has had only 2 for 60 s" in (watch.check() or "")


def test_cluster_may_be_waited_for_without_end() -> None:
    now_s = 0.0
    watch = CapacityWatch(3.0, None, lambda: 1.0, lambda: now_s)
    assert watch.check() is None
    now_s = 1e9
    assert watch.check() is None


def test_job_without_room_ends_with_the_reason() -> None:
    watch = CapacityWatch(3.0, 1e-9, lambda: 1.0)
    with pytest.raises(ClusterError, match="reserves 3 cores"), stoppable(), watched(watch, 0.01):
        threading.Event().wait(60)
