"""Keeps the port served between an unexpected end of HAProxy and its replacement by Ray.

Ray finds a dead HAProxy by its health checks, replaces the manager, and the new manager starts
a new HAProxy. That takes several seconds in which connections are refused, longer than the two
retries of OpenAI's clients last. So `haproxy_launcher` leaves a process behind, the guard,
which waits for the end of HAProxy and then starts a stand-in: the same HAProxy with the same
configuration, but without the admin socket. Ray therefore still finds its own HAProxy dead and
replaces it as usual, and the new one takes over from the stand-in.

The standard library only, and little of it, as for the launcher.
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
"""After which nobody will replace HAProxy any more: Serve itself has stopped it."""
_MAX_STARTS = 10
_POLL_S = 0.1
_PAUSE_S = 0.5
_NAME = "haproxy"
_TOLD_TO_FAIL_CHECKS = "# Override: force health checks to fail"
"""In the configuration of a proxy that Serve is draining before it stops it."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Watches one HAProxy.

    Attributes:
        watched: the HAProxy.
        handle: its pidfd, readable when it has ended.
        program: the HAProxy binary.
        path: of the file that holds its configuration.
        configuration: what it was started with; Ray may have changed the file since.
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
        """Waits for the end of HAProxy and bridges the time until a new one serves."""
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
        """Runs a stand-in; returns whether it was taken over from or is no longer needed."""
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
                # It ends when the requests under way have ended.
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
    """Leaves a guard behind for this process, which is about to become HAProxy.

    Without a guard HAProxy serves all the same, so that no failure here stops it.
    """
    watched = process_of(os.getpid())
    if watched is None or _TOLD_TO_FAIL_CHECKS in configuration:
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
    """Returns this user's HAProxy processes that run on a configuration, stand-ins included."""
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
    """Runs a function in a process that is not our child and not of our session."""
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
