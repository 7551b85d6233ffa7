"""`paraserve serve` as a process of its own, for the load tests and the tests of its lifecycle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from loadtests.ports import free_port
from serve_app.core.in_flight import NODE_ADDRESS_VARIABLE, RUN_DIRECTORY_VARIABLE
from serve_app.hosting.run_directory import RunDirectory, runs_root

# Of this process's own cluster, if it has one.
_OWN_VARIABLES = (RUN_DIRECTORY_VARIABLE, NODE_ADDRESS_VARIABLE, "RAY_", "HAPROXY_")
# The ports that this process may give to its services.
_KEPT_VARIABLES = (
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT",
    "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT",
)


@dataclass(frozen=True, slots=True)
class ServingProcess:
    """A process of `paraserve serve`.

    Attributes:
        port: of HTTP.
        process: of the command.
    """

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def directory(self) -> Path:
        """The run directory, once the service has started."""
        runs = [RunDirectory(path) for path in runs_root().iterdir()]
        (found,) = [
            run.path for run in runs if run.owner is not None and run.owner.pid == self.process.pid
        ]
        return found

    def descendants(self) -> list[psutil.Process]:
        """Returns the processes that the command has started, directly or not."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, limit_s: float) -> None:
        """Ends the service and its running requests; kills it if it has not ended in time."""
        if self.process.poll() is not None:
            return
        started = self.descendants()
        # The second signal ends running requests.
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            for process in started:
                if process.is_running():
                    process.kill()


def start_serving(
    *assignments: str,
    port: int | None = None,
    output: IO[bytes] | int | None = None,
    restarts: int = 0,
) -> ServingProcess:
    """Starts the command and does not wait until it is ready.

    Args:
        assignments: settings, `NAME=VALUE` each.
        port: of HTTP; a free one by default.
        output: for both of its streams; those of this process by default.
        restarts: see `paraserve serve --restart`.
    """
    chosen = free_port() if port is None else port
    options = [
        part
        for assignment in (f"http.port={chosen}", *assignments)
        for part in ("--set", assignment)
    ]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT_VARIABLES or not name.startswith(_OWN_VARIABLES)
    }
    process = subprocess.Popen(  # noqa: S603, our own command
        [sys.executable, "-m", "serve_app.cli.main", "serve", "--restart", str(restarts), *options],
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        text=True,
    )
    return ServingProcess(chosen, process)
