"""Leases: which job a runner gets, and what it may still write."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select, update

from serve_app.jobs.database import Transaction
from serve_app.jobs.records import (
    Job,
    JobBacklog,
    JobError,
    JobStatus,
    Lease,
    Usage,
    attempts_exhausted,
)
from serve_app.jobs.rows import (
    JobRow,
    StorePart,
    cost_of,
    count_queued,
    end_job,
    job_row,
    select_jobs,
)
from serve_app.jobs.schema import job_clock, job_keys, jobs
from serve_app.jobs.usage_accounts import add_usage

_NUM_KEYS_TRIED = 16
"""A key whose jobs are all being cancelled or taken at this moment is passed over."""

_IS_READY = and_(jobs.c.status == "queued", jobs.c.not_before.is_(None))


class Leases(StorePart):
    """What runners ask of the store."""

    async def lease(self, runner: str, lease_s: float) -> Lease | None:
        if not (await self._database.read(select(self._may_have_job()))).scalar_one():
            return None
        async with self._database.write() as transaction:
            # One lease at a time, so that the next one sees what this one did to the keys' shares.
            query = select(job_clock.c.virtual_time).with_for_update()
            virtual_time: float = (await transaction.run(query)).scalar_one()
            row = await self._lost_job(transaction)
            if row is None:
                await _admit_delayed(transaction)
                row = await _next_job(transaction, virtual_time)
            if row is None:
                return None
            # Another may wait behind it, for another task of this process.
            transaction.announce_here()
            return await _take(transaction, row, runner, lease_s)

    async def renew(self, lease: Lease, lease_s: float, done_s: float) -> bool:
        async with self._database.write() as transaction:
            is_further = jobs.c.done_s < done_s
            changed = await transaction.change(
                update(jobs)
                .where(_is_held(lease))
                .values(
                    lease_until=transaction.now + timedelta(seconds=lease_s),
                    done_s=case((is_further, done_s), else_=jobs.c.done_s),
                    version=jobs.c.version + case((is_further, 1), else_=0),
                )
            )
            return changed > 0

    async def hand_back(self, lease: Lease, after_s: float = 0.0) -> None:
        async with self._database.write() as transaction:
            row = await _held_job(transaction, lease)
            if row is None:
                return
            not_before = transaction.now + timedelta(seconds=after_s) if after_s > 0 else None
            await transaction.change(
                update(jobs)
                .where(jobs.c.sequence == row.sequence)
                .values(
                    status="queued",
                    num_attempts=jobs.c.num_attempts - 1,
                    lease_until=None,
                    not_before=not_before,
                    version=jobs.c.version + 1,
                )
            )
            job = row.job
            ready = 1 if not_before is None else 0
            await count_queued(transaction, job.key, queued=1, ready=ready, audio_s=job.audio_s)
            await _charge(transaction, job, -cost_of(job.audio_s, job.weight))
            transaction.announce()

    async def complete(self, lease: Lease, result: str, audio_s: float) -> bool:
        async with self._database.write() as transaction:
            row = await _held_job(transaction, lease)
            if row is None:
                return await _was_ended_by(transaction, lease, "completed")
            await end_job(
                transaction,
                row,
                "completed",
                self._limits,
                result=result,
                audio_s=audio_s,
                is_by_runner=True,
            )
            job = row.job
            expected = cost_of(job.audio_s, job.weight)
            await _charge(transaction, job, cost_of(audio_s, job.weight) - expected)
            month = f"{transaction.now:%Y-%m}"
            await add_usage(transaction, [Usage(job.key, month, "job", audio_s, 1)])
            return True

    async def fail(self, lease: Lease, error: JobError) -> bool:
        async with self._database.write() as transaction:
            row = await _held_job(transaction, lease)
            if row is None:
                return await _was_ended_by(transaction, lease, "failed")
            await end_job(transaction, row, "failed", self._limits, error=error, is_by_runner=True)
            return True

    async def backlog(self) -> JobBacklog:
        queued = select(
            func.coalesce(func.sum(job_keys.c.num_queued), 0).label("num"),
            func.coalesce(func.sum(job_keys.c.queued_audio_s), 0.0).label("audio_s"),
        ).where(job_keys.c.num_queued > 0)
        oldest = (
            select(jobs.c.created_at)
            .where(jobs.c.status == "queued")
            .order_by(jobs.c.created_at)
            .limit(1)
        )
        waiting = queued.subquery()
        found = (
            await self._database.read(
                select(waiting.c.num, waiting.c.audio_s, oldest.scalar_subquery().label("oldest"))
            )
        ).one()
        running = (
            await self._database.read(
                select(
                    (jobs.c.lease_until <= self._database.now()).label("is_lost"),
                    jobs.c.audio_s,
                    jobs.c.done_s,
                    jobs.c.created_at,
                ).where(jobs.c.status == "running")
            )
        ).all()
        lost = [row for row in running if row.is_lost]
        held = [row for row in running if not row.is_lost]
        created = [row.created_at for row in lost]
        if found.oldest is not None:
            created.append(found.oldest)
        return JobBacklog(
            num_queued=found.num + len(lost),
            queued_audio_s=found.audio_s + sum(max(0.0, row.audio_s - row.done_s) for row in lost),
            num_running=len(held),
            running_audio_s=sum(max(0.0, row.audio_s - row.done_s) for row in held),
            oldest_queued_at=min(created, default=None),
        )

    def _may_have_job(self) -> ColumnElement[bool]:
        now = self._database.now()
        return or_(
            exists().where(jobs.c.status == "running", jobs.c.lease_until <= now),
            exists().where(job_keys.c.num_ready > 0),
            exists().where(
                jobs.c.status == "queued",
                jobs.c.not_before.is_not(None),
                jobs.c.not_before <= now,
            ),
        )

    async def _lost_job(self, transaction: Transaction) -> JobRow | None:
        """Returns the next job whose lease ran out; ends those that have no attempt left."""
        query = (
            select_jobs()
            .where(jobs.c.status == "running", jobs.c.lease_until <= transaction.now)
            .order_by(jobs.c.lease_until)
            .limit(1)
            .with_for_update(of=jobs, skip_locked=True)
        )
        while (found := (await transaction.run(query)).one_or_none()) is not None:
            row = job_row(found)
            if row.job.num_attempts < self._limits.max_attempts:
                return row
            error = attempts_exhausted(row.job.num_attempts)
            await end_job(transaction, row, "failed", self._limits, error=error)
        return None


async def _admit_delayed(transaction: Transaction) -> None:
    """Makes jobs ready whose time not to be taken is over."""
    due = (
        select(jobs.c.sequence, jobs.c.key)
        .where(
            jobs.c.status == "queued",
            jobs.c.not_before.is_not(None),
            jobs.c.not_before <= transaction.now,
        )
        .order_by(jobs.c.not_before)
        .limit(100)
        .with_for_update(skip_locked=True)
    )
    for row in (await transaction.run(due)).all():
        await transaction.change(
            update(jobs).where(jobs.c.sequence == row.sequence).values(not_before=None)
        )
        await count_queued(transaction, row.key, ready=1)


async def _next_job(transaction: Transaction, virtual_time: float) -> JobRow | None:
    """Takes the next job out of the queue, by start-time fair queueing between the keys.

    Source: Goyal, Vin and Cheng, "Start-time Fair Queueing", 1996.
    """
    keys = (
        select(job_keys.c.key, job_keys.c.virtual_time)
        .where(job_keys.c.num_ready > 0)
        .order_by(job_keys.c.virtual_time, job_keys.c.key)
        .limit(_NUM_KEYS_TRIED)
    )
    for key in (await transaction.run(keys)).all():
        query = (
            select_jobs()
            .where(jobs.c.key == key.key, _IS_READY)
            .order_by(jobs.c.priority.desc(), jobs.c.sequence)
            .limit(1)
            .with_for_update(of=jobs, skip_locked=True)
        )
        found = (await transaction.run(query)).one_or_none()
        if found is None:
            continue
        row = job_row(found)
        job = row.job
        await count_queued(transaction, job.key, queued=-1, ready=-1, audio_s=-job.audio_s)
        # A key that had nothing to do gets no credit for it.
        start = max(virtual_time, key.virtual_time)
        await transaction.change(update(job_clock).values(virtual_time=start))
        await transaction.change(
            update(job_keys)
            .where(job_keys.c.key == job.key)
            .values(virtual_time=start + cost_of(job.audio_s, job.weight))
        )
        return row
    return None


async def _take(transaction: Transaction, row: JobRow, runner: str, lease_s: float) -> Lease:
    job = replace(
        row.job,
        status="running",
        started_at=row.job.started_at or transaction.now,
        num_attempts=row.job.num_attempts + 1,
        version=row.job.version + 1,
    )
    fence = row.fence + 1
    await transaction.change(
        update(jobs)
        .where(jobs.c.sequence == row.sequence)
        .values(
            status=job.status,
            started_at=job.started_at,
            num_attempts=job.num_attempts,
            version=job.version,
            fence=fence,
            runner=runner,
            lease_until=transaction.now + timedelta(seconds=lease_s),
        )
    )
    return Lease(job, fence, runner)


async def _charge(transaction: Transaction, job: Job, cost: float) -> None:
    """Corrects what a key has used of its share."""
    await transaction.change(
        update(job_keys)
        .where(job_keys.c.key == job.key)
        .values(virtual_time=job_keys.c.virtual_time + cost)
    )


def _is_held(lease: Lease) -> ColumnElement[bool]:
    return and_(jobs.c.id == lease.job.id, jobs.c.fence == lease.fence, jobs.c.status == "running")


async def _held_job(transaction: Transaction, lease: Lease) -> JobRow | None:
    query = select_jobs().where(_is_held(lease)).with_for_update(of=jobs)
    row = (await transaction.run(query)).one_or_none()
    return None if row is None else job_row(row)


async def _was_ended_by(transaction: Transaction, lease: Lease, status: JobStatus) -> bool:
    """Returns whether this lease ended the job before, and its runner did not hear of it."""
    query = select(jobs.c.sequence).where(
        jobs.c.id == lease.job.id, jobs.c.fence == lease.fence, jobs.c.status == status
    )
    return (await transaction.run(query)).one_or_none() is not None
