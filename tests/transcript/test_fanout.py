"""The fan-out: order kept, window held, failures told, nothing left running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import numpy as np
import pytest

from serve_app.core.errors import NotReady
from serve_app.core.records import Chunk, ChunkFailure, Recognition, RequestContext, Token
from serve_app.core.speakers import SpeakerWindows
from serve_app.transcript.fanout import fan_out
from tests.fakes.voices import windows_of


def chunk(index: int) -> Chunk:
    return Chunk(RequestContext("request"), index, index * 1000, np.zeros(8000, np.int16))


def recognition(text: str) -> Recognition:
    return Recognition((Token(text, 100, 200, 0.9),))


async def groups_of(count: int, size: int = 1) -> AsyncGenerator[list[Chunk]]:
    for start in range(0, count * size, size):
        yield [chunk(index) for index in range(start, start + size)]


async def test_utterances_come_in_order_whatever_finishes_first() -> None:
    async def recognize(group: list[Chunk]) -> Sequence[Recognition]:
        for _ in range(20 - group[0].index):
            await asyncio.sleep(0)
        return [recognition(str(item.index)) for item in group]

    found = [u async for u in fan_out(groups_of(10, size=2), recognize, max_in_flight=4)]
    assert [u.index for u in found] == list(range(20))
    assert [u.tokens[0].text for u in found] == [str(index) for index in range(20)]


async def test_window_is_never_exceeded() -> None:
    in_flight = most = 0

    async def recognize(group: list[Chunk]) -> Sequence[Recognition]:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return [recognition("x")]

    async for _ in fan_out(groups_of(30), recognize, max_in_flight=3):
        pass
    assert most == 3


async def test_utterance_and_its_summary_have_the_recognized_language() -> None:
    async def recognize(group: list[Chunk]) -> Sequence[Recognition]:
        return [Recognition((Token("x", 100, 200, 0.9),), language="ja") for _ in group]

    (found,) = [u async for u in fan_out(groups_of(1), recognize, max_in_flight=1)]
    assert found.language == "ja"
    assert found.summary.language == "ja"


async def test_times_are_moved_to_the_place_in_the_recording() -> None:
    async def recognize(group: list[Chunk]) -> Sequence[Recognition]:
        return [recognition("x") for _ in group]

    last = [u async for u in fan_out(groups_of(3), recognize, max_in_flight=2)][-1]
    assert (last.start_ms, last.end_ms) == (2000, 2500)
    assert (last.tokens[0].start_ms, last.tokens[0].end_ms) == (2100, 2200)


async def test_each_chunk_has_its_fate() -> None:
    async def recognize(group: list[Chunk]) -> Sequence[Recognition | ChunkFailure]:
        if group[0].index == 3:
            raise RuntimeError("the replica is gone")
        results: list[Recognition | ChunkFailure] = [
            recognition("x"),
            Recognition(()),
            ChunkFailure("engine_error", "NaN"),
        ]
        return [results[group[0].index]]

    found = [u async for u in fan_out(groups_of(4), recognize, max_in_flight=2)]
    assert [u.status for u in found] == ["done", "empty", "failed", "failed"]
    assert found[2].error == "engine_error: NaN"
    assert found[3].error == "recognizer_error: the replica is gone"


async def test_leaving_early_cancels_calls_in_flight() -> None:
    canceled = 0

    async def recognize(group: list[Chunk]) -> Sequence[Recognition]:
        nonlocal canceled
        if group[0].index == 0:
            return [recognition("x")]
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            canceled += 1
            raise
        return []

    async with aclosing(fan_out(groups_of(5), recognize, max_in_flight=3)) as utterances:
        async for _ in utterances:
            break
    await asyncio.sleep(0)
    assert canceled >= 1


async def test_error_of_the_source_is_raised_after_the_recognized_utterances() -> None:
    async def broken() -> AsyncGenerator[list[Chunk]]:
        yield [chunk(0)]
        raise ValueError("bad audio")

    async def recognize(group: list[Chunk]) -> Sequence[Recognition]:
        return [recognition("x")]

    with pytest.raises(ValueError, match="bad audio"):
        async for _ in fan_out(broken(), recognize, max_in_flight=1):
            pass


async def test_service_that_is_not_ready_fails_the_request_not_its_chunks() -> None:
    async def recognize(group: list[Chunk]) -> Sequence[Recognition]:
        raise NotReady("asr")

    with pytest.raises(NotReady):
        async for _ in fan_out(groups_of(3), recognize, max_in_flight=2):
            pass


async def test_voices_are_embedded_beside_recognition_and_come_with_the_utterances() -> None:
    both = asyncio.Barrier(2)

    async def meet(chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        async with asyncio.timeout(20):
            await both.wait()
        return [Recognition(())] * len(chunks)

    async def embed(chunks: list[Chunk]) -> list[SpeakerWindows | None]:
        async with asyncio.timeout(20):
            await both.wait()
        return [windows_of(chunk) for chunk in chunks]

    found = [u async for u in fan_out(groups_of(3), meet, 1, embed)]
    assert [u.voices is not None for u in found] == [True] * 3


async def test_embedding_is_canceled_where_recognition_ends_the_request() -> None:
    canceled = asyncio.Event()

    async def refuse(chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        await asyncio.sleep(0)
        raise NotReady("asr")

    async def embed(chunks: list[Chunk]) -> list[SpeakerWindows | None]:
        try:
            await asyncio.Event().wait()
        finally:
            canceled.set()
        return []

    with pytest.raises(NotReady):
        _ = [u async for u in fan_out(groups_of(1), refuse, 1, embed)]
    async with asyncio.timeout(20):
        await canceled.wait()
