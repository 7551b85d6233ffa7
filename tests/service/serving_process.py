"""`paraserve serve` as a process of its own, for the tests of how it starts and ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from loadtests.ports import free_port
from serve_app.core.in_flight import NODE_ADDRESS_VARIABLE, RUN_DIRECTORY_VARIABLE
from serve_app.hosting.processes import Process, processes_of_run

START_LIMIT_S = 280.0
END_LIMIT_S = 120.0


@dataclass
class ServingProcess:
    """A service that runs.

    Attributes:
        port: of HTTP.
        process: of the command.
        lines: that it has printed.
    """

    port: int
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def directory(self) -> Path:
        """Of the run."""
        environment = Path(f"/proc/{self.child('raylet')}/environ").read_bytes().decode()
        match = re.search(rf"{RUN_DIRECTORY_VARIABLE}=([^\0]+)", environment)
        assert match is not None
        return Path(match[1])

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
def serving(*assignments: str) -> Iterator[ServingProcess]:
    """Runs the command until the block ends, in a run of its own."""
    port = free_port()
    options = [
        part for assignment in (f"http.port={port}", *assignments) for part in ("--set", assignment)
    ]
    ours = (RUN_DIRECTORY_VARIABLE, NODE_ADDRESS_VARIABLE, "RAY_", "HAPROXY_")
    process = subprocess.Popen(
        [sys.executable, "-m", "serve_app.cli.main", "serve", *options],
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    service = ServingProcess(port, process)
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
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            process.wait(END_LIMIT_S)
        reader.join(10)


def _read(service: ServingProcess, ready: threading.Event) -> None:
    assert service.process.stdout is not None
    for line in service.process.stdout:
        service.lines.append(line)
        if line.startswith("ready"):
            ready.set()
    ready.set()
