"""Admission over HTTP: who is let in, who waits, who is told to come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serve_app.api import flow_control
from serve_app.api.limits import ApiLimits
from serve_app.api.routes import assemble_api, build_api
from serve_app.scheduling.admission import Limits
from serve_app.settings import Settings
from serve_app.settings.keys import KeyEntry, add_key, hash_of, new_key
from tests.fakes.service import FakeService
from tests.service.requests import audio_file

URL = "/v1/audio/transcriptions"
ONE = Limits(max_running=1, max_waiting=1)


@asynccontextmanager
async def client_of(
    service: FakeService, tmp_path: Path, in_flight: Limits, timeout_s: float = 30
) -> AsyncIterator[httpx.AsyncClient]:
    limits = ApiLimits(
        10_000_000,
        request_timeout_s=timeout_s,
        spool_dir=tmp_path,
        in_flight=in_flight,
        max_retry_after_s=60,
    )
    app = build_api(service, limits, logging.getLogger("tests.api"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


async def post(
    client: httpx.AsyncClient, content: bytes = b"RIFF", headers: Mapping[str, str] | None = None
) -> httpx.Response:
    return await client.post(
        URL, data={"model": "whisper-1"}, files={"file": content}, headers=headers
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - conditions of many kinds
            await asyncio.sleep(0)


FLAC = b"fLaC" + bytes(2_000_000 - 4)
"""Looks like a recording until somebody decodes it."""


@pytest.fixture
def service() -> FakeService:
    service = FakeService()
    service.until = asyncio.Event()
    return service


def release(service: FakeService) -> None:
    assert service.until is not None
    service.until.set()


async def test_over_the_line_is_a_429_with_retry_after(
    service: FakeService, tmp_path: Path
) -> None:
    async with client_of(service, tmp_path, ONE) as client:
        running = asyncio.create_task(post(client))
        await until(lambda: len(service.jobs) == 1)
        waiting = asyncio.create_task(post(client))
        await asyncio.sleep(0.05)
        refused = await post(client)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["code"] == "overloaded"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        release(service)
        assert [(await task).status_code for task in (running, waiting)] == [200, 200]


async def test_body_without_room_for_its_bytes_is_not_read_on(
    service: FakeService, tmp_path: Path
) -> None:
    num_read = 0
    first = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    )
    last = b"\r\n--b--\r\n"

    async def body() -> AsyncIterator[bytes]:
        nonlocal num_read
        yield first
        for _ in range(64):
            num_read += 1
            yield FLAC[: 64 * 1024]
        yield last

    async with client_of(service, tmp_path, Limits(1, 1, max_bytes=5_000_000)) as client:
        running = asyncio.create_task(post(client, FLAC))
        await until(lambda: len(service.jobs) == 1)
        headers = {
            "Content-Type": "multipart/form-data; boundary=b",
            "Content-Length": str(len(first) + 64 * 64 * 1024 + len(last)),
        }
        waiting = asyncio.create_task(client.post(URL, content=body(), headers=headers))
        await asyncio.sleep(0.1)
        assert num_read <= 2
        release(service)
        assert (await running).status_code == 200
        assert (await waiting).status_code == 200
        assert num_read == 64


async def test_body_that_does_not_start_as_audio_is_not_read_to_its_end(
    service: FakeService, tmp_path: Path
) -> None:
    num_read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal num_read
        yield b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nRIFF\0\0\0\0WAVE'
        for _ in range(640):
            num_read += 1
            yield b"junk\0\0\0\0" * 8192
        yield b"\r\n--b--\r\n"

    async with client_of(service, tmp_path, ONE) as client:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        refused = await client.post(URL, content=body(), headers=headers)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "corrupt_audio"
    assert num_read < 64
    assert not service.jobs


class Trickle:
    """The body of an upload that begins and never goes on, until the test says so."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.rest = asyncio.Event()

    async def body(self) -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nRIFF'
        self.begun.set()
        await self.rest.wait()
        yield b"\r\n--b--\r\n"


async def test_running_uploads_do_not_occupy_a_slot(service: FakeService, tmp_path: Path) -> None:
    release(service)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    slow = [Trickle() for _ in range(3)]
    async with client_of(service, tmp_path, Limits(max_running=3, max_waiting=1)) as client:
        uploads = [
            asyncio.create_task(client.post(URL, content=one.body(), headers=headers))
            for one in slow
        ]
        for one in slow:
            await one.begun.wait()
        assert (await post(client)).status_code == 200
        for one in slow:
            one.rest.set()
        assert [(await upload).status_code for upload in uploads] == [200] * 3


async def test_clip_overtakes_an_earlier_upload_that_is_still_arriving(
    service: FakeService, tmp_path: Path
) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    slow = Trickle()
    async with client_of(service, tmp_path, ONE) as client:
        upload = asyncio.create_task(client.post(URL, content=slow.body(), headers=headers))
        await slow.begun.wait()
        clip = asyncio.create_task(post(client))
        await until(lambda: len(service.jobs) == 1)
        release(service)
        assert (await clip).status_code == 200
        slow.rest.set()
        assert (await upload).status_code == 200


async def test_wrong_field_is_refused_without_a_slot(service: FakeService, tmp_path: Path) -> None:
    async with client_of(service, tmp_path, ONE) as client:
        running = asyncio.create_task(post(client))
        await until(lambda: len(service.jobs) == 1)
        wrong = await client.post(
            URL, data={"model": "whisper-1", "stages": "vad"}, files={"file": b"RIFF"}
        )
        assert wrong.status_code == 400
        release(service)
        assert (await running).status_code == 200


async def test_deadline_that_passes_in_the_queue_is_a_504(
    service: FakeService, tmp_path: Path
) -> None:
    async with client_of(service, tmp_path, ONE) as client:
        running = asyncio.create_task(post(client))
        await until(lambda: len(service.jobs) == 1)
        late = await post(client, headers={"X-Paraserve-Timeout-S": "0.05"})
        assert late.status_code == 504
        release(service)
        assert (await running).status_code == 200
        assert (await post(client)).status_code == 200
        assert len(service.jobs) == 2


async def test_chunked_body_reserves_as_it_grows(service: FakeService, tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        for _ in range(64):
            yield FLAC[: 64 * 1024]
        yield b"\r\n--b--\r\n"

    limits = Limits(max_running=2, max_waiting=0, max_bytes=3_000_000)
    async with client_of(service, tmp_path, limits) as client:
        running = asyncio.create_task(post(client, FLAC[:1_500_000]))
        await until(lambda: len(service.jobs) == 1)
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        refused = await client.post(URL, content=body(), headers=headers)
        assert refused.status_code == 429
        refused = await post(client, FLAC)
        assert refused.status_code == 429
        release(service)
        assert (await running).status_code == 200


async def test_recording_over_the_audio_in_flight_waits_and_is_not_decoded(
    service: FakeService, tmp_path: Path
) -> None:
    minute = audio_file(np.zeros(60 * 16_000, np.int16))
    limits = Limits(max_running=9, max_waiting=9, max_audio_s=100.0)
    async with client_of(service, tmp_path, limits) as client:
        running = asyncio.create_task(post(client, minute))
        await until(lambda: len(service.jobs) == 1)
        waiting = asyncio.create_task(post(client, minute))
        await asyncio.sleep(0.1)
        assert len(service.jobs) == 1
        release(service)
        assert (await running).status_code == 200
        assert (await waiting).status_code == 200
        assert (await post(client, minute)).status_code == 200


@pytest.mark.parametrize(
    "stream", [b"", b'--b\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n']
)
async def test_slot_of_a_caller_who_disconnects_is_freed(
    service: FakeService, tmp_path: Path, stream: bytes
) -> None:
    limits = ApiLimits(10_000, request_timeout_s=30, spool_dir=tmp_path, in_flight=Limits(1, 0))
    app = build_api(service, limits, logging.getLogger("tests.api"))
    body = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        + stream
        + b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nRIFF\r\n--b--\r\n'
    )
    left = asyncio.Event()
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": URL,
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=b")],
    }
    request = asyncio.create_task(app(scope, receive, send))
    await until(lambda: len(service.jobs) == 1)
    left.set()
    await request
    release(service)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        assert (await post(client)).status_code == 200


async def test_caller_who_disconnects_leaves_the_queue(
    service: FakeService, tmp_path: Path
) -> None:
    async with client_of(service, tmp_path, ONE) as client:
        running = asyncio.create_task(post(client))
        await until(lambda: len(service.jobs) == 1)
        waiting = asyncio.create_task(post(client))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        another = asyncio.create_task(post(client))
        await asyncio.sleep(0.05)
        release(service)
        assert (await running).status_code == 200
        assert (await another).status_code == 200
        assert len(service.jobs) == 2


async def test_one_key_alone_cannot_hold_every_place(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_control._Switch, "on", False)
    keys = tmp_path / "keys.yaml"
    tokens = {name: new_key() for name in ("greedy", "modest")}
    for name, token in tokens.items():
        add_key(keys, KeyEntry(name=name, sha256=hash_of(token)))
    settings = Settings.model_validate(
        {
            "auth": {"mode": "keys", "keys_file": keys},
            "admission": {"max_running": 4, "max_waiting": 4},
            "audio": {"spool_dir": tmp_path},
        }
    )
    app = assemble_api(service, settings, logging.getLogger("tests.api"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        headers = {name: {"Authorization": f"Bearer {token}"} for name, token in tokens.items()}
        greedy = []
        for _ in range(6):
            greedy.append(asyncio.create_task(post(client, headers=headers["greedy"])))
            await asyncio.sleep(0)
        await until(lambda: len(service.jobs) == 3)
        assert (await post(client, headers=headers["greedy"])).status_code == 429
        modest = asyncio.create_task(post(client, headers=headers["modest"]))
        await until(lambda: len(service.jobs) == 4)
        assert service.jobs[-1].context.key == "modest"
        release(service)
        assert (await modest).status_code == 200
        assert {(await task).status_code for task in greedy} == {200}
