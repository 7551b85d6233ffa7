"""Jobs are created of uploads, and nothing is stored of a request that is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve_app.api.job_fields import MAX_KEY_CHARS, MAX_VALUE_CHARS
from serve_app.api.job_requests import read_job_request
from serve_app.api.limits import ApiLimits
from serve_app.api.spool import SpoolFile
from serve_app.core.errors import StorageFull, UrlFetchFailed
from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs.records import JobLimits
from serve_app.scheduling.admission import Limits
from tests.api.job_client import MAX_UPLOAD_BYTES, JobApi, job_api, wav
from tests.api.test_transcription import error_of
from tests.waiting import LIMIT_S


async def test_job_is_stored_with_its_recording_and_fields(jobs: JobApi) -> None:
    fields: dict[str, Any] = {
        "response_format": "srt",
        "metadata[case]": "7",
        "metadata": '{"名": "值"}',
        "priority": "high",
        "expires_after": "60",
        "webhook_url": "https://example.com/hook",
        "hotwords": "阿里",
    }
    response = await jobs.create(headers={"X-Request-ID": "req-1"}, **fields)
    assert response.status_code == 202
    body = response.json()
    job_id = body["id"]
    assert response.headers["location"] == f"/v1/jobs/{job_id}"
    assert body["object"] == "transcription.job"
    assert (body["status"], body["priority"], body["position"]) == ("queued", "high", 0)
    assert body["metadata"] == {"case": "7", "名": "值"}
    assert body["expires_at"] - body["created_at"] in (59, 60)
    assert body["webhook"]["url"] == "https://example.com/hook"
    assert jobs.files.contents[f"{job_id}/audio"] == wav()
    request = read_job_request(jobs.files.contents[f"{job_id}/request.json"])
    assert request.fields == {
        "model": ("whisper-1",),
        "response_format": ("srt",),
        "hotwords": ("阿里",),
    }
    assert request.audio == (f"{job_id}/audio",)
    job = await jobs.store.get("a", job_id)
    assert (job.key, job.request_id, job.audio_bytes) == ("a", "req-1", len(wav()))
    assert job.audio_s == pytest.approx(1.0)


async def test_separate_channels_count_each(jobs: JobApi) -> None:
    job_id = await jobs.created(channels="separate")
    assert (await jobs.store.get("a", job_id)).audio_s == pytest.approx(1.0)


WRONG: list[tuple[dict[str, Any], str, str | None]] = [
    ({"model": "other"}, "model_not_found", "model"),
    ({"response_format": "docx"}, "invalid_parameter", "response_format"),
    ({"respnse_format": "json"}, "invalid_parameter", "respnse_format"),
    ({"stream": "true"}, "invalid_parameter", "stream"),
    ({"webhook_ur": "https://example.com"}, "invalid_parameter", "webhook_ur"),
    ({"webhook_url": "http://example.com"}, "invalid_parameter", "webhook_url"),
    ({"webhook_url": ["https://a.net", "https://b.net"]}, "invalid_parameter", "webhook_url"),
    ({"metadata": "[]"}, "invalid_parameter", "metadata"),
    ({"metadata": '{"a": 1}'}, "invalid_parameter", "metadata"),
    ({"metadata": "{"}, "invalid_parameter", "metadata"),
    ({"metadata": '{"a": "\\ud800"}'}, "invalid_parameter", "metadata"),
    ({"metadata": '{"a": "\\u0000"}'}, "invalid_parameter", "metadata"),
    ({"metadata": '{"\\n": "x"}'}, "invalid_parameter", "metadata"),
    ({"metadata": "[" * 20_000}, "invalid_parameter", "metadata"),
    ({"metadata": '{"a": "x"}', "metadata[a]": "y"}, "invalid_parameter", "metadata"),
    ({"metadata[]": "x"}, "invalid_parameter", "metadata"),
    ({"metadata[a]": "x" * (MAX_VALUE_CHARS + 1)}, "invalid_parameter", "metadata"),
    ({f"metadata[{'k' * (MAX_KEY_CHARS + 1)}]": "x"}, "invalid_parameter", "metadata"),
    ({f"metadata[{n}]": "x" for n in range(17)}, "invalid_parameter", "metadata"),
    ({"metadata": json.dumps({"a": "x" * 70_000})}, "invalid_parameter", "metadata"),
    ({f"field{n}": "x" for n in range(400)}, "malformed_body", None),
    ({"priority": "urgent"}, "invalid_parameter", "priority"),
    ({"priority": ["low", "high"]}, "invalid_parameter", "priority"),
    ({"expires_after": "0"}, "invalid_parameter", "expires_after"),
    ({"expires_after": "nan"}, "invalid_parameter", "expires_after"),
    ({"expires_after": "1e99"}, "invalid_parameter", "expires_after"),
    ({"upload_id": "upl_aaaaaaaaaaaaaaaaaaaaaaaa"}, "invalid_parameter", "upload_id"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "param"), WRONG)
async def test_wrong_request_stores_nothing(
    jobs: JobApi, fields: dict[str, Any], code: str, param: str | None
) -> None:
    response = await jobs.create(**fields)
    assert response.status_code == (404 if code == "model_not_found" else 400)
    assert (error_of(response)["code"], error_of(response)["param"]) == (code, param)
    assert not jobs.files.contents
    assert not (await jobs.store.list("a")).jobs


async def test_key_without_a_webhook_secret_may_name_no_webhook(jobs: JobApi) -> None:
    response = await jobs.create(headers=jobs.as_b, webhook_url="https://example.com")
    assert response.status_code == 400
    assert "secret" in error_of(response)["message"]
    assert not jobs.files.contents


@pytest.mark.parametrize(
    ("content", "code", "status"),
    [
        (b"", "empty_file", 400),
        (b"x" * 5_000, "unknown_audio_format", 400),
        (bytes(MAX_UPLOAD_BYTES + 1), "upload_too_large", 413),
    ],
)
async def test_unusable_recording_stores_nothing(
    jobs: JobApi, content: bytes, code: str, status: int
) -> None:
    response = await jobs.create(content)
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert not jobs.files.contents


async def test_body_of_another_type_is_refused(jobs: JobApi) -> None:
    for kind, content in (("text/plain", b"x"), ("application/json", b"["), ("audio/wav", wav())):
        response = await jobs.client.post(
            "/v1/jobs", content=content, headers={"Content-Type": kind}
        )
        assert response.status_code == 400
        assert error_of(response)["code"] == "malformed_body"
    response = await jobs.client.post("/v1/jobs", json={"model": "whisper-1"})
    assert error_of(response)["param"] == "file"


async def test_ignored_fields_are_named(jobs: JobApi) -> None:
    response = await jobs.create(user="x", language="?!")
    assert response.status_code == 202
    assert response.headers["x-paraserve-ignored-fields"] == "user"
    assert "language" in response.headers["x-paraserve-warnings"]


async def test_fields_may_be_in_the_query(jobs: JobApi) -> None:
    response = await jobs.client.post(
        "/v1/jobs?model=whisper-1&priority=low", files={"file": ("a.wav", wav())}
    )
    assert response.json()["priority"] == "low"


class OneRecording:
    """Fetches the same recording from everywhere, or refuses."""

    max_bytes = MAX_UPLOAD_BYTES

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def fetch(self, url: str, spool: SpoolFile) -> None:
        if self.error is not None:
            raise self.error
        spool.write(wav())


async def test_recording_is_fetched_from_a_url(tmp_path: Path) -> None:
    fetcher = OneRecording()
    async with job_api(tmp_path, fetcher=fetcher) as jobs:
        fields = {
            "model": "whisper-1",
            "audio_url": "https://example.com/a.wav",
            "metadata": {"a": "b"},
            "expires_after": 60,
        }
        made = await jobs.client.post("/v1/jobs", json=fields)
        assert made.status_code == 202
        assert made.json()["metadata"] == {"a": "b"}
        job_id = made.json()["id"]
        assert jobs.files.contents[f"{job_id}/audio"] == wav()
        assert (
            "audio_url"
            not in read_job_request(jobs.files.contents[f"{job_id}/request.json"]).fields
        )
        fetcher.error = UrlFetchFailed("its host does not answer")
        refused = await jobs.client.post("/v1/jobs", json=fields)
        assert (refused.status_code, error_of(refused)["param"]) == (400, "audio_url")
        both = await jobs.client.post("/v1/jobs", json=fields | {"upload_id": "upl_" + "a" * 24})
        assert (both.status_code, error_of(both)["param"]) == (400, "upload_id")


async def test_json_with_too_many_fields_is_refused(jobs: JobApi) -> None:
    for count, code in ((10_000, "malformed_body"), (300, "malformed_body")):
        response = await jobs.client.post("/v1/jobs", json={f"f{n}": 1 for n in range(count)})
        assert (response.status_code, error_of(response)["code"]) == (400, code)


class TestIdempotency:
    async def test_repeated_request_returns_the_same_job(self, jobs: JobApi) -> None:
        headers = {"Idempotency-Key": "order 7"}
        first = await jobs.create(headers=headers, priority="low")
        again = await jobs.create(headers=headers, priority="low")
        assert again.status_code == 202
        assert again.json()["id"] == first.json()["id"]
        await drained(jobs)
        assert {name.split("/")[0] for name in jobs.files.contents} == {first.json()["id"]}

    @pytest.mark.parametrize(
        "change", [{"priority": "high"}, {"language": "zh"}, {"metadata[a]": "b"}]
    )
    async def test_other_fields_are_a_conflict(self, jobs: JobApi, change: dict[str, Any]) -> None:
        headers = {"Idempotency-Key": "k"}
        first = await jobs.create(headers=headers)
        other = await jobs.create(headers=headers, **change)
        assert other.status_code == 409
        assert error_of(other)["code"] == "idempotency_conflict"
        await drained(jobs)
        assert {name.split("/")[0] for name in jobs.files.contents} == {first.json()["id"]}

    async def test_another_recording_is_a_conflict(self, jobs: JobApi) -> None:
        headers = {"Idempotency-Key": "k"}
        assert (await jobs.create(headers=headers)).status_code == 202
        assert (await jobs.create(wav(1.1), headers=headers)).status_code == 409

    async def test_keys_do_not_share_names(self, jobs: JobApi) -> None:
        first = await jobs.create(headers={"Idempotency-Key": "k"})
        other = await jobs.create(wav(1.1), headers={"Idempotency-Key": "k", **jobs.as_b})
        assert other.status_code == 202
        assert other.json()["id"] != first.json()["id"]

    async def test_simultaneous_requests_make_one_job(self, jobs: JobApi) -> None:
        headers = {"Idempotency-Key": "k"}
        answers = await asyncio.gather(*(jobs.create(headers=headers) for _ in range(8)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert len((await jobs.store.list("a")).jobs) == 1

    @pytest.mark.parametrize("value", ["", " ", "x" * 256, "ключ".encode().decode("latin-1")])
    async def test_odd_name_is_refused(self, jobs: JobApi, value: str) -> None:
        response = await jobs.create(headers={"Idempotency-Key": value.encode("latin-1")})  # type: ignore[dict-item]  # httpx takes bytes
        assert response.status_code == 400
        assert error_of(response)["param"] == "Idempotency-Key"
        assert not jobs.files.contents


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - conditions of many kinds
            await asyncio.sleep(0.001)


async def drained(jobs: JobApi) -> None:
    """Lets the removal of files that nobody needs happen."""
    for _ in range(20):
        await asyncio.sleep(0)


class TestFailures:
    async def test_outage_of_the_files_is_a_503(self, jobs: JobApi) -> None:
        jobs.files.fault = StoreUnavailable()
        response = await jobs.create()
        assert response.status_code == 503
        assert error_of(response)["code"] == "job_store_unavailable"
        assert response.headers["retry-after"]
        assert not (await jobs.store.list("a")).jobs

    async def test_full_storage_is_a_503(self, jobs: JobApi) -> None:
        jobs.files.fault = StorageFull(30.0)
        response = await jobs.create()
        assert (response.status_code, error_of(response)["code"]) == (503, "storage_full")

    async def test_files_stay_where_the_store_may_have_the_row(self, jobs: JobApi) -> None:
        jobs.store.fault = StoreUnavailable()
        response = await jobs.create()
        assert response.status_code == 503
        await drained(jobs)
        assert {name.split("/")[1] for name in jobs.files.contents} == {"audio", "request.json"}

    async def test_full_queue_is_a_429_and_leaves_no_files(self, tmp_path: Path) -> None:
        async with job_api(tmp_path, job_limits=JobLimits(max_queued=1)) as jobs:
            first = await jobs.created()
            response = await jobs.create()
            assert (response.status_code, error_of(response)["code"]) == (429, "job_queue_full")
            await drained(jobs)
            assert {name.split("/")[0] for name in jobs.files.contents} == {first}

    async def test_unexpected_failure_is_a_500_without_details(self, jobs: JobApi) -> None:
        jobs.store.fault = RuntimeError("secret")
        response = await jobs.create()
        assert response.status_code == 500
        assert "secret" not in response.text


class TestAdmission:
    async def test_job_takes_no_slot_of_requests(self, tmp_path: Path) -> None:
        limits = replace(
            ApiLimits(MAX_UPLOAD_BYTES, request_timeout_s=30, spool_dir=tmp_path),
            in_flight=Limits(max_running=1, max_waiting=0, max_bytes=10 * MAX_UPLOAD_BYTES),
        )
        async with job_api(tmp_path, limits=limits) as jobs:
            jobs.service.until = asyncio.Event()
            running = asyncio.create_task(transcribe(jobs))
            await until(lambda: jobs.service.uploads)
            assert (await transcribe(jobs)).status_code == 429
            assert (await jobs.create()).status_code == 202
            jobs.service.until.set()
            assert (await running).status_code == 200

    async def test_bytes_of_jobs_are_bounded_and_free_again(self, tmp_path: Path) -> None:
        limits = replace(
            ApiLimits(MAX_UPLOAD_BYTES, request_timeout_s=30, spool_dir=tmp_path),
            in_flight=Limits(max_bytes=20_000),
        )
        async with job_api(tmp_path, limits=limits) as jobs:
            response = await jobs.create()
            assert response.status_code == 413
            for _ in range(5):
                assert (await jobs.create(wav(0.4))).status_code == 202


async def transcribe(jobs: JobApi) -> Any:
    return await jobs.client.post(
        "/v1/audio/transcriptions", data={"model": "whisper-1"}, files={"file": ("a", b"RIFF")}
    )
