"""The sweeper: what is due goes, orphans go, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest

from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs import sweeper as module
from serve_app.jobs.records import JobLimits, NewJob, ResumableUpload
from serve_app.jobs.sweeper import Sweeper
from tests.fakes.job_files import MemoryFiles
from tests.fakes.job_store import MemoryStore
from tests.jobs.test_runner import until

KEY = "team-a"
LOGGER = logging.getLogger("tests.jobs")
DAY = timedelta(days=1)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 28, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class House:
    def __init__(self) -> None:
        self.clock = Clock()
        limits = JobLimits(keep_audio_s=86_400.0, keep_results_s=7 * 86_400.0)
        self.store = MemoryStore(limits, self.clock)
        self.files = MemoryFiles(self.clock)
        self.expired: list[int] = []
        self.sweeper = Sweeper(self.store, self.files, LOGGER, self.expired.append)

    async def add(self, name: str, upload_id: str | None = None, **fields: object) -> None:
        job_id = f"job_{name}"
        kinds = ["request.json"] if upload_id else ["audio", "request.json"]
        for kind in kinds:
            await self.files.put_bytes(f"{job_id}/{kind}", b"x")
        new = NewJob(job_id, KEY, 1.0, 1, 1.0, upload_id=upload_id, **fields)  # type: ignore[arg-type]
        await self.store.create(new)

    async def complete(self, name: str) -> None:
        lease = await self.store.lease("r", 60.0)
        assert lease is not None
        assert lease.job.id == f"job_{name}"
        for kind in ("utterances-1-00000.json", "result-1.json"):
            await self.files.put_bytes(f"job_{name}/{kind}", b"x")
        await self.store.complete(lease, f"job_{name}/result-1.json", 1.0)

    async def upload(self, upload_id: str, expires_in: timedelta = 7 * DAY) -> None:
        await self.files.put_bytes(f"{upload_id}/part-0", b"x")
        expires_at = self.clock() + expires_in
        await self.store.create_upload(
            ResumableUpload(upload_id, KEY, 1, 1, (1,), {}, expires_at), 9
        )

    @property
    def names(self) -> set[str]:
        return set(self.files.contents)


@pytest.fixture
async def house() -> House:
    return House()


async def test_recording_goes_before_the_result_and_the_result_with_the_job(house: House) -> None:
    await house.add("a")
    await house.complete("a")
    await house.sweeper.remove_due()
    assert len(house.names) == 4
    house.clock.now += DAY + timedelta(minutes=1)
    await house.sweeper.remove_due()
    assert house.names == {"job_a/request.json", "job_a/result-1.json"}
    house.clock.now += 6 * DAY
    await house.sweeper.remove_due()
    assert house.names == set()


async def test_jobs_that_have_not_ended_keep_everything(house: House) -> None:
    await house.add("a")
    await house.add("b")
    await house.store.lease("r", 60.0)
    house.clock.now += 30 * DAY
    await house.sweeper.remove_due()
    await house.sweeper.remove_orphans()
    assert len(house.names) == 4


async def test_upload_goes_with_the_recording_of_its_job_and_not_before(house: House) -> None:
    await house.upload("upl_x", expires_in=timedelta(hours=1))
    await house.add("a", upload_id="upl_x")
    house.clock.now += 2 * DAY
    await house.sweeper.remove_due()
    await house.sweeper.remove_orphans()
    assert "upl_x/part-0" in house.names
    await house.complete("a")
    house.clock.now += DAY + timedelta(minutes=1)
    await house.sweeper.remove_due()
    assert house.names == {"job_a/request.json", "job_a/result-1.json"}


async def test_upload_that_no_job_has_taken_goes_when_it_expires(house: House) -> None:
    await house.upload("upl_x", expires_in=timedelta(hours=1))
    await house.upload("upl_y", expires_in=2 * DAY)
    house.clock.now += timedelta(hours=2)
    await house.sweeper.remove_due()
    assert house.names == {"upl_y/part-0"}


async def test_orphans_older_than_a_day_go_and_only_these(house: House) -> None:
    await house.add("known")
    await house.upload("upl_known")
    await house.files.put_bytes("job_orphan/audio", b"x")
    await house.files.put_bytes("job_late/audio", b"x")
    house.clock.now += timedelta(hours=23)
    await house.files.put_bytes("job_late/request.json", b"x")
    await house.files.put_bytes("job_young/audio", b"x")
    await house.sweeper.remove_orphans()
    assert "job_orphan/audio" in house.names
    house.clock.now += timedelta(hours=2)
    await house.sweeper.remove_orphans()
    left = {name.partition("/")[0] for name in house.names}
    assert left == {"job_known", "upl_known", "job_late", "job_young"}


async def test_many_orphans_go_in_one_sweep(house: House) -> None:
    await house.add("known")
    for number in range(250):
        await house.files.put_bytes(f"job_{number}/audio", b"x")
    house.clock.now += 2 * DAY
    await house.sweeper.remove_orphans()
    assert house.names == {"job_known/audio", "job_known/request.json"}


async def test_no_orphan_goes_while_the_store_does_not_answer(house: House) -> None:
    await house.files.put_bytes("job_orphan/audio", b"x")
    house.clock.now += 2 * DAY
    house.store.fault = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await house.sweeper.remove_orphans()
    assert house.names == {"job_orphan/audio"}


async def test_files_that_cannot_be_removed_now_are_removed_later(house: House) -> None:
    await house.add("a")
    await house.complete("a")
    house.clock.now += DAY + timedelta(minutes=1)
    house.files.fault = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await house.sweeper.remove_due()
    house.files.fault = None
    await house.sweeper.remove_due()
    assert house.names == {"job_a/request.json", "job_a/result-1.json"}
    house.clock.now += 6 * DAY
    house.files.fault = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await house.sweeper.remove_due()
    house.files.fault = None
    await house.sweeper.remove_due()
    assert house.names == set()


async def test_expired_jobs_are_ended_and_counted(house: House) -> None:
    await house.add("a", expires_at=house.clock() + timedelta(hours=1))
    await house.add("b")
    await house.sweeper.expire()
    assert house.expired == []
    house.clock.now += timedelta(hours=2)
    await house.sweeper.expire()
    assert house.expired == [1]
    assert (await house.store.get(KEY, "job_a")).status == "expired"
    assert (await house.store.get(KEY, "job_b")).status == "queued"


@pytest.mark.parametrize("fault", [StoreUnavailable(), PermissionError("not yours")])
async def test_sweeps_go_on_after_a_failure_until_they_are_stopped(
    house: House, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    for name in ("_EXPIRE_S", "_REMOVE_S", "_ORPHANS_S"):
        monkeypatch.setattr(module, name, 0.01)
    await house.add("a", expires_at=house.clock() + timedelta(hours=1))
    house.clock.now += timedelta(hours=2)
    house.store.fault = fault
    task = asyncio.create_task(house.sweeper.run())
    await asyncio.sleep(0.05)
    house.store.fault = None
    await until(lambda: house.expired)
    house.sweeper.stop()
    async with asyncio.timeout(10):
        await task
