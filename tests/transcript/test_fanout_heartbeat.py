"""Beating: signs of life in the gaps, and nothing lost or left open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from serve_app.transcript.fanout import with_heartbeats


async def test_items_pass_and_gaps_beat() -> None:
    gate = asyncio.Event()

    async def source() -> AsyncGenerator[int]:
        yield 1
        await gate.wait()
        yield 2

    seen: list[int | None] = []
    async for item in with_heartbeats(source(), 0.001):
        seen.append(item)
        if seen.count(None) == 3:
            gate.set()
    assert [item for item in seen if item is not None] == [1, 2]
    assert seen[0] == 1
    assert seen.count(None) >= 3


async def test_error_of_the_source_passes() -> None:
    async def source() -> AsyncGenerator[int]:
        yield 1
        raise ValueError("bad audio")

    with pytest.raises(ValueError, match="bad audio"):
        async for _ in with_heartbeats(source(), 1.0):
            pass


async def test_leaving_in_a_gap_closes_the_source() -> None:
    closed: list[bool] = []

    async def source() -> AsyncGenerator[int]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            closed.append(True)

    async with aclosing(with_heartbeats(source(), 0.001)) as items:
        assert await anext(items) is None
    assert closed == [True]
