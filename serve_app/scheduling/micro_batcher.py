"""Micro-batching driven by the model, not by a timer.

A batch is formed from the queued items when the model becomes free: one item at once under
light load, a full batch under heavy load. A timer would form small batches exactly while the
model is busy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from serve_app.core.errors import DeadlineExceeded
from serve_app.core.records import RequestContext
from serve_app.scheduling.batch_budget import BatchLimits, BatchTimeModel
from serve_app.scheduling.batch_state import (
    BatcherClosed,
    BatcherStatistics,
    BatchStats,
    EngineStuck,
    InFlight,
    QueuedItem,
    fail,
)
from serve_app.scheduling.device_slots import DeviceSlots
from serve_app.scheduling.fair_queue import FairQueue

__all__ = [
    "BatchLimits",
    "BatchTimeModel",
    "BatcherClosed",
    "BatcherStatistics",
    "EngineStuck",
    "MicroBatcher",
]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class MicroBatcher(Generic[ItemT, ResultT]):
    """Runs items through a batch function, with a bounded number of concurrent batches.

    When there is room for a batch, `FairQueue` selects its items, within limits that
    `BatchTimeModel` derives from recent batches. Canceled and expired items are never run.
    If a batch raises, it is halved until the faulty item fails alone.

    Args:
        run: takes the items of a batch, returns a result each, in order.
        cost: what one item adds to a batch, in the engine's unit.
        limits: what a batch may hold.
        size_s: an item's audio in s, for the statistics; 0 if not applicable.
        on_batch: called after each batch with the wait of each item and the time of the
            batch, in s.
        concurrency: concurrent batches; more than 1 prepares the next one while the previous
            one is computed.
        run_urgent: as `run`, for batches of urgent items only, which run beside other batches
            instead of after them. None if nothing may overtake.
        device_slots: shared with the batchers of other models on the same device.
        clock: monotonic seconds.
        unix_clock: Unix time in s, in which deadlines are given.
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
        run_urgent: Callable[[list[ItemT]], Awaitable[Sequence[ResultT]]] | None = None,
        device_slots: DeviceSlots | None = None,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._run_urgent = run_urgent
        self._device_slots = device_slots or DeviceSlots(concurrency)
        self._cost = cost
        self._size_s = size_s
        self._limits = limits
        self._on_batch = on_batch
        self._concurrency = concurrency
        self._clock = clock
        self._unix_clock = unix_clock
        self._queue: FairQueue[QueuedItem[ItemT, ResultT]] = FairQueue()
        self._time_model = BatchTimeModel()
        self._running: InFlight[ItemT, ResultT] = InFlight()
        self._woken = False
        self._closed = False
        self._stuck: EngineStuck | None = None
        self._stats = BatchStats(limits)

    async def submit(
        self,
        item: ItemT,
        context: RequestContext,
        *,
        alone: bool = False,
        urgent: bool = False,
        on_begun: Callable[[], Awaitable[None]] | None = None,
    ) -> ResultT:
        """Returns the item's result once a batch has run it.

        Canceling the call drops the item if no batch has taken it yet.

        Args:
            item: the work.
            context: its request, which determines share, order and deadline.
            alone: run it in a batch of its own, with no other batch beside it.
            urgent: allow it to overtake, see `run_urgent`; shares stay as they are.
            on_begun: awaited just before the item's batch runs.

        Raises:
            BatcherClosed: the batcher was closed before the item was run.
            DeadlineExceeded: the deadline passed before the item was run.
            EngineStuck: `check` found the engine stuck.
            Exception: what `run` raised for this item alone.
        """
        if self._closed:
            raise BatcherClosed
        now = self._clock()
        background = context.background
        urgent = urgent and not background
        left_s = float("inf")
        if context.deadline is not None:
            left_s = context.deadline - self._unix_clock()
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        cost, size_s = self._cost(item), self._size_s(item)
        waiting = QueuedItem(
            item, cost, size_s, now, left_s, alone, urgent, background, on_begun, future
        )
        ticket = self._queue.push(
            waiting,
            key=context.key,
            flow=context.request_id,
            weight=context.weight,
            cost=waiting.cost,
            size_s=waiting.size_s,
            deadline=None if context.deadline is None else now + left_s,
            alone=alone,
            urgent=urgent,
            background=background,
            now=now,
        )
        self._wake()
        try:
            return await future
        finally:
            if self._queue.remove(ticket):
                self._wake()

    async def close(self) -> None:
        """Fails queued and running items with `BatcherClosed` and cancels running batches."""
        self._closed = True
        for waiting in self._queue.pop_all():
            fail(waiting, BatcherClosed())
        tasks = self._running.tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def statistics(self) -> BatcherStatistics:
        queue = self._queue.statistics(self._clock())
        return self._stats.statistics(queue, self._running, self._time_model.rtfx)

    def check(self, patience_s: float, factor: float = 10.0) -> None:
        """Checks that the engine makes progress.

        If it does not, all items fail at once and no more are accepted, so that the process
        can be replaced without waiting for them.

        Args:
            patience_s: longest time of a batch, and longest wait while nothing runs.
            factor: multiple of its expected time that a batch may take, if that is longer.

        Raises:
            EngineStuck: the engine is stuck, now or since an earlier check.
        """
        if self._stuck is None:
            self._stuck = self._find_stuck(patience_s, factor)
        if self._stuck is not None:
            self._give_up(self._stuck)
            raise self._stuck

    def _give_up(self, reason: EngineStuck) -> None:
        self._stuck = reason
        self._closed = True
        for waiting in self._running.items:
            fail(waiting, EngineStuck(*reason.args))
        for waiting in self._queue.pop_all():
            fail(waiting, EngineStuck(*reason.args, begun=False))

    def _find_stuck(self, patience_s: float, factor: float) -> EngineStuck | None:
        now = self._clock()
        for running in self._running.batches:
            took_s = now - running.since
            expected_s = self._time_model.expected_s(running.cost) or 0.0
            if took_s > max(patience_s, factor * expected_s):
                return EngineStuck(f"a batch has been running for {took_s:.0f} s")
        waited_s = self._queue.statistics(now).oldest_wait_s
        if len(self._queue) and not self._running and waited_s > patience_s:
            return EngineStuck(f"nothing has been run for {waited_s:.0f} s although work is queued")
        return None

    def _wake(self) -> None:
        """Schedules a dispatch, so that items submitted together can share a batch."""
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._woken = False
        while True:
            now = self._clock()
            for expired in self._queue.pop_expired(now):
                self._stats.num_expired += 1
                fail(expired, DeadlineExceeded(max(0.0, expired.left_s)))
            first = self._queue.first()
            in_turn = first is not None and self._has_slot()
            if first is None or not self._running.admits(
                first.item, in_turn=in_turn, overtaking=self._run_urgent is not None
            ):
                if first is None or first.alone or first.background:
                    self._device_slots.withdraw(self)
                break
            limits = self._limits.in_background() if first.background else self._limits
            batch = self._queue.pop_batch(
                self._time_model.limits(limits), now, only_urgent=not in_turn
            )
            task = asyncio.get_running_loop().create_task(self._work(batch))
            self._running.add(task, batch, now)
            # Not in `_work`: a task that is canceled before it starts runs nothing.
            task.add_done_callback(self._ended)
            if in_turn:
                self._device_slots.begin(self)
                task.add_done_callback(lambda _: self._device_slots.end())

    def _has_slot(self) -> bool:
        has_room = len(self._running) < self._concurrency
        return has_room and self._device_slots.may_begin(self, self._wake)

    async def _work(self, batch: list[QueuedItem[ItemT, ResultT]]) -> None:
        for waiting in batch:
            if waiting.on_begun is not None:
                await waiting.on_begun()
        await self._run_or_split(batch)

    def _ended(self, task: asyncio.Task[None]) -> None:
        for waiting in self._running.remove(task):
            fail(waiting, BatcherClosed())
        self._wake()

    async def _run_or_split(self, batch: list[QueuedItem[ItemT, ResultT]]) -> None:
        began = self._clock()
        try:
            results = await self._runner_of(batch)([waiting.item for waiting in batch])
            if len(results) != len(batch):
                raise RuntimeError(
                    f"the engine returned {len(results)} results for {len(batch)} items"
                )
        except EngineStuck as error:
            self._give_up(error)
            return
        except Exception as error:
            if len(batch) == 1:
                self._stats.count([batch[0].cost])
                fail(batch[0], error)
                return
            middle = len(batch) // 2
            await self._run_or_split(batch[:middle])
            await self._run_or_split(batch[middle:])
            return
        self._note(batch, began, self._clock())
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.future.done():
                waiting.future.set_result(result)

    def _runner_of(
        self, batch: list[QueuedItem[ItemT, ResultT]]
    ) -> Callable[[list[ItemT]], Awaitable[Sequence[ResultT]]]:
        if self._run_urgent is not None and all(waiting.urgent for waiting in batch):
            return self._run_urgent
        return self._run

    def _note(self, batch: list[QueuedItem[ItemT, ResultT]], began: float, ended: float) -> None:
        costs = [waiting.cost for waiting in batch]
        self._stats.count(costs)
        size_s = sum(waiting.size_s for waiting in batch)
        self._time_model.observe(self._limits.batch_cost(costs), size_s, began, ended)
        if self._on_batch is not None:
            self._on_batch([began - waiting.since for waiting in batch], ended - began)
