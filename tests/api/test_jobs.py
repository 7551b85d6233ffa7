"""Jobs are shown, canceled and removed by the key that they belong to, and by no other."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from serve_app.api.parameters import ResponseFormat
from serve_app.core.job_errors import StoreUnavailable
from serve_app.core.speakers import Diarization, SpeakerTurn
from serve_app.jobs.records import JobError
from serve_app.transcript.transcript import FailedRange, Transcript
from tests.api.job_client import TRANSCRIPT, JobApi
from tests.api.test_transcription import error_of
from tests.fakes.service import SPANS, sentence

ROUTES = (
    ("GET", ""),
    ("HEAD", ""),
    ("DELETE", ""),
    ("GET", "/result"),
    ("GET", "/events"),
    ("POST", "/cancel"),
    ("POST", "/webhook"),
)


async def test_job_is_shown_with_its_position(jobs: JobApi) -> None:
    await jobs.created()
    job_id = await jobs.created()
    body = (await jobs.client.get(f"/v1/jobs/{job_id}")).json()
    assert (body["id"], body["position"], body["error"]) == (job_id, 1, None)
    assert body["progress"] == {"audio_s": 0, "total_audio_s": 1.0, "percent": 0.0}


@pytest.mark.parametrize(("method", "rest"), ROUTES)
@pytest.mark.parametrize("whose", ["b", "nobody"])
async def test_job_of_another_key_is_not_found(
    jobs: JobApi, method: str, rest: str, whose: str
) -> None:
    job_id = await jobs.created() if whose == "b" else "job_" + "a" * 24
    response = await jobs.client.request(method, f"/v1/jobs/{job_id}{rest}", headers=jobs.as_b)
    assert response.status_code == 404
    if method != "HEAD":
        assert error_of(response)["code"] == "job_not_found"
    assert len((await jobs.store.list("a")).jobs) == (whose == "b")


@pytest.mark.parametrize(
    "job_id",
    ["..", "%2e%2e", "..%2f..%2fetc", "job_", "job_a.b", "upl_" + "a" * 24, "x" * 3000, "%00",
     "job_" + "%F0%9F%99%82" * 8, "job_" + "a" * 24 + "%0A", "job_" + "٣" * 24],
)  # fmt: skip
@pytest.mark.parametrize(("method", "rest"), ROUTES)
async def test_odd_ids_are_not_found(jobs: JobApi, job_id: str, method: str, rest: str) -> None:
    jobs.store.fault = RuntimeError("it is not asked for such ids")
    response = await jobs.client.request(method, f"/v1/jobs/{job_id}{rest}")
    assert response.status_code in {400, 404, 405}


async def test_all_need_a_key(jobs: JobApi) -> None:
    for method, path in (("POST", ""), ("GET", ""), ("GET", "/x"), ("GET", "/x/events")):
        response = await jobs.client.request(
            method, f"/v1/jobs{path}", headers={"Authorization": ""}
        )
        assert response.status_code == 401


class TestList:
    async def test_pages_have_all_jobs_once_the_newest_first(self, jobs: JobApi) -> None:
        created = [await jobs.created() for _ in range(5)]
        await jobs.create(headers=jobs.as_b)
        found: list[str] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            page = (await jobs.client.get("/v1/jobs", params=query)).json()
            assert page["object"] == "list"
            found += [job["id"] for job in page["data"]]
            assert (page["first_id"], page["last_id"]) == (found[-len(page["data"])], found[-1])
            if not page["has_more"]:
                break
            query["after"] = page["last_id"]
        assert found == created[::-1]

    async def test_status_chooses(self, jobs: JobApi) -> None:
        first = await jobs.created()
        second = await jobs.created()
        await jobs.complete()
        for query, expected in (
            ("status=queued", [second]),
            ("status=completed", [first]),
            ("status=completed,queued", [second, first]),
            ("status=completed&status=queued", [second, first]),
            ("status[]=failed", []),
            ("status=", [second, first]),
        ):
            page = (await jobs.client.get(f"/v1/jobs?{query}")).json()
            assert [job["id"] for job in page["data"]] == expected, query

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ("status=done", "status"),
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=1e1", "limit"),
            ("limit=٣", "limit"),
            ("limit=1&limit=2", "limit"),
            ("page=2", "page"),
        ],
    )
    async def test_wrong_query_is_refused(self, jobs: JobApi, query: str, param: str) -> None:
        response = await jobs.client.get(f"/v1/jobs?{query}")
        assert (response.status_code, error_of(response)["param"]) == (400, param)

    async def test_unknown_cursor_is_not_found(self, jobs: JobApi) -> None:
        job_id = await jobs.created()
        for after, headers in (("x", {}), ("job_" + "a" * 24, {}), (job_id, jobs.as_b)):
            response = await jobs.client.get(f"/v1/jobs?after={after}", headers=headers)
            assert (response.status_code, error_of(response)["code"]) == (404, "job_not_found")

    async def test_empty_list(self, jobs: JobApi) -> None:
        page = (await jobs.client.get("/v1/jobs")).json()
        assert page == {
            "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False
        }  # fmt: skip


class TestResult:
    @pytest.mark.parametrize("response_format", get_args(ResponseFormat))
    async def test_formats_are_as_the_synchronous_ones(
        self, jobs: JobApi, response_format: str
    ) -> None:
        labelled = Diarization((SpeakerTurn(0, 900, 0), SpeakerTurn(900, 2000, 1)), ("A", "B"))
        transcript = Transcript(
            2000,
            (sentence("你好", 0), sentence("再见", 1000)),
            (FailedRange(1500, 1600, "engine_error: x"),),
            SPANS,
            ("A remark.",),
            labelled,
        )
        job_id = await jobs.created(speaker_labels="true")
        await jobs.complete(transcript)
        response = await jobs.client.get(
            f"/v1/jobs/{job_id}/result", params={"response_format": response_format}
        )
        assert response.status_code == 200
        jobs.service.events = [*transcript.sentences, *transcript.failures]
        jobs.service.end = type(jobs.service.end)(
            2000, SPANS, notices=("A remark.",), diarization=labelled
        )
        labels = {} if response_format in {"json", "text"} else {"speaker_labels": "true"}
        direct = await jobs.client.post(
            "/v1/audio/transcriptions",
            data={"model": "whisper-1", "response_format": response_format, **labels},
            files={"file": ("a.wav", b"RIFF")},
        )
        assert response.content == direct.content
        for name in ("content-type", "x-paraserve-partial", "x-paraserve-warning"):
            assert response.headers[name] == direct.headers[name]

    async def test_format_of_the_job_is_the_default(self, jobs: JobApi) -> None:
        job_id = await jobs.created(response_format="vtt", subtitle_max_chars="10")
        await jobs.complete()
        response = await jobs.client.get(f"/v1/jobs/{job_id}/result")
        assert response.text.startswith("WEBVTT")
        words = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
        body = (await jobs.client.get(f"/v1/jobs/{job_id}/result", params=words)).json()
        assert [word["word"] for word in body["words"]] == ["你", "好", "再", "见"]

    async def test_head_has_the_headers_alone(self, jobs: JobApi) -> None:
        job_id = await jobs.created(response_format="text")
        await jobs.complete()
        response = await jobs.client.head(f"/v1/jobs/{job_id}/result")
        assert (response.status_code, response.content) == (200, b"")

    @pytest.mark.parametrize(
        "query", ["language=en", "x=1", "response_format=docx", "response_format=diarized_json"]
    )
    async def test_other_fields_are_refused(self, jobs: JobApi, query: str) -> None:
        job_id = await jobs.created()
        await jobs.complete()
        response = await jobs.client.get(f"/v1/jobs/{job_id}/result?{query}")
        assert response.status_code == 400
        assert error_of(response)["param"] == query.partition("=")[0]

    async def test_job_that_is_not_finished_has_none(self, jobs: JobApi) -> None:
        job_id = await jobs.created()
        for status in ("queued", "running"):
            response = await jobs.client.get(f"/v1/jobs/{job_id}/result")
            assert (response.status_code, error_of(response)["code"]) == (409, "job_not_finished")
            assert status in error_of(response)["message"]
            if status == "queued":
                await jobs.lease()

    async def test_failed_job_has_its_error_instead(self, jobs: JobApi) -> None:
        job_id = await jobs.created()
        await jobs.store.fail(await jobs.lease(), JobError("corrupt_audio", "bad frame", "file"))
        response = await jobs.client.get(f"/v1/jobs/{job_id}/result")
        assert (response.status_code, error_of(response)["code"]) == (409, "job_without_result")
        assert "corrupt_audio" in error_of(response)["message"]
        body = (await jobs.client.get(f"/v1/jobs/{job_id}")).json()
        assert body["error"] == {"message": "bad frame", "code": "corrupt_audio", "param": "file"}

    async def test_canceled_job_has_none(self, jobs: JobApi) -> None:
        job_id = await jobs.created()
        await jobs.client.post(f"/v1/jobs/{job_id}/cancel")
        response = await jobs.client.get(f"/v1/jobs/{job_id}/result")
        assert (response.status_code, error_of(response)["code"]) == (409, "job_without_result")

    async def test_result_outlives_its_model(self, jobs: JobApi) -> None:
        job_id = await jobs.created(language="zh", stages="vad,asr")
        await jobs.complete()
        jobs.service.languages, jobs.service.stages = ("en",), ("asr",)
        jobs.service.changed = {"model": "new", "model_aliases": ()}
        response = await jobs.client.get(
            f"/v1/jobs/{job_id}/result", params={"response_format": "verbose_json"}
        )
        assert response.json()["language"] == "zh"

    async def test_removed_file_is_a_job_that_is_gone(self, jobs: JobApi) -> None:
        job_id = await jobs.created()
        await jobs.complete()
        await jobs.files.delete_all(job_id)
        response = await jobs.client.get(f"/v1/jobs/{job_id}/result")
        assert error_of(response)["code"] == "job_not_found"


class TestEnds:
    async def test_canceled_job_ends_once(self, jobs: JobApi) -> None:
        job_id = await jobs.created()
        for _ in range(2):
            response = await jobs.client.post(f"/v1/jobs/{job_id}/cancel", json={"why": "x"})
            assert (response.status_code, response.json()["status"]) == (200, "cancelled")

    async def test_completed_job_stays_so(self, jobs: JobApi) -> None:
        job_id = await jobs.created()
        await jobs.complete()
        response = await jobs.client.post(f"/v1/jobs/{job_id}/cancel")
        assert response.json()["status"] == "completed"

    @pytest.mark.parametrize("state", ["queued", "running", "completed"])
    async def test_deleted_job_is_gone_with_its_files(self, jobs: JobApi, state: str) -> None:
        job_id = await jobs.created()
        lease = await jobs.lease() if state == "running" else None
        if state == "completed":
            await jobs.complete()
        response = await jobs.client.delete(f"/v1/jobs/{job_id}")
        assert response.json() == {"id": job_id, "object": "transcription.job", "deleted": True}
        assert not jobs.files.contents
        assert (await jobs.client.get(f"/v1/jobs/{job_id}")).status_code == 404
        assert (await jobs.client.delete(f"/v1/jobs/{job_id}")).status_code == 404
        if lease is not None:
            assert not await jobs.store.complete(lease, "x", 1.0)

    async def test_deletion_that_failed_can_be_repeated(self, jobs: JobApi) -> None:
        job_id = await jobs.created()
        jobs.files.fault = StoreUnavailable()
        assert (await jobs.client.delete(f"/v1/jobs/{job_id}")).status_code == 503
        jobs.files.fault = None
        assert (await jobs.client.delete(f"/v1/jobs/{job_id}")).status_code == 200
        assert not jobs.files.contents

    async def test_webhook_is_sent_again_after_the_end(self, jobs: JobApi) -> None:
        job_id = await jobs.created(webhook_url="https://example.com/")
        early = await jobs.client.post(f"/v1/jobs/{job_id}/webhook")
        assert (early.status_code, error_of(early)["code"]) == (409, "no_webhook")
        await jobs.complete()
        again = await jobs.client.post(f"/v1/jobs/{job_id}/webhook")
        assert again.json()["webhook"] == {
            "url": "https://example.com/", "status": "pending", "num_attempts": 0
        }  # fmt: skip

    async def test_job_without_a_webhook_has_none_to_send(self, jobs: JobApi) -> None:
        job_id = await jobs.created()
        await jobs.complete(TRANSCRIPT)
        assert (await jobs.client.post(f"/v1/jobs/{job_id}/webhook")).status_code == 409


async def test_outage_of_the_store_is_a_503(jobs: JobApi) -> None:
    job_id = await jobs.created()
    jobs.store.fault = StoreUnavailable()
    for method, path in (("GET", ""), ("GET", f"/{job_id}"), ("POST", f"/{job_id}/cancel")):
        response = await jobs.client.request(method, f"/v1/jobs{path}")
        assert (response.status_code, error_of(response)["code"]) == (503, "job_store_unavailable")


async def test_routes_are_unknown_without_jobs(client: Any) -> None:
    for path in ("/v1/jobs", "/v1/jobs/job_x", "/v1/uploads", "/v1/usage"):
        response = await client.get(path)
        assert (response.status_code, error_of(response)["code"]) == (404, "not_found")
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert not [path for path in paths if "job" in path or "upload" in path or "usage" in path]
