"""A job as JSON: what the API answers and what webhooks tell."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Literal

# pydantic supports typing.TypedDict only from Python 3.12.
from typing_extensions import TypedDict

from serve_app.jobs.records import DeliveryState, Job, JobStatus

PRIORITIES = {"low": -1, "normal": 0, "high": 1}
"""`NewJob.priority` by its name in requests and answers."""

_PRIORITY_NAMES = {number: name for name, number in PRIORITIES.items()}


class ProgressJson(TypedDict):
    """How much of a recording is recognized.

    Attributes:
        audio_s: recognized audio in s, of all channels.
        total_audio_s: of the recording, times its separate channels; None if not known yet.
        percent: from 0 to 100.
    """

    audio_s: float
    total_audio_s: float | None
    percent: float


class WebhookJson(TypedDict):
    """How the delivery of a job's webhook stands; no status before the job has ended."""

    url: str
    status: DeliveryState | None
    num_attempts: int


class ErrorJson(TypedDict):
    """Why a job failed, as in the API's error responses."""

    message: str
    code: str
    param: str | None


class JobJson(TypedDict):
    """A job; times in Unix seconds."""

    id: str
    object: Literal["transcription.job"]
    status: JobStatus
    created_at: int
    started_at: int | None
    finished_at: int | None
    expires_at: int | None
    removed_at: int | None
    priority: str
    metadata: dict[str, str]
    progress: ProgressJson
    position: int | None
    num_attempts: int
    webhook: WebhookJson | None
    error: ErrorJson | None


def job_json(job: Job, position: int | None = None) -> JobJson:
    """Returns a job as the API shows it to its owner.

    Args:
        job: as the store has it.
        position: number of jobs that start before it; None if it is not queued.
    """
    return {
        "id": job.id,
        "object": "transcription.job",
        "status": job.status,
        "created_at": int(job.created_at.timestamp()),
        "started_at": _unix(job.started_at),
        "finished_at": _unix(job.finished_at),
        "expires_at": _unix(job.expires_at),
        "removed_at": _unix(job.removed_at),
        "priority": _PRIORITY_NAMES.get(job.priority, str(job.priority)),
        "metadata": dict(job.metadata),
        "progress": _progress(job),
        "position": position,
        "num_attempts": job.num_attempts,
        "webhook": _webhook(job),
        "error": _error(job),
    }


def message_id(job_id: str) -> str:
    """Returns the `webhook-id` of a job's message; a job enters one final state only."""
    return f"msg_{job_id.removeprefix('job_')}"


def webhook_body(job: Job) -> bytes:
    """Returns the message that tells of a job's final state.

    Raises:
        ValueError: the job has not ended.

    Source: Standard Webhooks 1.0.0, "Webhook payload structure".
    """
    if job.finished_at is None:
        raise ValueError("only a final state is told")
    message = {
        "type": f"transcription.{job.status}",
        "timestamp": job.finished_at.isoformat(),
        "data": job_json(job),
    }
    return json.dumps(message, separators=(",", ":")).encode()


def _progress(job: Job) -> ProgressJson:
    if job.status == "completed":
        percent = 100.0
    elif job.audio_s > 0:
        percent = round(min(1.0, job.done_s / job.audio_s) * 100, 1)
    else:
        percent = 0.0
    return {
        "audio_s": round(job.done_s, 3),
        "total_audio_s": round(job.audio_s, 3) if job.audio_s > 0 else None,
        "percent": percent,
    }


def _webhook(job: Job) -> WebhookJson | None:
    if job.webhook_url is None:
        return None
    return {"url": job.webhook_url, "status": job.webhook, "num_attempts": job.webhook_attempts}


def _error(job: Job) -> ErrorJson | None:
    if job.error is None:
        return None
    return {"message": job.error.message, "code": job.error.code, "param": job.error.param}


def _unix(time: datetime | None) -> int | None:
    return None if time is None else int(time.timestamp())
