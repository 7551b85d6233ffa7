from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from serve_app.core.errors import (
    ConfigurationError,
    DeadlineExceeded,
    ModelNotFound,
    ModelUnavailable,
)
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
    RequestContext,
    Token,
)
from serve_app.inference.batched import BatchedRecognizer
from serve_app.inference.model_cache import ModelCache
from serve_app.scheduling.device_slots import DeviceSlots
from serve_app.scheduling.micro_batcher import BatcherClosed, BatchLimits

LIMITS = BatchLimits(10, 8)
SIZES = {"one": 40, "two": 40, "three": 40, "large": 90}


class Device:
    """Counts the models that compute at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_running = 0
        self.most_running = 0
        self.order: list[str] = []
        self.held = threading.Event()
        self.hold = threading.Event()
        self.hold.set()

    def run(self, name: str) -> None:
        with self._lock:
            self._num_running += 1
            self.most_running = max(self.most_running, self._num_running)
            self.order.append(name)
            if not self.hold.is_set():
                self.held.set()
        assert self.hold.wait(20)
        with self._lock:
            self._num_running -= 1


class NamedEngine:
    max_in_flight = 1
    is_reentrant = False

    def __init__(self, name: str, device: Device) -> None:
        self._name = name
        self._device = device

    def cost(self, num_samples: int) -> int:
        return 10

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        self._device.run(self._name)
        return [Recognition((Token(self._name, 0, 1, 1.0),)) for _ in batch]


class Loader:
    def __init__(self, device: Device) -> None:
        self.device = device
        self.loaded: list[str] = []
        self.threads: set[str] = set()
        self.failing = False
        self.has_three = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, name: str) -> NamedEngine:
        self.threads.add(threading.current_thread().name)
        assert self.go_on.wait(20)
        if self.failing:
            raise OSError("no memory")
        self.loaded.append(name)
        if name == "three":
            self.has_three.set()
        return NamedEngine(name, self.device)


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def loader(device: Device) -> Loader:
    return Loader(device)


def _cache(loader: Loader, budget_bytes: int = 100, idle_timeout_s: float = 0.05) -> ModelCache:
    slots = DeviceSlots()
    cache = ModelCache(
        SIZES,
        budget_bytes,
        loader,
        lambda engine: BatchedRecognizer(engine, LIMITS, logging.getLogger(), device_slots=slots),
        idle_timeout_s,
    )
    cache.put("one", NamedEngine("one", loader.device))
    return cache


def _chunk(model: str | None, deadline: float | None = None) -> Chunk:
    pcm = np.zeros(1600, np.int16)
    return Chunk(RequestContext("r", deadline=deadline), 0, 0, pcm, RecognitionOptions(model=model))


async def _ask(cache: ModelCache, model: str | None) -> str:
    (result,) = await cache.transcribe([_chunk(model)])
    assert isinstance(result, Recognition)
    return result.tokens[0].text


def test_pack_larger_than_the_budget_is_refused_at_once(loader: Loader) -> None:
    with pytest.raises(ConfigurationError, match="large alone takes 90"):
        _cache(loader, 89)


async def test_request_is_recognized_by_the_model_that_it_names(loader: Loader) -> None:
    cache = _cache(loader)
    assert [await _ask(cache, name) for name in (None, "two", "one")] == ["one", "two", "one"]
    assert loader.loaded == ["two"]
    assert not any("MainThread" in name for name in loader.threads)
    with pytest.raises(ModelNotFound, match="four"):
        await _ask(cache, "four")
    await cache.close()


@pytest.mark.slow
async def test_least_recently_used_model_is_evicted(loader: Loader) -> None:
    cache = _cache(loader)
    for name in ("two", "one", "three", "one", "two", "large"):
        assert await _ask(cache, name) == name
        assert cache.cache_statistics().loaded_bytes <= 100
    assert loader.loaded == ["two", "three", "two", "large"]
    statistics = cache.cache_statistics()
    assert statistics.loaded == ("large",)
    assert statistics.num_evictions == {"two": 2, "three": 1, "one": 1}
    assert statistics.num_loads == {"one": 1, "two": 2, "three": 1, "large": 1}
    assert cache.statistics().num_items == 6  # what the models did that are gone counts on
    await cache.close()


async def test_calls_that_come_while_a_model_loads_wait_for_one_load(loader: Loader) -> None:
    cache = _cache(loader)
    loader.go_on.clear()
    waiting = [asyncio.create_task(_ask(cache, "two")) for _ in range(5)]
    # The model that runs goes on meanwhile.
    assert await _ask(cache, "one") == "one"
    assert cache.statistics().queued_audio_s == pytest.approx(0.5)
    assert cache.statistics().num_waiting == 5
    loader.go_on.set()
    assert await asyncio.gather(*waiting) == ["two"] * 5
    assert loader.loaded == ["two"]
    assert cache.statistics().queued_audio_s == 0
    await cache.close()


async def test_busy_model_is_not_evicted(loader: Loader, device: Device) -> None:
    cache = _cache(loader, budget_bytes=90, idle_timeout_s=30)
    await _ask(cache, "two")
    device.hold.clear()
    busy = asyncio.create_task(_ask(cache, "one"))
    await asyncio.to_thread(device.held.wait, 20)
    third = asyncio.create_task(_ask(cache, "three"))
    await asyncio.to_thread(loader.has_three.wait, 20)
    assert cache.cache_statistics().num_evictions == {"two": 1}
    device.hold.set()
    assert [await busy, await third] == ["one", "three"]
    await cache.close()


async def test_model_that_is_never_idle_is_evicted_after_a_timeout(loader: Loader) -> None:
    cache = _cache(loader, budget_bytes=90)
    ended = False

    async def keep_busy() -> None:
        while not ended:
            await asyncio.gather(*(_ask(cache, "one") for _ in range(3)))

    busy = [asyncio.create_task(keep_busy()) for _ in range(2)]
    assert await asyncio.wait_for(_ask(cache, "large"), 20) == "large"
    ended = True
    await asyncio.gather(*busy)
    assert cache.cache_statistics().num_evictions["one"] >= 1
    await cache.close()


async def test_batches_of_all_models_share_the_device_slots(loader: Loader, device: Device) -> None:
    cache = _cache(loader)
    await _ask(cache, "two")
    calls = [_ask(cache, name) for _ in range(6) for name in ("one", "two")]
    await asyncio.gather(*calls)
    assert device.most_running == 1
    # One item fills a batch here.
    assert set(device.order[1:5]) == {"one", "two"}
    assert all(a != b for a, b in zip(device.order[1:], device.order[2:], strict=False))
    await cache.close()


async def test_failed_load_is_raised_to_all_waiting_calls_and_retried_later(loader: Loader) -> None:
    cache = _cache(loader)
    loader.failing = True
    answers = await asyncio.gather(*(_ask(cache, "two") for _ in range(3)), return_exceptions=True)
    told = [answer for answer in answers if isinstance(answer, ModelUnavailable)]
    assert [answer.reason for answer in told] == ["no memory"] * 3
    assert "no memory" not in str(told[0])  # reasons may name paths
    assert await _ask(cache, "one") == "one"
    loader.failing = False
    assert await _ask(cache, "two") == "two"
    await cache.close()


async def test_deadline_applies_while_a_model_loads(loader: Loader) -> None:
    cache = _cache(loader)
    loader.go_on.clear()
    with pytest.raises(DeadlineExceeded):
        await cache.transcribe([_chunk("two", deadline=time.time() + 0.01)])
    loader.go_on.set()
    assert await _ask(cache, "two") == "two"
    assert await _ask(cache, "large") == "large"  # nobody waits for "two" any more
    await cache.close()


async def test_chunk_alone_is_run_by_the_model_that_it_names(loader: Loader) -> None:
    cache = _cache(loader)
    events = [event async for event in cache.transcribe_alone(_chunk("two"))]
    assert events[0] == "begun"
    assert isinstance(events[1], Recognition)
    assert events[1].tokens[0].text == "two"
    await cache.close()


async def test_closed_cache_refuses_calls(loader: Loader) -> None:
    cache = _cache(loader)
    loader.go_on.clear()
    waiting = asyncio.create_task(_ask(cache, "two"))
    await asyncio.sleep(0)
    loader.go_on.set()
    await cache.close()
    with pytest.raises(BatcherClosed):
        await waiting
    with pytest.raises(BatcherClosed):
        await _ask(cache, "one")
