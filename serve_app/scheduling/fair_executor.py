"""One thread on which many requests take turns, and one for those in a hurry."""

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
    """Runs steps of about the same length one after another, in `FairQueue`'s order.

    Whoever comes waits for the step that is being run, and not for the others' next
    ones, however many others there are. An urgent step does not wait for one that is
    not: it is run on a thread of its own, for which the other one pauses.

    Args:
        name: of the threads.
        nice: how far the thread for what is not urgent gives way, see `lower_priority`.
    """

    def __init__(self, name: str, nice: int = 0) -> None:
        self._preemption = Preemption()
        self._thread = ThreadPoolExecutor(
            1, name, initializer=lower_priority, initargs=(nice, self._preemption)
        )
        self._urgent_thread = ThreadPoolExecutor(1, f"{name}-urgent")
        self._turns: MicroBatcher[Callable[[], StepT], StepT] = MicroBatcher(
            self._run, cost=lambda step: 1, limits=_ONE_STEP, run_urgent=self._run_urgent
        )

    async def run(
        self, step: Callable[[], StepT], context: RequestContext, *, urgent: bool = False
    ) -> StepT:
        """Returns what the step returns.

        Canceling drops a step that has not begun; one that has is finished before its
        thread does anything else.

        Raises:
            DeadlineExceeded: the deadline passed before the step's turn.
            BatcherClosed: after `close`.
            Exception: what the step raised.
        """
        return await self._turns.submit(step, context, urgent=urgent)

    def statistics(self) -> BatcherStatistics:
        """Costs and items are steps."""
        return self._turns.statistics()

    def check(self, patience_s: float) -> None:
        """Finds out whether the threads still get on.

        Raises:
            EngineStuck: a step takes too long.
        """
        self._turns.check(patience_s)

    async def close(self) -> None:
        """Drops what waits and ends the threads after the steps that are being run."""
        await self._turns.close()
        await asyncio.to_thread(self._thread.shutdown)
        await asyncio.to_thread(self._urgent_thread.shutdown)

    async def _run(self, steps: list[Callable[[], StepT]]) -> Sequence[StepT]:
        return await _run_on(self._thread, steps)

    async def _run_urgent(self, steps: list[Callable[[], StepT]]) -> Sequence[StepT]:
        return await _run_on(self._urgent_thread, [self._first(step) for step in steps])

    def _first(self, step: Callable[[], StepT]) -> Callable[[], StepT]:
        def run() -> StepT:
            with self._preemption.taken():
                return step()

        return run


async def _run_on(thread: ThreadPoolExecutor, steps: list[Callable[[], StepT]]) -> Sequence[StepT]:
    loop = asyncio.get_running_loop()
    return [await loop.run_in_executor(thread, step) for step in steps]
