"""A job as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from serve_app.jobs.job_json import job_json, message_id, webhook_body
from serve_app.jobs.records import Job, JobError

CREATED = datetime(2026, 11, 28, 12, 0, 0, 500_000, tzinfo=UTC)
QUEUED = Job("job_a", "alice", 1.0, "queued", CREATED, audio_bytes=10, audio_s=0.0)


def test_queued_job() -> None:
    assert job_json(QUEUED, 3) == {
        "id": "job_a",
        "object": "transcription.job",
        "status": "queued",
        "created_at": 1795867200,
        "started_at": None,
        "finished_at": None,
        "expires_at": None,
        "removed_at": None,
        "priority": "normal",
        "metadata": {},
        "progress": {"audio_s": 0.0, "total_audio_s": None, "percent": 0.0},
        "position": 3,
        "num_attempts": 0,
        "webhook": None,
        "error": None,
    }


def test_failed_job() -> None:
    job = Job(
        "job_a",
        "alice",
        1.0,
        "failed",
        CREATED,
        audio_bytes=10,
        audio_s=8.0,
        done_s=3.00049,
        priority=-1,
        metadata={"a": "b"},
        webhook_url="https://example.com",
        webhook="undelivered",
        webhook_attempts=10,
        started_at=CREATED + timedelta(seconds=1),
        finished_at=CREATED + timedelta(seconds=2),
        removed_at=CREATED + timedelta(days=7),
        num_attempts=2,
        error=JobError("corrupt_audio", "damaged", "file"),
    )
    shown = job_json(job)
    assert shown["priority"] == "low"
    assert shown["progress"] == {"audio_s": 3.0, "total_audio_s": 8.0, "percent": 37.5}
    assert shown["webhook"] == {
        "url": "https://example.com",
        "status": "undelivered",
        "num_attempts": 10,
    }
    assert shown["error"] == {"message": "damaged", "code": "corrupt_audio", "param": "file"}
    message = json.loads(webhook_body(job))
    assert message["type"] == "transcription.failed"
    assert message["timestamp"] == "2026-11-28T12:00:02.500000+00:00"
    assert message["data"] == shown


@pytest.mark.parametrize(
    ("done_s", "audio_s", "percent"), [(0.0, 0.0, 0.0), (12.0, 10.0, 100.0), (1.0, 3.0, 33.3)]
)
def test_percent_is_within_bounds(done_s: float, audio_s: float, percent: float) -> None:
    job = Job("job_a", "k", 1.0, "running", CREATED, 1, audio_s, done_s=done_s)
    assert job_json(job)["progress"]["percent"] == percent


def test_nothing_tells_of_a_job_that_has_not_ended() -> None:
    with pytest.raises(ValueError, match="final"):
        webhook_body(QUEUED)


def test_message_has_an_id_of_its_own() -> None:
    assert message_id("job_abc") == "msg_abc"
