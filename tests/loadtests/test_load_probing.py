"""Closed loops: one recording after another, and a fixed number of clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from loadtests.load.capacity import measure_capacity
from loadtests.load.clips import ClipLibrary
from loadtests.load.mixes import MIXES
from loadtests.load.probing import probe

REFUSAL = httpx.Response(429, json={"error": {"code": "overloaded"}})


def client(answer: Callable[[], httpx.Response]) -> httpx.AsyncClient:
    transport = httpx.MockTransport(lambda _: answer())
    return httpx.AsyncClient(transport=transport, base_url="http://service")


def right() -> httpx.Response:
    return httpx.Response(200, json={"text": "right"})


async def test_probe_times_only_right_answers() -> None:
    answers = iter([right(), REFUSAL, right()])
    async with client(lambda: next(answers)) as service:
        measured = await probe(service, b"", "right", 3, pause_s=0.0)
    assert (len(measured.latencies_s), measured.num_other) == (2, 1)
    assert measured.median_s > 0


async def test_probe_without_a_right_answer_is_refused() -> None:
    async with client(lambda: REFUSAL) as service:
        with pytest.raises(ValueError, match="no recording"):
            await probe(service, b"", "right", 2, pause_s=0.0)


async def test_capacity_counts_right_answers_per_second(tmp_path: Path) -> None:
    library = ClipLibrary(tmp_path)
    texts = {library.clip(3.0): "right"}
    async with client(right) as service:
        found = await measure_capacity(
            service, library, texts, MIXES["clips"], seconds=0.2, num_workers=2
        )
    assert found.audio_s_per_s == pytest.approx(3.0 * found.requests_per_s)


async def test_service_without_capacity_is_reported(tmp_path: Path) -> None:
    library = ClipLibrary(tmp_path)
    texts = {library.clip(3.0): "right"}
    async with client(lambda: REFUSAL) as service:
        with pytest.raises(ValueError, match="nothing right"):
            await measure_capacity(
                service, library, texts, MIXES["clips"], seconds=0.1, num_workers=1
            )
