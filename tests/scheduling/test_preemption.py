"""RightOfWay: who respects it stands still while another has taken it."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from serve_app.scheduling import preemption as module
from serve_app.scheduling.preemption import Preemption, yield_point

_A_WHILE_S = 0.1


class Walker:
    """A thread that comes to a yield point and goes on past it."""

    def __init__(self, preemption: Preemption | None) -> None:
        respect = preemption.respect if preemption else None
        self._thread = ThreadPoolExecutor(1, initializer=respect)
        self.arrived = threading.Event()

    def walk(self) -> Future[None]:
        return self._thread.submit(self._walk)

    def _walk(self) -> None:
        self.arrived.set()
        yield_point()


def is_past(step: Future[None]) -> bool:
    """Whether the step ends within a moment."""
    try:
        step.result(_A_WHILE_S)
    except TimeoutError:
        return False
    return True


def test_thread_that_respects_it_stands_still_until_it_is_given_back() -> None:
    preemption = Preemption()
    walker = Walker(preemption)
    with preemption.taken():
        step = walker.walk()
        assert walker.arrived.wait(10)
        assert not is_past(step)
    step.result(10)


def test_every_holder_must_release_it() -> None:
    preemption = Preemption()
    walker = Walker(preemption)
    with preemption.taken():
        with preemption.taken():
            pass
        assert not is_past(walker.walk())


def test_it_is_given_back_when_the_work_fails() -> None:
    preemption = Preemption()
    with pytest.raises(ValueError, match="broken"), preemption.taken():
        raise ValueError("broken")
    Walker(preemption).walk().result(10)


@pytest.mark.parametrize("respected", [None, Preemption()])
def test_threads_that_do_not_respect_this_one_go_on(respected: Preemption | None) -> None:
    with Preemption().taken():
        Walker(respected).walk().result(10)


def test_every_wait_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PAUSE_S", 0.01)
    preemption = Preemption()
    with preemption.taken():
        Walker(preemption).walk().result(10)
