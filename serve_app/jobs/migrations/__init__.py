"""The migrations of the jobs database, by Alembic.

They run inside a transaction that the caller has begun, so a failed one changes nothing.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from serve_app.core.errors import ConfigurationError
from serve_app.jobs.schema import SCHEMA_REVISION


def current_revision(connection: Connection) -> str | None:
    """Returns the revision of the database's schema; None if it has none.

    Raises:
        ConfigurationError: it is of a newer release.
    """
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None:
        try:
            ScriptDirectory.from_config(_config()).get_revision(revision)
        except CommandError:
            raise ConfigurationError(
                f"the jobs database has schema {revision}, and this release knows none after "
                f"{SCHEMA_REVISION}; use the release whose `paraserve jobs migrate` made it, or a "
                "newer one"
            ) from None
    return revision


def upgrade(connection: Connection) -> tuple[str | None, str]:
    """Brings the schema up to date.

    Returns:
        Its revision before and after.

    Raises:
        ConfigurationError: it is of a newer release.
    """
    before = current_revision(connection)
    if before != SCHEMA_REVISION:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, SCHEMA_REVISION)
    return before, SCHEMA_REVISION


def _config() -> Config:
    config = Config()
    location = str(Path(__file__).parent)
    config.set_main_option("script_location", location.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
