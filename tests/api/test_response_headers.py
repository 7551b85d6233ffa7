"""No response has a header that the OpenAPI document does not describe."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from serve_app.api.auth import KeyDefaults, KeyFile
from serve_app.api.errors import STATUS_OF, error_response
from serve_app.api.limits import ApiLimits
from serve_app.api.response_headers import (
    RESPONSE_HEADERS,
    TRANSCRIPTIONS_PATH,
    describe_headers,
)
from serve_app.api.routes import build_api
from serve_app.core.errors import ParaserveError
from tests.api.test_transcription import post
from tests.core.test_errors import ARGUMENTS
from tests.error_tree import EVERY_ERROR
from tests.fakes.service import FAILED_RANGE, FakeService, sentence

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
# OpenAPI describes the first with the bodies; the others belong to HTTP.
NOT_DESCRIBED = {"content-type", "content-length"}


async def check_headers(
    client: httpx.AsyncClient, response: httpx.Response, path: str = TRANSCRIPTIONS_PATH
) -> None:
    """Fails unless the headers are described, have their schema, and none is missing."""
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    operation = next(iter(document["paths"][path].values()))
    described = {
        name.lower(): header
        for name, header in operation["responses"][str(response.status_code)]["headers"].items()
    }
    sent = {name: value for name, value in response.headers.items() if name not in NOT_DESCRIBED}
    assert set(sent) <= set(described)
    assert {name for name, header in described.items() if header["required"]} <= set(sent)
    for name, value in sent.items():
        schema = described[name]["schema"]
        jsonschema.validate(int(value) if schema["type"] == "integer" else value, schema)


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_headers_of_transcripts_are_described(
    client: httpx.AsyncClient, service: FakeService, stream: str
) -> None:
    service.events = [sentence("你好", 0), FAILED_RANGE]

    response = await post(client, stream=stream, language="?!", nonsense="1", hotwords="你好")

    assert response.status_code == 200
    assert {"x-paraserve-warnings", "x-paraserve-ignored-fields"} <= set(response.headers)
    assert ("x-paraserve-partial" in response.headers) == (stream == "false")
    await check_headers(client, response)


@pytest.mark.parametrize(
    ("path", "described"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/whisper-1", "/v1/models/{name}"),
        ("/v1/models/other", "/v1/models/{name}"),
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
    ],
)
async def test_headers_of_other_routes_are_described(
    client: httpx.AsyncClient, path: str, described: str
) -> None:
    await check_headers(client, await client.get(path), described)
    await check_headers(client, await client.delete(path), described)


async def test_headers_for_callers_without_a_key_are_described(
    service: FakeService, tmp_path: Path
) -> None:
    logger = logging.getLogger("tests.api")
    (tmp_path / "keys.yaml").write_text("keys: []\n", encoding="utf-8")
    keys = KeyFile(tmp_path / "keys.yaml", KeyDefaults(), logger)
    limits = ApiLimits(1000, request_timeout_s=30, spool_dir=None)
    app = build_api(service, limits, logger, authenticator=keys)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        refused = await client.get("/v1/models")
        assert refused.status_code == 401
        await check_headers(client, refused, "/v1/models")


@pytest.mark.parametrize("cls", EVERY_ERROR)
def test_headers_of_every_error_are_described(cls: type[ParaserveError]) -> None:
    response = error_response(cls(*ARGUMENTS.get(cls, ("detail",))))

    described = describe_headers(STATUS_OF[cls], "transcript")

    sent = set(response.headers) - NOT_DESCRIBED
    assert sent <= {name.lower() for name in described}
    assert {name.lower() for name, header in described.items() if header["required"]} <= sent


def test_every_header_is_on_the_page_on_the_api() -> None:
    page = API_PAGE.read_text(encoding="utf-8")
    assert [header.name for header in RESPONSE_HEADERS if f"| `{header.name}` |" not in page] == []
