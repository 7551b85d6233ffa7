"""Admission behind the real proxy: full is told at once, and costs no memory."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import psutil
import pytest

from serve_app.settings import Settings
from tests.service.requests import post
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

_BODY_BYTES = 20_000_000
_HEAD = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nfLaC' % _BODY_BYTES
)


@contextmanager
def unfinished_upload(port: int) -> Iterator[socket.socket]:
    """A request that has begun to send its file, which may become a FLAC."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(_HEAD)
        yield connection


def push(connection: socket.socket, num_bytes: int, seconds: float) -> int:
    """Sends until nobody takes any more; returns how much was taken."""
    connection.settimeout(seconds)
    sent = 0
    try:
        while sent < num_bytes:
            sent += connection.send(bytes(min(65_536, num_bytes - sent)))
    except TimeoutError:
        pass
    return sent


def ingress_bytes() -> int:
    (ingress,) = (
        process
        for process in psutil.Process().children(recursive=True)
        if "paraserve:Ingress" in "".join(process.cmdline()[:1])
    )
    return int(ingress.memory_info().rss)


def test_full_service_refuses_at_once_and_is_free_when_the_senders_leave(
    client: httpx.Client, settings: Settings, demo_flac: bytes
) -> None:
    line = settings.admission
    before = ingress_bytes()
    with ExitStack() as senders:
        held = []
        for _ in range(line.max_running + line.max_waiting):
            held.append(senders.enter_context(unfinished_upload(settings.http.port)))
            time.sleep(0.05)
        # What they send goes to disk, or stays on its way where that has no room.
        for connection in held[line.max_running :]:
            push(connection, _BODY_BYTES - 1000, 0.3)
        assert ingress_bytes() - before < 60 * 2**20
        for content in (demo_flac, b"fLaC" + bytes(_BODY_BYTES)):
            began = time.monotonic()
            refused = post(client, content)
            assert refused.status_code == 429, refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert time.monotonic() - began < 5
    wait_until(lambda: post(client, demo_flac).status_code == 200, interval_s=0.5)
