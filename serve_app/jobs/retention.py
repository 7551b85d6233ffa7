"""Retention: what expires, and what is to be removed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import delete, exists, or_, select, update

from serve_app.jobs.rows import StorePart, end_job, is_id, job_row, select_jobs
from serve_app.jobs.schema import deliveries, jobs, uploads

_BATCH = 100
"""Rows of a transaction, so that others do not wait long for it."""
_IDS_PER_QUERY = 500


class Retention(StorePart):
    """What the sweeper asks of the store."""

    async def expire(self) -> int:
        num_expired = 0
        is_late = (
            jobs.c.status == "queued",
            jobs.c.expires_at.is_not(None),
            jobs.c.started_at.is_(None),
        )
        due = exists().where(*is_late, jobs.c.expires_at <= self._database.now())
        while (await self._database.read(select(due))).scalar_one():
            async with self._database.write() as transaction:
                query = (
                    select_jobs()
                    .where(*is_late, jobs.c.expires_at <= transaction.now)
                    .order_by(jobs.c.expires_at)
                    .limit(_BATCH)
                    .with_for_update(of=jobs, skip_locked=True)
                )
                rows = [job_row(row) for row in (await transaction.run(query)).all()]
                # By key: otherwise two could wait for each other's keys.
                for row in sorted(rows, key=lambda row: row.job.key):
                    await end_job(transaction, row, "expired", self._limits)
            if not rows:
                # Somebody else is about to change them.
                break
            num_expired += len(rows)
        return num_expired

    async def due_for_removal(self, limit: int) -> Sequence[str]:
        now = self._database.now()
        due = or_(
            exists().where(jobs.c.removed_at.is_not(None), jobs.c.removed_at <= now),
            exists().where(uploads.c.job_id.is_(None), uploads.c.expires_at <= now),
        )
        if not (await self._database.read(select(due))).scalar_one():
            return []
        async with self._database.write() as transaction:
            query = (
                select(jobs.c.id, jobs.c.upload_id)
                .where(jobs.c.removed_at.is_not(None), jobs.c.removed_at <= transaction.now)
                .order_by(jobs.c.removed_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            ended = (await transaction.run(query)).all()
            job_ids = [row.id for row in ended]
            taken = [row.upload_id for row in ended if row.upload_id is not None]
            query = (
                select(uploads.c.id)
                .where(uploads.c.job_id.is_(None), uploads.c.expires_at <= transaction.now)
                .order_by(uploads.c.expires_at)
                .limit(max(0, limit - len(job_ids)))
                .with_for_update(skip_locked=True)
            )
            expired = (await transaction.run(query)).scalars().all()
            await transaction.change(delete(jobs).where(jobs.c.id.in_(job_ids)))
            # A message that is still to be sent stays until it is.
            await transaction.change(
                delete(deliveries).where(
                    deliveries.c.job_id.in_(job_ids), deliveries.c.state != "pending"
                )
            )
            upload_ids = [*taken, *expired]
            await transaction.change(delete(uploads).where(uploads.c.id.in_(upload_ids)))
            return [*job_ids, *upload_ids]

    async def audio_due_for_removal(self, limit: int) -> Sequence[str]:
        due = exists().where(
            jobs.c.audio_due_at.is_not(None), jobs.c.audio_due_at <= self._database.now()
        )
        if not (await self._database.read(select(due))).scalar_one():
            return []
        async with self._database.write() as transaction:
            query = (
                select(jobs.c.id, jobs.c.upload_id)
                .where(jobs.c.audio_due_at.is_not(None), jobs.c.audio_due_at <= transaction.now)
                .order_by(jobs.c.audio_due_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            rows = (await transaction.run(query)).all()
            job_ids = [row.id for row in rows]
            await transaction.change(
                update(jobs).where(jobs.c.id.in_(job_ids)).values(audio_due_at=None, upload_id=None)
            )
            taken = [row.upload_id for row in rows if row.upload_id is not None]
            await transaction.change(
                update(uploads)
                .where(uploads.c.id.in_(taken))
                .values(job_id=None, expires_at=transaction.now)
            )
            return job_ids

    async def known(self, ids: Iterable[str]) -> frozenset[str]:
        asked = [text for text in ids if is_id(text)]
        found: set[str] = set()
        for start in range(0, len(asked), _IDS_PER_QUERY):
            some = asked[start : start + _IDS_PER_QUERY]
            of_jobs = select(jobs.c.id).where(jobs.c.id.in_(some))
            of_uploads = select(uploads.c.id).where(uploads.c.id.in_(some))
            rows = await self._database.read(of_jobs.union_all(of_uploads))
            found.update(rows.scalars().all())
        return frozenset(found)
