"""Opens what the settings name: the store of jobs and their files."""

from __future__ import annotations

from pathlib import Path

from serve_app.core.errors import ConfigurationError
from serve_app.jobs.files import FsspecFiles
from serve_app.jobs.records import JobLimits
from serve_app.jobs.store import DatabaseStore
from serve_app.settings.jobs import JobSettings

_SQLITE_NAME = "jobs.sqlite3"


def open_store(settings: JobSettings) -> DatabaseStore:
    """Returns the store; nothing is opened before its first use.

    Raises:
        ConfigurationError: the database's URL is not supported, or its file cannot be read.
    """
    limits = JobLimits(
        max_queued=settings.max_queued,
        max_attempts=settings.max_attempts,
        keep_audio_s=settings.keep_audio_s,
        keep_results_s=settings.keep_results_s,
    )
    return DatabaseStore(database_url(settings), limits)


def open_files(settings: JobSettings) -> FsspecFiles:
    """Returns the files; a local directory is created.

    Raises:
        ConfigurationError: the storage is not supported, its package is not installed, or the
            directory cannot be created.
    """
    return FsspecFiles(settings.storage)


def database_url(settings: JobSettings) -> str:
    """Returns where the database is, with the password.

    Raises:
        ConfigurationError: the file with the URL cannot be read, or is empty.
    """
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    if settings.database_url_file is None:
        directory = Path(settings.storage.removeprefix("file://")).expanduser().absolute()
        return f"sqlite:///{directory / _SQLITE_NAME}"
    try:
        url = settings.database_url_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"jobs.database_url_file {settings.database_url_file} cannot be read: "
            f"{type(error).__name__}"
        ) from None
    if not url:
        raise ConfigurationError(f"jobs.database_url_file {settings.database_url_file} is empty")
    return url
