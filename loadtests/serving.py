"""The service under test: one that runs already, one in this process, or one of its own."""

from __future__ import annotations

import argparse
import ipaddress
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import psutil

from loadtests.ports import free_port
from serve_app.core.in_flight import NODE_ADDRESS_VARIABLE, RUN_DIRECTORY_VARIABLE
from serve_app.hosting.run_directory import RunDirectory, runs_root
from serve_app.launch import prepare_environment, running, wait_until_ready
from serve_app.settings import Settings, load_settings

_OBJECT_STORE_BYTES = 2**30
_MAX_UPLOAD_BYTES = 2**28
_READY_LIMIT_S = 600.0
_STOP_LIMIT_S = 60.0
# Of this process's own cluster, if it has one.
_OWN_VARIABLES = (RUN_DIRECTORY_VARIABLE, NODE_ADDRESS_VARIABLE, "RAY_", "HAPROXY_")
# The ports that this process may give to its services.
_KEPT_VARIABLES = (
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT",
    "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT",
)


class RemoteRefused(Exception):
    """The address is not on this machine, and nobody allowed that."""


def check_local(url: str, *, allow_remote: bool = False) -> None:
    """Keeps a typing error from loading somebody else's service.

    Raises:
        RemoteRefused: the host is not a loopback address.
    """
    host = urlsplit(url).hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local and not allow_remote:
        raise RemoteRefused(f"{host or url} is not this machine; --allow-remote if you mean it")


def own_settings(assignments: Sequence[str] = ()) -> Settings:
    """Returns the demo profile on a free port, able to take recordings of three hours.

    Args:
        assignments: further settings, `NAME=VALUE` as on the command line; last wins.

    Raises:
        ConfigurationError: an assignment is malformed.
    """
    return load_settings(
        "demo",
        [
            f"http.port={free_port()}",
            # Some loads deploy it by Serve's own means, which demand keys otherwise.
            "auth.mode=off",
            f"cluster.object_store_bytes={_OBJECT_STORE_BYTES}",
            f"audio.max_upload_bytes={_MAX_UPLOAD_BYTES}",
            *assignments,
        ],
    )


def add_service_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--url` and `--set`."""
    parser.add_argument("--url", help="a running service; without it one is started for the run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="setting of the service"
    )


@contextmanager
def service(url: str | None, settings: Settings, allow_remote: bool = False) -> Iterator[str]:
    """Yields the URL that was given, or the one of a service that runs for the block.

    Raises:
        RemoteRefused: the URL is not on this machine.
        ParaserveError: the service does not start.
    """
    if url is not None:
        check_local(url, allow_remote=allow_remote)
        yield url
        return
    prepare_environment(settings)
    with running(settings, lambda message: print(message, flush=True)) as application:
        yield application.url


def environment_without_cluster() -> dict[str, str]:
    """Returns this process's environment without what leads to its own cluster."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT_VARIABLES or not name.startswith(_OWN_VARIABLES)
    }


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

    def stop(self, limit_s: float = _STOP_LIMIT_S) -> None:
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
    process = subprocess.Popen(  # noqa: S603, our own command
        [sys.executable, "-m", "serve_app.cli.main", "serve", "--restart", str(restarts), *options],
        env={**environment_without_cluster(), "PYTHONUNBUFFERED": "1"},
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        text=True,
    )
    return ServingProcess(chosen, process)


@contextmanager
def serving(*assignments: str, output: IO[bytes] | None = None) -> Iterator[ServingProcess]:
    """Runs the command for the length of the block, once it is ready."""
    started = start_serving(*assignments, output=output)
    try:
        wait_until_ready(started.url, _READY_LIMIT_S)
        yield started
    finally:
        started.stop()
