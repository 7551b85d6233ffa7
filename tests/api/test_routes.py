"""The other routes, and what the framework refuses by itself."""

from __future__ import annotations

import httpx

from serve_app.core.errors import NotReady
from tests.fakes.service import FakeService


async def test_models_are_listed_with_their_aliases(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()
    assert [model["id"] for model in body["data"]] == ["paraformer-demo", "whisper-1"]
    assert (await client.get("/v1/models/whisper-1")).json()["object"] == "model"
    assert (await client.get("/v1/models/other")).status_code == 404


async def test_health_does_not_ask_the_stages(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.not_ready = NotReady("asr")
    assert (await client.get("/healthz")).status_code == 200


async def test_readiness_tells_device_pack_and_checksum(client: httpx.AsyncClient) -> None:
    response = await client.get("/readyz")
    assert response.json()["stages"]["asr"] == {
        "device": "cpu",
        "pack": "paraformer-demo",
        "checksum": "abc",
        "dtype": "float32",
    }


async def test_not_ready_is_a_503_with_retry_after(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.not_ready = NotReady("asr")
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["error"]["code"] == "not_ready"


async def test_unknown_path_and_wrong_method_have_the_same_body(client: httpx.AsyncClient) -> None:
    missing = await client.get("/v2/nothing")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "not_found"
    wrong = await client.get("/v1/audio/transcriptions")
    assert wrong.status_code == 405
    assert wrong.json()["error"]["code"] == "method_not_allowed"


async def test_openapi_describes_the_form(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    route = document["paths"]["/v1/audio/transcriptions"]["post"]
    assert route["requestBody"]["content"]["multipart/form-data"]["schema"] == {
        "$ref": "#/components/schemas/TranscriptionForm"
    }
    schema = document["components"]["schemas"]["TranscriptionForm"]
    assert {"file", "audio_url", "model", "stages", "stream"} <= set(schema["properties"])
    assert {"401", "403", "429", "504"} <= set(route["responses"])
    assert "apiKey" in document["components"]["securitySchemes"]
