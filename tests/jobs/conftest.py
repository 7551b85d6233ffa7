"""Stores of jobs: in memory, in SQLite, and in PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serve_app.jobs.ports import JobStore
from serve_app.jobs.records import JobLimits, NewJob
from serve_app.jobs.store import DatabaseStore
from tests.fakes.job_store import MemoryStore
from tests.jobs.postgres import Postgres

KINDS = ("sqlite", "postgresql")


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 28, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class NewJobs:
    """Makes jobs with ids of their own."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __call__(self, key: str = "alice", **fields: object) -> NewJob:
        job_id = f"job_{next(self._numbers):024d}"
        values: dict[str, object] = {"weight": 1.0, "audio_bytes": 32_000, "audio_s": 1.0}
        return NewJob(id=job_id, key=key, **(values | fields))  # type: ignore[arg-type]


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def new_job() -> NewJobs:
    return NewJobs()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    try:
        server = Postgres()
    except ImportError as error:
        pytest.skip(f"NOT TESTED: there is no PostgreSQL for this platform: {error}")
    yield server
    server.close()


NewUrl = Callable[[], Awaitable[str]]


def url_maker(kind: str, request: pytest.FixtureRequest) -> NewUrl:
    """Returns what makes a database of a kind, with the tables of jobs."""
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.new_migrated_database
    folder: Path = request.getfixturevalue("tmp_path")

    async def new_file() -> str:
        return f"sqlite:///{folder / 'jobs.sqlite3'}"

    return new_file


@pytest.fixture(params=KINDS)
async def database_url(request: pytest.FixtureRequest) -> str:
    return await url_maker(request.param, request)()


OpenStore = Callable[..., DatabaseStore]


@pytest.fixture
async def open_store(database_url: str, clock: SetClock) -> AsyncIterator[OpenStore]:
    """Opens the same database as often as asked: each store is as that of another process."""
    stores: list[DatabaseStore] = []

    def opened(limits: JobLimits | None = None, *, has_clock: bool = True) -> DatabaseStore:
        stores.append(DatabaseStore(database_url, limits, clock if has_clock else None))
        return stores[-1]

    yield opened
    for store in stores:
        await store.close()


NewStore = Callable[..., JobStore]


@pytest.fixture(params=("memory", *KINDS))
async def new_store(request: pytest.FixtureRequest, clock: SetClock) -> AsyncIterator[NewStore]:
    """Opens a store with given limits: the real one, and the one that other tests use."""
    if request.param == "memory":
        yield lambda limits=None: MemoryStore(limits, clock)
        return
    url = await url_maker(request.param, request)()
    stores: list[DatabaseStore] = []

    def opened(limits: JobLimits | None = None) -> JobStore:
        stores.append(DatabaseStore(url, limits, clock))
        return stores[-1]

    yield opened
    for store in stores:
        await store.close()


@pytest.fixture
def store(new_store: NewStore) -> JobStore:
    return new_store()
