from __future__ import annotations

import threading

from serve_app.batch.segment_stage import FifoLock


def test_threads_run_in_order_of_arrival() -> None:
    lock = FifoLock()
    order: list[int] = []
    arrived = [threading.Event() for _ in range(3)]

    def take(number: int) -> None:
        arrived[number].set()
        with lock.held():
            order.append(number)

    threads = []
    with lock.held():
        for number in range(3):
            thread = threading.Thread(target=take, args=(number,))
            thread.start()
            threads.append(thread)
            arrived[number].wait()
            while len(lock._waiting) <= number:
                pass
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2]


def test_lock_is_free_while_it_is_released() -> None:
    lock = FifoLock()
    had_it = threading.Event()

    def other() -> None:
        with lock.held():
            had_it.set()

    with lock.held(), lock.released():
        thread = threading.Thread(target=other)
        thread.start()
        assert had_it.wait(10)
    thread.join()


def test_lock_is_released_after_an_error() -> None:
    lock = FifoLock()
    try:
        with lock.held():
            raise ValueError
    except ValueError:
        pass
    with lock.held():
        pass
