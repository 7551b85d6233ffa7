"""Connections that misbehave: one coroutine an attack, each bounded in count and time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

_PATH = "/v1/audio/transcriptions"
_LONG_DEADLINE_S = 3000
_PAUSE_S = 0.02
_PIECE_BYTES = 64 * 1024


@dataclass(slots=True)
class Target:
    """What is attacked, and how it answered.

    Attributes:
        url: of a service on this machine.
        key: of the hostile caller; it is a valid one.
        page: path of the web page, "" without one.
        statuses: HTTP statuses that the attacker got, with their numbers; 0 for none.
    """

    url: str
    key: str
    page: str = ""
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def count(self, status: int) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def head(self, *lines: str, method: str = "POST", path: str = _PATH) -> bytes:
        fixed = (
            f"{method} {path} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self.key}",
        )
        return "\r\n".join((*fixed, *lines, "", "")).encode()


Attack = Callable[[Target, float], Awaitable[None]]
"""Attacks a target for so many seconds, then leaves nothing behind."""


@asynccontextmanager
async def connections(
    target: Target, number: int
) -> AsyncIterator[list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """Opens so many connections, as far as they are let in, and closes them."""
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        for _ in range(number):
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    opened.append(await asyncio.open_connection(*target.address, limit=2**16))
        yield opened
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def slow_bodies(target: Target, seconds: float) -> None:
    """Uploads at a byte a second, with the longest deadline that can be asked for."""
    head = target.head(
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Length: 1000000",
        f"X-Paraserve-Timeout-S: {_LONG_DEADLINE_S}",
    )
    await _drip(target, seconds, 64, head, b"-")


async def slow_headers(target: Target, seconds: float) -> None:
    """Headers that never end."""
    await _drip(target, seconds, 500, b"POST / HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"a")


async def half_open(target: Target, seconds: float) -> None:
    """Connections on which nothing is ever said."""
    async with connections(target, 1000):
        await asyncio.sleep(seconds)


async def slow_readers(target: Target, seconds: float) -> None:
    """Requests whose answers are never read."""
    async with connections(target, 200) as opened:
        for reader, writer in opened:
            raw: socket.socket | None = writer.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(target.head(method="GET", path="/openapi.json") * 20)
        await asyncio.sleep(seconds)


async def header_bombs(target: Target, seconds: float) -> None:
    """Headers of many names and of great length, and invented methods."""
    async with _until(seconds) as running:
        number = 0
        while running():
            number += 1
            lines = [f"X-{number}-{n}: {'b' * 200}" for n in range(200)]
            await _answered(target, target.head(*lines))
            await _answered(target, target.head(f"X-Request-ID: {'r' * 30_000}"))
            await _answered(target, target.head(method=f"M{number}", path=f"/{number}"))


async def bodies(target: Target, seconds: float, made: Iterable[tuple[str, bytes]]) -> None:
    """Sends bodies over and over."""
    prepared = tuple(made)
    async with (
        httpx.AsyncClient(base_url=target.url, timeout=30, trust_env=False) as client,
        _until(seconds) as running,
    ):
        while running():
            for kind, body in prepared:
                if not running():
                    break
                headers = {
                    "Content-Type": kind,
                    "Content-Length": str(len(body)),
                    "Authorization": f"Bearer {target.key}",
                }
                with suppress(httpx.HTTPError):
                    response = await client.post(_PATH, content=_pieces(body), headers=headers)
                    target.count(response.status_code)
                await asyncio.sleep(_PAUSE_S)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """Yields a body bit by bit.

    Sent at once, 40 MB hold up the loop for 0.1 s, and with it the clips that are timed there.
    """
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]


async def page_events(target: Target, seconds: float) -> None:
    """Events of the web page that name files of the server."""
    files = ({"path": path, "meta": {"_type": "gradio.FileData"}} for path in _SERVER_FILES)
    events = [
        {"data": [file], "fn_index": number, "session_hash": "attack", "event_data": None}
        for file in files
        for number in range(4)
    ]
    async with (
        httpx.AsyncClient(base_url=target.url, timeout=10, trust_env=False) as client,
        _until(seconds) as running,
    ):
        while running():
            for event in events:
                for route in ("queue/join", "run/predict", "api/predict"):
                    with suppress(httpx.HTTPError):
                        address = f"{target.page}/gradio_api/{route}"
                        response = await client.post(address, json=event)
                        target.count(response.status_code)
                if not running():
                    break
                await asyncio.sleep(_PAUSE_S)


_SERVER_FILES = ("/etc/passwd", "/dev/zero", "/proc/self/environ", "../../etc/passwd")


async def _drip(target: Target, seconds: float, number: int, head: bytes, drop: bytes) -> None:
    async with connections(target, number) as opened, _until(seconds) as running:
        for _, writer in opened:
            writer.write(head)
        while running():
            await asyncio.sleep(1.0)
            for _, writer in opened:
                if not writer.is_closing():
                    writer.write(drop)


async def _answered(target: Target, request: bytes) -> None:
    """Sends a request as it is and counts the status of its answer."""
    try:
        async with asyncio.timeout(5), connections(target, 1) as opened:
            if not opened:
                target.count(0)
                return
            reader, writer = opened[0]
            writer.write(request)
            line = await reader.readline()
            target.count(int(line.split()[1]) if line.startswith(b"HTTP/") else 0)
    except (OSError, TimeoutError, ValueError, IndexError):
        target.count(0)


@asynccontextmanager
async def _until(seconds: float) -> AsyncIterator[Callable[[], bool]]:
    clock = asyncio.get_running_loop().time
    end_s = clock() + seconds
    yield lambda: clock() < end_s
