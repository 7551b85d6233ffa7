"""The jobs database: its URL, its connections, its transactions, and its faults."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

import asyncpg
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    CursorResult,
    Executable,
    Table,
    UpdateBase,
    event,
    func,
    literal,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from serve_app.core.errors import ConfigurationError
from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs import migrations
from serve_app.jobs.ports import Clock
from serve_app.jobs.schema import SCHEMA_REVISION, UtcTime
from serve_app.jobs.wakeups import FileWakeups, NotifyWakeups, Wakeups

_LOG = logging.getLogger(__name__)

CHANNEL = "paraserve_jobs"
"""Of PostgreSQL's NOTIFY."""

_CONNECT_TIMEOUT_S = 10.0
_COMMAND_TIMEOUT_S = 30.0
_BUSY_TIMEOUT_S = 20.0
_IS_READ = "paraserve_is_read"
_LOCK_ID = 7_232_416_980_142_133
"""Of PostgreSQL's advisory lock around migrations; any number that others do not use."""

_UNAVAILABLE_STATES = ("08", "25006", "40", "53", "55P03", "57", "58")
"""SQLSTATEs, or their beginnings, that pass or that an operator mends: lost connections, a
standby, deadlocks, a lack of resources, locks, shutdowns, and the server's own disk.

Source: PostgreSQL 18, appendix A.
"""
_REFUSED_STATES = ("28", "3D000")
"""The user, the password or the database is wrong."""
_NO_RIGHT_STATE = "42501"
_UNAVAILABLE_SQLITE = frozenset({5, 6, 8, 10, 11, 13, 14, 15, 26})
"""Primary result codes: busy, locked, read-only, I/O, corrupt, full, cannot open, protocol,
not a database.

Source: https://sqlite.org/rescode.html
"""

DatabaseKind: TypeAlias = Literal["postgresql", "sqlite"]
Rows: TypeAlias = CursorResult[Any]  # One statement's rows are of other types than another's.


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """Where the database is.

    Attributes:
        kind: which one.
        location: of PostgreSQL its URL, with the password; of SQLite an absolute path.
    """

    kind: DatabaseKind
    location: str

    def __repr__(self) -> str:
        return f"DatabaseUrl(kind={self.kind!r})"


def parse_url(url: str) -> DatabaseUrl:
    """Parses `postgresql://...` or `sqlite:///path`.

    Raises:
        ConfigurationError: it is neither; the message does not repeat it.
    """
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if separator and scheme in ("postgresql", "postgres", "postgresql+asyncpg"):
        return DatabaseUrl("postgresql", f"postgresql://{rest}")
    if not separator or scheme not in ("sqlite", "sqlite+aiosqlite"):
        raise ConfigurationError(
            "jobs.database_url must begin with postgresql:// or sqlite:///; it begins with neither"
        )
    path = rest.removeprefix("/")
    if not Path(path).is_absolute() or not Path(path).name or "?" in path or "\0" in path:
        raise ConfigurationError(
            "jobs.database_url must name a file by an absolute path, with four slashes and without "
            "options, as in sqlite:////var/lib/paraserve/jobs.sqlite3"
        )
    return DatabaseUrl("sqlite", path)


@dataclass(slots=True)
class Transaction:
    """A transaction that writes.

    Attributes:
        connection: of the transaction.
        kind: of the database.
        now: the present time, by the database's clock.
        is_announced: whether those who wait for jobs and messages are woken.
        is_announced_here: the same within this process only.
    """

    connection: AsyncConnection
    kind: DatabaseKind
    now: datetime
    is_announced: bool = False
    is_announced_here: bool = False

    async def run(self, statement: Executable) -> Rows:
        """Executes a statement."""
        return await self.connection.execute(statement)

    async def change(self, statement: UpdateBase) -> int:
        """Executes a statement and returns the number of rows that it changed."""
        return (await self.connection.execute(statement)).rowcount

    def insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        """Returns an INSERT that can say what to do where a row exists already."""
        return postgresql.insert(table) if self.kind == "postgresql" else sqlite.insert(table)

    def announce(self) -> None:
        """Wakes those who wait for jobs and messages, once this is committed."""
        self.is_announced = True

    def announce_here(self) -> None:
        """The same within this process only."""
        self.is_announced_here = True


class Database:
    """A PostgreSQL database or a SQLite file, of one event loop.

    Nothing is opened before the first use.

    Args:
        url: see `parse_url`.
        clock: returns the present time in UTC; None for the database's own, which the
            processes of several nodes share.

    Raises:
        ConfigurationError: the URL is not supported.
    """

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.url = parse_url(url)
        self._clock = clock
        self._engine = _engine_of(self.url)
        reading: dict[str, object] = {_IS_READ: True}
        if self.url.kind == "postgresql":
            # One statement, one round trip.
            reading["isolation_level"] = "AUTOCOMMIT"
        self._reader = self._engine.execution_options(**reading)
        self._wakeups = self._new_wakeups()
        self._preparing = asyncio.Lock()
        self._is_prepared = False
        self._is_answering = True

    async def prepare(self) -> None:
        """Creates or migrates the tables, unless they are there.

        Raises:
            ConfigurationError: the tables are of another release and cannot be migrated here,
                or the database refuses the user.
            StoreUnavailable: it does not answer.
        """
        if self._is_prepared:
            return
        async with self._preparing:
            if not self._is_prepared:
                with self._translated(is_opening=True):
                    await _prepare(self.url, self._engine)
                self._is_prepared = True

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """Runs a transaction: commits it at the end, rolls it back after an error.

        Raises:
            StoreUnavailable: the database does not answer; whether it was committed is unknown.
        """
        await self.prepare()
        with self._translated():
            async with self._engine.begin() as connection:
                transaction = Transaction(connection, self.url.kind, await self._now(connection))
                yield transaction
                if transaction.is_announced and self.url.kind == "postgresql":
                    await connection.execute(select(func.pg_notify(CHANNEL, "")))
        if transaction.is_announced or transaction.is_announced_here:
            self._wakeups.wake()

    async def read(self, statement: Executable) -> Rows:
        """Executes one statement that only reads.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        await self.prepare()
        with self._translated():
            async with self._reader.connect() as connection:
                return await connection.execute(statement)

    def now(self) -> ColumnElement[datetime]:
        """Returns the present time as an expression, by the database's clock."""
        if self._clock is None and self.url.kind == "postgresql":
            return func.clock_timestamp(type_=UtcTime)
        return literal(self._local_now(), UtcTime)

    async def wait(self, timeout_s: float) -> None:
        """Returns after an announcement, or after the time."""
        await self._wakeups.wait(timeout_s)

    async def close(self) -> None:
        await self._wakeups.close()
        await self._engine.dispose()

    async def _now(self, connection: AsyncConnection) -> datetime:
        if self._clock is None and self.url.kind == "postgresql":
            return (await connection.execute(select(self.now()))).scalar_one()
        return self._local_now()

    def _local_now(self) -> datetime:
        return datetime.now(UTC) if self._clock is None else self._clock()

    def _new_wakeups(self) -> Wakeups:
        if self.url.kind == "sqlite":
            return FileWakeups(Path(f"{self.url.location}-wal"))
        return NotifyWakeups(lambda: _connect(self.url.location), CHANNEL)

    @contextmanager
    def _translated(self, *, is_opening: bool = False) -> Iterator[None]:
        """Raises faults of the connection as `StoreUnavailable`."""
        try:
            yield
        except (
            DBAPIError,
            PoolTimeout,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            sqlite3.Error,
            OSError,
        ) as error:
            if is_opening and (problem := _opening_problem(error)) is not None:
                raise ConfigurationError(problem) from None
            if not is_unavailable(error):
                raise
            if self._is_answering:
                self._is_answering = False
                known = _known(error)
                _LOG.error("the jobs database does not answer: %s: %s", type(known).__name__, known)
            raise StoreUnavailable from error
        if not self._is_answering:
            self._is_answering = True
            _LOG.info("the jobs database answers again")


def migrate(url: str) -> tuple[str | None, str]:
    """Creates the tables, or brings those of an older release up to date.

    Not to be called from within an event loop.

    Returns:
        The schema's revision before, None of an empty database; and the one after.

    Raises:
        ConfigurationError: the database is of a newer release, or refuses the user.
        StoreUnavailable: it does not answer.
    """
    return asyncio.run(_migrate(url))


def is_unavailable(error: BaseException) -> bool:
    """Returns whether an error is one of the connection or the server, not of the statement."""
    if isinstance(error, OSError | PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    known = _known(error)
    if isinstance(known, sqlite3.Error):
        # Without a code it is aiosqlite's own, of a connection that is closed.
        code = getattr(known, "sqlite_errorcode", sqlite3.SQLITE_IOERR)
        return code & 0xFF in _UNAVAILABLE_SQLITE
    if isinstance(known, asyncpg.InterfaceError):
        return True
    return _state_of(error).startswith(_UNAVAILABLE_STATES + _REFUSED_STATES)


def _state_of(error: BaseException) -> str:
    return getattr(_known(error), "sqlstate", None) or ""


def _known(error: BaseException) -> BaseException:
    """Returns the driver's error."""
    return error.orig or error if isinstance(error, DBAPIError) else error


def _opening_problem(error: BaseException) -> str | None:
    """Returns what an operator has to mend; None for what may pass by itself."""
    state = _state_of(error)
    if state.startswith(_REFUSED_STATES):
        return f"the jobs database refused the connection: {_known(error)}"
    if state == _NO_RIGHT_STATE:
        return (
            "the tables of the jobs database are missing or of an older release, and its user may "
            "not create them; run `paraserve jobs migrate` as a user who may"
        )
    return None


async def _migrate(url: str) -> tuple[str | None, str]:
    database = Database(url)
    try:
        with database._translated(is_opening=True):
            return await _prepare(database.url, database._engine)
    finally:
        await database.close()


async def _prepare(url: DatabaseUrl, engine: AsyncEngine) -> tuple[str | None, str]:
    """Returns the schema's revision before and after."""
    if url.kind == "postgresql":
        async with engine.connect() as connection:
            before = await connection.run_sync(migrations.current_revision)
        if before == SCHEMA_REVISION:
            return before, before
        async with engine.begin() as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_ID)))
            return await connection.run_sync(migrations.upgrade)
    lock = await asyncio.to_thread(_lock_beside, Path(url.location))
    try:
        await asyncio.to_thread(_use_write_ahead_log, Path(url.location))
        async with engine.begin() as connection:
            return await connection.run_sync(migrations.upgrade)
    finally:
        lock.close()


def _lock_beside(path: Path) -> TextIO:
    """Waits until no other process opens a SQLite file; returns the lock, to be closed."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _use_write_ahead_log(path: Path) -> None:
    """Lets readers go on beside a writer, from now on and for all processes."""
    with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise ConfigurationError(
            f"the file system of {path} cannot hold the jobs database, as it does not support "
            "SQLite's write-ahead log; use a local disk, or PostgreSQL"
        )


def _engine_of(url: DatabaseUrl) -> AsyncEngine:
    if url.kind == "postgresql":
        return create_async_engine(
            "postgresql+asyncpg://",
            async_creator=lambda: _connect(url.location),
            hide_parameters=True,
            # A connection from before a restart of the server is noticed before its use.
            pool_pre_ping=True,
            pool_timeout=_CONNECT_TIMEOUT_S,
        )
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=url.location),
        connect_args={"timeout": _BUSY_TIMEOUT_S},
        hide_parameters=True,
        pool_timeout=_BUSY_TIMEOUT_S,
    )
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


async def _connect(url: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(
            url,
            timeout=_CONNECT_TIMEOUT_S,
            command_timeout=_COMMAND_TIMEOUT_S,
            server_settings={"application_name": "paraserve"},
        )
    except ValueError:
        # The driver's message, or the error before it, may repeat a part of the URL.
        raise ConfigurationError(
            "jobs.database_url is not a URL that PostgreSQL understands, such as "
            "postgresql://user:password@host:5432/database?sslmode=require"
        ) from None


def _set_up_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # The driver would begin transactions by its own rules.
    connection.isolation_level = None
    cursor = connection.cursor()
    # A commit is on the disk before it returns, also in WAL mode.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that writes locks at its beginning. One that reads first and is overtaken
    # by another writer would fail at once: https://sqlite.org/lang_transaction.html
    if not connection.get_execution_options().get(_IS_READ):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
