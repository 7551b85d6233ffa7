"""Resumable uploads: parts follow each other without a gap, whoever sends them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from serve_app.core.job_errors import TooManyUploads, UploadConflict, UploadNotFound
from serve_app.jobs.ports import JobStore
from serve_app.jobs.records import ResumableUpload
from tests.jobs.conftest import NewJobs, OpenStore, SetClock


def new_upload(clock: SetClock, upload_id: str, key: str = "alice") -> ResumableUpload:
    return ResumableUpload(
        id=upload_id,
        key=key,
        length_bytes=100,
        offset_bytes=0,
        parts=(),
        metadata={"filename": "录音.wav"},
        expires_at=clock.now + timedelta(hours=1),
    )


async def test_parts_add_up(store: JobStore, clock: SetClock) -> None:
    await store.create_upload(new_upload(clock, "upl_a"), 10)
    assert await store.get_upload("alice", "upl_a") == new_upload(clock, "upl_a")
    upload = await store.add_part("alice", "upl_a", 0, 60)
    assert (upload.offset_bytes, upload.parts, upload.is_complete) == (60, (60,), False)
    upload = await store.add_part("alice", "upl_a", 60, 40)
    assert (upload.offset_bytes, upload.parts, upload.is_complete) == (100, (60, 40), True)
    assert await store.get_upload("alice", "upl_a") == upload


@pytest.mark.parametrize(("offset_bytes", "num_bytes"), [(0, 10), (59, 10), (61, 10), (60, 41)])
async def test_part_that_does_not_fit_is_refused(
    store: JobStore, clock: SetClock, offset_bytes: int, num_bytes: int
) -> None:
    await store.create_upload(new_upload(clock, "upl_a"), 10)
    await store.add_part("alice", "upl_a", 0, 60)
    with pytest.raises(UploadConflict, match="60 bytes"):
        await store.add_part("alice", "upl_a", offset_bytes, num_bytes)
    assert (await store.get_upload("alice", "upl_a")).parts == (60,)


async def test_one_of_the_parts_that_race_wins(open_store: OpenStore, clock: SetClock) -> None:
    stores = [open_store() for _ in range(3)]
    await stores[0].create_upload(new_upload(clock, "upl_a"), 10)
    results = await asyncio.gather(
        *(stores[number % 3].add_part("alice", "upl_a", 0, 10 + number) for number in range(9)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, UploadConflict) for result in results) == 8
    upload = await stores[0].get_upload("alice", "upl_a")
    assert upload.parts == (upload.offset_bytes,)


async def test_no_other_key_sees_an_upload(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    await store.create_upload(new_upload(clock, "upl_a"), 10)
    for upload_id in ("upl_a", "upl_b", "upl_\x00", ""):
        with pytest.raises(UploadNotFound):
            await store.get_upload("bob", upload_id)
        with pytest.raises(UploadNotFound):
            await store.add_part("bob", upload_id, 0, 5)
        with pytest.raises(UploadNotFound):
            await store.delete_upload("bob", upload_id)
        with pytest.raises(UploadNotFound):
            await store.create(new_job("bob", upload_id=upload_id))
    assert (await store.backlog()).num_queued == 0
    assert (await store.get_upload("alice", "upl_a")).offset_bytes == 0


async def test_one_job_takes_an_upload(store: JobStore, new_job: NewJobs, clock: SetClock) -> None:
    await store.create_upload(new_upload(clock, "upl_a"), 10)
    new = new_job(upload_id="upl_a", idempotency_key="k", request_hash="h")
    job, _ = await store.create(new)
    with pytest.raises(UploadNotFound):
        await store.create(new_job(upload_id="upl_a"))
    again = new_job(upload_id="upl_a", idempotency_key="k", request_hash="h")
    assert await store.create(again) == (job, False)
    with pytest.raises(UploadNotFound):
        await store.delete_upload("alice", "upl_a")
    assert (await store.get_upload("alice", "upl_a")).id == "upl_a"


async def test_deleted_upload_is_gone(store: JobStore, new_job: NewJobs, clock: SetClock) -> None:
    await store.create_upload(new_upload(clock, "upl_a"), 10)
    await store.delete_upload("alice", "upl_a")
    with pytest.raises(UploadNotFound):
        await store.get_upload("alice", "upl_a")
    with pytest.raises(UploadNotFound):
        await store.delete_upload("alice", "upl_a")
    with pytest.raises(UploadNotFound):
        await store.create(new_job(upload_id="upl_a"))


async def test_key_has_no_more_open_uploads_than_allowed(
    store: JobStore, new_job: NewJobs, clock: SetClock
) -> None:
    for number in range(2):
        await store.create_upload(new_upload(clock, f"upl_{number}"), 2)
    with pytest.raises(TooManyUploads):
        await store.create_upload(new_upload(clock, "upl_2"), 2)
    await store.create_upload(new_upload(clock, "upl_3", "bob"), 2)
    await store.create(new_job(upload_id="upl_0"))
    await store.create_upload(new_upload(clock, "upl_4"), 2)
    with pytest.raises(TooManyUploads):
        await store.create_upload(new_upload(clock, "upl_5"), 2)
    clock.move(3601)
    await store.create_upload(new_upload(clock, "upl_6"), 2)
