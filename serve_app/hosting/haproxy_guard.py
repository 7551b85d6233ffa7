"""Keeps the port served between an unexpected end of HAProxy and its replacement by Ray.

Ray detects a dead HAProxy by its health checks, replaces the manager, and the new manager starts
a new HAProxy. Meanwhile connections are refused for several seconds, longer than the two retries
of OpenAI's clients. So `haproxy_launcher` starts a guard process, which waits for the end of
HAProxy and then starts a stand-in: the same HAProxy with the same configuration, but without the
admin socket. Ray therefore still finds its own HAProxy dead and replaces it as usual, and the new
one takes over from the stand-in.

Like the launcher, it imports little, and only from the standard library.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from serve_app.core.in_flight import RUN_DIRECTORY_VARIABLE, is_draining
from serve_app.hosting.processes import Process, process_of

LEAST_UPTIME_S = 1.0
"""A HAProxy that ends sooner could not start, and a stand-in could not either."""

_LONGEST_S = 60.0
"""After this time Serve will not replace HAProxy: it has stopped HAProxy itself."""
_MAX_STARTS = 10
_POLL_S = 0.1
_PAUSE_S = 0.5
_NAME = "haproxy"
_DRAINING_MARK = "# Override: force health checks to fail"
"""In the configuration of a proxy that Serve drains before it stops it."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Watches one HAProxy.

    Attributes:
        watched: the HAProxy process.
        handle: its pidfd, readable when it has ended.
        program: the HAProxy binary.
        path: of its configuration file.
        configuration: at its start; Ray may have changed the file since.
        options: further arguments of HAProxy, without its predecessors.
        clock: monotonic time in s.
    """

    watched: Process
    handle: int
    program: str
    path: str
    configuration: str
    options: tuple[str, ...] = ()
    clock: Callable[[], float] = field(default=time.monotonic)

    def run(self) -> None:
        """Waits for the end of HAProxy and serves until a new one does."""
        began_s = self.clock()
        select.select([self.handle], [], [])
        if self.clock() - began_s < LEAST_UPTIME_S:
            return
        deadline_s = self.clock() + _LONGEST_S
        for _ in range(_MAX_STARTS):
            if self._is_superseded() or _run_is_draining() or self.clock() >= deadline_s:
                return
            if self._stand_in(deadline_s):
                return
            time.sleep(_PAUSE_S)

    def _stand_in(self, deadline_s: float) -> bool:
        """Runs a stand-in; returns whether a new HAProxy took over or none is needed."""
        import subprocess  # only now: most guards never need it

        path = stand_in_path(self.path)
        with open(path, "w", encoding="utf-8") as file:
            file.write(without_admin_socket(self.configuration))
        print(
            f"HAProxy {self.watched.pid} has ended; a stand-in serves", file=sys.stderr, flush=True
        )
        process = subprocess.Popen([self.program, "-db", "-f", path, *self.options])  # noqa: S603
        while process.poll() is None:
            if self.clock() >= deadline_s:
                # It ends when the running requests have ended.
                process.send_signal(signal.SIGUSR1)
                return True
            time.sleep(_POLL_S)
        return process.returncode == 0

    def _is_superseded(self) -> bool:
        return any(
            process.start_ticks > self.watched.start_ticks
            for process in haproxy_processes(self.path)
        )


def leave_guard(program: str, path: str, configuration: str, arguments: list[str]) -> None:
    """Starts a guard for this process, which is about to become HAProxy.

    HAProxy works without a guard, so failures here do not stop it.
    """
    watched = process_of(os.getpid())
    if watched is None or _DRAINING_MARK in configuration:
        return
    options = tuple(argument for argument in arguments if argument == "-dR")
    try:
        handle = os.pidfd_open(watched.pid)
        try:
            _fork_twice(Guard(watched, handle, program, path, configuration, options).run)
        finally:
            os.close(handle)
    except (OSError, AttributeError) as error:
        print(f"HAProxy has no guard: {error}", file=sys.stderr)


def haproxy_processes(path: str) -> list[Process]:
    """Returns this user's HAProxy processes with a configuration, including stand-ins."""
    wanted = {os.fsencode(path), os.fsencode(stand_in_path(path))}
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        process = process_of(int(name))
        if process is None or process.name != _NAME:
            continue
        with suppress(OSError):
            command = Path("/proc", name, "cmdline").read_bytes()
            is_ours = os.stat(f"/proc/{name}").st_uid == os.geteuid()
            if is_ours and wanted & set(command.split(b"\0")):
                found.append(process)
    return found


def stand_in_path(path: str) -> str:
    return f"{path}.stand-in"


def without_admin_socket(configuration: str) -> str:
    """Returns the configuration of a stand-in."""
    return re.sub(r"(?m)^    stats socket .*\n", "", configuration)


def _run_is_draining() -> bool:
    directory = os.environ.get(RUN_DIRECTORY_VARIABLE)
    return directory is not None and is_draining(Path(directory))


def _fork_twice(run: Callable[[], None]) -> None:
    """Runs a function in a process that is neither our child nor in our session."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            run()
    finally:
        os._exit(0)
