"""Memory of our own processes over time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from loadtests.load.memory import (
    History,
    MemoryWatch,
    Sample,
    cluster_cpu_s,
    own_processes,
    process_name,
)

HISTORY = History("a", [Sample(float(second), second * 10, 0) for second in range(10)])


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    code = "held = bytearray(range(256)) * 2**16; print('up', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_most_is_taken_within_the_span() -> None:
    assert HISTORY.most_own_bytes(2.0, 5.0) == 40


def test_span_without_samples_has_no_most() -> None:
    assert HISTORY.most_own_bytes(20.0, 30.0) is None


def test_children_are_watched_with_their_own_memory(child: subprocess.Popen[bytes]) -> None:
    with MemoryWatch(period_s=60.0) as watch:
        pass
    (sample,) = watch.histories[child.pid].samples
    assert sample.own_bytes > 16 * 2**20
    assert sample.proportional_bytes >= sample.own_bytes


def test_processor_time_is_that_of_the_children(child: subprocess.Popen[bytes]) -> None:
    assert child.pid in {process.pid for process in own_processes()}
    times = psutil.Process(child.pid).cpu_times()
    assert cluster_cpu_s() >= times.user + times.system


def test_name_of_a_process_is_its_program(child: subprocess.Popen[bytes]) -> None:
    assert process_name(psutil.Process(child.pid)).startswith("python")
