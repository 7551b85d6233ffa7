"""Answers on the service's port from the loss of a node until the service listens again.

`python -m serve_app.hosting.stand_in` waits until a line with its task arrives on its standard
input, so that it needs no time to start when a node is lost, and ends if the input ends first.

Every request gets a 503 in the API's error shape, with the rest of the expected start as
Retry-After, so a client that retries twice reaches the restarted service. The stand-in ends when
another process listens on the port. Both may listen on it at the same time: SO_REUSEPORT, as
HAProxy sets it. It ends as well when the restarting service is killed: who starts it again then
would find the port in use.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from serve_app.core.in_flight import RUN_DIRECTORY_VARIABLE
from serve_app.hosting.haproxy_launcher import error_body
from serve_app.hosting.processes import Process, process_of
from serve_app.hosting.stopping import local_sockets

_POLL_S = 0.1
_BIND_S = 0.02
_IN_BACKGROUND = 'exec 3<&0; "$@" <&3 3<&- &'
"""A shell gives a background process no standard input unless told to."""

_HEADER_S = 10.0
_BODY_S = 60.0
_HEADER_BYTES = 64 * 2**10
_LEAST_RETRY_S = 2
LONGEST_RETRY_S = 60.0
"""The longest Retry-After that every version of OpenAI's clients heeds."""
_MAX_CONNECTIONS = 1000
_SPREAD = 0.5


@dataclass(frozen=True, slots=True)
class StandInTask:
    """What a stand-in has to do.

    Attributes:
        host: to listen on.
        port: to listen on.
        start_s: expected time until the service answers again, in s.
        limit_s: longest life, in s.
        owner: the process that restarts, by id and start; None if it cannot be known.
    """

    host: str
    port: int
    start_s: float
    limit_s: float
    owner: tuple[int, int] | None = None


class PreparedStandIn:
    """A process that waits for its task; neither our child nor of our run.

    Args:
        environment: of the process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {
            name: value for name, value in environment.items() if name != RUN_DIRECTORY_VARIABLE
        }
        self._input = self._started()

    def begin(self, task: StandInTask) -> None:
        """Gives the process its task; starts another one if it has ended."""
        own = process_of(os.getpid())
        if own is not None:
            task = replace(task, owner=(own.pid, own.start_ticks))
        line = (json.dumps(asdict(task)) + "\n").encode()
        try:
            os.write(self._input, line)
        except BrokenPipeError:
            self.close()
            self._input = self._started()
            os.write(self._input, line)
        self.close()

    def close(self) -> None:
        """Ends the process if it has no task yet."""
        os.close(self._input)

    def _started(self) -> int:
        """Starts the process; returns the descriptor of its standard input."""
        reading, writing = os.pipe()
        try:
            subprocess.run(  # noqa: S603, our own module
                ["/bin/sh", "-c", _IN_BACKGROUND, "sh", sys.executable, "-m", __name__],
                env=self._environment,
                stdin=reading,
                start_new_session=True,
                check=False,
            )
        finally:
            os.close(reading)
        return writing


async def stand_in(
    host: str, port: int, start_s: float, limit_s: float, owner: Process | None = None
) -> None:
    """Answers until another process listens on the port or the owner ends, or for `limit_s`.

    A service that still listens may not share its port; this one listens as soon as it has ended.

    Raises:
        OSError: it cannot listen there.
    """
    began_s = time.monotonic()
    places = asyncio.Semaphore(_MAX_CONNECTIONS)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        share = random.random()  # noqa: S311, not a secret
        left_s = retry_after_s(start_s, start_s - (time.monotonic() - began_s), share)
        async with places:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                with suppress(TimeoutError):
                    await _refuse(reader, writer, round(left_s))
                writer.close()
                await writer.wait_closed()

    def is_wanted() -> bool:
        return time.monotonic() - began_s < limit_s and (owner is None or owner.is_alive)

    while True:
        try:
            server = await asyncio.start_server(
                answer, host, port, reuse_port=True, reuse_address=True, limit=_HEADER_BYTES
            )
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not is_wanted():
                raise
            await asyncio.sleep(_BIND_S)
    own = {os.fstat(each.fileno()).st_ino for each in server.sockets}
    async with server:
        # The dead service may listen for a moment longer.
        was_alone = False
        while is_wanted():
            is_alone = not (listeners(port) - own)
            if was_alone and not is_alone:
                break
            was_alone = was_alone or is_alone
            await asyncio.sleep(_POLL_S)
    await asyncio.sleep(_POLL_S)


def retry_after_s(start_s: float, left_s: float, share: float) -> float:
    """Returns when one client should come back, in s.

    The clients are spread: if all came back in the same second, a small service would refuse most
    of them. Where the longest wait cuts off the spread, they come a little earlier instead.

    Args:
        start_s: expected time of the whole start.
        left_s: expected rest of it.
        share: place of the client in the spread, from 0 to 1.
    """
    first_s = min(max(left_s, _LEAST_RETRY_S), (1 - _SPREAD / 2) * LONGEST_RETRY_S)
    last_s = min(max(left_s, _LEAST_RETRY_S) + _SPREAD * start_s, LONGEST_RETRY_S)
    return first_s + share * (last_s - first_s)


async def _refuse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, retry_after_s: int
) -> None:
    async with asyncio.timeout(_HEADER_S):
        await reader.readuntil(b"\r\n\r\n")
    writer.write(refusal(retry_after_s))
    writer.write_eof()
    # Closing while a body arrives would reset the connection, and the client see no answer.
    async with asyncio.timeout(_BODY_S):
        while await reader.read(_HEADER_BYTES):
            pass


def refusal(retry_after_s: int) -> bytes:
    """Returns the response to every request."""
    body = error_body(
        "the service is restarting; try again when Retry-After has passed",
        "server_error",
        "not_ready",
    )
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"Retry-After: {retry_after_s}",
        "Connection: close",
    )
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def listeners(port: int) -> set[int]:
    """Returns the inodes of the sockets that listen on a port; none where /proc is missing."""
    return {each.inode for each in local_sockets(port) if each.is_listening}


def main() -> int:
    line = sys.stdin.readline()
    if not line:
        return 0
    task = StandInTask(**json.loads(line))
    owner = None if task.owner is None else Process(*task.owner)
    try:
        asyncio.run(stand_in(task.host, task.port, task.start_s, task.limit_s, owner))
    except OSError as error:
        print(f"no stand-in on {task.host}:{task.port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # Ctrl-C in the terminal is for the service.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main())
