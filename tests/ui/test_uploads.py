from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from serve_app.ui.uploads import UploadLimits, UploadLost, UploadsFull, UploadStore
from serve_app.ui.visitors import Visitor

ONE, OTHER = Visitor("one"), Visitor("other")
PAGE = "page"


def store_in(directory: Path, keep_s: float = 3600) -> UploadStore:
    limits = UploadLimits(100, max_bytes_per_visitor=60, keep_s=keep_s, max_per_visitor=3)
    return UploadStore(directory, limits)


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return store_in(tmp_path)


def put(store: UploadStore, content: bytes = b"sounds", visitor: Visitor = ONE) -> str:
    with store.receiving(visitor, len(content)) as upload:
        upload.file.write(content)
        store.complete(upload)
    return upload.id


async def test_claimed_upload_is_taken_once_and_gone_afterwards(store: UploadStore) -> None:
    name = put(store)
    store.claim(ONE, PAGE, name)
    with store.taken(PAGE, name) as file:
        assert file.read() == b"sounds"
        assert store.num_bytes == 6
        with pytest.raises(UploadLost), store.taken(PAGE, name):
            pass
    assert file.closed
    assert store.num_bytes == 0
    with pytest.raises(UploadLost), store.taken(PAGE, name):
        pass


async def test_upload_has_no_name_on_the_disk(store: UploadStore, tmp_path: Path) -> None:
    put(store)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name", [None, 7, "", "/etc/passwd", "\0", "../../etc/passwd", ".", {}, ["x"]]
)
async def test_only_uploaded_files_can_be_transcribed(store: UploadStore, name: object) -> None:
    put(store)
    with pytest.raises(UploadLost), store.taken(PAGE, name):
        pass


async def test_upload_is_its_visitors_and_its_pages(store: UploadStore) -> None:
    name = put(store)
    with pytest.raises(UploadLost), store.taken(PAGE, name):
        pass
    with pytest.raises(UploadLost):
        store.claim(OTHER, PAGE, name)
    store.claim(ONE, PAGE, name)
    with pytest.raises(UploadLost):
        store.claim(ONE, "second", name)
    with pytest.raises(UploadLost), store.taken("second", name):
        pass
    with store.taken(PAGE, name) as file:
        assert file.read() == b"sounds"


async def test_upload_that_breaks_off_leaves_nothing(store: UploadStore) -> None:
    with pytest.raises(ConnectionError), store.receiving(ONE, 60) as upload:
        raise ConnectionError
    assert upload.file.closed
    assert store.num_bytes == 0


async def test_room_is_bounded_in_all_and_for_each(store: UploadStore) -> None:
    put(store, bytes(40))
    with pytest.raises(UploadsFull), store.receiving(ONE, 21):
        pass
    with store.receiving(OTHER, 60), pytest.raises(UploadsFull), store.receiving(Visitor("3"), 1):
        pass
    with store.receiving(Visitor("3"), 1):
        pass


async def test_visitor_has_a_few_uploads_only(store: UploadStore) -> None:
    for _ in range(3):
        put(store)
    with pytest.raises(UploadsFull), store.receiving(ONE, 1):
        pass
    put(store, visitor=OTHER)


async def test_missing_directory_has_no_space(tmp_path: Path) -> None:
    with pytest.raises(UploadsFull), store_in(tmp_path / "gone").receiving(ONE, 1):
        pass


async def test_abandoned_upload_is_deleted_after_a_while(tmp_path: Path) -> None:
    store = store_in(tmp_path, keep_s=0)
    name = put(store)
    async with asyncio.timeout(20):
        while store.num_bytes:  # noqa: ASYNC110  # the store tells nobody
            await asyncio.sleep(0)
    with pytest.raises(UploadLost):
        store.claim(ONE, PAGE, name)


async def test_time_of_an_upload_that_is_sent_on_does_not_run_out(tmp_path: Path) -> None:
    store = store_in(tmp_path, keep_s=0)
    name = put(store)
    store.claim(ONE, PAGE, name)
    with store.taken(PAGE, name) as file:
        for _ in range(5):
            await asyncio.sleep(0)
        assert file.read() == b"sounds"


async def test_closed_page_drops_only_its_own_queued_requests(store: UploadStore) -> None:
    waits, stays = put(store), put(store)
    store.claim(ONE, PAGE, waits)
    store.claim(ONE, "second", stays)
    store.leave(PAGE)
    with pytest.raises(UploadLost), store.taken(PAGE, waits):
        pass
    with store.taken("second", stays):
        pass
