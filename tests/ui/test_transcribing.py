from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from serve_app.client import ClientError
from serve_app.ui.client import ApiClient, Order
from serve_app.ui.events import Submission
from serve_app.ui.results import Json
from serve_app.ui.transcribing import gathered, transcribe_upload
from serve_app.ui.uploads import UploadLimits, UploadStore
from serve_app.ui.visitors import Visitor
from tests.ui.scripted_api import SAID, Refusal, ScriptedApi


async def pieces_of(api: ScriptedApi, directory: Path, upload: str | None = None) -> list[Json]:
    store = UploadStore(directory, UploadLimits(100, 100, keep_s=3600))
    visitor = Visitor("one")
    with store.receiving(visitor, 6) as received:
        received.file.write(b"sounds")
        store.complete(received)
    store.claim(visitor, "page", received.id)
    client = ApiClient("http://test", 10, httpx.ASGITransport(api.app()))
    submission = Submission(upload or received.id, "r1", "", Order("m"))
    pieces = transcribe_upload(client, store, "page", submission, asyncio.Event())
    shown = [piece async for piece in pieces]
    assert store.num_bytes == (0 if shown[0]["state"] == "sent" else 6)
    return shown


async def test_pieces_belong_to_their_run_and_end_with_the_whole_text(tmp_path: Path) -> None:
    pieces = await pieces_of(ScriptedApi(), tmp_path)
    assert {piece["run"] for piece in pieces} == {"r1"}
    assert [pieces[0]["state"], pieces[-1]["state"]] == ["sent", "done"]
    assert isinstance(pieces[-1]["sentences"], list)
    sentences = [json.loads(sentence) for sentence in pieces[-1]["sentences"]]
    assert [(one["start"], one["end"], one["text"]) for one in sentences] == [
        (start * 1000, end * 1000, text) for start, end, text in SAID
    ]
    assert all(len(one["words"]) > 1 for one in sentences)


async def test_refusal_is_the_last_piece_and_the_upload_is_gone(tmp_path: Path) -> None:
    pieces = await pieces_of(ScriptedApi(refusal=Refusal(429, "overloaded", "full", 9)), tmp_path)
    last = pieces[-1]
    assert (last["state"], last["problem"], last["detail"]) == ("failed", "busy", "full")
    assert last["retry_after_s"] == 9


@pytest.mark.parametrize("upload", ["text", "/etc/passwd"])
async def test_upload_that_does_not_exist_is_reported(tmp_path: Path, upload: str) -> None:
    pieces = await pieces_of(ScriptedApi(), tmp_path, upload)
    assert [piece["problem"] for piece in pieces] == ["upload_lost"]


async def numbers(count: int, then: Exception | None = None) -> AsyncGenerator[int]:
    for number in range(count):
        yield number
    if then is not None:
        raise then


async def test_first_event_comes_at_once_and_the_others_together() -> None:
    batches = [batch async for batch in gathered(numbers(9), 0.05, asyncio.Event())]
    assert [number for batch in batches for number in batch] == list(range(9))
    assert batches[0] == [0]
    assert len(batches) == 2


async def test_events_before_an_error_are_not_lost() -> None:
    batches = gathered(numbers(3, ClientError(0, "x", "y")), 10, asyncio.Event())
    assert [await anext(batches), await anext(batches)] == [[0], [1, 2]]
    with pytest.raises(ClientError):
        await anext(batches)


async def test_stopping_closes_the_events_while_they_are_silent() -> None:
    closed = asyncio.Event()

    async def silent() -> AsyncGenerator[int]:
        try:
            await asyncio.Event().wait()
            yield 0
        finally:
            closed.set()

    stop = asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    started = time.monotonic()
    assert [batch async for batch in gathered(silent(), 10, stop)] == []
    assert closed.is_set()
    assert time.monotonic() - started < 5
