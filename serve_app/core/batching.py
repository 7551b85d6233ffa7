"""Micro-batching that follows the model, not a timer.

A batch is formed at the moment the model becomes free, out of what waits then.
Under light load that is one item at once; under heavy load it is a full batch.
A timer would do the opposite: cut batches small exactly while the model is busy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.core.errors import DeadlineExceeded
from serve_app.core.fairness import FairQueue
from serve_app.core.origin import Origin
from serve_app.core.pacing import BatchLimits, Pace
from serve_app.core.tally import BatcherStatistics, Tally

__all__ = [
    "BatchLimits",
    "BatcherClosed",
    "BatcherStatistics",
    "EngineStuck",
    "MicroBatcher",
    "Pace",
]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class BatcherClosed(RuntimeError):
    """Raised by `submit` after `close`."""


class EngineStuck(RuntimeError):
    """The engine does not come back; whoever runs this process must replace it.

    An engine may raise it itself: then nothing more is asked of it.
    """


@dataclass(slots=True, eq=False)
class _Waiting(Generic[ItemT, ResultT]):
    item: ItemT
    cost: int
    size_s: float
    since: float
    left_s: float
    alone: bool
    on_begun: Callable[[], Awaitable[None]] | None
    future: asyncio.Future[ResultT]


@dataclass(slots=True, eq=False)
class _Running(Generic[ItemT, ResultT]):
    batch: list[_Waiting[ItemT, ResultT]]
    since: float

    @property
    def cost(self) -> int:
        return sum(waiting.cost for waiting in self.batch)

    @property
    def size_s(self) -> float:
        return sum(waiting.size_s for waiting in self.batch)


class MicroBatcher(Generic[ItemT, ResultT]):
    """Runs items through a batch function, as many batches at once as it can take.

    What goes into the next batch is decided by `FairQueue` when there is room for one,
    within the limits that `Pace` draws from the last batches. Items whose caller went
    away or whose deadline passed are never run. If a batch raises, it is halved until
    the item that is to blame fails alone, so that no neighbour is lost.

    Args:
        run: takes the items of a batch, returns a result each, in order.
        cost: what one item adds to a batch, in the engine's own unit.
        limits: what a batch may hold.
        size_s: an item's audio in s, for the statistics; 0 where that means nothing.
        on_batch: told of each batch that has ended: how long each item waited, and how
            long the batch took, in s.
        concurrency: batches in flight: more than 1 prepares the next one while the one
            before is being computed.
        clock: monotonic seconds.
        unix_clock: seconds since 1970, in which deadlines are given.
    """

    def __init__(
        self,
        run: Callable[[list[ItemT]], Awaitable[Sequence[ResultT]]],
        cost: Callable[[ItemT], int],
        limits: BatchLimits,
        *,
        size_s: Callable[[ItemT], float] = lambda item: 0.0,
        on_batch: Callable[[Sequence[float], float], None] | None = None,
        concurrency: int = 1,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._cost = cost
        self._size_s = size_s
        self._limits = limits
        self._on_batch = on_batch
        self._concurrency = concurrency
        self._clock = clock
        self._unix_clock = unix_clock
        self._queue: FairQueue[_Waiting[ItemT, ResultT]] = FairQueue()
        self._pace = Pace()
        self._running: dict[asyncio.Task[None], _Running[ItemT, ResultT]] = {}
        self._woken = False
        self._closed = False
        self._stuck: EngineStuck | None = None
        self._tally = Tally(limits)

    async def submit(
        self,
        item: ItemT,
        origin: Origin,
        *,
        alone: bool = False,
        on_begun: Callable[[], Awaitable[None]] | None = None,
    ) -> ResultT:
        """Returns the item's result once a batch has run it.

        Cancelling the call drops the item if no batch has taken it yet.

        Args:
            item: the work.
            origin: whose it is; the share, the order and the deadline follow from it.
            alone: run it while nothing else runs here.
            on_begun: awaited just before a batch with the item is run.

        Raises:
            BatcherClosed: the batcher was closed before the item was run.
            DeadlineExceeded: the deadline passed before the item was run.
            EngineStuck: `check` found that it would never be.
            Exception: what `run` raised for this item alone.
        """
        if self._closed:
            raise BatcherClosed
        now = self._clock()
        left_s = float("inf")
        if origin.deadline is not None:
            left_s = origin.deadline - self._unix_clock()
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(
            item, self._cost(item), self._size_s(item), now, left_s, alone, on_begun, future
        )
        ticket = self._queue.push(
            waiting,
            key=origin.key,
            flow=origin.request_id,
            weight=origin.weight,
            cost=waiting.cost,
            size_s=waiting.size_s,
            deadline=None if origin.deadline is None else now + left_s,
            alone=alone,
            now=now,
        )
        self._wake()
        try:
            return await future
        finally:
            if self._queue.remove(ticket):
                self._wake()

    async def close(self) -> None:
        """Fails what waits or runs with `BatcherClosed` and ends what runs."""
        self._closed = True
        for waiting in self._queue.pop_all():
            _fail(waiting, BatcherClosed())
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def statistics(self) -> BatcherStatistics:
        running = self._running.values()
        return self._tally.statistics(
            self._queue.statistics(self._clock()),
            sum(one.cost for one in running),
            sum(one.size_s for one in running),
            self._pace.rtfx,
        )

    def check(self, patience_s: float, factor: float = 10.0) -> None:
        """Finds out whether the engine still gets on with its work.

        If it does not, everybody who waits is told at once and nothing more is taken:
        whoever replaces this process would otherwise wait for them to be answered first.

        Args:
            patience_s: what any batch may take, and any item may wait while nothing runs.
            factor: times as long as expected that a batch may take, if that is longer.

        Raises:
            EngineStuck: it does not, or did not before.
        """
        if self._stuck is None:
            self._stuck = self._find_stuck(patience_s, factor)
        if self._stuck is not None:
            self._give_up(self._stuck)
            raise self._stuck

    def _give_up(self, reason: EngineStuck) -> None:
        self._stuck = reason
        self._closed = True
        running = [waiting for one in self._running.values() for waiting in one.batch]
        for waiting in (*running, *self._queue.pop_all()):
            _fail(waiting, EngineStuck(*reason.args))

    def _find_stuck(self, patience_s: float, factor: float) -> EngineStuck | None:
        now = self._clock()
        for running in self._running.values():
            took_s = now - running.since
            expected_s = self._pace.expected_s(running.cost) or 0.0
            if took_s > max(patience_s, factor * expected_s):
                return EngineStuck(f"a batch has been running for {took_s:.0f} s")
        waited_s = self._queue.statistics(now).oldest_wait_s
        if len(self._queue) and not self._running and waited_s > patience_s:
            return EngineStuck(f"nothing has been run for {waited_s:.0f} s, though work waits")
        return None

    def _wake(self) -> None:
        """Has batches formed soon: what is submitted in the same breath belongs together."""
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._woken = False
        while len(self._running) < self._concurrency:
            now = self._clock()
            for expired in self._queue.pop_expired(now):
                self._tally.num_expired += 1
                _fail(expired, DeadlineExceeded(max(0.0, expired.left_s)))
            first = self._queue.first()
            if first is None or (self._running and (first.alone or self._runs_alone())):
                break
            batch = self._queue.pop_batch(self._pace.limits(self._limits), now)
            task = asyncio.get_running_loop().create_task(self._work(batch))
            self._running[task] = _Running(batch, now)
            # Not in `_work`: a task that is cancelled before it starts runs nothing.
            task.add_done_callback(self._ended)

    def _runs_alone(self) -> bool:
        return any(waiting.alone for running in self._running.values() for waiting in running.batch)

    async def _work(self, batch: list[_Waiting[ItemT, ResultT]]) -> None:
        for waiting in batch:
            if waiting.on_begun is not None:
                await waiting.on_begun()
        await self._run_or_split(batch)

    def _ended(self, task: asyncio.Task[None]) -> None:
        for waiting in self._running.pop(task).batch:
            _fail(waiting, BatcherClosed())
        self._wake()

    async def _run_or_split(self, batch: list[_Waiting[ItemT, ResultT]]) -> None:
        began = self._clock()
        try:
            results = await self._run([waiting.item for waiting in batch])
            if len(results) != len(batch):
                raise RuntimeError(
                    f"the engine returned {len(results)} results for {len(batch)} items"
                )
        except EngineStuck as error:
            self._give_up(error)
            return
        except Exception as error:
            if len(batch) == 1:
                self._tally.count([batch[0].cost])
                _fail(batch[0], error)
                return
            middle = len(batch) // 2
            await self._run_or_split(batch[:middle])
            await self._run_or_split(batch[middle:])
            return
        self._note(batch, began, self._clock())
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.future.done():
                waiting.future.set_result(result)

    def _note(self, batch: list[_Waiting[ItemT, ResultT]], began: float, ended: float) -> None:
        costs = [waiting.cost for waiting in batch]
        self._tally.count(costs)
        size_s = sum(waiting.size_s for waiting in batch)
        self._pace.observe(self._limits.batch_cost(costs), size_s, began, ended)
        if self._on_batch is not None:
            self._on_batch([began - waiting.since for waiting in batch], ended - began)


def _fail(waiting: _Waiting[ItemT, ResultT], error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)
