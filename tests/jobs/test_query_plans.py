"""With 10,000 queued jobs, no question to the store reads all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import event, insert

from serve_app.jobs.records import JobLimits
from serve_app.jobs.schema import job_keys, jobs
from serve_app.jobs.store import DatabaseStore
from tests.jobs.conftest import NewJobs, SetClock

NUM_JOBS = 10_000
KEYS = [f"key{number}" for number in range(4)]

pytestmark = pytest.mark.slow

Executed = list[tuple[str, object]]


@pytest.fixture
async def full_store(
    database_url: str, clock: SetClock
) -> AsyncIterator[tuple[DatabaseStore, Executed]]:
    """A store with many queued jobs, and what it has executed since."""
    store = DatabaseStore(database_url, JobLimits(), clock)
    rows: list[dict[str, object]] = [
        {
            "id": f"job_full{number:020d}",
            "key": KEYS[number % len(KEYS)],
            "weight": 1.0,
            "status": "queued",
            "priority": number % 3 - 1,
            "audio_bytes": 1,
            "audio_s": 60.0,
            "done_s": 0.0,
            "metadata": {},
            "request_hash": "",
            "request_id": "",
            "created_at": clock.now + timedelta(seconds=number),
            "expires_at": clock.now + timedelta(days=30, seconds=number) if number % 2 else None,
            "fence": 0,
            "num_attempts": 0,
            "version": 1,
        }
        for number in range(NUM_JOBS)
    ]
    num_each = NUM_JOBS // len(KEYS)
    async with store._database.write() as transaction:
        await transaction.connection.execute(insert(jobs), rows)
        for key in KEYS:
            await transaction.run(
                insert(job_keys).values(
                    key=key,
                    weight=1.0,
                    virtual_time=0.0,
                    num_queued=num_each,
                    num_ready=num_each,
                    queued_audio_s=num_each * 60.0,
                )
            )
    async with store._database.write() as transaction:
        await transaction.connection.exec_driver_sql("ANALYZE")
    executed: Executed = []

    def remember(*args: object) -> None:
        executed.append((str(args[2]), args[3]))

    engine = store._database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", remember)
    yield store, executed
    await store.close()


async def unindexed(store: DatabaseStore, executed: Executed) -> list[str]:
    """Returns the statements that read the whole table of jobs."""
    found = []
    is_sqlite = store._database.url.kind == "sqlite"
    explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
    for statement, parameters in list(executed):
        if not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            continue
        async with store._database.write() as transaction:
            plan = await transaction.connection.exec_driver_sql(
                explain + statement,
                parameters,  # type: ignore[arg-type]
            )
            lines = [str(row[-1]) for row in plan.all()]
        if any(_reads_all(line) for line in lines):
            found.append("\n".join([statement, *lines]))
    return found


def _reads_all(line: str) -> bool:
    return "Seq Scan on jobs" in line or (line.startswith("SCAN jobs") and "INDEX" not in line)


async def test_every_question_has_an_index(
    full_store: tuple[DatabaseStore, Executed], new_job: NewJobs, clock: SetClock
) -> None:
    store, executed = full_store
    page = await store.list("key1", limit=100)
    await store.list("key1", statuses=("queued", "failed"), after=page.jobs[-1].id)
    await store.list("key1", statuses=("completed",))
    assert await store.position(page.jobs[0]) == 1000
    assert await store.open_audio_s("key1") == 150_000
    await store.get("key1", page.jobs[0].id)
    await store.versions([job.id for job in page.jobs])
    await store.known([job.id for job in page.jobs])
    created, _ = await store.create(new_job("key5", idempotency_key="k", request_hash="h"))
    lease = await store.lease("runner", 30)
    assert lease is not None
    await store.renew(lease, 30, 1.0)
    await store.hand_back(lease, after_s=1)
    clock.move(2)
    lease = await store.lease("runner", 30)
    assert lease is not None
    clock.move(31)
    lease = await store.lease("runner", 30)
    assert lease is not None
    await store.backlog()
    await store.complete(lease, "r", 60.0)
    await store.cancel("key2", (await store.list("key2")).jobs[0].id)
    await store.delete("key5", created.id)
    await store.take_delivery("runner", 30)
    clock.move(30 * 86_400)
    await store.audio_due_for_removal(100)
    await store.due_for_removal(100)
    assert len(executed) > 40
    assert await unindexed(store, executed) == []


async def test_expiry_has_an_index(
    full_store: tuple[DatabaseStore, Executed], clock: SetClock
) -> None:
    store, executed = full_store
    assert await store.expire() == 0
    clock.move(30 * 86_400 + 50)
    assert await store.expire() == 25
    assert await unindexed(store, executed) == []
