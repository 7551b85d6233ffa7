"""Creating, listing and cancelling jobs."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from serve_app.core.job_errors import IdempotencyConflict, JobNotFound, QueueFull
from serve_app.jobs.ports import JobStore
from serve_app.jobs.records import FINAL, Job, JobError, JobLimits, JobStatus, Usage
from tests.jobs.conftest import NewJobs, NewStore, OpenStore, SetClock


async def ended(store: JobStore, new_job: NewJobs, status: JobStatus, key: str = "alice") -> Job:
    """Returns a job in a final state, other than expired."""
    job, _ = await store.create(new_job(key))
    if status == "cancelled":
        return await store.cancel(key, job.id)
    lease = await store.lease("runner", 30)
    assert lease is not None
    if status == "completed":
        await store.complete(lease, f"{job.id}/result-1.json", 1.0)
    else:
        await store.fail(lease, JobError("corrupt_audio", "the recording is damaged", "file"))
    return await store.get(key, job.id)


async def test_created_job_is_found_with_everything_that_was_given(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    new = new_job(
        priority=1,
        metadata={"name": "café \x00 录音", "empty": ""},
        webhook_url="https://example.com/hook",
        expires_at=clock.now + timedelta(hours=1),
        request_id="req-1",
        weight=2.5,
        audio_s=3.25,
    )
    job, is_new = await store.create(new)
    assert is_new
    assert await store.get("alice", new.id) == job
    for name in ("id", "key", "weight", "audio_bytes", "audio_s", "priority", "metadata"):
        assert getattr(job, name) == getattr(new, name)
    assert (job.webhook_url, job.expires_at) == (new.webhook_url, new.expires_at)
    assert (job.status, job.created_at, job.request_id) == ("queued", clock.now, "req-1")
    assert (job.webhook, job.started_at, job.removed_at, job.num_attempts) == (None, None, None, 0)


async def test_no_other_key_sees_a_job(store: JobStore, new_job: NewJobs) -> None:
    job, _ = await store.create(new_job("alice"))
    for call in (store.get, store.cancel, store.delete, store.redeliver):
        with pytest.raises(JobNotFound):
            await call("bob", job.id)
    with pytest.raises(JobNotFound):
        await store.list("bob", after=job.id)
    assert (await store.list("bob")).jobs == ()
    assert (await store.get("alice", job.id)).status == "queued"


@pytest.mark.parametrize(
    "job_id", ["", "job_x\x00", "'; DROP TABLE jobs", "job_" + "é" * 9, "j" * 999]
)
async def test_what_cannot_be_an_id_is_not_found(store: JobStore, job_id: str) -> None:
    for call in (store.get, store.cancel, store.delete, store.redeliver):
        with pytest.raises(JobNotFound):
            await call("alice", job_id)
    with pytest.raises(JobNotFound):
        await store.list("alice", after=job_id)
    assert await store.known([job_id]) == frozenset()
    assert await store.versions([job_id]) == {}


async def test_pages_follow_each_other_from_the_newest_on(
    store: JobStore, new_job: NewJobs
) -> None:
    created = [(await store.create(new_job()))[0].id for _ in range(7)]
    await store.create(new_job("bob"))
    seen: list[str] = []
    after = None
    for _ in range(3):
        page = await store.list("alice", after=after, limit=3)
        seen += [job.id for job in page.jobs]
        after = seen[-1]
    assert seen == created[::-1]
    assert not page.has_more
    assert (await store.list("alice", limit=6)).has_more
    assert not (await store.list("alice", limit=7)).has_more


async def test_list_shows_the_statuses_that_are_asked_for(
    store: JobStore, new_job: NewJobs
) -> None:
    jobs = {
        status: (await ended(store, new_job, status)).id
        for status in ("failed", "completed", "cancelled")
    }
    jobs["queued"] = (await store.create(new_job()))[0].id
    for statuses in (
        ("queued",),
        ("cancelled", "failed"),
        ("completed", "completed"),
        ("running",),
    ):
        page = await store.list("alice", statuses=statuses)
        wanted = {jobs[status] for status in statuses if status in jobs}
        assert [job.id for job in page.jobs] == sorted(wanted, reverse=True)
        assert not page.has_more
    page = await store.list("alice", statuses=("cancelled", "failed", "queued"), limit=2)
    assert [job.status for job in page.jobs] == ["queued", "cancelled"]
    assert page.has_more
    page = await store.list("alice", statuses=("failed", "queued"), after=page.jobs[-1].id)
    assert [job.status for job in page.jobs] == ["failed"]


async def test_same_idempotency_key_gets_the_same_job(store: JobStore, new_job: NewJobs) -> None:
    first, _ = await store.create(new_job(idempotency_key="k", request_hash="h"))
    again = await store.create(new_job(idempotency_key="k", request_hash="h"))
    assert again == (first, False)
    with pytest.raises(IdempotencyConflict):
        await store.create(new_job(idempotency_key="k", request_hash="other"))
    other, is_new = await store.create(new_job("bob", idempotency_key="k", request_hash="h"))
    assert is_new
    assert other.id != first.id
    assert (await store.backlog()).num_queued == 2
    await store.delete("alice", first.id)
    assert (await store.create(new_job(idempotency_key="k", request_hash="other")))[1]


async def test_creation_that_is_repeated_changes_nothing(store: JobStore, new_job: NewJobs) -> None:
    new = new_job()
    first, _ = await store.create(new)
    assert await store.create(new) == (first, True)
    assert (await store.backlog()).num_queued == 1


async def test_idempotency_key_makes_one_job_of_a_race(
    open_store: OpenStore, new_job: NewJobs
) -> None:
    stores = [open_store() for _ in range(3)]
    made = await asyncio.gather(
        *(
            stores[number % 3].create(new_job(idempotency_key="k", request_hash="h"))
            for number in range(12)
        )
    )
    assert len({job.id for job, _ in made}) == 1
    assert sum(is_new for _, is_new in made) == 1
    assert (await stores[0].backlog()).num_queued == 1


async def test_key_has_no_more_queued_jobs_than_allowed(
    new_store: NewStore, new_job: NewJobs
) -> None:
    store = new_store(JobLimits(max_queued=2))
    first, _ = await store.create(new_job())
    await store.create(new_job(idempotency_key="k", request_hash="h"))
    with pytest.raises(QueueFull, match="2 jobs are queued"):
        await store.create(new_job())
    assert not (await store.create(new_job(idempotency_key="k", request_hash="h")))[1]
    await store.create(new_job("bob"))
    await store.cancel("alice", first.id)
    await store.create(new_job())
    lease = await store.lease("runner", 30)
    assert lease is not None
    await store.create(new_job(lease.job.key))


async def test_race_does_not_exceed_the_queue(open_store: OpenStore, new_job: NewJobs) -> None:
    stores = [open_store(JobLimits(max_queued=5)) for _ in range(3)]
    made = await asyncio.gather(
        *(stores[number % 3].create(new_job()) for number in range(12)), return_exceptions=True
    )
    assert sum(isinstance(result, QueueFull) for result in made) == 7
    assert len((await stores[0].list("alice")).jobs) == 5


async def test_cancelled_job_is_not_leased(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    job, _ = await store.create(new_job())
    clock.move(5)
    cancelled = await store.cancel("alice", job.id)
    assert (cancelled.status, cancelled.finished_at) == ("cancelled", clock.now)
    assert cancelled.removed_at == clock.now + timedelta(days=7)
    assert cancelled.version > job.version
    assert await store.lease("runner", 30) is None
    assert (await store.backlog()).num_queued == 0


@pytest.mark.parametrize("status", sorted(FINAL - {"expired"}))
async def test_final_state_stays(store: JobStore, new_job: NewJobs, status: JobStatus) -> None:
    job = await ended(store, new_job, status)
    assert job.is_final
    assert await store.cancel("alice", job.id) == job
    assert await store.get("alice", job.id) == job


async def test_deleted_job_is_gone(store: JobStore, new_job: NewJobs) -> None:
    queued, _ = await store.create(new_job(webhook_url="https://example.com"))
    done = await ended(store, new_job, "completed", "bob")
    for job in (queued, done):
        await store.delete(job.key, job.id)
        with pytest.raises(JobNotFound):
            await store.get(job.key, job.id)
        with pytest.raises(JobNotFound):
            await store.delete(job.key, job.id)
    assert await store.known([queued.id, done.id]) == frozenset()
    assert await store.lease("runner", 30) is None
    assert await store.take_delivery("runner", 30) is None
    assert (await store.backlog()).num_queued == 0


async def test_versions_tell_what_is_new(store: JobStore, new_job: NewJobs) -> None:
    job, _ = await store.create(new_job())
    seen = [(await store.versions([job.id, "job_unknown"]))]
    assert seen == [{job.id: job.version}]
    lease = await store.lease("runner", 30)
    assert lease is not None
    seen.append(await store.versions([job.id]))
    await store.renew(lease, 30, 0.5)
    seen.append(await store.versions([job.id]))
    await store.renew(lease, 30, 0.5)
    unchanged = await store.versions([job.id])
    assert unchanged == seen[-1]
    await store.complete(lease, "r", 1.0)
    seen.append(await store.versions([job.id]))
    versions = [found[job.id] for found in seen]
    assert versions == sorted(set(versions))
    assert await store.versions([]) == {}


async def test_position_counts_the_jobs_that_start_before(
    store: JobStore, new_job: NewJobs
) -> None:
    first, _ = await store.create(new_job())
    second, _ = await store.create(new_job())
    urgent, _ = await store.create(new_job(priority=1))
    assert [await store.position(job) for job in (urgent, first, second)] == [0, 1, 2]
    other, _ = await store.create(new_job("bob"))
    assert await store.position(other) in (0, 1)
    assert await store.position(second) == 3
    lease = await store.lease("runner", 30)
    assert lease is not None
    assert await store.position(lease.job) is None
    assert await store.position(second) == 2


async def test_open_audio_is_that_of_queued_and_running_jobs(
    store: JobStore, new_job: NewJobs
) -> None:
    assert await store.open_audio_s("alice") == 0
    await store.create(new_job(audio_s=10))
    await store.create(new_job(audio_s=20))
    await store.create(new_job("bob", audio_s=400))
    await store.lease("runner", 30)
    await store.lease("runner", 30)
    assert await store.open_audio_s("alice") == 30
    for job in (await store.list("alice")).jobs:
        await store.cancel("alice", job.id)
    assert await store.open_audio_s("alice") == 0


async def test_usage_adds_up_by_key_month_and_kind(store: JobStore) -> None:
    await store.add_usage([])
    await store.add_usage([Usage("bob", "2026-11", "request", 1.5, 1)])
    await store.add_usage(
        [
            Usage("bob", "2026-11", "request", 2.0, 3),
            Usage("bob", "2026-11", "live", 9.0, 1),
            Usage("alice", "2026-11", "request", 4.0, 1),
            Usage("bob", "2026-12", "request", 5.0, 1),
        ]
    )
    assert await store.usage("2026-11") == [
        Usage("alice", "2026-11", "request", 4.0, 1),
        Usage("bob", "2026-11", "live", 9.0, 1),
        Usage("bob", "2026-11", "request", 3.5, 4),
    ]
    assert await store.usage("2026-12", "bob") == [Usage("bob", "2026-12", "request", 5.0, 1)]
    assert await store.usage("2026-12", "alice") == []


async def test_usage_of_several_replicas_loses_nothing(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(3)]
    keys = ["a", "b", "c"]
    await asyncio.gather(
        *(
            stores[number % 3].add_usage(
                [
                    Usage(key, "2026-11", "request", 1.0, 1)
                    for key in (keys[::-1] if number % 2 else keys)
                ]
            )
            for number in range(15)
        )
    )
    assert [entry.num_requests for entry in await stores[0].usage("2026-11")] == [15, 15, 15]
