"""Jobs of the service as records, and the fields that make one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

JobStatus: TypeAlias = Literal["queued", "running", "completed", "failed", "cancelled", "expired"]
JobPriority: TypeAlias = Literal["low", "normal", "high"]

FINAL_STATUSES: frozenset[str] = frozenset({"completed", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is.

    Attributes:
        audio_s: recognized audio in s, of all separate channels.
        total_audio_s: of the recording, times its separate channels; None while it is unknown.
        percent: from 0 to 100.
    """

    audio_s: float
    total_audio_s: float | None
    percent: float


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why a job failed: `code` is one of docs/errors.md, `param` the field at fault."""

    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class JobWebhook:
    """A job's webhook; `status` is None until the job ends, then pending or how it ended."""

    url: str
    status: Literal["pending", "delivered", "undelivered"] | None
    num_attempts: int


@dataclass(frozen=True, slots=True)
class Job:
    """An asynchronous transcription. Times are in UTC.

    Attributes:
        id: names it in every other call.
        status: queued, running, or the final completed, failed, cancelled or expired.
        progress: see `JobProgress`.
        created_at, started_at, finished_at: None before.
        expires_at: a job that has not started by then expires; None for never.
        removed_at: when the job and its result are removed; None before its end.
        priority: low, normal or high.
        position: how many jobs start before it; None unless it is queued.
        num_attempts: how often a runner took it.
        metadata: as it was given.
        error: None unless it failed.
        webhook: None without one.
        body: the answer itself.
    """

    id: str
    status: JobStatus
    progress: JobProgress
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    removed_at: datetime | None = None
    priority: JobPriority = "normal"
    position: int | None = None
    num_attempts: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    error: JobFailure | None = None
    webhook: JobWebhook | None = None
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL_STATUSES


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of a list of jobs, the newest first; `has_more` tells whether older ones follow."""

    jobs: tuple[Job, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What is asked of a job beyond its transcription.

    Attributes:
        webhook_url: told of the final state.
        metadata: the caller's own, returned as it is given; at most 16 pairs.
        priority: the jobs of a key start from high to low.
        expires_after_s: end the job as expired if it has not started by then.
        idempotency_key: name of this creation: a second one with it returns the first job.
    """

    webhook_url: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    priority: JobPriority = "normal"
    expires_after_s: float | None = None
    idempotency_key: str | None = None

    def form(self) -> dict[str, str]:
        """Returns the fields as they are sent."""
        form: dict[str, str] = {}
        if self.priority != "normal":
            form["priority"] = self.priority
        if self.webhook_url is not None:
            form["webhook_url"] = self.webhook_url
        if self.metadata:
            form["metadata"] = json.dumps(dict(self.metadata), ensure_ascii=False)
        if self.expires_after_s is not None:
            form["expires_after"] = f"{self.expires_after_s:g}"
        return form


def job_of(body: Mapping[str, Any]) -> Job:
    """Reads a job.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is something else.
    """
    if body["object"] != "transcription.job":
        raise ValueError("not a job")
    progress = body["progress"]
    total_s = progress["total_audio_s"]
    position = body.get("position")
    return Job(
        id=str(body["id"]),
        status=body["status"],
        progress=JobProgress(
            float(progress["audio_s"]),
            None if total_s is None else float(total_s),
            float(progress["percent"]),
        ),
        created_at=datetime.fromtimestamp(body["created_at"], UTC),
        started_at=_time(body.get("started_at")),
        finished_at=_time(body.get("finished_at")),
        expires_at=_time(body.get("expires_at")),
        removed_at=_time(body.get("removed_at")),
        priority=body.get("priority", "normal"),
        position=None if position is None else int(position),
        num_attempts=int(body.get("num_attempts", 0)),
        metadata={str(name): str(value) for name, value in (body.get("metadata") or {}).items()},
        error=_failure(body.get("error")),
        webhook=_webhook(body.get("webhook")),
        body=body,
    )


def page_of(body: Mapping[str, Any]) -> JobPage:
    """Reads a page of jobs.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is something else.
    """
    return JobPage(tuple(map(job_of, body["data"])), bool(body["has_more"]))


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _failure(error: Mapping[str, Any] | None) -> JobFailure | None:
    if error is None:
        return None
    param = error.get("param")
    return JobFailure(
        str(error["code"]), str(error["message"]), None if param is None else str(param)
    )


def _webhook(webhook: Mapping[str, Any] | None) -> JobWebhook | None:
    if webhook is None:
        return None
    return JobWebhook(
        str(webhook["url"]), webhook.get("status"), int(webhook.get("num_attempts", 0))
    )
