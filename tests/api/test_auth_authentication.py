"""What is behind a key, and what is open."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from serve_app.api.auth import KeyDefaults, KeyFile
from serve_app.api.limits import ApiLimits
from serve_app.api.routes import build_api
from serve_app.settings.keys import KeyEntry, add_key, hash_of, new_key
from tests.fakes.observer import EndedRequests
from tests.fakes.service import FakeService

URL = "/v1/audio/transcriptions"
KEY = new_key()
DISABLED = new_key()


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def client(service: FakeService, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    keys = tmp_path / "keys.yaml"
    add_key(keys, KeyEntry(name="team-a", sha256=hash_of(KEY), weight=2.0))
    add_key(keys, KeyEntry(name="team-b", sha256=hash_of(DISABLED), disabled=True))
    logger = logging.getLogger("tests.api")
    app = build_api(
        service,
        ApiLimits(100_000, request_timeout_s=30, spool_dir=None),
        logger,
        authenticator=KeyFile(keys, KeyDefaults(), logger),
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as http:
        yield http


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/x", "/v1/nothing", "/v1", URL])
async def test_everything_under_v1_needs_a_key(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
async def test_probes_and_documents_are_open(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 200


async def test_key_s_name_and_weight_travel_with_the_work(
    client: httpx.AsyncClient, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tests.api"):
        response = await client.post(
            URL,
            data={"model": "whisper-1"},
            files={"file": b"RIFF"},
            headers={"Authorization": f"Bearer {KEY}"},
        )
    assert response.status_code == 200
    (job,) = service.jobs
    assert (job.context.key, job.context.weight) == ("team-a", 2.0)
    (record,) = caplog.records
    assert record.__dict__["key"] == "team-a"
    assert KEY not in str(record.__dict__)


async def test_disabled_key_is_a_403(client: httpx.AsyncClient, service: FakeService) -> None:
    response = await client.post(
        URL,
        data={"model": "whisper-1"},
        files={"file": b"RIFF"},
        headers={"Authorization": f"Bearer {DISABLED}"},
    )
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "key_not_allowed"
    assert service.jobs == []


async def test_refused_keys_are_counted(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    add_key(keys, KeyEntry(name="team-b", sha256=hash_of(DISABLED), disabled=True))
    logger = logging.getLogger("tests.api")
    ended = EndedRequests()
    app = build_api(
        FakeService(),
        ApiLimits(100_000, request_timeout_s=30, spool_dir=None),
        logger,
        authenticator=KeyFile(keys, KeyDefaults(), logger),
        observer=ended,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        await http.post(URL, data={"model": "whisper-1"})
        await http.post(URL, headers={"Authorization": f"Bearer {DISABLED}"})
    counted = [(log.status, log.code) for log in ended.logs]
    assert counted == [(401, "invalid_api_key"), (403, "key_not_allowed")]


@pytest.mark.parametrize("key", [KEY, DISABLED, new_key()], ids=["known", "disabled", "unknown"])
@pytest.mark.parametrize("num_samples", [0, 160, 16_000])
async def test_neither_keys_nor_audio_reach_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, key: str, num_samples: int
) -> None:
    audio = b"RIFF" + b"\x17\x2b\x39\x4d" * num_samples
    with caplog.at_level(logging.DEBUG):
        await client.post(
            URL,
            data={"model": "whisper-1"},
            files={"file": audio},
            headers={"Authorization": f"Bearer {key}"},
        )
    assert caplog.records
    formatter = logging.Formatter()
    told = "".join(formatter.format(record) + str(record.__dict__) for record in caplog.records)
    assert key not in told
    assert hash_of(key) not in told
    for trace in ("\x17\x2b\x39\x4d", r"\x17+9M", audio[4:20].hex(), "17\\x2b"):
        assert not (num_samples and trace in told)
