"""The client against the API itself, with jobs in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from serve_app.client import AsyncParaserve, ServiceRefusal
from serve_app.client import jobs as jobs_module
from serve_app.client import uploads as uploads_module
from tests.api.job_client import JobApi, job_api, wav


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[JobApi]:
    async with job_api(tmp_path) as api:
        yield api


@pytest.fixture
async def client(api: JobApi) -> AsyncIterator[AsyncParaserve]:
    transport = httpx.ASGITransport(api.app)
    async with AsyncParaserve("http://service", "a", transport=transport) as client:
        yield client


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "RESUMABLE_BYTES", 20_000)
    monkeypatch.setattr(uploads_module, "PART_BYTES", 10_000)


async def test_job_is_made_watched_and_read(client: AsyncParaserve, api: JobApi) -> None:
    job = await client.jobs.create(
        wav(), metadata={"案": "七"}, priority="high", expires_after_s=3600, language="zh"
    )
    assert (job.status, job.priority, job.metadata) == ("queued", "high", {"案": "七"})
    assert job.expires_at is not None
    waiting = asyncio.create_task(client.jobs.wait(job))
    await api.complete()
    ended = await waiting
    assert (ended.status, ended.progress.percent) == ("completed", 100.0)
    assert (await client.jobs.result(job)).text
    assert "-->" in (await client.jobs.result(job, "srt", subtitle_max_chars=16)).text
    assert [one.status async for one in client.jobs.events(job)] == ["completed"]
    with pytest.raises(ServiceRefusal) as caught:
        await client.jobs.deliver_webhook_again(job)
    assert caught.value.code == "no_webhook"


async def test_creation_with_one_key_makes_one_job(client: AsyncParaserve) -> None:
    made = [await client.jobs.create(wav(), idempotency_key="night 7") for _ in range(2)]
    assert made[0].id == made[1].id
    with pytest.raises(ServiceRefusal) as caught:
        await client.jobs.create(wav(2.0), idempotency_key="night 7")
    assert caught.value.code == "idempotency_conflict"


@pytest.mark.usefixtures("small_parts")
async def test_recording_in_parts_becomes_a_job(client: AsyncParaserve, api: JobApi) -> None:
    content = wav()
    sent: list[int] = []
    job = await client.jobs.create(content, on_sent=lambda done, _: sent.append(done))
    assert sent == [10_000, 20_000, 30_000, len(content)]
    lease = await api.lease()
    assert (lease.job.id, lease.job.audio_bytes) == (job.id, len(content))


async def test_list_is_filtered_and_goes_over_pages(client: AsyncParaserve) -> None:
    ids = [(await client.jobs.create(wav(0.2 + number))).id for number in range(3)]
    await client.jobs.cancel(ids[0])
    listed = [job.id async for job in client.jobs.list(("queued", "running"), page_size=1)]
    assert listed == [ids[2], ids[1]]
    for job_id in ids:
        await client.jobs.delete(job_id)
    assert [job async for job in client.jobs.list()] == []
    with pytest.raises(ServiceRefusal) as caught:
        await client.jobs.get(ids[0])
    assert caught.value.code == "job_not_found"


async def test_usage_and_quota_are_read(client: AsyncParaserve, api: JobApi) -> None:
    await client.jobs.create(wav())
    await api.complete()
    used = await client.usage()
    assert (used.key, used.audio_s, used.num_requests) == ("a", 2.0, 1)
    assert [kind.kind for kind in used.kinds] == ["job"]
    api.limit_a(1.0)
    assert (await client.usage(used.month)).max_audio_s == 1.0
    with pytest.raises(ServiceRefusal) as caught:
        await client.jobs.create(wav())
    assert (caught.value.code, caught.value.may_succeed_later) == ("quota_exceeded", False)
