"""A shared recognizer: a chunk that breaks the engine fails alone."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from serve_app.core.errors import DeadlineExceeded
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
    RequestContext,
)
from serve_app.inference.batched import BEGUN, BatchedRecognizer
from serve_app.scheduling.micro_batcher import BatcherClosed, BatchLimits, EngineStuck
from serve_app.scheduling.preemption import ThreadNiceness
from tests.fakes.engines import FakeRecognizer

LOGGER = logging.getLogger("tests")
LIMITS = BatchLimits(1000)


class BreakableRecognizer(FakeRecognizer):
    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        if any(pcm.any() for pcm in batch):
            raise MemoryError
        return super().transcribe(batch, recognition_options)


class GatedRecognizer(FakeRecognizer):
    """Waits at a gate and remembers how many items each call had."""

    def __init__(self, max_in_flight: int = 1) -> None:
        self.max_in_flight = max_in_flight
        self.is_reentrant = True
        self.gate = threading.Event()
        self._entered = threading.Semaphore(0)
        self.sizes: list[int] = []
        self.num_inside = 0
        self.most_inside = 0
        self._lock = threading.Lock()

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        with self._lock:
            self.sizes.append(len(batch))
            self.num_inside += 1
            self.most_inside = max(self.most_inside, self.num_inside)
        self._entered.release()
        self.gate.wait(10)
        with self._lock:
            self.num_inside -= 1
        return super().transcribe(batch, recognition_options)

    async def entered(self) -> None:
        """Returns when one more call is inside."""
        await asyncio.to_thread(self._entered.acquire)


def chunk(index: int, level: int = 0, context: RequestContext | None = None) -> Chunk:
    return Chunk(context or RequestContext("request"), index, 0, np.full(3200, level, np.int16))


async def test_chunk_that_breaks_the_engine_fails_alone() -> None:
    recognizer = BatchedRecognizer(BreakableRecognizer(), LIMITS, LOGGER)
    results = await recognizer.transcribe([chunk(0, 0), chunk(1, 9), chunk(2, 0)])
    await recognizer.close()
    assert results[1] == ChunkFailure("engine_error", "MemoryError")
    for result in (results[0], results[2]):
        assert isinstance(result, Recognition)
        assert len(result.tokens) == 2


async def test_deadline_that_has_passed_fails_the_request() -> None:
    recognizer = BatchedRecognizer(FakeRecognizer(), LIMITS, LOGGER)
    late = RequestContext("late", deadline=time.time() - 1)
    with pytest.raises(DeadlineExceeded):
        await recognizer.transcribe([chunk(0, context=late), chunk(1, context=late)])
    await recognizer.close()


async def test_lone_chunk_begins_when_nothing_else_runs_and_shares_its_batch_with_none() -> None:
    engine = GatedRecognizer(max_in_flight=2)
    recognizer = BatchedRecognizer(engine, LIMITS, LOGGER)
    others = asyncio.create_task(recognizer.transcribe([chunk(0)]))
    await engine.entered()
    events: list[object] = []

    async def alone() -> None:
        events.extend([event async for event in recognizer.transcribe_alone(chunk(1))])

    lone = asyncio.create_task(alone())
    await asyncio.sleep(0)
    more = asyncio.create_task(recognizer.transcribe([chunk(2), chunk(3)]))
    await asyncio.sleep(0.01)
    assert events == []
    engine.gate.set()
    await asyncio.gather(others, lone, more)
    assert events[0] == BEGUN
    assert isinstance(events[1], Recognition)
    assert (sorted(engine.sizes), engine.most_inside) == ([1, 1, 2], 1)
    await recognizer.close()


async def test_calls_in_flight_are_those_that_the_engine_allows() -> None:
    engine = GatedRecognizer(max_in_flight=2)
    recognizer = BatchedRecognizer(engine, BatchLimits(1), LOGGER)
    call = asyncio.create_task(recognizer.transcribe([chunk(index) for index in range(4)]))
    await engine.entered()
    await engine.entered()
    engine.gate.set()
    await call
    assert engine.most_inside == 2
    await recognizer.close()


async def test_stuck_engine_fails_the_check_and_its_callers() -> None:
    engine = GatedRecognizer()
    recognizer = BatchedRecognizer(engine, LIMITS, LOGGER)
    call = asyncio.create_task(recognizer.transcribe([chunk(0)]))
    await engine.entered()
    recognizer.check(patience_s=60)
    with pytest.raises(EngineStuck):
        recognizer.check(patience_s=-1)
    with pytest.raises(EngineStuck):
        await call
    engine.gate.set()
    await recognizer.close()


async def test_closing_fails_waiting_calls() -> None:
    engine = GatedRecognizer()
    recognizer = BatchedRecognizer(engine, BatchLimits(1), LOGGER)
    call = asyncio.create_task(recognizer.transcribe([chunk(0), chunk(1)]))
    await engine.entered()
    engine.gate.set()
    await recognizer.close()
    with pytest.raises(BatcherClosed):
        await call


async def test_batches_are_reported_with_the_waits_of_their_items() -> None:
    recognizer = BatchedRecognizer(FakeRecognizer(), LIMITS, LOGGER)
    told: list[int] = []
    recognizer.on_batch = lambda waits_s, took_s: told.append(len(waits_s))
    await recognizer.transcribe([chunk(0), chunk(1)])
    await recognizer.close()
    assert told == [2]


async def test_beginning_of_a_recording_overtakes_the_rest_of_another() -> None:
    engine = GatedRecognizer()
    recognizer = BatchedRecognizer(engine, BatchLimits(1), LOGGER, ThreadNiceness(urgent_ms=1000))
    later = replace(chunk(9), start_ms=1000)
    file = asyncio.create_task(recognizer.transcribe([later, later]))
    await engine.entered()
    clip = asyncio.create_task(recognizer.transcribe([chunk(0, context=RequestContext("clip"))]))
    await engine.entered()
    assert engine.num_inside == 2
    engine.gate.set()
    await asyncio.gather(file, clip)
    assert engine.most_inside == 2
    await recognizer.close()
