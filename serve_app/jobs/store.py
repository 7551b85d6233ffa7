"""The durable store of jobs: PostgreSQL for a cluster, SQLite for one node."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, UpdateBase, delete, func, select, union_all, update

from serve_app.core.job_errors import IdempotencyConflict, JobNotFound, QueueFull
from serve_app.jobs.database import Database, Transaction
from serve_app.jobs.deliveries import Deliveries
from serve_app.jobs.leases import Leases
from serve_app.jobs.ports import Clock, JobStore
from serve_app.jobs.records import Job, JobLimits, JobStatus, NewJob, Page
from serve_app.jobs.retention import Retention
from serve_app.jobs.rows import (
    count_queued,
    end_job,
    is_id,
    job_row,
    lock_key,
    locked_job,
    select_jobs,
)
from serve_app.jobs.schema import deliveries, job_clock, job_keys, jobs, uploads
from serve_app.jobs.upload_rows import Uploads, locked_upload
from serve_app.jobs.usage_accounts import UsageAccounts

_MAX_POSITION = 1000


class DatabaseStore(Leases, Deliveries, Uploads, Retention, UsageAccounts):
    """The jobs in a database; of one event loop.

    Nothing is opened before the first use.

    Args:
        url: `postgresql://...`, or `sqlite:///path`.
        limits: what it allows and keeps.
        clock: returns the present time in UTC; None for the database's own.

    Raises:
        ConfigurationError: the URL is not supported.
    """

    def __init__(
        self, url: str, limits: JobLimits | None = None, clock: Clock | None = None
    ) -> None:
        super().__init__(Database(url, clock), limits or JobLimits())

    async def prepare(self) -> None:
        """Creates or migrates the tables, unless they are there; each method does so if needed.

        Raises:
            ConfigurationError: the tables are of another release and cannot be migrated here,
                or the database refuses the user.
            StoreUnavailable: it does not answer.
        """
        await self._database.prepare()

    async def create(self, job: NewJob) -> tuple[Job, bool]:
        async with self._database.write() as transaction:
            # Jobs of a key are created one after the other.
            num_queued = await lock_key(transaction, job.key, job.weight)
            earlier = await self._created_before(transaction, job)
            if earlier is not None:
                return earlier, earlier.id == job.id
            if num_queued >= self._limits.max_queued:
                raise QueueFull(self._limits.max_queued)
            if job.upload_id is not None:
                await locked_upload(transaction, job.key, job.upload_id)
                await transaction.change(
                    update(uploads).where(uploads.c.id == job.upload_id).values(job_id=job.id)
                )
            await transaction.change(_insertion(transaction, job))
            await count_queued(transaction, job.key, queued=1, ready=1, audio_s=job.audio_s)
            transaction.announce()
            row = await transaction.run(select_jobs().where(jobs.c.id == job.id))
            return job_row(row.one()).job, True

    async def get(self, key: str, job_id: str) -> Job:
        if not is_id(job_id):
            raise JobNotFound(job_id)
        query = select_jobs().where(jobs.c.id == job_id, jobs.c.key == key)
        row = (await self._database.read(query)).one_or_none()
        if row is None:
            raise JobNotFound(job_id)
        return job_row(row).job

    async def list(
        self,
        key: str,
        *,
        statuses: Sequence[JobStatus] = (),
        after: str | None = None,
        limit: int = 20,
    ) -> Page:
        of_key = [jobs.c.key == key]
        if after is not None:
            of_key.append(jobs.c.sequence < await self._sequence_of(key, after))
        query = select_jobs().order_by(jobs.c.sequence.desc()).limit(limit + 1)
        if statuses:
            found = await self._newest(of_key, statuses, limit + 1)
            query = query.where(jobs.c.sequence.in_(found), jobs.c.status.in_(statuses))
        else:
            query = query.where(*of_key)
        rows = (await self._database.read(query)).all()
        return Page(tuple(job_row(row).job for row in rows[:limit]), len(rows) > limit)

    async def cancel(self, key: str, job_id: str) -> Job:
        async with self._database.write() as transaction:
            row = await locked_job(transaction, key, job_id)
            if row.job.is_final:
                return row.job
            return await end_job(transaction, row, "cancelled", self._limits)

    async def delete(self, key: str, job_id: str) -> None:
        async with self._database.write() as transaction:
            row = await locked_job(transaction, key, job_id)
            await transaction.change(delete(jobs).where(jobs.c.sequence == row.sequence))
            if row.job.status == "queued":
                await count_queued(
                    transaction, key, queued=-1, ready=-int(row.is_ready), audio_s=-row.job.audio_s
                )
            await transaction.change(delete(deliveries).where(deliveries.c.job_id == job_id))
            if row.job.upload_id is not None:
                await transaction.change(delete(uploads).where(uploads.c.id == row.job.upload_id))

    async def versions(self, ids: Sequence[str]) -> Mapping[str, int]:
        asked = [job_id for job_id in ids if is_id(job_id)]
        query = select(jobs.c.id, jobs.c.version).where(jobs.c.id.in_(asked))
        return {row.id: row.version for row in (await self._database.read(query)).all()}

    async def open_audio_s(self, key: str) -> float:
        queued = select(job_keys.c.queued_audio_s).where(job_keys.c.key == key)
        running = select(func.sum(jobs.c.audio_s)).where(
            jobs.c.key == key, jobs.c.status == "running"
        )
        query = select(
            func.coalesce(queued.scalar_subquery(), 0.0)
            + func.coalesce(running.scalar_subquery(), 0.0)
        )
        return float((await self._database.read(query)).scalar_one())

    async def position(self, job: Job) -> int | None:
        clock = select(job_clock.c.virtual_time).scalar_subquery()
        query = (
            select(jobs.c.sequence, job_keys.c.virtual_time, clock.label("clock"))
            .join(job_keys, job_keys.c.key == jobs.c.key)
            .where(jobs.c.id == job.id, jobs.c.status == "queued")
        )
        row = (await self._database.read(query)).one_or_none()
        if row is None:
            return None
        num_before, audio_s = await self._before_in_key(job, row.sequence)
        start = max(row.virtual_time, row.clock) + audio_s / job.weight
        num_before += await self._before_in_other_keys(job.key, start, row.clock)
        return min(num_before, _MAX_POSITION)

    async def wait(self, timeout_s: float) -> None:
        await self._database.wait(timeout_s)

    async def close(self) -> None:
        await self._database.close()

    async def _created_before(self, transaction: Transaction, job: NewJob) -> Job | None:
        """Returns the job that this creation made before.

        Raises:
            IdempotencyConflict: the key has been used for another request.
        """
        query = select_jobs().where(jobs.c.id == job.id, jobs.c.key == job.key)
        row = (await transaction.run(query)).one_or_none()
        if row is None and job.idempotency_key is not None:
            query = select_jobs().where(
                jobs.c.key == job.key, jobs.c.idempotency_key == job.idempotency_key
            )
            row = (await transaction.run(query)).one_or_none()
        if row is None:
            return None
        if row.request_hash != job.request_hash:
            raise IdempotencyConflict
        return job_row(row).job

    async def _newest(
        self, of_key: Sequence[ColumnElement[bool]], statuses: Sequence[JobStatus], limit: int
    ) -> Sequence[int]:
        """Returns the newest jobs of each status: a range of an index; all together are none."""
        parts = [
            select(jobs.c.sequence)
            .where(*of_key, jobs.c.status == status)
            .order_by(jobs.c.sequence.desc())
            .limit(limit)
            .subquery()
            for status in dict.fromkeys(statuses)
        ]
        found = union_all(*(select(part.c.sequence) for part in parts))
        return (await self._database.read(found)).scalars().all()

    async def _sequence_of(self, key: str, job_id: str) -> int:
        query = select(jobs.c.sequence).where(jobs.c.id == job_id, jobs.c.key == key)
        sequence = (await self._database.read(query)).scalar() if is_id(job_id) else None
        if sequence is None:
            raise JobNotFound(job_id)
        return int(sequence)

    async def _before_in_key(self, job: Job, sequence: int) -> tuple[int, float]:
        """Returns number and audio in s of the key's jobs that start before one."""
        is_queued = (jobs.c.key == job.key, jobs.c.status == "queued")
        ranges = (
            (jobs.c.priority > job.priority,),
            (jobs.c.priority == job.priority, jobs.c.sequence < sequence),
        )
        parts = [
            select(jobs.c.audio_s).where(*is_queued, *bounds).limit(_MAX_POSITION).subquery()
            for bounds in ranges
        ]
        before = union_all(*(select(part.c.audio_s) for part in parts)).subquery()
        query = select(
            func.count().label("num"),
            func.coalesce(func.sum(before.c.audio_s), 0.0).label("audio_s"),
        )
        row = (await self._database.read(query.select_from(before))).one()
        return row.num, row.audio_s

    async def _before_in_other_keys(self, key: str, start: float, clock: float) -> int:
        """Estimates how many jobs of other keys start before a virtual time.

        Each of a key's jobs is taken to be as long as its mean.
        """
        query = (
            select(job_keys)
            .where(
                job_keys.c.num_queued > 0, job_keys.c.virtual_time < start, job_keys.c.key != key
            )
            .order_by(job_keys.c.virtual_time)
            .limit(_MAX_POSITION)
        )
        num_before = 0
        for other in (await self._database.read(query)).all():
            mean_s = max(1.0, other.queued_audio_s / other.num_queued)
            share = (start - max(other.virtual_time, clock)) * other.weight / mean_s
            num_before += min(other.num_queued, max(0, math.ceil(share)))
        return num_before


def _insertion(transaction: Transaction, job: NewJob) -> UpdateBase:
    return transaction.insert(jobs).values(
        id=job.id,
        key=job.key,
        weight=job.weight,
        status="queued",
        priority=job.priority,
        audio_bytes=job.audio_bytes,
        audio_s=job.audio_s,
        done_s=0.0,
        metadata=dict(job.metadata),
        webhook_url=job.webhook_url,
        idempotency_key=job.idempotency_key,
        request_hash=job.request_hash,
        request_id=job.request_id,
        upload_id=job.upload_id,
        created_at=transaction.now,
        expires_at=job.expires_at,
        fence=0,
        num_attempts=0,
        version=1,
    )


_: type[JobStore] = DatabaseStore
