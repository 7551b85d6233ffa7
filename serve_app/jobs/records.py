"""The records of jobs, as the store keeps them. Times are in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

JobStatus: TypeAlias = Literal["queued", "running", "completed", "failed", "cancelled", "expired"]

FINAL: frozenset[JobStatus] = frozenset({"completed", "failed", "cancelled", "expired"})
"""A job enters one of these once, and never leaves it."""

DeliveryState: TypeAlias = Literal["pending", "delivered", "undelivered"]
UsageKind: TypeAlias = Literal["request", "job", "batch", "live"]


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, as an error response of the API would say it.

    Attributes:
        code: of the API's errors.
        message: in plain English.
        param: name of the field at fault; None if there is none.
    """

    code: str
    message: str
    param: str | None = None


def attempts_exhausted(num_attempts: int) -> JobError:
    """Returns why a job failed whose runners were all lost.

    Args:
        num_attempts: runners that took it.
    """
    return JobError(
        "job_attempts_exhausted",
        f"the job was started {num_attempts} times and did not end; its runner was lost each time",
    )


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to create. Its audio and its fields are stored already.

    Attributes:
        id: of the job; names its files as well.
        key: name of the caller's API key.
        weight: the key's share, relative to other keys.
        audio_bytes: size of the recording.
        audio_s: expected length of the recording, times its separate channels; 0 if unknown.
        priority: the jobs of a key start from the highest to the lowest.
        metadata: the caller's own, returned as it came.
        webhook_url: told of the final state; None for nobody.
        expires_at: a job that has not started by then expires; None for never.
        idempotency_key: the caller's name for this creation; None without one.
        request_hash: of the fields and the audio; another request with the same idempotency
            key has another.
        request_id: of the request that created it, for the logs.
        upload_id: of the resumable upload that has its audio, which the job takes; None if its
            own files have it.
    """

    id: str
    key: str
    weight: float
    audio_bytes: int
    audio_s: float
    priority: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    webhook_url: str | None = None
    expires_at: datetime | None = None
    idempotency_key: str | None = None
    request_hash: str = ""
    request_id: str = ""
    upload_id: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store has it.

    Attributes:
        id, key, weight, audio_bytes, audio_s, priority, metadata, webhook_url, expires_at,
            request_id, upload_id: as in `NewJob`; `audio_s` is corrected at the end of the
            recording, and `upload_id` is None again once the recording is removed.
        status: see `JobStatus`.
        created_at: when it was accepted.
        started_at: when its first attempt began; None before.
        finished_at: when it entered its final state; None before.
        done_s: audio that is recognized, in s, of all its channels.
        num_attempts: how often a runner took it.
        version: grows with each change, so that watchers see what is new.
        result: name of the result's file; None without one.
        error: why it failed; None if it did not.
        webhook: how its delivery stands; None without a webhook or before the final state.
        webhook_attempts: how often the delivery was tried.
        removed_at: when its result and its row go; None until it is in its final state.
    """

    id: str
    key: str
    weight: float
    status: JobStatus
    created_at: datetime
    audio_bytes: int
    audio_s: float
    priority: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    webhook_url: str | None = None
    expires_at: datetime | None = None
    request_id: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    done_s: float = 0.0
    num_attempts: int = 0
    version: int = 1
    result: str | None = None
    error: JobError | None = None
    webhook: DeliveryState | None = None
    webhook_attempts: int = 0
    removed_at: datetime | None = None
    upload_id: str | None = None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What a store allows and keeps; see the settings `jobs.*` of the same names.

    Attributes:
        max_queued: queued jobs of a key.
        max_attempts: runners that may be lost with a job before it fails.
        keep_audio_s: time in s that the recording of an ended job is kept.
        keep_results_s: time in s that an ended job is kept.
    """

    max_queued: int = 10_000
    max_attempts: int = 3
    keep_audio_s: float = 86_400.0
    keep_results_s: float = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list of jobs, the newest first.

    Attributes:
        jobs: of the page.
        has_more: whether older ones follow.
    """

    jobs: tuple[Job, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """A runner's right to work on a job.

    Attributes:
        job: as it was when it was taken.
        fence: grows with each lease of the job; the store refuses writes with an older one.
        runner: name of the replica that has it.
    """

    job: Job
    fence: int
    runner: str


@dataclass(frozen=True, slots=True)
class JobBacklog:
    """The work that waits.

    Attributes:
        num_queued: queued jobs.
        queued_audio_s: their audio, in s.
        num_running: jobs with a valid lease.
        running_audio_s: audio of the running jobs that is not recognized yet, in s.
        oldest_queued_at: when the oldest queued job was created; None without one.
    """

    num_queued: int = 0
    queued_audio_s: float = 0.0
    num_running: int = 0
    running_audio_s: float = 0.0
    oldest_queued_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook message that is due, taken by one runner.

    Attributes:
        id: the `webhook-id`, the same in each attempt.
        job_id: of the job that it tells of.
        key: name of the API key whose secret signs it.
        url: where it goes.
        body: JSON, the bytes that are signed.
        num_attempts: attempts so far.
        created_at: when the job entered its final state.
        fence: the store refuses the outcome of an attempt that was taken over.
    """

    id: str
    job_id: str
    key: str
    url: str
    body: bytes
    num_attempts: int
    created_at: datetime
    fence: int


@dataclass(frozen=True, slots=True)
class ResumableUpload:
    """A recording that arrives in parts.

    Attributes:
        id: of the upload; names its parts as well.
        key: name of the API key that it belongs to.
        length_bytes: of the whole recording.
        offset_bytes: that have arrived and are stored.
        parts: sizes of the stored parts in bytes, in order.
        metadata: the caller's own, such as the file's name.
        expires_at: when it is removed unless a job has taken it.
    """

    id: str
    key: str
    length_bytes: int
    offset_bytes: int
    parts: tuple[int, ...]
    metadata: Mapping[str, str]
    expires_at: datetime

    @property
    def is_complete(self) -> bool:
        return self.offset_bytes == self.length_bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """What a key has used in a calendar month.

    Attributes:
        key: name of the API key.
        month: as "2026-11", in UTC.
        kind: how it was used.
        audio_s: seconds of audio, times separate channels.
        num_requests: requests, jobs, recordings of batch jobs, or live sessions.
    """

    key: str
    month: str
    kind: UsageKind
    audio_s: float
    num_requests: int
