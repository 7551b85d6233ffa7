"""Threads that compute give way; those that pass work on do not."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve_app.inference.batched import thread_niceness_of
from serve_app.inference.loading import load_recognizer
from serve_app.scheduling.preemption import ThreadNiceness, lower_priority
from serve_app.settings import Settings
from tests.fakes.engines import FakeRecognizer

linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="nice values of threads are Linux's"
)


def own_nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@linux_only
def test_only_the_thread_at_a_yield_point_pauses() -> None:
    before = own_nice()
    with ThreadPoolExecutor(1, initializer=lower_priority, initargs=(3,)) as thread:
        assert thread.submit(own_nice).result() == min(before + 3, 19)
    assert own_nice() == before


@linux_only
def test_threads_that_it_starts_give_way_too() -> None:
    found: list[int] = []

    def start_another() -> None:
        child = threading.Thread(target=lambda: found.append(own_nice()))
        child.start()
        child.join()

    with ThreadPoolExecutor(1, initializer=lower_priority, initargs=(3,)) as thread:
        thread.submit(start_another).result()
    assert found == [min(own_nice() + 3, 19)]


@linux_only
def test_priority_never_falls_below_the_lowest() -> None:
    with ThreadPoolExecutor(1, initializer=lower_priority, initargs=(100,)) as thread:
        assert thread.submit(own_nice).result() == 19


def test_settings_of_priority_are_about_cpus_alone() -> None:
    settings = Settings.model_validate({"compute_nice": 7, "audio": {"urgent_s": 2.5}})
    engine = load_recognizer(settings).engine
    assert thread_niceness_of(settings, "cpu", engine) == ThreadNiceness(urgent_ms=2500, nice=7)
    assert thread_niceness_of(settings, "cuda:0", engine) == ThreadNiceness()


def test_nothing_overtakes_in_an_engine_that_is_not_reentrant() -> None:
    engine = FakeRecognizer()
    assert thread_niceness_of(Settings(), "cpu", engine) == ThreadNiceness(urgent_ms=0, nice=10)
    engine.is_reentrant = True
    assert thread_niceness_of(Settings(), "cpu", engine).urgent_ms > 0
