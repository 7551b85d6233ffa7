"""The OpenAPI document says what the API does."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from serve_app.api.errors import STATUS_OF
from serve_app.core import errors, job_errors
from tests.api.job_client import JobApi
from tests.api.test_transcription import URL, post
from tests.fakes.service import FAILED_RANGE, FakeService, sentence

JOB_ERRORS = {error for error in STATUS_OF if error.__module__ == job_errors.__name__}
# The operator's tools meet these; no request does.
NOT_OF_REQUESTS = (errors.ConfigurationError, errors.ClusterError)


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/openapi.json")
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
async def document_with_jobs(jobs: JobApi) -> dict[str, Any]:
    found: dict[str, Any] = (await jobs.client.get("/openapi.json")).json()
    return found


def conforms(
    document: dict[str, Any], response: httpx.Response, path: str = URL, method: str | None = None
) -> bool:
    """Whether an answer is as documented, and has nothing that is not."""
    operations = document["paths"][path]
    (operation,) = operations.values() if method is None else (operations[method],)
    described = operation["responses"][str(response.status_code)]
    media_type = response.headers["content-type"].partition(";")[0]
    schema = described["content"][media_type]["schema"]
    if media_type == "text/event-stream":
        event = document["components"]["schemas"]["ServerSentEvent"]
        assert schema == {"$ref": "#/components/schemas/ServerSentEvent"}
        schema = event["properties"]["data"]["contentSchema"]
        lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
        bodies = [json.loads(line.removeprefix("data: ")) for line in lines]
    else:
        bodies = [response.json() if media_type == "application/json" else response.text]
    whole = {**schema, "components": closed(document["components"])}
    validator = jsonschema.Draft202012Validator(whole)
    return all(validator.is_valid(body) for body in bodies) and bool(bodies)


def closed(components: dict[str, Any]) -> dict[str, Any]:
    """Returns the schemas such that they take no property that they do not name."""
    found = copy.deepcopy(components)
    for schema in found["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return found


async def test_document_is_valid(
    document: dict[str, Any], document_with_jobs: dict[str, Any]
) -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="needs the extra `test`")
    for one in (document, document_with_jobs):
        assert one["openapi"].startswith("3.1.")
        validator.OpenAPIV31SpecValidator(one).validate()


def check_references(document: dict[str, Any]) -> None:
    """Fails unless each reference has its schema, and each schema a reference."""

    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from [part["$ref"]] if "$ref" in part else []
            for value in part.values():
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    schemas = document["components"]["schemas"]
    names = {reference.removeprefix("#/components/schemas/") for reference in references(document)}
    assert names <= set(schemas)
    assert set(schemas) <= names | {"ErrorAnswer"}


async def test_every_reference_leads_somewhere(
    document: dict[str, Any], document_with_jobs: dict[str, Any]
) -> None:
    check_references(document)
    check_references(document_with_jobs)


async def test_every_status_of_the_error_table_is_documented(
    document: dict[str, Any], document_with_jobs: dict[str, Any]
) -> None:
    of_jobs = {str(status) for error, status in STATUS_OF.items() if error in JOB_ERRORS}
    statuses = {
        str(status)
        for error, status in STATUS_OF.items()
        if not issubclass(error, NOT_OF_REQUESTS) and error not in JOB_ERRORS
    }
    documented = set(document["paths"][URL]["post"]["responses"])
    assert statuses | {"200", "405"} <= documented
    assert not {"409", "412", "415", "422"} & documented
    paths = document_with_jobs["paths"]
    assert of_jobs <= {
        status
        for path in paths
        for operation in paths[path].values()
        for status in operation["responses"]
        if path != URL
    }


async def test_no_route_claims_a_status_that_it_never_has(
    document: dict[str, Any], document_with_jobs: dict[str, Any]
) -> None:
    for path in (*document["paths"].values(), *document_with_jobs["paths"].values()):
        for operation in path.values():
            assert "422" not in operation["responses"]


@pytest.mark.parametrize("response_format", ["json", "verbose_json", "text", "srt", "vtt"])
@pytest.mark.parametrize("partial", [False, True])
async def test_every_format_is_as_documented(
    client: httpx.AsyncClient,
    service: FakeService,
    document: dict[str, Any],
    response_format: str,
    partial: bool,
) -> None:
    service.events = [sentence("你好", 0), FAILED_RANGE] if partial else service.events
    fields: dict[str, Any] = {"response_format": response_format}
    if response_format == "verbose_json":
        fields["timestamp_granularities[]"] = ["word", "segment"]
        fields["include[]"] = "utterances"
    assert conforms(document, await post(client, fields=fields))


@pytest.mark.parametrize("end", ["text", "partial", "error"])
async def test_streams_are_as_documented(
    client: httpx.AsyncClient, service: FakeService, document: dict[str, Any], end: str
) -> None:
    if end == "partial":
        service.events.append(FAILED_RANGE)
    service.error = errors.CorruptAudio("x") if end == "error" else None
    assert conforms(document, await post(client, stream="true"))


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidParameter("x", "y"),
        errors.UnknownAudioFormat("x"),
        errors.ModelNotFound("x", "y"),
        errors.AudioTooLong(9.0, 5.0),
        errors.Overloaded(3.0),
        errors.RecognitionFailed("x"),
        errors.StorageFull(3.0),
        errors.DeadlineExceeded(3.0),
        RuntimeError("x"),
    ],
    ids=repr,
)
async def test_errors_are_as_documented(
    client: httpx.AsyncClient, service: FakeService, document: dict[str, Any], error: Exception
) -> None:
    service.events, service.error = [], error
    assert conforms(document, await post(client))


async def test_other_routes_are_as_documented(
    client: httpx.AsyncClient, service: FakeService, document: dict[str, Any]
) -> None:
    for path in ("/v1/models", "/healthz", "/readyz"):
        assert conforms(document, await client.get(path), path)
    (described,) = [path for path in document["paths"] if path.startswith("/v1/models/")]
    assert conforms(document, await client.get("/v1/models/whisper-1"), described)
    assert conforms(document, await client.get("/v1/models/other"), described)
    service.not_ready = errors.NotReady("asr")
    assert conforms(document, await client.get("/readyz"), "/readyz")


async def test_unexpected_error_outside_of_routes_has_the_same_body(
    client: httpx.AsyncClient, service: FakeService, document: dict[str, Any]
) -> None:
    service.not_ready = RuntimeError("secret")
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    # The server logs what the answer does not say.
    transport.raise_app_exceptions = False
    answer = await client.get("/readyz")
    assert answer.status_code == 500
    assert conforms(document, answer, "/readyz")
    assert "secret" not in answer.text
