"""Requests under way are counted across processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serve_app.core.in_flight import InFlightCounter, begin_draining, num_in_flight


def test_requests_of_all_living_processes_are_counted(tmp_path: Path) -> None:
    assert num_in_flight(tmp_path) == 0
    counter = InFlightCounter(tmp_path)
    counter.enter()
    script = (
        "import sys; from pathlib import Path;"
        "from serve_app.core.in_flight import InFlightCounter;"
        "c = InFlightCounter(Path(sys.argv[1])); c.enter(); c.enter(); print(flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    other.stdout.readline()
    assert num_in_flight(tmp_path) == 3
    # What it was answering ends with it.
    other.kill()
    other.communicate()
    assert num_in_flight(tmp_path) == 1
    counter.leave()
    assert num_in_flight(tmp_path) == 0
    counter.close()


def test_draining_is_seen_by_all(tmp_path: Path) -> None:
    counter = InFlightCounter(tmp_path)
    assert not counter.is_draining
    begin_draining(tmp_path)
    assert counter.is_draining
    counter.close()
