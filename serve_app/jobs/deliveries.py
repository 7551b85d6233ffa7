"""Webhook messages: which one is due, and how its delivery ended."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import and_, delete, exists, select, update

from serve_app.core.job_errors import NoWebhook
from serve_app.jobs.records import Delivery, DeliveryState, Job
from serve_app.jobs.rows import StorePart, job_row, locked_job, select_jobs
from serve_app.jobs.schema import deliveries, jobs

_IS_PENDING = deliveries.c.state == "pending"


class Deliveries(StorePart):
    """The messages that wait to be sent."""

    async def take_delivery(self, runner: str, lease_s: float) -> Delivery | None:
        due = exists().where(_IS_PENDING, deliveries.c.due_at <= self._database.now())
        if not (await self._database.read(select(due))).scalar_one():
            return None
        async with self._database.write() as transaction:
            query = (
                select(deliveries)
                .where(_IS_PENDING, deliveries.c.due_at <= transaction.now)
                .order_by(deliveries.c.due_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            row = (await transaction.run(query)).one_or_none()
            if row is None:
                return None
            fence = row.fence + 1
            # It is due again if this runner is lost.
            due_at = transaction.now + timedelta(seconds=lease_s)
            await transaction.change(
                update(deliveries)
                .where(deliveries.c.job_id == row.job_id)
                .values(due_at=due_at, fence=fence, runner=runner)
            )
            transaction.announce_here()
            return Delivery(
                id=row.id,
                job_id=row.job_id,
                key=row.key,
                url=row.url,
                body=row.body,
                num_attempts=row.num_attempts,
                created_at=row.created_at,
                fence=fence,
            )

    async def delivered(self, delivery: Delivery) -> None:
        await self._count_attempt(delivery, "delivered", None)

    async def postpone(self, delivery: Delivery, until: datetime | None) -> None:
        state: DeliveryState = "undelivered" if until is None else "pending"
        await self._count_attempt(delivery, state, until)

    async def redeliver(self, key: str, job_id: str) -> Job:
        async with self._database.write() as transaction:
            row = await locked_job(transaction, key, job_id)
            changed = await transaction.change(
                update(deliveries)
                .where(deliveries.c.job_id == job_id)
                .values(
                    state="pending",
                    num_attempts=0,
                    due_at=transaction.now,
                    fence=deliveries.c.fence + 1,
                )
            )
            if changed == 0:
                raise NoWebhook
            of_job = jobs.c.sequence == row.sequence
            await transaction.change(update(jobs).where(of_job).values(version=jobs.c.version + 1))
            transaction.announce()
            return job_row((await transaction.run(select_jobs().where(of_job))).one()).job

    async def _count_attempt(
        self, delivery: Delivery, state: DeliveryState, until: datetime | None
    ) -> None:
        values: dict[str, object] = {
            "state": state,
            "num_attempts": deliveries.c.num_attempts + 1,
        }
        if until is not None:
            values["due_at"] = until
        is_taken = and_(
            deliveries.c.job_id == delivery.job_id,
            deliveries.c.fence == delivery.fence,
            _IS_PENDING,
        )
        async with self._database.write() as transaction:
            # The job's row first, as everywhere: otherwise two could wait for each other.
            of_job = jobs.c.id == delivery.job_id
            query = select(jobs.c.sequence).where(of_job).with_for_update()
            has_job = (await transaction.run(query)).one_or_none() is not None
            changed = await transaction.change(update(deliveries).where(is_taken).values(values))
            if changed == 0:
                return
            if has_job:
                await transaction.change(
                    update(jobs).where(of_job).values(version=jobs.c.version + 1)
                )
            elif state != "pending":
                # Retention has removed the job in the meantime.
                await transaction.change(
                    delete(deliveries).where(deliveries.c.job_id == delivery.job_id)
                )
