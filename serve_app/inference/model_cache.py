"""The model cache of one replica: models are loaded on demand within a memory budget."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from serve_app.core.errors import (
    ConfigurationError,
    DeadlineExceeded,
    ModelNotFound,
    ModelUnavailable,
)
from serve_app.core.ports import Recognizer
from serve_app.core.records import Chunk, ChunkFailure, Recognition, RequestContext
from serve_app.inference.batched import AloneEvent, BatchedRecognizer
from serve_app.scheduling.batch_state import BatcherStatistics, combine
from serve_app.scheduling.micro_batcher import BatcherClosed, EngineStuck

_IDLE_TIMEOUT_S = 5.0
"""How long a load waits for some model to become idle before a busy one is evicted."""
_MAX_LOAD_S = 900.0


class ModelCache:
    """Recognizes chunks with the model that their request names.

    A missing model is loaded in a thread, one load at a time; its callers wait while the other
    models keep working. To make room, the least recently used idle model is evicted. If none
    becomes idle in time, the least recently used one accepts no more calls, finishes those it
    has, and is evicted.

    Args:
        sizes_bytes: memory of each model that is served; the first is the default.
        budget_bytes: for all loaded models together.
        load: returns a model's engine, loaded and warm; called in threads.
        wrap: puts an engine behind a batcher.
        idle_timeout_s: how long to wait for an idle model before a busy one is evicted.

    Raises:
        ConfigurationError: a model is larger than the budget.
    """

    def __init__(
        self,
        sizes_bytes: Mapping[str, int],
        budget_bytes: int,
        load: Callable[[str], Recognizer],
        wrap: Callable[[Recognizer], BatchedRecognizer],
        idle_timeout_s: float = _IDLE_TIMEOUT_S,
    ) -> None:
        for name, num_bytes in sizes_bytes.items():
            if num_bytes > budget_bytes:
                raise ConfigurationError(
                    f"recognizer.models_bytes is {budget_bytes}, but model {name} alone takes "
                    f"{num_bytes}"
                )
        self._sizes = dict(sizes_bytes)
        self._first = next(iter(sizes_bytes))
        self._budget_bytes = budget_bytes
        self._load = load
        self._wrap = wrap
        self._idle_timeout_s = idle_timeout_s
        self._cached: dict[str, CachedModel] = {}
        self._pending_loads: dict[str, PendingLoad] = {}
        self._load_lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._num_uses = 0
        self._num_loads: dict[str, int] = {}
        self._num_evictions: dict[str, int] = {}
        self._evicted_statistics: BatcherStatistics | None = None
        self._closed = False
        self.on_batch: Callable[[Sequence[float], float], None] | None = None
        """Called after each batch with the waits of its items and its duration, in s."""

    def put(self, name: str, engine: Recognizer) -> None:
        """Adds a model that was loaded elsewhere; it must fit into the budget."""
        model = self._wrap(engine)
        model.on_batch = self._batch_ended
        self._num_uses += 1
        self._cached[name] = CachedModel(model, self._sizes[name], self._num_uses)
        self._num_loads[name] = self._num_loads.get(name, 0) + 1

    def name_of(self, chunk: Chunk) -> str:
        """Returns the name of the model that a chunk asks for."""
        return chunk.recognition_options.model or self._first

    async def transcribe(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        """Returns a result per chunk of one request, in order; see `BatchedRecognizer`.

        Raises:
            ModelNotFound: the request's model is not served.
            ModelUnavailable: the model could not be loaded.
            DeadlineExceeded: the request's deadline passed.
            BatcherClosed: `close` was called.
        """
        if not chunks:
            return []
        async with self._borrow(chunks[0], sum(chunk.duration_s for chunk in chunks)) as model:
            return await model.transcribe(chunks)

    async def transcribe_alone(self, chunk: Chunk) -> AsyncGenerator[AloneEvent]:
        """See `BatchedRecognizer.transcribe_alone`; raises as `transcribe` does."""
        async with (
            self._borrow(chunk, chunk.duration_s) as model,
            aclosing(model.transcribe_alone(chunk)) as events,
        ):
            async for event in events:
                yield event

    def statistics(self) -> BatcherStatistics:
        """Returns sums over all models, including the calls that wait for a load."""
        all_of = [cached.model.statistics() for cached in self._cached.values()]
        pending_loads = self._pending_loads.values()
        return combine(
            [*all_of, *([self._evicted_statistics] if self._evicted_statistics else [])],
            waiting_audio_s=sum(pending.audio_s for pending in pending_loads),
            num_waiting=sum(pending.num_calls for pending in pending_loads),
        )

    def cache_statistics(self) -> ModelCacheStatistics:
        return ModelCacheStatistics(
            tuple(self._cached),
            self._loaded_bytes(),
            dict(self._num_loads),
            dict(self._num_evictions),
        )

    def check(self, patience_s: float) -> None:
        """Checks that all engines make progress.

        Raises:
            EngineStuck: one makes none, or a model has been loading for too long.
        """
        for cached in self._cached.values():
            cached.model.check(patience_s)
        for name, pending in self._pending_loads.items():
            loading_s = time.monotonic() - pending.since_s
            if loading_s > max(patience_s, _MAX_LOAD_S):
                raise EngineStuck(f"model {name} has been loading for {loading_s:.0f} s")

    async def close(self) -> None:
        """Fails the waiting calls and ends the threads."""
        self._closed = True
        tasks = [pending.loading for pending in self._pending_loads.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for cached in self._cached.values():
            await cached.model.close()

    @asynccontextmanager
    async def _borrow(self, chunk: Chunk, audio_s: float) -> AsyncIterator[BatchedRecognizer]:
        """Yields the model of a chunk, which is not evicted meanwhile."""
        cached = await self._acquire(self.name_of(chunk), chunk.context, audio_s)
        try:
            yield cached.model
        finally:
            cached.num_calls -= 1
            self._notify()

    async def _acquire(self, name: str, context: RequestContext, audio_s: float) -> CachedModel:
        if name not in self._sizes:
            raise ModelNotFound(name, ", ".join(self._sizes))
        while True:
            if self._closed:
                raise BatcherClosed
            cached = self._cached.get(name)
            if cached is not None and not cached.evicting:
                self._num_uses += 1
                cached.last_use = self._num_uses
                cached.num_calls += 1
                return cached
            await self._wait_for(name, context, audio_s)

    async def _wait_for(self, name: str, context: RequestContext, audio_s: float) -> None:
        """Waits until the model is loaded; the waiting callers use it before any other does."""
        pending = self._pending_loads.get(name)
        if pending is None:
            task = asyncio.get_running_loop().create_task(self._load_model(name))
            pending = self._pending_loads[name] = PendingLoad(task, time.monotonic())
            task.add_done_callback(lambda _: self._load_ended(name, pending))
        pending.num_calls += 1
        pending.audio_s += audio_s
        try:
            left_s = None if context.deadline is None else context.deadline - time.time()
            done, _ = await asyncio.wait([pending.loading], timeout=left_s)
            if not done:
                raise DeadlineExceeded(max(0.0, left_s or 0.0))
            if pending.loading.cancelled():
                raise BatcherClosed
            pending.loading.result()
        finally:
            pending.num_calls -= 1
            pending.audio_s -= audio_s
            if pending.loading.done():
                # There is no await between here and the caller's use of the model.
                self._discard(name, pending)
            self._notify()

    def _load_ended(self, name: str, pending: PendingLoad) -> None:
        if pending.num_calls == 0:  # all waiting calls were canceled or timed out
            self._discard(name, pending)
            if not pending.loading.cancelled():
                pending.loading.exception()

    def _discard(self, name: str, pending: PendingLoad) -> None:
        if self._pending_loads.get(name) is pending:
            del self._pending_loads[name]

    async def _load_model(self, name: str) -> None:
        async with self._load_lock:
            await self._make_room(self._sizes[name])
            try:
                engine = await asyncio.to_thread(self._load, name)
            except Exception as error:
                raise ModelUnavailable(name, str(error) or type(error).__name__) from error
            self.put(name, engine)

    async def _make_room(self, num_bytes: int) -> None:
        while self._loaded_bytes() + num_bytes > self._budget_bytes:
            by_use = sorted(self._cached.items(), key=lambda item: item[1].last_use)
            candidates = [item for item in by_use if self._is_idle(*item)]
            if not candidates and not await self._wait_for_idle():
                # Models that callers wait for come last.
                candidates = sorted(by_use, key=lambda item: item[0] in self._pending_loads)
            if candidates:
                await self._evict(*candidates[0])

    def _is_idle(self, name: str, cached: CachedModel) -> bool:
        return cached.num_calls == 0 and name not in self._pending_loads

    async def _wait_for_idle(self) -> bool:
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                while not any(self._is_idle(*item) for item in self._cached.items()):
                    await self._wait_for_change()
        except TimeoutError:
            return False
        return True

    async def _evict(self, name: str, cached: CachedModel) -> None:
        """Removes a model once its calls have ended."""
        cached.evicting = True
        while cached.num_calls > 0:
            await self._wait_for_change()
        del self._cached[name]
        self._num_evictions[name] = self._num_evictions.get(name, 0) + 1
        last = cached.model.statistics()
        self._evicted_statistics = combine(
            [last, self._evicted_statistics] if self._evicted_statistics else [last]
        )
        await cached.model.close()
        del cached
        # Engine and batcher refer to each other: only the garbage collector frees them.
        await asyncio.to_thread(gc.collect)

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()

    def _loaded_bytes(self) -> int:
        return sum(cached.num_bytes for cached in self._cached.values())

    def _batch_ended(self, waits_s: Sequence[float], took_s: float) -> None:
        if self.on_batch is not None:
            self.on_batch(waits_s, took_s)


@dataclass(slots=True)
class CachedModel:
    """A loaded model.

    Attributes:
        model: the engine behind its batcher.
        num_bytes: its share of the budget.
        last_use: value of a counter over the uses of all models.
        num_calls: calls in progress.
        evicting: True if it accepts no more calls.
    """

    model: BatchedRecognizer
    num_bytes: int
    last_use: int
    num_calls: int = 0
    evicting: bool = False


@dataclass(slots=True)
class PendingLoad:
    """A load in progress, and the calls that wait for it."""

    loading: asyncio.Task[None]
    since_s: float
    num_calls: int = 0
    audio_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelCacheStatistics:
    """Which models are loaded, and the loads and evictions so far by model."""

    loaded: tuple[str, ...]
    loaded_bytes: int
    num_loads: Mapping[str, int]
    num_evictions: Mapping[str, int]
