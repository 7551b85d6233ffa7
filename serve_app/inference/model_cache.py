"""The models of one replica: loaded on demand, within a memory budget, least recently used out."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from serve_app.inference.batched import BatchedRecognizer


_IDLE_TIMEOUT_S = 5.0
"""How long a model that is asked for waits for another one to have nothing to do, before
that one takes no more work."""
_MAX_LOAD_S = 900.0


class ModelCache:
    """Has chunks recognized by the model that their request names.

    A model that is not loaded is loaded in a thread, one at a time, while the others go
    on and the calls for it wait. The least recently used model without any work makes
    room; if all have work for long, the least recently used one takes no more, ends what
    it has, and goes.

    Args:
        sizes_bytes: of the models that may be asked for; the first is meant where a
            request names none.
        budget_bytes: for the models that are loaded, together.
        load: returns a model's engine, loaded and warm; called in threads.
        wrap: puts an engine behind a batcher.

    Raises:
        ConfigurationError: a model is larger than the budget.
    """

    def __init__(
        self,
        sizes_bytes: Mapping[str, int],
        budget_bytes: int,
        load: Callable[[str], Recognizer],
        wrap: Callable[[Recognizer], BatchedRecognizer],
        patience_s: float = _IDLE_TIMEOUT_S,
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
        self._patience_s = patience_s
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
        """Told of each batch: how long each item waited and how long the batch took, in s."""

    def put(self, name: str, engine: Recognizer) -> None:
        """Shelves a model that has been loaded elsewhere; there must be room for it."""
        model = self._wrap(engine)
        model.on_batch = self._batch_ended
        self._num_uses += 1
        self._cached[name] = CachedModel(model, self._sizes[name], self._num_uses)
        self._num_loads[name] = self._num_loads.get(name, 0) + 1

    def name_of(self, chunk: Chunk) -> str:
        """Returns the model that a chunk is for."""
        return chunk.recognition_options.model or self._first

    async def transcribe(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        """Returns a result per chunk of one request, in order; see `BatchedRecognizer`.

        Raises:
            ModelNotFound: the request's model is not served here.
            ModelUnavailable: it could not be loaded.
            DeadlineExceeded: the request's deadline passed.
            BatcherClosed: `close` was called.
        """
        if not chunks:
            return []
        async with self._borrow(chunks[0], sum(chunk.duration_s for chunk in chunks)) as model:
            return await model.transcribe(chunks)

    async def transcribe_alone(self, chunk: Chunk) -> AsyncGenerator[AloneEvent]:
        """Yields as `BatchedRecognizer.transcribe_alone`; raises as `transcribe`."""
        async with (
            self._borrow(chunk, chunk.duration_s) as model,
            aclosing(model.transcribe_alone(chunk)) as events,
        ):
            async for event in events:
                yield event

    def statistics(self) -> BatcherStatistics:
        """Sums over the models, what waits for one to be loaded included."""
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
        """Finds out whether the engines still get on with their work.

        Raises:
            EngineStuck: one does not, or a model has been loading for too long.
        """
        for cached in self._cached.values():
            cached.model.check(patience_s)
        for name, pending in self._pending_loads.items():
            loading_s = time.monotonic() - pending.since_s
            if loading_s > max(patience_s, _MAX_LOAD_S):
                raise EngineStuck(f"model {name} has been awaited for {loading_s:.0f} s")

    async def close(self) -> None:
        """Fails what still waits and ends the threads."""
        self._closed = True
        tasks = [pending.loading for pending in self._pending_loads.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for cached in self._cached.values():
            await cached.model.close()

    @asynccontextmanager
    async def _borrow(self, chunk: Chunk, audio_s: float) -> AsyncIterator[BatchedRecognizer]:
        """Lends the model; it stays for as long as it is lent."""
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
        """Returns when the model has been loaded; its callers then come first."""
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
                # Nothing else can run until this caller has taken hold of the model.
                self._discard(name, pending)
            self._notify()

    def _load_ended(self, name: str, pending: PendingLoad) -> None:
        if pending.num_calls == 0:  # all of them were canceled, or came too late
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
            idle = [item for item in by_use if self._is_idle(*item)]
            if not idle and not await self._wait_for_idle():
                idle = [item for item in by_use if item[0] not in self._pending_loads][
                    :1
                ] or by_use[:1]
            if idle:
                await self._evict(*idle[0])

    def _is_idle(self, name: str, cached: CachedModel) -> bool:
        return cached.num_calls == 0 and name not in self._pending_loads

    async def _wait_for_idle(self) -> bool:
        try:
            async with asyncio.timeout(self._patience_s):
                while not any(self._is_idle(*item) for item in self._cached.items()):
                    await self._wait_for_change()
        except TimeoutError:
            return False
        return True

    async def _evict(self, name: str, cached: CachedModel) -> None:
        """Gives a model up, once it has done all that it has."""
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
        # Engine and batcher know each other: reference counts alone free nothing.
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
        model: the model.
        num_bytes: what it counts in the budget.
        last_use: grows with each use, of whichever model.
        num_calls: that it has.
        evicting: whether it takes no more.
    """

    model: BatchedRecognizer
    num_bytes: int
    last_use: int
    num_calls: int = 0
    evicting: bool = False


@dataclass(slots=True)
class PendingLoad:
    """A model that calls wait for."""

    loading: asyncio.Task[None]
    since_s: float
    num_calls: int = 0
    audio_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelCacheStatistics:
    """What is loaded, and what has happened so far, by model."""

    loaded: tuple[str, ...]
    loaded_bytes: int
    num_loads: Mapping[str, int]
    num_evictions: Mapping[str, int]
