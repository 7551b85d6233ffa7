"""Processes of a run are found and ended, others never."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serve_app.core.in_flight import RUN_DIRECTORY_VARIABLE
from serve_app.hosting.processes import Process, end_processes, process_of, processes_of_run

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    children = []

    def start(
        directory: Path | None, code: str = "pass", then: str = "input()"
    ) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if k != RUN_DIRECTORY_VARIABLE}
        if directory is not None:
            environment[RUN_DIRECTORY_VARIABLE] = str(directory)
        child = subprocess.Popen(
            [sys.executable, "-c", f"{code}; print(flush=True); {then}"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        children.append(child)
        assert child.stdout is not None
        child.stdout.readline()
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def test_processes_of_other_runs_and_of_none_are_left_alone(tmp_path: Path, start: Start) -> None:
    ours = start(tmp_path / "a")
    others = [start(tmp_path / "ab"), start(tmp_path / "b"), start(None)]
    assert [found.pid for found in processes_of_run(tmp_path / "a")] == [ours.pid]
    ended = end_processes(lambda: processes_of_run(tmp_path / "a"), grace_s=5)
    assert [process.pid for process in ended] == [ours.pid]
    assert ours.wait(10) != 0
    assert all(other.poll() is None for other in others)


def test_reader_of_a_log_does_not_belong_to_the_run(tmp_path: Path, start: Start) -> None:
    (tmp_path / "log").touch()
    reader = start(None, f"f = open({str(tmp_path / 'log')!r})")
    assert processes_of_run(tmp_path) == []
    assert reader.poll() is None


def test_process_that_ignores_sigterm_is_killed(tmp_path: Path, start: Start) -> None:
    deaf = start(tmp_path, "import signal; signal.signal(15, signal.SIG_IGN)")
    end_processes(lambda: processes_of_run(tmp_path), grace_s=0.3)
    assert deaf.wait(10) == -9


def test_later_process_with_the_same_number_is_another_one() -> None:
    own = process_of(os.getpid())
    assert own is not None
    assert own.is_alive
    assert not Process(own.pid, own.start_ticks - 1).is_alive


def test_zombie_process_counts_as_ended(start: Start) -> None:
    child = start(None, then="pass")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_of(child.pid) is None
