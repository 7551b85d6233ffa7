from __future__ import annotations

import io
import random
from pathlib import Path

import httpx
import pytest

from serve_app.client import (
    AsyncParaserve,
    Job,
    Paraserve,
    Rendered,
    ServiceRefusal,
    ServiceUnreachable,
    Transcription,
    TranscriptionRequest,
)
from serve_app.client import jobs as jobs_module
from serve_app.client import uploads as uploads_module
from tests.cli.scripted_service import fields_of
from tests.client.job_service import (
    RESULT,
    JobService,
    event,
    file_name,
    job_json,
    refusal,
)

CUT = httpx.ReadError("connection reset")


def client_of(service: JobService, max_retries: int = 4) -> Paraserve:
    return Paraserve("service", "", max_retries=max_retries, transport=service.transport())


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits; the clock goes on by what would have been waited."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setattr("asyncio.sleep", sleep)
    monkeypatch.setattr("serve_app.client.job_watch.time.monotonic", lambda: sum(waited))
    return waited


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "RESUMABLE_BYTES", 1000)
    monkeypatch.setattr(uploads_module, "PART_BYTES", 300)


def recording(num_bytes: int = 2000) -> bytes:
    return random.Random(7).randbytes(num_bytes)


def test_job_is_made_of_a_file_with_all_that_was_asked(tmp_path: Path) -> None:
    file = tmp_path / "会议.wav"
    file.write_bytes(b"RIFF")
    service = JobService()
    with client_of(service) as client:
        job = client.jobs.create(
            file,
            TranscriptionRequest(itn=True),
            hotwords=["云梯"],
            subtitle_max_chars=16,
            webhook_url="https://a.example/hook",
            metadata={"case": "七"},
            priority="high",
            expires_after_s=90,
        )
    assert (job.id, job.status, job.progress.percent) == ("job_1", "queued", 0.0)
    assert job.created_at.isoformat() == "2023-11-14T22:13:20+00:00"
    (body,) = service.created
    fields = fields_of(body.decode())
    assert fields == {
        "model": "paraformer-demo",
        "response_format": "verbose_json",
        "itn": "true",
        "hotwords": '["云梯"]',
        "subtitle_max_chars": "16",
        "webhook_url": "https://a.example/hook",
        "metadata": '{"case": "七"}',
        "priority": "high",
        "expires_after": "90",
        "file": "RIFF",
    }


def test_creation_whose_answer_is_lost_makes_one_job() -> None:
    service = JobService()
    client = client_of(service)

    def lose_the_answer(method: str, path: str) -> None:
        if (method, path) == ("POST", "/v1/jobs"):
            service.after_request = lambda method, path: None
            raise CUT

    service.after_request = lose_the_answer
    assert client.jobs.create(b"RIFF").id == "job_1"
    assert len(service.created) == 2
    assert set(service.jobs) == {"job_1"}


def test_idempotency_key_of_the_caller_is_sent() -> None:
    service = JobService()
    with client_of(service) as client:
        ids = {client.jobs.create(b"RIFF", idempotency_key="night-7").id for _ in range(2)}
        other = client.jobs.create(b"RIFF").id
    assert ids == {"job_1"}
    assert other == "job_2"
    assert "night-7" in service.by_key


def test_url_and_upload_take_the_place_of_a_file() -> None:
    service = JobService()
    with client_of(service) as client:
        client.jobs.create(audio_url="https://a.example/x.mp3")
        client.jobs.create(upload="upl_9")
    assert fields_of(service.created[0].decode())["audio_url"] == "https://a.example/x.mp3"
    assert fields_of(service.created[1].decode())["upload_id"] == "upl_9"


def test_job_needs_exactly_one_source() -> None:
    with client_of(JobService()) as client:
        for sources in ({}, {"audio_url": "https://a", "upload": "upl_1"}):
            with pytest.raises(ValueError, match="one of"):
                client.jobs.create(**sources)  # type: ignore[arg-type]


def test_used_up_quota_is_not_tried_again() -> None:
    service = JobService()
    refused = refusal(429, "quota_exceeded", **{"X-Should-Retry": "false", "Retry-After": "1"})
    service.faults["POST", "/v1/jobs"] = [refused]
    with client_of(service) as client, pytest.raises(ServiceRefusal) as caught:
        client.jobs.create(b"RIFF")
    assert caught.value.code == "quota_exceeded"
    assert service.requests.count(("POST", "/v1/jobs")) == 1


@pytest.mark.usefixtures("small_parts")
def test_large_file_goes_in_parts_and_the_job_takes_them(tmp_path: Path) -> None:
    file = tmp_path / "会议.wav"
    file.write_bytes(recording())
    service = JobService()
    sent: list[tuple[int, int]] = []
    with client_of(service) as client:
        client.jobs.create(file, on_sent=lambda done, total: sent.append((done, total)))
    assert service.uploads["upl_1"] == recording()
    assert fields_of(service.created[0].decode())["upload_id"] == "upl_1"
    assert sent == [(min(300 * n, 2000), 2000) for n in range(1, 8)]
    created = service.headers[service.requests.index(("POST", "/v1/uploads"))]
    assert file_name(created["Upload-Metadata"]) == "会议.wav"


@pytest.mark.usefixtures("small_parts")
def test_upload_goes_on_where_a_broken_connection_left_it() -> None:
    service = JobService()
    part = ("PATCH", "/v1/uploads/upl_1")
    service.faults[part] = [CUT, refusal(503, "not_ready"), httpx.Response(502)]
    service.faults["HEAD", "/v1/uploads/upl_1"] = [httpx.ConnectError("refused")] * 12
    lost = iter([True])

    def lose_an_answer(method: str, path: str) -> None:
        if (method, path) == part and next(lost, False):
            raise CUT  # the part is stored, but the client does not know

    service.after_request = lose_an_answer
    with client_of(service) as client:
        assert client.jobs.upload(recording()) == "upl_1"
    assert service.uploads["upl_1"] == recording()


@pytest.mark.usefixtures("small_parts")
def test_upload_of_an_earlier_process_is_continued() -> None:
    service = JobService()
    service.uploads["upl_1"] = bytearray(recording()[:700])
    with client_of(service) as client:
        client.jobs.upload(recording(), upload="upl_1")
        assert service.uploads["upl_1"] == recording()
        with pytest.raises(OSError, match="another recording"):
            client.jobs.upload(recording()[:500], upload="upl_1")


@pytest.mark.usefixtures("small_parts")
def test_upload_that_is_gone_or_refused_ends_at_once() -> None:
    service = JobService()
    with client_of(service) as client:
        with pytest.raises(ServiceRefusal, match="no upload upl_7") as caught:
            client.jobs.upload(recording(), upload="upl_7")
        assert caught.value.code == "upload_not_found"
        service.faults["POST", "/v1/uploads"] = [refusal(413, "upload_too_large")]
        with pytest.raises(ServiceRefusal, match="upload_too_large"):
            client.jobs.upload(recording())
    assert len(service.requests) == 2


@pytest.mark.usefixtures("small_parts")
def test_service_that_stays_away_ends_the_upload(pauses: list[float]) -> None:
    service = JobService()
    service.uploads["upl_1"] = bytearray()
    away = [httpx.ConnectError("refused")] * 1000
    service.faults["HEAD", "/v1/uploads/upl_1"] = [*away]
    with client_of(service) as client, pytest.raises(ServiceUnreachable, match="no service"):
        client.jobs.upload(recording(), upload="upl_1")
    assert len(pauses) == 40


def test_file_that_cannot_seek_is_sent_once() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    service = JobService()
    service.faults["POST", "/v1/jobs"] = [refusal(503, "not_ready")]
    with client_of(service) as client, pytest.raises(ServiceRefusal):
        client.jobs.create(Pipe(b"RIFF"))


def test_list_goes_over_all_pages_even_if_jobs_are_deleted_meanwhile() -> None:
    service = JobService(*(job_json(f"job_{n}") for n in range(7)))
    with client_of(service) as client:
        seen = []
        for job in client.jobs.list(("queued", "running"), page_size=3):
            client.jobs.delete(job)
            seen.append(job.id)
    assert seen == [f"job_{n}" for n in range(7)]
    assert service.jobs == {}
    assert service.queries[0]["status"] == "queued,running"


def test_events_are_read_until_the_final_state() -> None:
    service = JobService(job_json())
    states = [job_json(status=status) for status in ("queued", "running", "completed")]
    service.events = [": keep-alive\n\n".join(map(event, states))]
    with client_of(service) as client:
        assert [job.status for job in client.jobs.events("job_1")] == [
            "queued",
            "running",
            "completed",
        ]


def test_stream_of_events_that_ends_in_order_is_opened_again() -> None:
    service = JobService(job_json())
    states = [job_json(status=status) for status in ("queued", "running", "completed")]
    service.events = [event(states[0]) + event(states[1]), event(states[1]), event(states[2])]
    with client_of(service) as client:
        seen = [job.status for job in client.jobs.events("job_1")]
    assert seen == ["queued", "running", "completed"]


def test_stream_without_an_event_is_an_error() -> None:
    service = JobService(job_json(status="running"))
    service.events = [": keep-alive\n\n"]
    with client_of(service) as client, pytest.raises(ServiceUnreachable, match="at once"):
        list(client.jobs.events("job_1"))


def test_wait_follows_the_events_and_reports_progress() -> None:
    service = JobService(job_json())
    states = [job_json(status=status) for status in ("queued", "running", "completed")]
    service.events = ["".join(map(event, states))]
    seen: list[float] = []
    with client_of(service) as client:
        job = client.jobs.wait("job_1", progress=lambda job: seen.append(job.progress.percent))
    assert job.status == "completed"
    assert seen == [0.0, 50.0, 100.0]
    assert service.requests == [("GET", "/v1/jobs/job_1/events")]


def test_wait_asks_with_growing_pauses_where_events_do_not_come_through(
    pauses: list[float],
) -> None:
    service = JobService(job_json(status="running"))
    service.faults["GET", "/v1/jobs/job_1/events"] = [httpx.Response(405)]
    num_asked = 0

    def end_at_last(method: str, path: str) -> None:
        nonlocal num_asked
        num_asked += 1
        if num_asked == 8:
            service.jobs["job_1"] = job_json(status="failed")

    service.after_request = end_at_last
    with client_of(service) as client:
        assert client.jobs.wait("job_1").status == "failed"
    assert service.requests.count(("GET", "/v1/jobs/job_1/events")) == 1
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_wait_outlives_a_restart_of_the_service() -> None:
    service = JobService(job_json(status="running"))
    service.events = [event(job_json(status="running")), event(job_json(status="completed"))]
    path = "/v1/jobs/job_1"
    away: list[Exception | httpx.Response] = [
        httpx.ConnectError("refused"),
        httpx.ConnectError("refused"),
        httpx.Response(404, text="Path not found"),
        refusal(503, "not_ready", **{"Retry-After": "20"}),
    ]
    service.faults["GET", path] = [*away]

    def break_off(method: str, path: str) -> None:
        # The first stream is let through, and ends too early.
        service.faults.setdefault(("GET", "/v1/jobs/job_1/events"), [*away[:2], away[3]])

    service.after_request = break_off
    with client_of(service) as client:
        assert client.jobs.wait("job_1").status == "completed"


def test_wait_does_not_go_on_for_ever_without_a_service(pauses: list[float]) -> None:
    service = JobService()
    gone = [httpx.ConnectError("refused")] * 1000
    service.faults["GET", "/v1/jobs/job_1"] = [*gone]
    service.faults["GET", "/v1/jobs/job_1/events"] = [*gone]
    with client_of(service) as client, pytest.raises(ServiceUnreachable):
        client.jobs.wait("job_1")
    assert 60 < sum(pauses) < 120


def test_wait_for_a_job_that_is_not_there_ends_at_once(pauses: list[float]) -> None:
    with client_of(JobService()) as client, pytest.raises(ServiceRefusal) as caught:
        client.jobs.wait("job_1")
    assert caught.value.code == "job_not_found"
    assert pauses == []


def test_wait_ends_when_its_time_is_over(pauses: list[float]) -> None:
    service = JobService(job_json(status="running"))
    with client_of(service) as client, pytest.raises(TimeoutError, match="within 10 s"):
        client.jobs.wait("job_1", timeout_s=10)
    assert sum(pauses) == 10


def test_result_is_a_transcript_or_the_answer_in_a_format() -> None:
    service = JobService(job_json(status="completed"))
    with client_of(service) as client:
        transcript = client.jobs.result("job_1")
        subtitles = client.jobs.result("job_1", "srt", subtitle_max_chars=16)
    assert isinstance(transcript, Transcription)
    assert (transcript.text, transcript.body) == ("你好。", RESULT)
    assert subtitles == Rendered("你好。\n", False, ("demo",))
    assert dict(service.queries[-1]) == {"response_format": "srt", "subtitle_max_chars": "16"}


def test_result_that_is_not_there_yet_is_not_asked_for_again() -> None:
    service = JobService(job_json())
    with client_of(service) as client, pytest.raises(ServiceRefusal) as caught:
        client.jobs.result("job_1")
    assert caught.value.code == "job_not_finished"
    assert len(service.requests) == 1


def test_job_is_cancelled_and_its_webhook_delivered_again() -> None:
    hook = {"url": "https://a.example", "status": "undelivered", "num_attempts": 10}
    error = {"message": "no", "code": "internal_error", "param": None}
    service = JobService(job_json(webhook=hook, error=error))
    with client_of(service) as client:
        job = client.jobs.cancel(client.jobs.get("job_1"))
        client.jobs.deliver_webhook_again(job)
    assert job.status == "cancelled"
    assert job.webhook is not None
    assert (job.webhook.status, job.webhook.num_attempts) == ("undelivered", 10)
    assert job.error is not None
    assert job.error.code == "internal_error"
    assert service.requests[-1] == ("POST", "/v1/jobs/job_1/webhook")


def test_id_cannot_lead_to_another_path() -> None:
    service = JobService()
    with client_of(service) as client:
        with pytest.raises(ServiceRefusal):
            client.jobs.delete("../uploads/upl_1")
        for empty in ("", "..", "./"):
            with pytest.raises(ValueError, match="not the id of a job"):
                client.jobs.get(empty)
    assert service.requests == [("DELETE", "/v1/jobs/../uploads/upl_1")]
    assert service.headers


def test_something_else_is_not_taken_for_a_job() -> None:
    service = JobService()
    service.faults["GET", "/v1/jobs/job_1"] = [httpx.Response(200, json={"id": "job_1"})]
    with client_of(service) as client, pytest.raises(ServiceUnreachable, match="not Paraserve"):
        client.jobs.get("job_1")


@pytest.mark.usefixtures("small_parts")
async def test_asyncio_form_is_the_same() -> None:
    service = JobService()
    service.faults["PATCH", "/v1/uploads/upl_1"] = [CUT]
    async with AsyncParaserve("service", "", transport=service.transport()) as client:
        job: Job = await client.jobs.create(recording(), language="zh")
        assert service.uploads["upl_1"] == recording()
        assert (await client.jobs.create(b"RIFF")).id == "job_2"
        assert (await client.jobs.create(audio_url="https://a.example")).id == "job_3"
        assert [one.id async for one in client.jobs.list(page_size=2)] == list(service.jobs)
        service.events = ["", event(job_json(status="completed"))]
        service.jobs[job.id] = job_json(job.id, status="running")
        assert (await client.jobs.wait(job)).status == "completed"
        service.jobs[job.id] = job_json(job.id, status="completed")
        assert [one.status async for one in client.jobs.events(job)] == ["completed"]
        assert (await client.jobs.result(job)).text == "你好。"
        assert (await client.jobs.result(job, "text")).text == "你好。\n"
        assert (await client.jobs.deliver_webhook_again(job)).id == job.id
        assert (await client.jobs.cancel(job)).status == "cancelled"
        await client.jobs.delete(job)
        with pytest.raises(ServiceRefusal):
            await client.jobs.get(job)
