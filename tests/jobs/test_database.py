"""The database: its URL, its schema, its faults, and how little it is asked."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from serve_app.core.errors import ConfigurationError
from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs import migrations
from serve_app.jobs.database import Database, migrate, parse_url
from serve_app.jobs.schema import SCHEMA_REVISION, metadata
from serve_app.jobs.store import DatabaseStore
from serve_app.jobs.wakeups import NotifyWakeups
from tests.jobs.conftest import NewJobs, OpenStore
from tests.jobs.postgres import Postgres

URL_WITH_PASSWORD = "postgresql://user:hunter2@127.0.0.1:1/jobs"


@pytest.mark.parametrize(
    ("url", "kind", "location"),
    [
        ("postgresql://u:p@host/db", "postgresql", "postgresql://u:p@host/db"),
        (
            "postgres://host/db?sslmode=require",
            "postgresql",
            "postgresql://host/db?sslmode=require",
        ),
        ("postgresql+asyncpg://host/db", "postgresql", "postgresql://host/db"),
        (" POSTGRESQL://host/db\n", "postgresql", "postgresql://host/db"),
        ("sqlite:////var/jobs.db", "sqlite", "/var/jobs.db"),
        ("sqlite+aiosqlite:////var/a%20b.db", "sqlite", "/var/a%20b.db"),
    ],
)
def test_url_is_read_as_users_write_it(url: str, kind: str, location: str) -> None:
    parsed = parse_url(url)
    assert (parsed.kind, parsed.location) == (kind, location)
    assert location not in repr(parsed)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "jobs.db",
        "mysql://user:hunter2@host/db",
        "sqlite://",
        "sqlite:///",
        "sqlite:////",
        "sqlite:///var/jobs.db",
        "sqlite:///:memory:",
        "sqlite:////var/jobs.db?mode=ro",
    ],
)
def test_other_urls_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"jobs\.database_url") as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (URL_WITH_PASSWORD, StoreUnavailable),
        ("postgresql://user:hunter2@127.0.0.1:port/jobs", ConfigurationError),
        ("postgresql://user:hunter2@127.0.0.1/jobs?sslmode=maybe", ConfigurationError),
    ],
)
async def test_password_is_in_no_error_and_no_log(
    url: str, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    store = DatabaseStore(url)
    with pytest.raises(error) as caught:
        await store.get("alice", "job_a")
    await store.close()
    told: list[str] = [caplog.text]
    cause: BaseException | None = caught.value
    while cause is not None:
        told += [str(cause), repr(cause)]
        cause = cause.__cause__
    assert "hunter2" not in "".join(told)


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


async def test_migrations_make_the_tables_of_the_schema(database_url: str) -> None:
    database = Database(database_url)
    await database.prepare()
    async with database.write() as transaction:
        assert await transaction.connection.run_sync(differences) == []
        await transaction.connection.exec_driver_sql("DROP INDEX ix_jobs_ready")
        assert await transaction.connection.run_sync(differences) != []
    await database.close()


def test_newest_migration_is_the_one_of_this_release() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [SCHEMA_REVISION]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_many_processes_migrate_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'jobs.sqlite3'}"
    if kind == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = await postgres.new_database()
    results = await asyncio.gather(*(asyncio.to_thread(migrate, url) for _ in range(4)))
    befores = [before for before, _ in results]
    assert befores.count(None) == 1
    assert {after for _, after in results} == {SCHEMA_REVISION}
    assert await asyncio.to_thread(migrate, url) == (SCHEMA_REVISION, SCHEMA_REVISION)


async def test_database_of_a_newer_release_is_refused(database_url: str) -> None:
    database = Database(database_url)
    async with database.write() as transaction:
        await transaction.connection.exec_driver_sql(
            "UPDATE alembic_version SET version_num = '9999'"
        )
    await database.close()
    store = DatabaseStore(database_url)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="paraserve jobs migrate"):
            await store.get("alice", "job_a")
    await store.close()
    with pytest.raises(ConfigurationError, match="9999"):
        await asyncio.to_thread(migrate, database_url)


async def test_user_who_may_not_migrate_is_told_who_shall(postgres: Postgres) -> None:
    url = await postgres.new_database()
    name = url.partition("@/")[2].partition("?")[0]
    await postgres.execute(
        "DO $$ BEGIN CREATE ROLE poor LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    store = DatabaseStore(postgres.url(name, "poor"))
    with pytest.raises(ConfigurationError, match="paraserve jobs migrate"):
        await store.prepare()
    await asyncio.to_thread(migrate, url)
    await postgres.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO poor;"
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO poor",
        name,
    )
    await store.prepare()
    assert (await store.list("alice")).jobs == ()
    await store.close()


async def test_database_that_does_not_exist_is_a_wrong_setting(postgres: Postgres) -> None:
    store = DatabaseStore(postgres.url("nowhere"))
    with pytest.raises(ConfigurationError, match="refused"):
        await store.prepare()
    await store.close()


@pytest.mark.slow
async def test_store_works_again_after_postgresql_was_away(
    postgres: Postgres, new_job: NewJobs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "serve_app.jobs")
    store = DatabaseStore(await postgres.new_migrated_database())
    job, _ = await store.create(new_job(webhook_url="https://example.com"))
    lease = await store.lease("runner", 30)
    assert lease is not None
    waiting = asyncio.create_task(store.wait(600))
    await asyncio.sleep(0)
    await postgres.stop()
    try:
        for call in (
            store.get("alice", job.id),
            store.create(new_job()),
            store.lease("runner", 30),
            store.renew(lease, 30, 0.5),
            store.complete(lease, "r", 1.0),
            store.list("alice"),
            store.backlog(),
            store.take_delivery("runner", 30),
            store.expire(),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        # Whoever waits looks for itself what has happened.
        await waiting
    finally:
        await postgres.start()
    assert await store.complete(lease, "r", 1.0)
    assert (await store.get("alice", job.id)).status == "completed"
    assert [entry.levelname for entry in caplog.records if "answer" in entry.message] == [
        "ERROR",
        "INFO",
    ]
    await store.close()


@pytest.mark.slow
async def test_connections_that_the_server_drops_are_replaced(
    postgres: Postgres, new_job: NewJobs
) -> None:
    store = DatabaseStore(await postgres.new_migrated_database())
    job, _ = await store.create(new_job())
    for _ in range(3):
        await postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'paraserve'"
        )
        assert (await store.get("alice", job.id)).id == job.id
    await store.close()


async def test_locked_sqlite_file_is_unavailable(
    tmp_path: Path, new_job: NewJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.jobs.database._BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "jobs.sqlite3"
    store = DatabaseStore(f"sqlite:///{path}")
    job, _ = await store.create(new_job())
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        await store.create(new_job())
    assert (await store.get("alice", job.id)).id == job.id
    blocker.execute("ROLLBACK")
    blocker.close()
    await store.create(new_job())
    await store.close()


async def test_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = DatabaseStore(f"sqlite:///{tmp_path / 'file' / 'jobs.sqlite3'}")
    with pytest.raises(StoreUnavailable):
        await store.get("alice", "job_a")
    await store.close()


async def test_full_disk_under_sqlite_is_unavailable(tmp_path: Path, new_job: NewJobs) -> None:
    store = DatabaseStore(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")
    job, _ = await store.create(new_job())
    engine = store._database._engine

    def limit(connection: DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA max_page_count = 1")
        cursor.close()

    event.listen(engine.sync_engine, "connect", limit)
    await engine.dispose()

    async def fill() -> None:
        for _ in range(200):
            await store.create(new_job(metadata={"text": "x" * 500}))

    with pytest.raises(StoreUnavailable):
        await fill()
    assert (await store.get("alice", job.id)).id == job.id
    num_queued = (await store.backlog()).num_queued
    assert num_queued == len((await store.list("alice", limit=100)).jobs)
    event.remove(engine.sync_engine, "connect", limit)
    await engine.dispose()
    await store.create(new_job())
    await store.close()


_WRITER = """
import asyncio, sys
from serve_app.jobs.records import NewJob
from serve_app.jobs.store import DatabaseStore
from serve_app.jobs.wakeups import NotifyWakeups

async def main():
    store = DatabaseStore(sys.argv[1])
    number = 0
    while True:
        job = NewJob(f"job_{number:06d}", "alice", 1.0, 1, 1.0)
        await store.create(job)
        print(job.id, flush=True)
        number += 1

asyncio.run(main())
"""


@pytest.mark.slow
async def test_killed_writer_loses_nothing_that_it_was_told(
    database_url: str, open_store: OpenStore, new_job: NewJobs
) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, database_url, stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    told = [(await writer.stdout.readline()).decode().strip() for _ in range(25)]
    os.kill(writer.pid, signal.SIGKILL)
    told += (await writer.stdout.read()).decode().split()
    await writer.wait()
    store = open_store(has_clock=False)
    assert await store.known(told) == set(told)
    num_queued = (await store.backlog()).num_queued
    # One more may have been written that nobody was told of.
    assert num_queued - len(told) in (0, 1)
    assert (await store.create(new_job("bob")))[1]
    assert await store.lease("runner", 30) is not None


async def test_cancelled_callers_leave_the_store_whole(
    open_store: OpenStore, new_job: NewJobs
) -> None:
    store = open_store()
    await store.create(new_job())
    num_cancelled = 0
    for number in range(40):
        task = asyncio.create_task(store.create(new_job()))
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        num_cancelled += isinstance(
            (await asyncio.gather(task, return_exceptions=True))[0], BaseException
        )
    assert num_cancelled
    await asyncio.gather(*(store.create(new_job()) for _ in range(20)))
    page = await store.list("alice", limit=100)
    assert (await store.backlog()).num_queued == len(page.jobs)
    assert len({job.id for job in page.jobs}) == len(page.jobs)


async def test_wait_hears_of_a_new_job(open_store: OpenStore, new_job: NewJobs) -> None:
    waiter, other = open_store(), open_store()
    await waiter.prepare()
    for creator in (waiter, other):
        await waiter.wait(0.01)
        waiting = [asyncio.create_task(waiter.wait(600)) for _ in range(3)]
        await asyncio.sleep(0)
        await creator.create(new_job())
        # Far below the 600 s.
        async with asyncio.timeout(60):
            await asyncio.gather(*waiting)


async def test_postgresql_notifies_other_processes(postgres: Postgres, new_job: NewJobs) -> None:
    url = await postgres.new_migrated_database()
    waiter, other = DatabaseStore(url), DatabaseStore(url)
    await waiter.prepare()
    wakeups = waiter._database._wakeups
    assert isinstance(wakeups, NotifyWakeups)
    async with asyncio.timeout(60):
        while not wakeups.is_listening:
            await waiter.wait(0.1)
    await waiter.wait(0.1)
    waiting = asyncio.create_task(waiter.wait(600))
    await asyncio.sleep(0)
    await other.create(new_job())
    async with asyncio.timeout(60):
        await waiting
    assert wakeups.is_listening
    await waiter.close()
    await other.close()


async def test_each_loop_hears_of_what_happened_while_it_looked(
    open_store: OpenStore, new_job: NewJobs
) -> None:
    store = open_store()
    await store.prepare()
    has_looked, is_created = asyncio.Barrier(3), asyncio.Event()
    heard: list[str] = []

    async def loop(name: str, is_slow: bool) -> None:
        await store.wait(0.01)
        await store.wait(0.01)
        await has_looked.wait()
        if is_slow:
            # It looks for jobs meanwhile.
            await is_created.wait()
        await store.wait(600)
        heard.append(name)
        if not is_slow:
            is_created.set()

    tasks = [asyncio.create_task(loop(name, name == "slow")) for name in ("fast", "slow")]
    await has_looked.wait()
    await store.create(new_job())
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks)
    assert heard == ["fast", "slow"]


async def test_wait_ends_after_its_time(open_store: OpenStore) -> None:
    store = open_store()
    await store.prepare()
    await store.wait(0.01)
    async with asyncio.timeout(60):
        await store.wait(0.2)


@pytest.fixture
async def counted(database_url: str) -> AsyncIterator[tuple[DatabaseStore, list[str]]]:
    """A store, and the statements that it has executed."""
    store = DatabaseStore(database_url)
    statements: list[str] = []

    def count(*args: object) -> None:
        statements.append(str(args[2]))

    event.listen(store._database._engine.sync_engine, "before_cursor_execute", count)
    yield store, statements
    await store.close()


async def test_idle_runner_asks_little(
    counted: tuple[DatabaseStore, list[str]], new_job: NewJobs
) -> None:
    store, statements = counted
    for _ in range(20):
        await store.create(new_job())
    while await store.lease("runner", 1000) is not None:
        pass
    await store.wait(0.01)
    await store.wait(0.01)
    statements.clear()
    # All that waiting costs: the database is not asked in between.
    await store.wait(2.5)
    assert statements == []
    # And what a runner then asks.
    assert await store.lease("runner", 30) is None
    assert await store.take_delivery("runner", 30) is None
    assert await store.expire() == 0
    assert await store.due_for_removal(100) == []
    assert await store.audio_due_for_removal(100) == []
    assert len(statements) == 5
