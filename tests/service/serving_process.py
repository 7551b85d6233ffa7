"""`paraserve serve` as a process of its own, for the tests of how it starts and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from loadtests.serving import ServingProcess, start_serving
from serve_app.hosting.processes import Process, processes_of_run

START_LIMIT_S = 280.0
END_LIMIT_S = 120.0


@dataclass(frozen=True)
class ObservedService(ServingProcess):
    """A service that runs.

    Attributes:
        lines: that it has printed.
    """

    lines: list[str] = field(default_factory=list)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def child(self, name: str) -> int:
        """Returns the number of a process that the command has started."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            parent = int(status.rpartition(")")[2].split()[1])
            if parent == self.process.pid and status.split("(")[1].startswith(name):
                return int(entry.name)
        raise AssertionError(f"no process {name}")

    def haproxies(self) -> list[Process]:
        return [each for each in processes_of_run(self.directory) if each.name == "haproxy"]

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def wait(self) -> int:
        return self.process.wait(END_LIMIT_S)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", trust_env=False, timeout=30)


@contextmanager
def serving(*assignments: str) -> Iterator[ObservedService]:
    """Runs the command until the block ends, in a run of its own."""
    started = start_serving(*assignments, output=subprocess.PIPE)
    process = started.process
    service = ObservedService(started.port, process)
    ready = threading.Event()
    reader = threading.Thread(target=_read, args=(service, ready), daemon=True)
    reader.start()
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while not ready.wait(0.2):
            assert time.monotonic() < deadline, service.output
        assert process.poll() is None, service.output
        yield service
    finally:
        service.stop(END_LIMIT_S)
        reader.join(10)


def _read(service: ObservedService, ready: threading.Event) -> None:
    assert service.process.stdout is not None
    for line in service.process.stdout:
        service.lines.append(line)
        if line.startswith("ready"):
            ready.set()
    ready.set()
