"""Rows of the jobs database as records, and what every part of the store does with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Row, Select, case, select, update

from serve_app.core.job_errors import JobNotFound
from serve_app.jobs.database import Database, Transaction
from serve_app.jobs.job_json import message_id, webhook_body
from serve_app.jobs.records import Job, JobError, JobLimits, JobStatus
from serve_app.jobs.schema import deliveries, job_keys, jobs

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class StorePart:
    """What the parts of the store share.

    Args:
        database: that has the rows.
        limits: what it allows and keeps.
    """

    def __init__(self, database: Database, limits: JobLimits) -> None:
        self._database = database
        self._limits = limits


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job, with what its owner does not see.

    Attributes:
        job: the record.
        sequence: number of the row.
        fence: of its last lease; cancelling it raises the fence as well.
        is_ready: whether it is queued and may be taken at once.
    """

    job: Job
    sequence: int
    fence: int
    is_ready: bool


def is_id(text: str) -> bool:
    """Returns whether this can be an id; another text is not worth a query."""
    return _ID.fullmatch(text) is not None


def select_jobs() -> Select[Any]:
    """Returns a query for jobs, for `job_row`."""
    joined = jobs.outerjoin(deliveries, deliveries.c.job_id == jobs.c.id)
    return select(
        jobs,
        deliveries.c.state.label("webhook_state"),
        deliveries.c.num_attempts.label("webhook_attempts"),
    ).select_from(joined)


def job_row(row: Row[Any]) -> JobRow:
    """Returns a row of `select_jobs`."""
    columns = row._mapping
    job = Job(
        id=columns["id"],
        key=columns["key"],
        weight=columns["weight"],
        status=columns["status"],
        created_at=columns["created_at"],
        audio_bytes=columns["audio_bytes"],
        audio_s=columns["audio_s"],
        priority=columns["priority"],
        metadata=columns["metadata"],
        webhook_url=columns["webhook_url"],
        expires_at=columns["expires_at"],
        request_id=columns["request_id"],
        started_at=columns["started_at"],
        finished_at=columns["finished_at"],
        done_s=columns["done_s"],
        num_attempts=columns["num_attempts"],
        version=columns["version"],
        result=columns["result"],
        error=_error(columns["error"]),
        webhook=columns["webhook_state"],
        webhook_attempts=columns["webhook_attempts"] or 0,
        removed_at=columns["removed_at"],
        upload_id=columns["upload_id"],
    )
    is_ready = job.status == "queued" and columns["not_before"] is None
    return JobRow(job, columns["sequence"], columns["fence"], is_ready)


async def locked_job(transaction: Transaction, key: str, job_id: str) -> JobRow:
    """Returns a job that nobody else changes until the end of the transaction.

    Raises:
        JobNotFound: the key has no such job.
    """
    if not is_id(job_id):
        raise JobNotFound(job_id)
    query = select_jobs().where(jobs.c.id == job_id, jobs.c.key == key)
    row = (await transaction.run(query.with_for_update(of=jobs))).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return job_row(row)


async def lock_key(transaction: Transaction, key: str, weight: float | None = None) -> int:
    """Lets no other transaction change what a key has until the end of this one.

    Args:
        transaction: that locks it.
        key: that may be new.
        weight: its new weight; None to leave it.

    Returns:
        The number of its queued jobs.
    """
    row = transaction.insert(job_keys).values(
        key=key,
        weight=1.0 if weight is None else weight,
        virtual_time=0.0,
        num_queued=0,
        num_ready=0,
        queued_audio_s=0.0,
    )
    kept = job_keys.c.weight if weight is None else row.excluded.weight
    await transaction.change(
        row.on_conflict_do_update(index_elements=[job_keys.c.key], set_={"weight": kept})
    )
    query = select(job_keys.c.num_queued).where(job_keys.c.key == key)
    return int((await transaction.run(query)).scalar_one())


def cost_of(audio_s: float, weight: float) -> float:
    """Returns how much of its key's share a job uses.

    Args:
        audio_s: 0 if not known yet; every job costs at least a second.
        weight: of the key.
    """
    return max(1.0, audio_s) / weight


async def count_queued(
    transaction: Transaction, key: str, *, queued: int = 0, ready: int = 0, audio_s: float = 0.0
) -> None:
    """Adds to what a key has in the queue, or takes from it."""
    left = job_keys.c.num_queued + queued
    await transaction.change(
        update(job_keys)
        .where(job_keys.c.key == key)
        .values(
            num_queued=left,
            num_ready=job_keys.c.num_ready + ready,
            # Sums of fractions drift; an empty queue has none.
            queued_audio_s=case((left <= 0, 0.0), else_=job_keys.c.queued_audio_s + audio_s),
        )
    )


async def end_job(
    transaction: Transaction,
    row: JobRow,
    status: JobStatus,
    limits: JobLimits,
    *,
    result: str | None = None,
    audio_s: float | None = None,
    error: JobError | None = None,
    is_by_runner: bool = False,
) -> Job:
    """Enters a final state and adds the webhook's message, both or neither.

    Args:
        transaction: in which the row is locked.
        row: of the job, which has not ended.
        status: the final state.
        limits: what is kept for how long.
        result: name of the result's file.
        audio_s: length of the recording, all of it recognized; None leaves both as they are.
        error: why it failed.
        is_by_runner: whether the holder of the lease ends it; otherwise it loses the lease.
    """
    job, now = row.job, transaction.now
    values: dict[str, object] = {
        "status": status,
        "finished_at": now,
        "removed_at": now + timedelta(seconds=limits.keep_results_s),
        "version": job.version + 1,
        "result": result,
        "error": None if error is None else _error_json(error),
    }
    if audio_s is not None:
        values |= {"audio_s": audio_s, "done_s": audio_s}
    await transaction.change(
        update(jobs)
        .where(jobs.c.sequence == row.sequence)
        .values(
            values
            | {
                "fence": row.fence + (0 if is_by_runner else 1),
                "lease_until": None,
                "not_before": None,
                "audio_due_at": now + timedelta(seconds=limits.keep_audio_s),
            }
        )
    )
    if job.status == "queued":
        await count_queued(
            transaction, job.key, queued=-1, ready=-int(row.is_ready), audio_s=-job.audio_s
        )
    query = select_jobs().where(jobs.c.sequence == row.sequence)
    ended = job_row((await transaction.run(query)).one()).job
    if job.webhook_url is None:
        return ended
    ended = replace(ended, webhook="pending")
    await _add_message(transaction, ended)
    return ended


async def _add_message(transaction: Transaction, job: Job) -> None:
    await transaction.change(
        transaction.insert(deliveries).values(
            job_id=job.id,
            id=message_id(job.id),
            key=job.key,
            url=job.webhook_url,
            body=webhook_body(job),
            state="pending",
            num_attempts=0,
            created_at=transaction.now,
            due_at=transaction.now,
            fence=0,
        )
    )
    transaction.announce()


def _error(columns: Mapping[str, str | None] | None) -> JobError | None:
    if columns is None:
        return None
    return JobError(columns["code"] or "", columns["message"] or "", columns["param"])


def _error_json(error: JobError) -> dict[str, str | None]:
    return {"code": error.code, "message": error.message, "param": error.param}
