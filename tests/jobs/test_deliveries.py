"""Webhook messages: one with each final state, sent until somebody takes it."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from serve_app.core.job_errors import NoWebhook
from serve_app.jobs.ports import JobStore
from serve_app.jobs.records import FINAL, Delivery, Job, JobError, JobStatus
from tests.jobs.conftest import NewJobs, OpenStore, SetClock

URL = "https://example.com/hook"


async def end(store: JobStore, job: Job, status: JobStatus, clock: SetClock) -> Job:
    """Brings the only job to a final state."""
    if status == "cancelled":
        return await store.cancel(job.key, job.id)
    if status == "expired":
        clock.move(3601)
        assert await store.expire() == 1
        return await store.get(job.key, job.id)
    lease = await store.lease("runner", 30)
    assert lease is not None
    if status == "completed":
        assert await store.complete(lease, "r", 1.0)
    else:
        assert await store.fail(lease, JobError("corrupt_audio", "damaged"))
    return await store.get(job.key, job.id)


async def taken(store: JobStore) -> Delivery:
    delivery = await store.take_delivery("runner", 30)
    assert delivery is not None
    return delivery


@pytest.fixture
async def job(store: JobStore, new_job: NewJobs, clock: SetClock) -> Job:
    expires_at = clock.now + timedelta(hours=1)
    return (await store.create(new_job(webhook_url=URL, expires_at=expires_at)))[0]


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_each_final_state_has_one_message(
    store: JobStore, job: Job, clock: SetClock, status: JobStatus
) -> None:
    assert await store.take_delivery("runner", 30) is None
    ended = await end(store, job, status, clock)
    assert (ended.status, ended.webhook, ended.webhook_attempts) == (status, "pending", 0)
    delivery = await taken(store)
    assert (delivery.job_id, delivery.key, delivery.url) == (job.id, "alice", URL)
    assert (delivery.num_attempts, delivery.created_at) == (0, clock.now)
    body = json.loads(delivery.body)
    assert body["type"] == f"transcription.{status}"
    assert body["timestamp"] == clock.now.isoformat()
    assert body["data"]["id"] == job.id
    assert body["data"]["status"] == status
    assert body["data"]["webhook"] == {"url": URL, "status": "pending", "num_attempts": 0}
    assert await store.take_delivery("other", 30) is None


async def test_job_without_webhook_has_no_message(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    job, _ = await store.create(new_job())
    ended = await end(store, job, "completed", clock)
    assert ended.webhook is None
    assert await store.take_delivery("runner", 30) is None
    with pytest.raises(NoWebhook):
        await store.redeliver("alice", job.id)


async def test_delivered_message_is_done(store: JobStore, job: Job, clock: SetClock) -> None:
    ended = await end(store, job, "completed", clock)
    await store.delivered(await taken(store))
    clock.move(1000)
    assert await store.take_delivery("runner", 30) is None
    shown = await store.get("alice", job.id)
    assert (shown.webhook, shown.webhook_attempts) == ("delivered", 1)
    assert shown.version > ended.version
    assert (await store.list("alice")).jobs == (shown,)


async def test_failed_attempt_is_repeated_at_its_time(
    store: JobStore, job: Job, clock: SetClock
) -> None:
    await end(store, job, "completed", clock)
    first = await taken(store)
    await store.postpone(first, clock.now + timedelta(seconds=60))
    clock.move(59)
    assert await store.take_delivery("runner", 30) is None
    clock.move(1)
    second = await taken(store)
    assert (second.id, second.body, second.num_attempts) == (first.id, first.body, 1)
    await store.postpone(second, None)
    clock.move(10_000)
    assert await store.take_delivery("runner", 30) is None
    shown = await store.get("alice", job.id)
    assert (shown.webhook, shown.webhook_attempts) == ("undelivered", 2)


async def test_message_of_a_lost_runner_is_taken_over(
    store: JobStore, job: Job, clock: SetClock
) -> None:
    await end(store, job, "completed", clock)
    late = await taken(store)
    clock.move(31)
    again = await taken(store)
    assert (again.id, again.body) == (late.id, late.body)
    assert again.fence > late.fence
    await store.postpone(late, None)
    await store.delivered(late)
    shown = await store.get("alice", job.id)
    assert (shown.webhook, shown.webhook_attempts) == ("pending", 0)
    await store.delivered(again)
    assert (await store.get("alice", job.id)).webhook == "delivered"


@pytest.mark.parametrize("outcome", ["delivered", "undelivered", "pending"])
async def test_message_can_be_sent_again(
    store: JobStore, job: Job, clock: SetClock, outcome: str
) -> None:
    with pytest.raises(NoWebhook):
        await store.redeliver("alice", job.id)
    await end(store, job, "completed", clock)
    first = await taken(store)
    if outcome == "delivered":
        await store.delivered(first)
    elif outcome == "undelivered":
        await store.postpone(first, None)
    shown = await store.redeliver("alice", job.id)
    assert (shown.webhook, shown.webhook_attempts) == ("pending", 0)
    again = await taken(store)
    assert (again.id, again.body, again.num_attempts) == (first.id, first.body, 0)
    # The outcome of an attempt from before says nothing of this one.
    await store.delivered(first)
    assert (await store.get("alice", job.id)).webhook == "pending"


async def test_oldest_message_is_sent_first(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    ids = []
    for _ in range(3):
        job, _ = await store.create(new_job(webhook_url=URL))
        await store.cancel("alice", job.id)
        ids.append(job.id)
        clock.move(1)
    assert [(await taken(store)).job_id for _ in range(3)] == ids


async def test_state_and_message_are_one_transaction(
    open_store: OpenStore, new_job: NewJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    job, _ = await store.create(new_job(webhook_url=URL))
    lease = await store.lease("runner", 30)
    assert lease is not None

    def broken(_: Job) -> bytes:
        raise RuntimeError("no message")

    with monkeypatch.context() as patch:
        patch.setattr("serve_app.jobs.rows.webhook_body", broken)
        with pytest.raises(RuntimeError):
            await store.complete(lease, "r", 1.0)
        with pytest.raises(RuntimeError):
            await store.cancel("alice", job.id)
    assert (await store.get("alice", job.id)).status == "running"
    assert await store.complete(lease, "r", 1.0)
    await taken(store)


async def test_senders_at_once_take_each_message_once(
    open_store: OpenStore, new_job: NewJobs
) -> None:
    stores = [open_store() for _ in range(3)]
    ids = []
    for _ in range(12):
        job, _ = await stores[0].create(new_job(webhook_url=URL))
        await stores[0].cancel("alice", job.id)
        ids.append(job.id)

    async def take_all(store: JobStore) -> list[str]:
        found = []
        while (delivery := await store.take_delivery("runner", 30)) is not None:
            found.append(delivery.job_id)
            await store.delivered(delivery)
        return found

    found = await asyncio.gather(*(take_all(store) for store in stores))
    assert sorted(job_id for some in found for job_id in some) == sorted(ids)
