"""Micro-batching that follows the model, not a timer.

A batch is formed at the moment the model becomes free, out of what waits then.
Under light load that is one item at once; under heavy load it is a full batch.
A timer would do the opposite: cut batches small exactly while the model is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold.

    Attributes:
        max_cost: upper bound of a batch's cost; an item over it goes alone.
        max_items: upper bound of a batch's length.
        padded: True when the engine pads, so that a batch costs its longest
            item times its length; False when it packs, so that costs add up.
    """

    max_cost: int
    max_items: int = 64
    padded: bool = False

    def batch_cost(self, costs: Sequence[int]) -> int:
        if not costs:
            return 0
        return max(costs) * len(costs) if self.padded else sum(costs)


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """A snapshot of a batcher.

    Attributes:
        num_waiting: items that no batch has taken yet.
        waiting_cost: their summed cost.
        running_cost: summed cost of the batch that is being run, 0 when idle.
        oldest_wait_s: age of the oldest waiting item.
        num_batches: batches run so far.
        num_items: items run so far.
        padding_ratio: cost paid over cost asked for, of all batches; 1.0 is none.
    """

    num_waiting: int
    waiting_cost: int
    running_cost: int
    oldest_wait_s: float
    num_batches: int
    num_items: int
    padding_ratio: float


class BatcherClosed(RuntimeError):
    """Raised by `submit` after `close`."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[ItemT, ResultT]):
    item: ItemT
    cost: int
    since: float
    future: asyncio.Future[ResultT]


class MicroBatcher(Generic[ItemT, ResultT]):
    """Runs items through a batch function, one batch at a time.

    The oldest item is always in the next batch; younger ones join in order as
    long as the batch stays within its limits. Items whose caller went away are
    dropped when a batch is formed. If a batch raises, it is halved until the
    item that is to blame fails alone, so that no neighbour is lost.

    Args:
        run: takes the items of a batch, returns a result each, in order.
        cost: what one item adds to a batch, in the engine's own unit.
        limits: what a batch may hold.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        run: Callable[[list[ItemT]], Awaitable[Sequence[ResultT]]],
        cost: Callable[[ItemT], int],
        limits: BatchLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._cost = cost
        self._limits = limits
        self._clock = clock
        self._waiting: deque[_Waiting[ItemT, ResultT]] = deque()
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False
        self._running_cost = 0
        self._num_batches = 0
        self._num_items = 0
        self._cost_asked = 0
        self._cost_paid = 0

    async def submit(self, item: ItemT) -> ResultT:
        """Returns the item's result once a batch has run it.

        Cancelling the call drops the item if no batch has taken it yet.

        Raises:
            BatcherClosed: the batcher was closed before the item was run.
            Exception: what `run` raised for this item alone.
        """
        if self._closed:
            raise BatcherClosed
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        waiting: _Waiting[ItemT, ResultT] = _Waiting(
            item, self._cost(item), self._clock(), asyncio.get_running_loop().create_future()
        )
        self._waiting.append(waiting)
        self._arrived.set()
        return await waiting.future

    async def close(self) -> None:
        """Fails what still waits with `BatcherClosed` and stops the worker."""
        self._closed = True
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                waiting.future.set_exception(BatcherClosed())
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker

    def statistics(self) -> BatcherStatistics:
        live = [waiting for waiting in self._waiting if not waiting.future.done()]
        return BatcherStatistics(
            num_waiting=len(live),
            waiting_cost=sum(waiting.cost for waiting in live),
            running_cost=self._running_cost,
            oldest_wait_s=self._clock() - live[0].since if live else 0.0,
            num_batches=self._num_batches,
            num_items=self._num_items,
            padding_ratio=self._cost_paid / self._cost_asked if self._cost_asked else 1.0,
        )

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            batch = self._form()
            if not batch:
                self._arrived.clear()
                continue
            self._running_cost = sum(waiting.cost for waiting in batch)
            try:
                await self._run_or_split(batch)
            except asyncio.CancelledError:
                for waiting in batch:
                    if not waiting.future.done():
                        waiting.future.set_exception(BatcherClosed())
                raise
            finally:
                self._running_cost = 0

    def _form(self) -> list[_Waiting[ItemT, ResultT]]:
        batch: list[_Waiting[ItemT, ResultT]] = []
        costs: list[int] = []
        left: deque[_Waiting[ItemT, ResultT]] = deque()
        while self._waiting:
            waiting = self._waiting.popleft()
            if waiting.future.done():
                continue
            fits = self._limits.batch_cost([*costs, waiting.cost]) <= self._limits.max_cost
            if len(batch) < self._limits.max_items and (not batch or fits):
                batch.append(waiting)
                costs.append(waiting.cost)
            else:
                left.append(waiting)
        self._waiting = left
        return batch

    async def _run_or_split(self, batch: list[_Waiting[ItemT, ResultT]]) -> None:
        try:
            results = await self._run([waiting.item for waiting in batch])
            if len(results) != len(batch):
                raise RuntimeError(
                    f"the engine returned {len(results)} results for {len(batch)} items"
                )
        except Exception as error:
            if len(batch) == 1:
                self._count(batch)
                if not batch[0].future.done():
                    batch[0].future.set_exception(error)
                return
            middle = len(batch) // 2
            await self._run_or_split(batch[:middle])
            await self._run_or_split(batch[middle:])
            return
        self._count(batch)
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.future.done():
                waiting.future.set_result(result)

    def _count(self, batch: list[_Waiting[ItemT, ResultT]]) -> None:
        costs = [waiting.cost for waiting in batch]
        self._num_batches += 1
        self._num_items += len(batch)
        self._cost_asked += sum(costs)
        self._cost_paid += self._limits.batch_cost(costs)
