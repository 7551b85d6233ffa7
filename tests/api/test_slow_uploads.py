"""Senders that trickle: they are told so, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import Request

from serve_app.api.body import RequestBody, UploadRate
from serve_app.api.limits import ApiLimits
from serve_app.api.routes import build_api
from serve_app.core.errors import UploadTooSlow
from serve_app.scheduling.admission import Limits
from tests.api.sockets import PATIENCE_S, Answer, answer_of, served
from tests.fakes.observer import EndedRequests
from tests.fakes.service import FakeService

URL = "/v1/audio/transcriptions"
FORM = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
)
CHUNKED = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    b'34\r\n--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n\r\n'
)
JSON = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\n"
    b'Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"model": '
)


@asynccontextmanager
async def service_on_a_port(
    ended: EndedRequests, spool_dir: Path, grace_s: float
) -> AsyncIterator[int]:
    limits = ApiLimits(
        1_000_000,
        request_timeout_s=600,
        spool_dir=spool_dir,
        in_flight=Limits(max_running=3, max_waiting=2),
        upload_rate=UploadRate(10_000, grace_s),
    )
    app = build_api(FakeService(), limits, logging.getLogger("tests.api"), observer=ended)
    async with served(app) as port:
        yield port


async def trickle(port: int, head: bytes, piece: bytes = b" ") -> Answer:
    """Sends next to nothing now and then until there is an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answering = asyncio.create_task(answer_of(reader))
    try:
        writer.write(head)
        async with asyncio.timeout(PATIENCE_S):
            while not answering.done():
                await asyncio.wait({answering}, timeout=0.05)
                writer.write(piece)
        return await answering
    finally:
        answering.cancel()
        writer.close()


@pytest.mark.parametrize(("head", "piece"), [(FORM, b" "), (CHUNKED, b"1\r\n \r\n"), (JSON, b" ")])
async def test_sender_below_the_rate_is_a_408(
    ended: EndedRequests, tmp_path: Path, head: bytes, piece: bytes
) -> None:
    async with service_on_a_port(ended, tmp_path, grace_s=0.3) as port:
        answer = await trickle(port, head, piece)
    assert answer.status == 408
    assert answer.error["code"] == "upload_too_slow"
    assert answer.error["type"] == "invalid_request_error"
    assert "10000 bytes per second" in answer.error["message"]
    assert answer.headers["connection"] == "close"
    assert [(log.status, log.code) for log in ended.logs] == [(408, "upload_too_slow")]


async def test_slow_senders_do_not_block_others(ended: EndedRequests, tmp_path: Path) -> None:
    async with service_on_a_port(ended, tmp_path, grace_s=PATIENCE_S) as port:
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        for _, writer in connections:
            writer.write(FORM)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(5):
                answer = await client.post(
                    URL, data={"model": "whisper-1"}, files={"file": b"RIFF"}
                )
                assert answer.status_code == 200
        for _, writer in connections:
            writer.close()


async def test_place_of_a_slow_sender_is_free_again(ended: EndedRequests, tmp_path: Path) -> None:
    async with service_on_a_port(ended, tmp_path, grace_s=0.3) as port:
        slow = [asyncio.create_task(trickle(port, FORM)) for _ in range(5)]
        assert {(await one).status for one in slow} == {408}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            answer = await client.post(URL, data={"model": "whisper-1"}, files={"file": b"RIFF"})
            assert answer.status_code == 200


class Sender:
    """Sends pieces at the times that the test says, on the test's own clock."""

    def __init__(self, pieces: list[tuple[float, int]]) -> None:
        self.now_s = 0.0
        self._pieces = iter(pieces)

    async def receive(self) -> dict[str, object]:
        wait_s, num_bytes = next(self._pieces, (0.0, 0))
        self.now_s += wait_s
        return {"type": "http.request", "body": bytes(num_bytes), "more_body": num_bytes > 0}


async def read_all(pieces: list[tuple[float, int]], rate: UploadRate) -> int:
    sender = Sender(pieces)
    request = Request({"type": "http", "headers": []}, sender.receive)
    body = RequestBody(request, rate, lambda: sender.now_s)
    return sum([len(data) async for data in body.stream()])


RATE = UploadRate(min_bytes_per_s=100, grace_s=10)


@pytest.mark.parametrize(
    "pieces",
    [
        [(0.0, 5000)],
        [(1.0, 100)] * 500,
        [(9.0, 900)] * 50,
        [(9.9, 1)],
        # A pause, then enough again.
        [(0.1, 1000), (9.0, 10), (0.1, 1000), (9.0, 10), (0.1, 1000)],
    ],
)
async def test_senders_that_keep_up_the_rate_are_read_to_their_end(
    pieces: list[tuple[float, int]],
) -> None:
    assert await read_all(pieces, RATE) == sum(num_bytes for _, num_bytes in pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        [(1.0, 50)] * 500,
        [(0.01, 0), (1.0, 1), *[(1.0, 1)] * 500],
        # What came fast at first pays for no more than the grace period.
        [(0.0, 100_000), *[(1.0, 1)] * 500],
    ],
)
async def test_senders_below_the_rate_are_given_up(pieces: list[tuple[float, int]]) -> None:
    pieces = [(wait_s, num_bytes) for wait_s, num_bytes in pieces if num_bytes]
    with pytest.raises(UploadTooSlow):
        await read_all(pieces, RATE)
