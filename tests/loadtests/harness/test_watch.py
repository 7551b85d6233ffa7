"""Memory of our own processes over time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loadtests.harness.watch import (
    History,
    Sample,
    Watch,
    cluster_cpu_s,
    forget_peak,
    max_growth_bytes,
    memory,
    num_open_files,
    own_processes,
    private_and_proportional_bytes,
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
    with Watch(period_s=60.0) as watch:
        pass
    (sample,) = watch.histories[child.pid].samples
    assert sample.own_bytes > 16 * 2**20
    assert sample.peak_bytes >= sample.own_bytes
    private_bytes, proportional_bytes = private_and_proportional_bytes(child.pid)
    assert proportional_bytes >= private_bytes > 16 * 2**20


def test_processor_time_is_that_of_the_children(child: subprocess.Popen[bytes]) -> None:
    assert child.pid in {process.pid for process in own_processes()}
    times = psutil.Process(child.pid).cpu_times()
    assert cluster_cpu_s() >= times.user + times.system


def test_name_of_a_process_is_its_program(child: subprocess.Popen[bytes]) -> None:
    assert process_name(psutil.Process(child.pid)).startswith("python")


def test_peak_begins_anew_when_it_is_forgotten() -> None:
    held = bytearray(range(256)) * 2**18
    assert len(held) == 2**26
    assert memory().peak_bytes >= memory().own_bytes > 2**26
    del held
    forget_peak()
    assert memory().peak_bytes < memory().resident_bytes + 2**25


def test_open_files_of_a_folder_are_counted(tmp_path: Path) -> None:
    with (tmp_path / "one").open("wb"), tempfile.TemporaryFile(dir=tmp_path):
        assert num_open_files(os.getpid(), tmp_path) == 2
    assert num_open_files(os.getpid(), tmp_path) == 0


def test_growth_before_the_last_third_is_warming_up() -> None:
    own = (0, 0, 0, 500, 900, 900, 900, 900, 901)
    history = History("a", [Sample(float(at_s), value, 0) for at_s, value in enumerate(own)])
    assert max_growth_bytes([history], 0.0, 9.0) == 1


def test_process_that_came_late_has_no_growth() -> None:
    assert max_growth_bytes([History("late", [Sample(8.0, 900, 0)])], 0.0, 9.0) == 0
