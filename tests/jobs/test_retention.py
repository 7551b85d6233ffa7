"""What expires, what is to be removed, and what must stay."""

from __future__ import annotations

from datetime import timedelta

import pytest

from serve_app.core.job_errors import JobNotFound, UploadNotFound
from serve_app.jobs.records import JobLimits
from tests.jobs.conftest import NewJobs, NewStore, SetClock
from tests.jobs.test_uploads import new_upload

HOUR = timedelta(hours=1)
LIMITS = JobLimits(keep_audio_s=100, keep_results_s=1000)


async def test_job_that_did_not_start_in_time_expires(
    new_store: NewStore, new_job: NewJobs, clock: SetClock
) -> None:
    store = new_store()
    late, _ = await store.create(new_job(expires_at=clock.now + HOUR))
    patient, _ = await store.create(new_job())
    other, _ = await store.create(new_job("bob", expires_at=clock.now + 2 * HOUR))
    assert await store.expire() == 0
    clock.move(3600)
    assert await store.expire() == 1
    assert await store.expire() == 0
    expired = await store.get("alice", late.id)
    assert (expired.status, expired.finished_at) == ("expired", clock.now)
    leases = [await store.lease("runner", 30) for _ in range(3)]
    assert {lease.job.id for lease in leases if lease} == {patient.id, other.id}


async def test_job_that_has_started_does_not_expire(
    new_store: NewStore, new_job: NewJobs, clock: SetClock
) -> None:
    store = new_store()
    await store.create(new_job(expires_at=clock.now + HOUR))
    await store.create(new_job(expires_at=clock.now + HOUR))
    running = await store.lease("runner", 10_000)
    back = await store.lease("runner", 10_000)
    assert running is not None
    assert back is not None
    await store.hand_back(back)
    clock.move(3601)
    assert await store.expire() == 0
    assert await store.lease("runner", 30) is not None


async def test_many_jobs_expire(new_store: NewStore, new_job: NewJobs, clock: SetClock) -> None:
    store = new_store()
    for number in range(130):
        await store.create(new_job(f"key{number % 3}", expires_at=clock.now + HOUR))
    clock.move(3601)
    assert await store.expire() == 130
    assert (await store.backlog()).num_queued == 0
    assert await store.lease("runner", 30) is None


async def test_ended_job_goes_when_its_time_is_over(
    new_store: NewStore, new_job: NewJobs, clock: SetClock
) -> None:
    store = new_store(LIMITS)
    ended, _ = await store.create(new_job())
    later, _ = await store.create(new_job())
    queued, _ = await store.create(new_job())
    await store.cancel("alice", ended.id)
    clock.move(500)
    await store.cancel("alice", later.id)
    clock.move(499)
    assert await store.due_for_removal(10) == []
    clock.move(1)
    assert await store.due_for_removal(10) == [ended.id]
    with pytest.raises(JobNotFound):
        await store.get("alice", ended.id)
    assert await store.known([ended.id, later.id, queued.id]) == {later.id, queued.id}
    clock.move(100_000)
    assert await store.due_for_removal(10) == [later.id]
    assert (await store.get("alice", queued.id)).status == "queued"


async def test_removal_goes_step_by_step(
    new_store: NewStore, new_job: NewJobs, clock: SetClock
) -> None:
    store = new_store(LIMITS)
    ids = []
    for _ in range(5):
        job, _ = await store.create(new_job())
        await store.cancel("alice", job.id)
        ids.append(job.id)
        clock.move(1)
    clock.move(2000)
    found = [list(await store.due_for_removal(2)) for _ in range(4)]
    assert found == [ids[:2], ids[2:4], ids[4:], []]


async def test_recording_goes_before_the_result(
    new_store: NewStore, new_job: NewJobs, clock: SetClock
) -> None:
    store = new_store(LIMITS)
    job, _ = await store.create(new_job())
    lease = await store.lease("runner", 30)
    assert lease is not None
    clock.move(5000)
    assert await store.audio_due_for_removal(10) == []
    assert await store.complete(lease, "r", 1.0)
    clock.move(99)
    assert await store.audio_due_for_removal(10) == []
    clock.move(1)
    assert await store.audio_due_for_removal(10) == [job.id]
    assert await store.audio_due_for_removal(10) == []
    assert (await store.get("alice", job.id)).result == "r"
    assert await store.known([job.id]) == {job.id}


async def test_message_outlives_the_job(
    new_store: NewStore, new_job: NewJobs, clock: SetClock
) -> None:
    store = new_store(LIMITS)
    job, _ = await store.create(new_job(webhook_url="https://example.com"))
    await store.cancel("alice", job.id)
    first = await store.take_delivery("runner", 30)
    assert first is not None
    await store.postpone(first, clock.now + timedelta(seconds=5000))
    clock.move(2000)
    assert await store.due_for_removal(10) == [job.id]
    clock.move(3000)
    again = await store.take_delivery("runner", 30)
    assert again is not None
    assert (again.id, again.body, again.num_attempts) == (first.id, first.body, 1)
    await store.delivered(again)
    clock.move(5000)
    assert await store.take_delivery("runner", 30) is None


async def test_upload_that_no_job_took_expires(new_store: NewStore, clock: SetClock) -> None:
    store = new_store()
    await store.create_upload(new_upload(clock, "upl_a"), 10)
    clock.move(3599)
    assert await store.due_for_removal(10) == []
    clock.move(1)
    with pytest.raises(UploadNotFound):
        await store.get_upload("alice", "upl_a")
    with pytest.raises(UploadNotFound):
        await store.add_part("alice", "upl_a", 0, 5)
    assert await store.due_for_removal(10) == ["upl_a"]
    assert await store.known(["upl_a"]) == frozenset()


async def test_upload_stays_as_long_as_its_job_needs_it(
    new_store: NewStore, new_job: NewJobs, clock: SetClock
) -> None:
    store = new_store(LIMITS)
    await store.create_upload(new_upload(clock, "upl_a"), 10)
    job, _ = await store.create(new_job(upload_id="upl_a"))
    assert job.upload_id == "upl_a"
    clock.move(10_000)
    assert await store.due_for_removal(10) == []
    assert (await store.get_upload("alice", "upl_a")).id == "upl_a"
    lease = await store.lease("runner", 30)
    assert lease is not None
    assert lease.job.upload_id == "upl_a"
    await store.complete(lease, "r", 1.0)
    assert await store.due_for_removal(10) == []
    assert await store.known(["upl_a", job.id]) == {"upl_a", job.id}
    clock.move(100)
    assert await store.audio_due_for_removal(10) == [job.id]
    assert await store.due_for_removal(10) == ["upl_a"]
    assert (await store.get("alice", job.id)).upload_id is None
    clock.move(1000)
    assert await store.due_for_removal(10) == [job.id]


async def test_job_and_its_upload_go_together(
    new_store: NewStore, new_job: NewJobs, clock: SetClock
) -> None:
    store = new_store(JobLimits(keep_audio_s=5000, keep_results_s=1000))
    for number in range(2):
        await store.create_upload(new_upload(clock, f"upl_{number}"), 10)
    kept, _ = await store.create(new_job(upload_id="upl_0"))
    gone, _ = await store.create(new_job(upload_id="upl_1"))
    await store.cancel("alice", kept.id)
    await store.delete("alice", gone.id)
    assert await store.known(["upl_0", "upl_1"]) == {"upl_0"}
    clock.move(1000)
    assert await store.due_for_removal(10) == [kept.id, "upl_0"]
    assert await store.known(["upl_0", kept.id]) == frozenset()


async def test_store_knows_what_has_a_row(
    new_store: NewStore, new_job: NewJobs, clock: SetClock
) -> None:
    store = new_store()
    ids = [(await store.create(new_job()))[0].id for _ in range(3)]
    await store.create_upload(new_upload(clock, "upl_a"), 10)
    asked = [*ids, "upl_a", *(f"job_unknown{number}" for number in range(1200))]
    assert await store.known(asked) == {*ids, "upl_a"}
    assert await store.known([]) == frozenset()
