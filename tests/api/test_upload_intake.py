"""Recordings that come by URL, in a form or in JSON."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api.limits import ApiLimits
from serve_app.api.routes import build_api
from serve_app.api.spool import SpoolFile
from serve_app.core.errors import UrlNotAllowed
from serve_app.scheduling.admission import Limits
from tests.fakes.service import FakeService

URL = "/v1/audio/transcriptions"
AUDIO_URL = "https://files.example.com/a.wav"


class FakeFetcher:
    """Writes a recording of some bytes, or raises."""

    max_bytes = 50_000

    def __init__(self) -> None:
        self.num_bytes = 20_000
        self.error: Exception | None = None
        self.urls: list[str] = []

    async def fetch(self, url: str, spool: SpoolFile) -> None:
        self.urls.append(url)
        if self.error is not None:
            raise self.error
        spool.write(bytes(self.num_bytes))


@pytest.fixture
def fetcher() -> FakeFetcher:
    return FakeFetcher()


@pytest.fixture
def service() -> FakeService:
    return FakeService()


def client_of(
    service: FakeService, spool_dir: Path, fetcher: FakeFetcher | None, max_bytes: int = 1_000_000
) -> httpx.AsyncClient:
    limits = ApiLimits(10_000, 30, spool_dir, in_flight=Limits(4, 4, max_bytes))
    app = build_api(service, limits, logging.getLogger("tests.api"), fetcher=fetcher)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
async def client(
    service: FakeService, fetcher: FakeFetcher, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(service, tmp_path, fetcher) as http:
        yield http


async def test_form_may_name_a_url_instead_of_a_file(
    client: httpx.AsyncClient, fetcher: FakeFetcher, service: FakeService
) -> None:
    fields = {"model": (None, "whisper-1"), "audio_url": (None, AUDIO_URL)}
    response = await client.post(URL, files=fields)
    assert response.status_code == 200
    assert fetcher.urls == [AUDIO_URL]
    # Larger than an upload may be: it did not pass the proxy.
    assert len(service.uploads[0]) == 20_000


async def test_json_may_name_a_url(client: httpx.AsyncClient, fetcher: FakeFetcher) -> None:
    body = {
        "model": "whisper-1",
        "audio_url": AUDIO_URL,
        "response_format": "verbose_json",
        "timestamp_granularities": ["word"],
        "stream": False,
        "temperature": 0,
        "prompt": None,
    }
    response = await client.post(URL, json=body)
    assert response.status_code == 200
    assert "words" in response.json()


async def test_json_accepts_the_fields_of_a_form(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    body = {
        "model": "whisper-1",
        "audio_url": AUDIO_URL,
        "keywords": ["New York, NY", "通义"],
        "hotwords": {"达摩院": "20"},
        "languages": ["fr", "zh"],
        "stages": ["vad", "asr"],
        "include": ["logprobs"],
        "chunking_strategy": {"type": "server_vad", "silence_duration_ms": 500, "other": {}},
        "seed": 1,
        "nested": {"a": [1]},
    }
    response = await client.post(URL, json=body)
    assert response.status_code == 200
    ignored = response.headers["X-Paraserve-Ignored-Fields"]
    assert ignored == "seed,nested,chunking_strategy[other]"
    assert response.json()["logprobs"]
    (job,) = service.jobs
    words = ("New York, NY", "通义", "达摩院")
    assert tuple(word.text for word in job.recognition_options.hotwords) == words
    assert job.recognition_options.language == "zh"
    assert job.stages == frozenset({"vad", "asr"})
    assert job.speech_detection.silence_duration_ms == 500


@pytest.mark.parametrize(
    "body",
    [
        {"model": "whisper-1"},
        {"model": "whisper-1", "audio_url": [AUDIO_URL, AUDIO_URL]},
        {"model": "whisper-1", "audio_url": {"a": 1}},
        {"model": {"a": 1}, "audio_url": AUDIO_URL},
        {"model": "whisper-1", "audio_url": AUDIO_URL, "langauge": "zh"},
        {"model": "whisper-1", "audio_url": AUDIO_URL, "keywords": [1]},
        {"model": "whisper-1", "audio_url": AUDIO_URL, "chunking_strategy": {"threshold": 2}},
    ],
)
async def test_json_that_makes_no_sense_is_a_400(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    assert (await client.post(URL, json=body)).status_code == 400


async def test_deep_and_large_json_is_a_400(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    for content in (b"[" * 60_000, b" " * 100_000 + b"{}"):
        assert (await client.post(URL, content=content, headers=headers)).status_code == 400


async def test_json_reserves_no_more_than_is_read_of_it(
    service: FakeService, fetcher: FakeFetcher, tmp_path: Path
) -> None:
    async def body() -> AsyncIterator[bytes]:
        begun.set()
        await rest.wait()
        yield b"{}"

    begun, rest = asyncio.Event(), asyncio.Event()
    limits = ApiLimits(1_000_000, 30, tmp_path, in_flight=Limits(4, 4, 1_000_000))
    app = build_api(service, limits, logging.getLogger("tests.api"), fetcher=fetcher)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        headers = {"Content-Type": "application/json", "Content-Length": "1000000"}
        declared = asyncio.create_task(client.post(URL, content=body(), headers=headers))
        await begun.wait()
        async with asyncio.timeout(10):
            answer = await client.post(
                URL, data={"model": "whisper-1"}, files={"file": bytes(500_000)}
            )
        assert answer.status_code == 200
        rest.set()
        assert (await declared).status_code == 400


async def test_url_beside_a_file_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post(
        URL, data={"model": "whisper-1", "audio_url": AUDIO_URL}, files={"file": b"RIFF"}
    )
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "audio_url"


async def test_url_is_refused_where_it_is_not_enabled(service: FakeService, tmp_path: Path) -> None:
    async with client_of(service, tmp_path, None) as client:
        response = await client.post(URL, json={"model": "whisper-1", "audio_url": AUDIO_URL})
    assert response.status_code == 400
    assert "not enabled" in response.json()["error"]["message"]


async def test_url_that_is_not_allowed_is_a_403(
    client: httpx.AsyncClient, fetcher: FakeFetcher
) -> None:
    fetcher.error = UrlNotAllowed("its host is not listed")
    response = await client.post(URL, json={"model": "whisper-1", "audio_url": AUDIO_URL})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "url_not_allowed"


async def test_fetched_file_over_its_limit_is_a_413(
    client: httpx.AsyncClient, fetcher: FakeFetcher
) -> None:
    fetcher.num_bytes = 60_000
    response = await client.post(URL, json={"model": "whisper-1", "audio_url": AUDIO_URL})
    assert response.status_code == 413
    assert "audio_url.max_bytes" in response.json()["error"]["message"]


async def test_full_disk_is_a_503_and_the_request_ends(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: SpoolFile, data: bytes) -> None:
        raise StorageFull(5.0)

    from serve_app.core.errors import StorageFull

    monkeypatch.setattr(SpoolFile, "write", full)
    async with client_of(service, tmp_path, None) as client:
        response = await client.post(URL, data={"model": "whisper-1"}, files={"file": b"RIFF"})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "storage_full"
    assert response.headers["retry-after"] == "5"
