"""Runners on the real store and files: SQLite and a directory, one runner lost in the middle."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from serve_app.jobs.attempt import Workplace
from serve_app.jobs.files import FsspecFiles
from serve_app.jobs.opening import open_files, open_store
from serve_app.jobs.records import NewJob
from serve_app.jobs.runner import Runner
from serve_app.jobs.store import DatabaseStore
from serve_app.settings.jobs import JobSettings
from serve_app.transcript.transcript_json import transcript_from_json
from tests.fakes.job_transcriber import ScriptedTranscriber
from tests.jobs.test_runner import until

LOGGER = logging.getLogger("tests.jobs")
NAMES = [f"job_{number:024d}" for number in range(12)]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobSettings:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return JobSettings(storage=str(tmp_path / "jobs"), enabled=True)


@pytest.fixture
async def stores(settings: JobSettings) -> AsyncIterator[list[DatabaseStore]]:
    """A store for each of two processes, and one for their callers."""
    opened = [open_store(settings) for _ in range(3)]
    yield opened
    for store in opened:
        await store.close()


async def add_jobs(store: DatabaseStore, files: FsspecFiles) -> None:
    for number, job_id in enumerate(NAMES):
        audio = f"{number:02d}" + "abcdefgh" * 2
        await files.put_bytes(f"{job_id}/audio", audio.encode())
        request = json.dumps({"fields": {}, "audio": [f"{job_id}/audio"]})
        await files.put_bytes(f"{job_id}/request.json", request.encode())
        key = f"key-{number % 3}"
        await store.create(NewJob(job_id, key, 1.0, len(audio), float(len(audio))))


async def test_every_job_ends_once_with_its_text_though_a_runner_is_lost(
    settings: JobSettings, stores: list[DatabaseStore]
) -> None:
    files = open_files(settings)
    await add_jobs(stores[0], files)
    runners: list[Runner] = []
    tasks: list[asyncio.Task[None]] = []
    slow = ScriptedTranscriber()
    slow.pause_at = 10
    for name, store, transcriber in (
        ("lost", stores[1], slow),
        ("other", stores[2], ScriptedTranscriber()),
    ):
        workplace = Workplace(
            store, files, transcriber, LOGGER, lease_s=1.5, checkpoint_audio_s=4.0
        )
        runners.append(Runner(name, workplace, 2, idle_s=0.1))
        tasks.append(asyncio.create_task(runners[-1].run()))
        if transcriber is slow:
            await until(lambda: slow.reached.is_set() and slow.num_begun == 2)
    lost, _ = tasks
    lost.cancel()
    with suppress(asyncio.CancelledError):
        await lost

    async def all_ended() -> bool:
        backlog = await stores[0].backlog()
        return backlog.num_queued == backlog.num_running == 0

    await until(all_ended)
    runners[1].stop()
    async with asyncio.timeout(30):
        await tasks[1]
    attempts: list[int] = []
    for number, job_id in enumerate(NAMES):
        job = await stores[0].get(f"key-{number % 3}", job_id)
        assert job.status == "completed"
        assert job.result is not None
        transcript = transcript_from_json(await files.get_bytes(job.result))
        said = "".join(word.text for word in transcript.words())
        assert said == f"{number:02d}" + "abcdefgh" * 2
        attempts.append(job.num_attempts)
        kept = {name.partition("/")[2] for name in await files.names(job_id)}
        assert kept == {"audio", "request.json", job.result.partition("/")[2]}
    assert sorted(attempts)[-2:] == [2, 2]
    assert sum(attempts) == len(NAMES) + 2
    month = f"{(await stores[0].get('key-0', NAMES[0])).created_at:%Y-%m}"
    usage = await stores[0].usage(month)
    assert sum(one.num_requests for one in usage) == len(NAMES)
    assert sum(one.audio_s for one in usage) == 18.0 * len(NAMES)
