"""Runs steps of many requests on one thread in fair order, and urgent ones on another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from serve_app.core.records import RequestContext
from serve_app.scheduling.batch_state import BatcherStatistics
from serve_app.scheduling.micro_batcher import BatchLimits, MicroBatcher
from serve_app.scheduling.preemption import Preemption, lower_priority

StepT = TypeVar("StepT")

_ONE_STEP = BatchLimits(max_cost=1, max_items=1)


class FairExecutor(Generic[StepT]):
    """Runs steps of similar length one at a time, in `FairQueue`'s order.

    A new request waits for the running step, but not for further steps of the others,
    however many there are. An urgent step does not wait for other steps: it runs on a
    second thread, during which the first thread pauses.

    Args:
        name: of the threads.
        nice: niceness of the thread for steps that are not urgent, see `lower_priority`.
    """

    def __init__(self, name: str, nice: int = 0) -> None:
        self._preemption = Preemption()
        self._thread = ThreadPoolExecutor(
            1, name, initializer=lower_priority, initargs=(nice, self._preemption)
        )
        self._urgent_thread = ThreadPoolExecutor(1, f"{name}-urgent")
        self._batcher: MicroBatcher[Callable[[], StepT], StepT] = MicroBatcher(
            self._run, cost=lambda step: 1, limits=_ONE_STEP, run_urgent=self._run_urgent
        )

    async def run(
        self, step: Callable[[], StepT], context: RequestContext, *, urgent: bool = False
    ) -> StepT:
        """Returns what the step returns.

        Canceling drops a step that has not started; a running step is completed first.

        Raises:
            DeadlineExceeded: the deadline passed before the step started.
            BatcherClosed: after `close`.
            Exception: what the step raised.
        """
        return await self._batcher.submit(step, context, urgent=urgent)

    def statistics(self) -> BatcherStatistics:
        """Returns statistics in which costs and items are steps."""
        return self._batcher.statistics()

    def check(self, patience_s: float) -> None:
        """Checks that the threads make progress.

        Raises:
            EngineStuck: a step takes too long.
        """
        self._batcher.check(patience_s)

    async def close(self) -> None:
        """Drops queued steps and ends the threads after the running ones."""
        await self._batcher.close()
        await asyncio.to_thread(self._thread.shutdown)
        await asyncio.to_thread(self._urgent_thread.shutdown)

    async def _run(self, steps: list[Callable[[], StepT]]) -> Sequence[StepT]:
        return await _run_on(self._thread, steps)

    async def _run_urgent(self, steps: list[Callable[[], StepT]]) -> Sequence[StepT]:
        return await _run_on(self._urgent_thread, [self._preempting(step) for step in steps])

    def _preempting(self, step: Callable[[], StepT]) -> Callable[[], StepT]:
        def run() -> StepT:
            with self._preemption.taken():
                return step()

        return run


async def _run_on(thread: ThreadPoolExecutor, steps: list[Callable[[], StepT]]) -> Sequence[StepT]:
    loop = asyncio.get_running_loop()
    return [await loop.run_in_executor(thread, step) for step in steps]
