"""Which job a runner gets, and what a late one may still write."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from serve_app.jobs.ports import JobStore
from serve_app.jobs.records import JobError, JobLimits, Lease, Usage
from tests.jobs.conftest import NewJobs, NewStore, OpenStore, SetClock

ERROR = JobError("corrupt_audio", "the recording is damaged", "file")


async def leased(store: JobStore, runner: str = "runner", lease_s: float = 30) -> Lease:
    lease = await store.lease(runner, lease_s)
    assert lease is not None
    return lease


async def leased_ids(store: JobStore) -> list[str]:
    """Returns what there is to lease, in order."""
    ids = []
    while (lease := await store.lease("runner", 30)) is not None:
        ids.append(lease.job.id)
    return ids


async def test_lease_takes_a_job(store: JobStore, new_job: NewJobs, clock: SetClock) -> None:
    assert await store.lease("runner", 30) is None
    job, _ = await store.create(new_job())
    clock.move(3)
    lease = await leased(store)
    assert lease.runner == "runner"
    assert (lease.job.id, lease.job.status, lease.job.num_attempts) == (job.id, "running", 1)
    assert lease.job.started_at == clock.now
    assert await store.get("alice", job.id) == lease.job
    assert await store.lease("other", 30) is None


async def test_jobs_of_a_key_start_by_priority_then_by_age(
    store: JobStore, new_job: NewJobs
) -> None:
    created = [
        (await store.create(new_job(priority=priority)))[0].id for priority in (0, -1, 1, 0, 1)
    ]
    assert await leased_ids(store) == [created[n] for n in (2, 4, 0, 3, 1)]


async def test_keys_share_by_audio_and_weight(store: JobStore, new_job: NewJobs) -> None:
    for _ in range(12):
        await store.create(new_job("heavy", weight=2.0, audio_s=60.0))
    for _ in range(12):
        await store.create(new_job("light", weight=1.0, audio_s=60.0))
    for _ in range(24):
        await store.create(new_job("short", weight=1.0, audio_s=15.0))
    audio_s: Counter[str] = Counter()
    while sum(audio_s.values()) < 960:
        job = (await leased(store)).job
        audio_s[job.key] += int(job.audio_s)
    assert audio_s["heavy"] == pytest.approx(480, abs=60)
    assert audio_s["light"] == pytest.approx(240, abs=60)
    assert audio_s["short"] == pytest.approx(240, abs=60)


async def test_key_that_comes_late_waits_for_nobody_and_gets_no_credit(
    store: JobStore, new_job: NewJobs
) -> None:
    for _ in range(20):
        await store.create(new_job("first", audio_s=60.0))
    for _ in range(10):
        await leased(store)
    for _ in range(10):
        await store.create(new_job("late", audio_s=60.0))
    keys = [(await leased(store)).job.key for _ in range(10)]
    assert "late" in keys[:2]
    assert keys.count("late") in (5, 6)


async def test_audio_that_turns_out_longer_is_charged(store: JobStore, new_job: NewJobs) -> None:
    for _ in range(10):
        await store.create(new_job("unknown", audio_s=0.0))
        await store.create(new_job("known", audio_s=60.0))
    counts: Counter[str] = Counter()
    for _ in range(10):
        lease = await leased(store)
        counts[lease.job.key] += 1
        await store.complete(lease, "r", 60.0)
    assert abs(counts["unknown"] - counts["known"]) <= 1


async def test_job_that_is_handed_back_keeps_its_place(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    created = [(await store.create(new_job()))[0] for _ in range(3)]
    lease = await leased(store)
    await store.renew(lease, 30, 0.5)
    await store.hand_back(lease)
    job = await store.get("alice", created[0].id)
    assert (job.status, job.num_attempts, job.done_s) == ("queued", 0, 0.5)
    assert await store.position(job) == 0
    assert not await store.renew(lease, 30, 0.6)
    assert not await store.complete(lease, "r", 1.0)
    assert (await store.backlog()).num_queued == 3
    assert await leased_ids(store) == [job.id for job in created]


async def test_handing_back_costs_the_key_nothing(store: JobStore, new_job: NewJobs) -> None:
    await store.create(new_job("alice", audio_s=60.0))
    for _ in range(5):
        await store.hand_back(await leased(store))
    await store.create(new_job("bob", audio_s=60.0))
    await store.create(new_job("bob", audio_s=60.0))
    keys = [(await leased(store)).job.key for _ in range(3)]
    assert keys.index("alice") < 2


async def test_job_that_cannot_run_now_holds_up_nobody(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    stuck, _ = await store.create(new_job(priority=1))
    next_job, _ = await store.create(new_job())
    other, _ = await store.create(new_job("bob"))
    lease = await leased(store)
    assert lease.job.id == stuck.id
    await store.hand_back(lease, after_s=60)
    assert set(await leased_ids(store)) == {next_job.id, other.id}
    clock.move(59)
    for running in (next_job, other):
        await store.cancel(running.key, running.id)
    assert await store.lease("runner", 30) is None
    assert (await store.backlog()).num_queued == 1
    clock.move(2)
    assert (await leased(store)).job.id == stuck.id
    assert (await store.backlog()).num_queued == 0


@pytest.mark.parametrize("end", ["cancel", "delete"])
async def test_job_that_waits_can_be_ended(
    store: JobStore, new_job: NewJobs, clock: SetClock, end: str
) -> None:
    job, _ = await store.create(new_job())
    await store.hand_back(await leased(store), after_s=60)
    await (store.cancel if end == "cancel" else store.delete)("alice", job.id)
    clock.move(61)
    assert await store.lease("runner", 30) is None
    second, _ = await store.create(new_job())
    assert await leased_ids(store) == [second.id]
    assert (await store.backlog()).num_queued == 0


async def test_lost_job_is_taken_over_and_the_late_runner_changes_nothing(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    await store.create(new_job(webhook_url="https://example.com"))
    late = await leased(store, "late", 30)
    await store.renew(late, 30, 0.4)
    clock.move(31)
    taken = await leased(store, "next", 30)
    assert taken.job.id == late.job.id
    assert taken.fence > late.fence
    assert (taken.job.num_attempts, taken.job.done_s) == (2, 0.4)
    assert taken.job.started_at == late.job.started_at
    assert not await store.renew(late, 30, 0.9)
    assert not await store.complete(late, "late", 1.0)
    assert not await store.fail(late, ERROR)
    await store.hand_back(late)
    assert await store.get("alice", late.job.id) == taken.job
    assert await store.take_delivery("runner", 30) is None
    assert await store.usage(f"{clock.now:%Y-%m}") == []
    assert await store.complete(taken, "next", 1.0)
    assert not await store.complete(late, "late", 1.0)
    assert (await store.get("alice", late.job.id)).result == "next"


async def test_renewed_job_is_not_taken_over(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    await store.create(new_job())
    lease = await leased(store)
    for _ in range(4):
        clock.move(20)
        assert await store.renew(lease, 30, 0.0)
        assert await store.lease("other", 30) is None


async def test_lease_that_ran_out_but_that_nobody_took_is_still_good(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    await store.create(new_job())
    lease = await leased(store)
    clock.move(100)
    assert await store.renew(lease, 30, 0.0)
    assert await store.lease("other", 30) is None
    clock.move(100)
    assert await store.complete(lease, "r", 1.0)


async def test_lost_jobs_come_before_new_ones(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    lost, _ = await store.create(new_job())
    await leased(store)
    await store.create(new_job(priority=1))
    clock.move(31)
    assert (await leased(store)).job.id == lost.id


async def test_job_whose_runners_are_all_lost_fails(
    new_store: NewStore, new_job: NewJobs, clock: SetClock
) -> None:
    store = new_store(JobLimits(max_attempts=2))
    job, _ = await store.create(new_job(webhook_url="https://example.com"))
    behind, _ = await store.create(new_job())
    leases = []
    for _ in range(2):
        leases.append(await leased(store))
        assert leases[-1].job.id == job.id
        clock.move(31)
    assert (await leased(store)).job.id == behind.id
    failed = await store.get("alice", job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "job_attempts_exhausted"
    assert "2 times" in failed.error.message
    assert not await store.complete(leases[-1], "r", 1.0)
    assert not await store.fail(leases[-1], ERROR)
    message = await store.take_delivery("runner", 30)
    assert message is not None
    assert b'"type":"transcription.failed"' in message.body


async def test_cancelled_job_is_lost_to_its_runner(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    job, _ = await store.create(new_job())
    lease = await leased(store)
    cancelled = await store.cancel("alice", job.id)
    assert cancelled.status == "cancelled"
    assert not await store.renew(lease, 30, 1.0)
    assert not await store.complete(lease, "r", 1.0)
    assert not await store.fail(lease, ERROR)
    await store.hand_back(lease)
    clock.move(1000)
    assert await store.lease("other", 30) is None
    assert await store.get("alice", job.id) == cancelled


async def test_deleted_job_is_lost_to_its_runner(store: JobStore, new_job: NewJobs) -> None:
    job, _ = await store.create(new_job())
    lease = await leased(store)
    await store.delete("alice", job.id)
    assert not await store.renew(lease, 30, 1.0)
    assert not await store.complete(lease, "r", 1.0)
    assert await store.known([job.id]) == frozenset()


async def test_completed_job_has_its_result_and_its_usage(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    job, _ = await store.create(new_job(audio_s=10.0))
    lease = await leased(store)
    clock.move(7)
    assert await store.complete(lease, f"{job.id}/result-1.json", 12.5)
    # The runner did not hear that it was done, and asks again.
    assert await store.complete(lease, f"{job.id}/result-1.json", 12.5)
    done = await store.get("alice", job.id)
    assert (done.status, done.result) == ("completed", f"{job.id}/result-1.json")
    assert (done.audio_s, done.done_s, done.finished_at) == (12.5, 12.5, clock.now)
    assert done.removed_at == clock.now + timedelta(days=7)
    assert await store.usage("2026-11") == [Usage("alice", "2026-11", "job", 12.5, 1)]


async def test_failed_job_has_its_error(store: JobStore, new_job: NewJobs) -> None:
    job, _ = await store.create(new_job())
    lease = await leased(store)
    assert await store.fail(lease, ERROR)
    assert await store.fail(lease, ERROR)
    assert not await store.complete(lease, "r", 1.0)
    failed = await store.get("alice", job.id)
    assert (failed.status, failed.error, failed.result) == ("failed", ERROR, None)
    assert await store.usage("2026-11") == []


async def test_progress_never_goes_back(store: JobStore, new_job: NewJobs) -> None:
    job, _ = await store.create(new_job(audio_s=10.0))
    lease = await leased(store)
    for done_s in (3.0, 2.0):
        assert await store.renew(lease, 30, done_s)
    assert (await store.get("alice", job.id)).done_s == 3.0


async def test_backlog_is_the_audio_that_is_left(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    backlog = await store.backlog()
    assert (backlog.num_queued, backlog.num_running, backlog.oldest_queued_at) == (0, 0, None)
    first_at = clock.now
    await store.create(new_job(audio_s=100.0))
    clock.move(1)
    await store.create(new_job(audio_s=50.0))
    backlog = await store.backlog()
    assert (backlog.num_queued, backlog.queued_audio_s) == (2, 150.0)
    assert backlog.oldest_queued_at == first_at
    lease = await leased(store)
    await store.renew(lease, 30, 60.0)
    backlog = await store.backlog()
    assert (backlog.num_queued, backlog.queued_audio_s) == (1, 50.0)
    assert (backlog.num_running, backlog.running_audio_s) == (1, 40.0)
    clock.move(31)
    backlog = await store.backlog()
    assert (backlog.num_queued, backlog.queued_audio_s, backlog.num_running) == (2, 90.0, 0)
    assert backlog.oldest_queued_at == first_at


async def test_runners_at_once_take_each_job_once(open_store: OpenStore, new_job: NewJobs) -> None:
    stores = [open_store() for _ in range(4)]
    created = {(await stores[0].create(new_job(f"key{n % 5}")))[0].id for n in range(40)}
    taken = await asyncio.gather(*(leased_ids(store) for store in stores))
    ids = [job_id for some in taken for job_id in some]
    assert sorted(ids) == sorted(created)


_RUNNER = """
import asyncio, sys
from serve_app.jobs.store import DatabaseStore

async def main():
    store = DatabaseStore(sys.argv[1])
    await store.prepare()
    print("ready", flush=True)
    sys.stdin.readline()
    while (lease := await store.lease("runner", 30)) is not None:
        assert await store.complete(lease, "r", 1.0)
        print(lease.job.id, flush=True)
    await store.close()

asyncio.run(main())
"""


@pytest.mark.slow
async def test_processes_at_once_take_each_job_once(
    open_store: OpenStore, new_job: NewJobs, database_url: str
) -> None:
    store = open_store()
    created = {(await store.create(new_job(f"key{n % 3}")))[0].id for n in range(60)}
    runners = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _RUNNER,
            database_url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for runner in runners:
        assert runner.stdout is not None
        assert await runner.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(runner.communicate(b"\n") for runner in runners))
    taken = [output.decode().split() for output, _ in outputs]
    assert [runner.returncode for runner in runners] == [0, 0]
    assert sorted(taken[0] + taken[1]) == sorted(created)
    month = f"{datetime.now(UTC):%Y-%m}"
    assert sum(entry.num_requests for entry in await store.usage(month)) == 60
