"""The OpenAPI document says what the routes of jobs, uploads and usage do."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema
import pytest

from serve_app.api.methods import allowed_methods
from serve_app.api.resumable import PART_TYPE
from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs.records import JobError
from tests.api.job_client import JobApi, job_api
from tests.api.test_openapi import closed, conforms, document_with_jobs
from tests.api.test_response_headers import NOT_DESCRIBED
from tests.api.test_resumable import RECORDING, TUS

__all__ = ["document_with_jobs"]

JOB = "/v1/jobs/{job_id}"
UPLOAD = "/v1/uploads/{upload_id}"


def check(
    document: dict[str, Any], response: httpx.Response, path: str, method: str = "get"
) -> None:
    """Fails unless body and headers are as documented."""
    described = document["paths"][path][method]["responses"][str(response.status_code)]
    if "content" in described:
        assert conforms(document, response, path, method), response.text
    else:
        assert not response.content
    headers = {name.lower(): header for name, header in described["headers"].items()}
    sent = {name: value for name, value in response.headers.items() if name not in NOT_DESCRIBED}
    assert set(sent) <= set(headers)
    assert {name for name, header in headers.items() if header["required"]} <= set(sent)
    for name, value in sent.items():
        schema = headers[name]["schema"]
        jsonschema.validate(int(value) if schema["type"] == "integer" else value, schema)


async def test_jobs_in_every_state_are_as_documented(
    jobs: JobApi, document_with_jobs: dict[str, Any]
) -> None:
    document = document_with_jobs
    fields: dict[str, Any] = {
        "webhook_url": "https://example.com/",
        "user": "x",
        "language": "?!",
        "metadata[a]": "b",
    }
    made = await jobs.create(**fields)
    check(document, made, "/v1/jobs", "post")
    check(document, await jobs.create(model="other"), "/v1/jobs", "post")
    first = made.json()["id"]
    check(document, await jobs.client.get(f"/v1/jobs/{first}/result"), f"{JOB}/result")
    await jobs.complete()
    check(document, await jobs.client.post(f"/v1/jobs/{first}/webhook"), f"{JOB}/webhook", "post")
    check(document, await jobs.client.get(f"/v1/jobs/{first}"), JOB)
    second = await jobs.created()
    await jobs.store.fail(await jobs.lease(), JobError("x", "y"))
    check(document, await jobs.client.get(f"/v1/jobs/{second}"), JOB)
    check(document, await jobs.client.get(f"/v1/jobs/{second}/result"), f"{JOB}/result")
    third = await jobs.created()
    check(document, await jobs.client.post(f"/v1/jobs/{third}/cancel"), f"{JOB}/cancel", "post")
    check(document, await jobs.client.get("/v1/jobs"), "/v1/jobs")
    check(document, await jobs.client.get("/v1/jobs?limit=0"), "/v1/jobs")
    check(document, await jobs.client.delete(f"/v1/jobs/{third}"), JOB, "delete")
    check(document, await jobs.client.delete(f"/v1/jobs/{third}"), JOB, "delete")
    check(document, await jobs.client.put(f"/v1/jobs/{third}"), JOB, "delete")


@pytest.mark.parametrize("response_format", ["json", "text", "verbose_json", "srt", "vtt"])
async def test_results_are_as_documented(
    jobs: JobApi, document_with_jobs: dict[str, Any], response_format: str
) -> None:
    job_id = await jobs.created()
    await jobs.complete()
    response = await jobs.client.get(
        f"/v1/jobs/{job_id}/result", params={"response_format": response_format}
    )
    check(document_with_jobs, response, f"{JOB}/result")


async def test_events_are_as_documented(jobs: JobApi, document_with_jobs: dict[str, Any]) -> None:
    job_id = await jobs.created()
    await jobs.complete()
    response = await jobs.client.get(f"/v1/jobs/{job_id}/events")
    described = document_with_jobs["paths"][f"{JOB}/events"]["get"]["responses"]["200"]
    assert set(response.headers) - NOT_DESCRIBED <= {name.lower() for name in described["headers"]}
    lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
    schema = {"$ref": "#/components/schemas/Job"}
    whole = {**schema, "components": closed(document_with_jobs["components"])}
    for line in lines:
        jsonschema.Draft202012Validator(whole).validate(json.loads(line.removeprefix("data: ")))


async def test_uploads_are_as_documented(jobs: JobApi, document_with_jobs: dict[str, Any]) -> None:
    document, client = document_with_jobs, jobs.client
    check(document, await client.options("/v1/uploads"), "/v1/uploads", "options")
    headers = {**TUS, "Upload-Length": str(len(RECORDING)), "Upload-Metadata": "a YQ=="}
    made = await client.post("/v1/uploads", headers=headers)
    check(document, made, "/v1/uploads", "post")
    check(document, await client.post("/v1/uploads", headers=TUS), "/v1/uploads", "post")
    path = made.headers["location"]
    check(document, await client.get(path), UPLOAD)
    part = {**TUS, "Content-Type": PART_TYPE, "Upload-Offset": "0"}
    check(document, await client.patch(path, content=b"R", headers=part), UPLOAD, "patch")
    check(document, await client.patch(path, content=b"R", headers=part), UPLOAD, "patch")
    for wrong in ({"Content-Type": "x/y"}, {"Tus-Resumable": "9"}):
        answer = await client.patch(path, content=b"R", headers=part | wrong)
        check(document, answer, UPLOAD, "patch")
    check(document, await client.delete(path, headers=TUS), UPLOAD, "delete")
    check(document, await client.delete(path, headers=TUS), UPLOAD, "delete")


async def test_usage_and_quota_are_as_documented(
    jobs: JobApi, document_with_jobs: dict[str, Any]
) -> None:
    jobs.meter.count("a", "request", 10.0)
    jobs.limit_a(5.0)
    check(document_with_jobs, await jobs.client.get("/v1/usage"), "/v1/usage")
    check(document_with_jobs, await jobs.create(), "/v1/jobs", "post")
    jobs.store.fault = StoreUnavailable()
    check(document_with_jobs, await jobs.client.get("/v1/usage"), "/v1/usage")


async def test_allowed_methods_are_those_of_the_routes(jobs: JobApi) -> None:
    methods: dict[str, set[str]] = {}
    for route in jobs.app.routes:
        path, of_route = getattr(route, "path", ""), getattr(route, "methods", None) or set()
        methods.setdefault(path, set()).update(of_route)
    for path, found in methods.items():
        if "GET" in found:
            found.add("HEAD")
        if path == UPLOAD:
            # It only does what X-HTTP-Method-Override says.
            found.remove("POST")
        shown = path.replace("{name:path}", "a/b").replace("{", "").replace("}", "")
        assert set(allowed_methods(shown).split(", ")) == found, path


@pytest.mark.parametrize("method", ["PUT", "TRACE", "FOO"])
async def test_refused_method_names_those_of_the_path(jobs: JobApi, method: str) -> None:
    for path, allowed in (
        ("/v1/jobs", "GET, HEAD, POST"),
        ("/v1/jobs/", "GET, HEAD, POST"),
        ("/v1/jobs/job_x", "DELETE, GET, HEAD"),
        ("/v1/jobs/job_x/cancel", "POST"),
        ("/v1/uploads", "OPTIONS, POST"),
        ("/v1/audio/transcriptions", "POST"),
        ("/healthz", "GET, HEAD"),
    ):
        response = await jobs.client.request(method, path)
        assert (response.status_code, response.headers["allow"]) == (405, allowed), path


async def test_web_pages_may_use_jobs_and_uploads(tmp_path: Any) -> None:
    origin = "https://app.example.com"
    async with job_api(tmp_path, origins=(origin,)) as jobs:
        for method, path in (("DELETE", "/v1/jobs/job_x"), ("PATCH", "/v1/uploads/upl_x")):
            preflight = await jobs.client.options(
                path,
                headers={
                    "Origin": origin,
                    "Access-Control-Request-Method": method,
                    "Access-Control-Request-Headers": "tus-resumable, idempotency-key",
                },
            )
            assert preflight.status_code == 200
        made = await jobs.create(headers={"Origin": origin})
        exposed = made.headers["access-control-expose-headers"].lower().split(", ")
        assert {
            "location", "upload-offset", "upload-length", "upload-expires", "upload-metadata",
            "tus-resumable", "tus-version", "tus-extension", "tus-max-size", "x-should-retry",
            "retry-after",
        } <= set(exposed)  # fmt: skip
        options = await jobs.client.options("/v1/uploads", headers={"Origin": origin})
        assert options.headers["tus-version"] == "1.0.0"
