"""What the settings open."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from serve_app.core.errors import ConfigurationError
from serve_app.jobs.opening import database_url, open_files, open_store
from serve_app.settings.jobs import JobSettings
from tests.jobs.conftest import NewJobs


async def test_store_and_files_share_a_local_directory(tmp_path: Path, new_job: NewJobs) -> None:
    settings = JobSettings(storage=str(tmp_path / "jobs"), max_queued=1)
    files, store = open_files(settings), open_store(settings)
    job, _ = await store.create(new_job())
    await files.put_bytes(f"{job.id}/audio", b"x")
    await store.close()
    assert (tmp_path / "jobs" / "jobs.sqlite3").is_file()
    assert (tmp_path / "jobs" / job.id / "audio").is_file()
    again = open_store(settings)
    assert await again.get("alice", job.id) == job
    await again.close()


def test_url_comes_from_the_setting_or_its_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://u:p@host/db\n")
    storage = str(tmp_path)
    assert database_url(JobSettings(storage=storage)) == f"sqlite:///{tmp_path}/jobs.sqlite3"
    assert (
        database_url(JobSettings(storage=f"file://{tmp_path}"))
        == f"sqlite:///{tmp_path}/jobs.sqlite3"
    )
    assert (
        database_url(JobSettings(storage=storage, database_url=SecretStr("postgresql://h/db")))
        == "postgresql://h/db"
    )
    assert (
        database_url(JobSettings(storage=storage, database_url_file=file))
        == "postgresql://u:p@host/db"
    )


@pytest.mark.parametrize("content", [None, b" \n", b"\xff\xfe"])
def test_file_without_url_is_told(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="database_url_file"):
        open_store(JobSettings(storage=str(tmp_path), database_url_file=file))


def test_unsupported_settings_are_told(tmp_path: Path) -> None:
    settings = JobSettings(storage=str(tmp_path), database_url=SecretStr("mysql://u:hunter2@h/db"))
    with pytest.raises(ConfigurationError) as caught:
        open_store(settings)
    assert "hunter2" not in str(caught.value)
