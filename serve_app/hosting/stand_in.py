"""Answers on the service's port from the loss of a node until the service listens again.

`python -m serve_app.hosting.stand_in HOST PORT START_S LIMIT_S`

Every request gets a 503 in the API's error shape, with the rest of the expected start as
Retry-After, so a client that retries twice reaches the restarted service. The stand-in ends when
another process listens on the port, or after LIMIT_S. Both may listen on it at the same time:
SO_REUSEPORT, as HAProxy sets it.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from serve_app.core.in_flight import RUN_DIRECTORY_VARIABLE
from serve_app.hosting.haproxy_launcher import error_body
from serve_app.hosting.stopping import local_sockets

_POLL_S = 0.1
_STARTING_S = 5.0
_HEADER_S = 10.0
_BODY_S = 60.0
_HEADER_BYTES = 64 * 2**10
_LEAST_RETRY_S = 2
LONGEST_RETRY_S = 60.0
"""The longest Retry-After that every version of OpenAI's clients heeds."""
_MAX_CONNECTIONS = 1000
_SPREAD = 0.5


def leave_stand_in(
    host: str, port: int, start_s: float, limit_s: float, environment: Mapping[str, str]
) -> None:
    """Starts the stand-in as a process that is neither our child nor of our run.

    Returns when it listens, so that the port is never without a listener; a stand-in that cannot
    start is not waited for long.

    Args:
        host: to listen on.
        port: to listen on.
        start_s: expected time until the service answers again, in s.
        limit_s: longest life, in s.
        environment: of the process.
    """
    before = listeners(port)
    command = [sys.executable, "-m", __name__, host, str(port), str(start_s), str(limit_s)]
    subprocess.run(  # noqa: S603, our own module
        ["/bin/sh", "-c", '"$@" &', "sh", *command],
        env={name: value for name, value in environment.items() if name != RUN_DIRECTORY_VARIABLE},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )
    deadline_s = time.monotonic() + _STARTING_S
    while not listeners(port) - before and time.monotonic() < deadline_s:
        time.sleep(_POLL_S / 2)


async def stand_in(host: str, port: int, start_s: float, limit_s: float) -> None:
    """Answers until another process listens on the port, or for `limit_s`.

    Raises:
        OSError: nothing may listen there.
    """
    began_s = time.monotonic()
    places = asyncio.Semaphore(_MAX_CONNECTIONS)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left_s = max(start_s - (time.monotonic() - began_s), _LEAST_RETRY_S)
        # If all came back in the same second, a small service would refuse most of them.
        left_s += random.uniform(0, _SPREAD * start_s)  # noqa: S311, not a secret
        left_s = min(left_s, LONGEST_RETRY_S)
        async with places:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                with suppress(TimeoutError):
                    await _refuse(reader, writer, round(left_s))
                writer.close()
                await writer.wait_closed()

    server = await asyncio.start_server(
        answer, host, port, reuse_port=True, reuse_address=True, limit=_HEADER_BYTES
    )
    own = {os.fstat(each.fileno()).st_ino for each in server.sockets}
    async with server:
        # The dead service may listen for a moment longer.
        was_alone = False
        while time.monotonic() - began_s < limit_s:
            is_alone = not (listeners(port) - own)
            if was_alone and not is_alone:
                break
            was_alone = was_alone or is_alone
            await asyncio.sleep(_POLL_S)
    await asyncio.sleep(_POLL_S)


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


def main(host: str, port: str, start_s: str, limit_s: str) -> int:
    try:
        asyncio.run(stand_in(host, int(port), float(start_s), float(limit_s)))
    except OSError as error:
        print(f"no stand-in on {host}:{port}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
