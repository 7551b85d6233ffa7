from __future__ import annotations

import asyncio
from typing import cast
from unittest import mock

import numpy as np
import pytest
from ray.exceptions import RayTaskError

from serve_app.batch import via_service
from serve_app.batch.via_service import TranscribeOnServe, retry_while_unreachable
from serve_app.core.errors import AudioError, NotReady
from serve_app.core.records import Chunk, RequestContext
from serve_app.core.speakers import SpeakerWindows
from serve_app.deployments.speakers import RemoteSpeakerEmbedder
from serve_app.scheduling.micro_batcher import BatcherClosed


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, time_s: float) -> None:
        self.now_s += time_s


class Away:
    """A service that is away for a time."""

    def __init__(self, clock: Clock, until_s: float) -> None:
        self.clock = clock
        self.until_s = until_s
        self.num_calls = 0

    async def __call__(self) -> str:
        self.num_calls += 1
        if self.clock() < self.until_s:
            raise NotReady("asr")
        return "text"


async def test_service_that_comes_back_is_waited_for() -> None:
    clock = Clock()
    call = Away(clock, 60.0)
    assert await retry_while_unreachable(call, 900.0, clock, clock.sleep) == "text"
    assert 60 <= clock() <= 75
    assert call.num_calls < 12


async def test_function_that_returns_a_coroutine_is_awaited() -> None:
    away = Away(Clock(), 0.0)
    assert await retry_while_unreachable(lambda: away()) == "text"


async def test_service_that_stays_away_is_given_up() -> None:
    clock = Clock()
    with pytest.raises(NotReady):
        await retry_while_unreachable(Away(clock, 1e9), 900.0, clock, clock.sleep)
    assert 880 <= clock() <= 900


async def test_other_errors_are_not_waited_out() -> None:
    clock = Clock()

    async def call() -> str:
        raise AudioError

    with pytest.raises(AudioError):
        await retry_while_unreachable(call, 900.0, clock, clock.sleep)
    assert clock() == 0.0


class Embedder:
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def embed(self, chunks: list[Chunk]) -> list[SpeakerWindows]:
        raise self._error


async def embed(error: Exception) -> list[SpeakerWindows | None]:
    stage = TranscribeOnServe.__new__(TranscribeOnServe)
    stage._embed_slots = asyncio.Semaphore(1)
    chunks = [Chunk(RequestContext("1"), index, 0, np.zeros(16, np.int16)) for index in range(2)]
    return await stage._embed(cast("RemoteSpeakerEmbedder", Embedder(error)), chunks)


async def test_chunks_that_the_speaker_model_fails_on_have_no_voices() -> None:
    error = RayTaskError("embed", "traceback", ValueError("not finite"))  # type: ignore[no-untyped-call]  # Ray's
    assert await embed(error) == [None, None]


async def test_speaker_stage_that_cannot_be_reached_is_no_failure_of_the_model() -> None:
    error = RayTaskError("embed", "traceback", BatcherClosed())  # type: ignore[no-untyped-call]  # Ray's
    with pytest.raises(RayTaskError):
        await embed_once(error)


async def embed_once(error: Exception) -> object:
    """Embeds without waiting for a service that is away."""
    with mock.patch.object(via_service, "retry_while_unreachable", lambda call: call()):
        return await embed(error)
