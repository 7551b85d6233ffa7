"""Stops `paraserve serve`: signals, the wait for running requests, and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import FrameType

from serve_app.core.in_flight import begin_draining, num_in_flight
from serve_app.hosting.run_directory import RunDirectory

_POLL_S = 0.1
_QUIET_S = 0.5
"""The service counts as drained after this time without a request: one may be between HAProxy
and its replica."""
_FLUSH_S = 15.0
"""Longest wait for slow readers to receive their responses."""
_NOTICE_PERIOD_S = 10.0
_LISTENING = "0A"


class ExitCode(IntEnum):
    """Of `paraserve serve` and `demo`; docs/operations.md has the table."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REQUESTS_CUT = 3
    NODE_LOST = 4


class StopRequested(BaseException):
    """A signal stopped the service before it was ready. Not an error: nobody handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopSignals:
    """SIGINT and SIGTERM: the first signal stops gracefully, the second one at once.

    Args:
        at_once: called on the second signal; does not return.
    """

    def __init__(self, at_once: Callable[[], None]) -> None:
        self._at_once = at_once
        self._number = 0
        self._is_starting = True

    @property
    def is_stop_requested(self) -> bool:
        return self._number != 0

    def install(self) -> None:
        """Installs the handlers; Ray replaces them whenever it is started."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.receive)

    def started(self) -> None:
        """From now on, the first signal lets running requests end."""
        self._is_starting = False

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        if self.is_stop_requested:
            self._at_once()
            return
        self._number = number
        if self._is_starting:
            raise StopRequested(number)


@dataclass(frozen=True, slots=True)
class Drain:
    """Waits for the running requests.

    Attributes:
        directory: of the run.
        limit_s: longest wait.
        notice: called regularly with a message about their number.
        clock: monotonic time in s.
        sleep: waits.
    """

    directory: Path
    limit_s: float
    notice: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def run(self, loss: Callable[[], str | None] = lambda: None) -> int:
        """Rejects new requests and waits; returns how many had not ended at the limit.

        Args:
            loss: returns a description if the node has died and waiting is useless.
        """
        begin_draining(self.directory)
        began_s = quiet_since_s = self.clock()
        notice_at_s = began_s
        while True:
            number = num_in_flight(self.directory)
            now_s = self.clock()
            if number:
                quiet_since_s = now_s
            elif now_s - quiet_since_s >= _QUIET_S:
                return 0
            if number and (now_s - began_s >= self.limit_s or loss() is not None):
                return number
            if number and now_s >= notice_at_s:
                self.notice(
                    f"waiting for {number} running requests, at most {self.limit_s:.0f} s; "
                    "a second signal ends them"
                )
                notice_at_s = now_s + _NOTICE_PERIOD_S
            self.sleep(_POLL_S)


def wait_until_sent(port: int, limit_s: float = _FLUSH_S) -> None:
    """Waits until slow readers have received their responses.

    The proxy buffers data only while the kernel accepts no more, so it has sent everything once
    the kernel has nothing left to send.
    """
    deadline = time.monotonic() + limit_s
    while num_unsent(port) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def num_unsent(port: int) -> int:
    """Returns the bytes that connections to a local port have still to send. Linux only."""
    return sum(each.num_unsent for each in local_sockets(port) if not each.is_listening)


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """A socket on a local port.

    Attributes:
        is_listening: whether it accepts connections.
        num_unsent: bytes in its send queue.
        inode: of the socket.
    """

    is_listening: bool
    num_unsent: int
    inode: int


def local_sockets(port: int) -> Iterator[TcpSocket]:
    """Yields the sockets of all processes on a local port; none where /proc is missing."""
    for name in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            # Numbers, local and remote address, state, queues, ..., inode; see proc_net_tcp(5).
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port:
                yield TcpSocket(
                    fields[3] == _LISTENING, int(fields[4].partition(":")[0], 16), int(fields[9])
                )


def end_now(run: RunDirectory | None, code: int) -> None:
    """Ends this process and all processes of the run at once.

    Ray's own shutdown would wait for a node that is dead or busy.
    """
    if run is not None:
        run.end_processes(0.0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
