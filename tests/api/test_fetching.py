"""Fetching recordings from a server on the loopback interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from serve_app.api.fetching import MAX_REDIRECTS, HttpFetcher
from serve_app.api.remote_audio import UrlPolicy
from serve_app.api.spool import SpoolDirectory, SpoolFile
from serve_app.core.errors import EmptyUpload, UploadTooLarge, UrlFetchFailed, UrlNotAllowed
from serve_app.settings import AudioUrlSettings

BODY = bytes(range(256)) * 40


@asynccontextmanager
async def serving(*responses: bytes, hang: bool = False) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answers one connection after the other; yields the port and the requests' heads."""
    remaining = list(responses)
    heads: list[bytes] = []
    done = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(remaining.pop(0))
        await writer.drain()
        if hang:
            await done.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        done.set()
        server.close()


def ok(body: bytes = BODY, headers: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 200 OK\r\n" + length + headers + b"\r\n" + body


def to(location: str) -> bytes:
    return b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % location.encode()


def fetcher(port: int, clock: Callable[[], float] = time.monotonic, **more: object) -> HttpFetcher:
    values = {
        "enabled": True,
        "allow_http": True,
        "allow_private": True,
        "allowed_hosts": (f"127.0.0.1:{port}", f"localhost:{port}"),
        **more,
    }
    settings = AudioUrlSettings.model_validate(values)
    return HttpFetcher(settings, UrlPolicy(settings), clock=clock)


@pytest.fixture
def spool(tmp_path: Path) -> SpoolFile:
    return SpoolDirectory(tmp_path).open(1_000_000)


async def test_file_is_written_as_it_is(spool: SpoolFile) -> None:
    async with serving(ok()) as (port, heads):
        await fetcher(port).fetch(f"http://127.0.0.1:{port}/a.wav?b=c", spool)
    assert spool.content().tobytes() == BODY
    assert heads[0].startswith(b"GET /a.wav?b=c HTTP/1.1\r\n")
    assert b"accept-encoding: identity" in heads[0].lower()
    assert b"authorization" not in heads[0].lower()


async def test_redirect_is_followed_and_its_target_checked(spool: SpoolFile) -> None:
    async with serving(to("/next"), ok()) as (port, heads):
        await fetcher(port).fetch(f"http://127.0.0.1:{port}/a", spool)
        assert heads[1].startswith(b"GET /next ")
    assert spool.size_bytes == len(BODY)


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/meta-data", "https://evil.example.com/", "file:///etc/passwd",
     "http://user:pw@127.0.0.1/", "ftp://127.0.0.1/x", "s3://calls/a.wav", "//evil.example.com/",
     "http://127.0.0.1:1/", "http://[::ffff:169.254.169.254]/", "http://2852039166/"],
)  # fmt: skip
async def test_redirect_elsewhere_is_refused(spool: SpoolFile, location: str) -> None:
    async with serving(to(location)) as (port, heads):
        with pytest.raises(UrlNotAllowed):
            await fetcher(port).fetch(f"http://127.0.0.1:{port}/a", spool)
        assert len(heads) == 1


async def test_redirects_are_counted(spool: SpoolFile) -> None:
    async with serving(*[to("/a")] * 5) as (port, heads):
        with pytest.raises(UrlFetchFailed, match=f"more than {MAX_REDIRECTS} times"):
            await fetcher(port).fetch(f"http://127.0.0.1:{port}/a", spool)
        assert len(heads) == MAX_REDIRECTS + 1


async def test_private_address_is_refused_before_a_connection(spool: SpoolFile) -> None:
    async with serving(ok()) as (port, heads):
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(UrlNotAllowed, match="not public"):
                await fetcher(port, allow_private=False).fetch(f"http://{host}:{port}/a", spool)
        assert heads == []


async def test_declared_size_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    small = SpoolDirectory(tmp_path).open(1000)
    async with serving(ok()) as (port, _):
        with pytest.raises(UploadTooLarge):
            await fetcher(port).fetch(f"http://127.0.0.1:{port}/a", small)
    assert small.size_bytes == 0


async def test_size_is_counted_while_it_streams(tmp_path: Path) -> None:
    small = SpoolDirectory(tmp_path).open(5000)
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + BODY
    async with serving(endless, hang=True) as (port, _):
        with pytest.raises(UploadTooLarge):
            await fetcher(port).fetch(f"http://127.0.0.1:{port}/a", small)


@pytest.mark.parametrize(
    ("response", "told"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered with status 404"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "without a Location header"),
        (ok(b"x", b"Content-Encoding: gzip\r\n"), "compressed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "connection was lost"),
        (b"this is not HTTP\r\n\r\n", "connection was lost"),
        (b"", "connection was lost"),
    ],
)
async def test_fault_of_the_host_is_reported(spool: SpoolFile, response: bytes, told: str) -> None:
    async with serving(response) as (port, _):
        with pytest.raises(UrlFetchFailed, match=told):
            await fetcher(port).fetch(f"http://127.0.0.1:{port}/a", spool)


async def test_slow_host_is_given_up(spool: SpoolFile) -> None:
    slow = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    async with serving(slow, hang=True) as (port, _):
        with pytest.raises(UrlFetchFailed, match=r"longer than 0\.2 s"):
            await fetcher(port, timeout_s=0.2).fetch(f"http://127.0.0.1:{port}/a", spool)


async def test_host_that_does_not_listen_is_reported(spool: SpoolFile) -> None:
    async with serving() as (port, _):
        pass
    with pytest.raises(UrlFetchFailed, match="does not answer"):
        await fetcher(port).fetch(f"http://127.0.0.1:{port}/a", spool)


async def test_empty_file_is_an_empty_upload(spool: SpoolFile) -> None:
    async with serving(ok(b"")) as (port, _):
        with pytest.raises(EmptyUpload):
            await fetcher(port).fetch(f"http://127.0.0.1:{port}/a", spool)


async def test_proxies_of_the_environment_are_not_used(
    spool: SpoolFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(ok()) as (port, heads), serving(ok(b"proxy")) as (proxy_port, proxied):
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy_port}")
            monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{proxy_port}")
        await fetcher(port).fetch(f"http://127.0.0.1:{port}/a", spool)
        assert len(heads) == 1
        assert proxied == []


async def test_endless_header_is_not_read_to_its_end(spool: SpoolFile) -> None:
    header = b"HTTP/1.1 200 OK\r\n" + b"X-Filler: 0123456789\r\n" * 20_000
    async with serving(header, hang=True) as (port, _):
        with pytest.raises(UrlFetchFailed, match="connection was lost"):
            await fetcher(port).fetch(f"http://127.0.0.1:{port}/a", spool)


async def test_host_that_trickles_is_given_up(spool: SpoolFile) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 10.0
        return now_s

    with pytest.raises(UrlFetchFailed, match="too slowly"):
        await fetcher(port, clock=clock).fetch(f"http://127.0.0.1:{port}/a", spool)
    server.close()
