"""One thread on which many requests take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from serve_app.core.batching import BatchLimits, MicroBatcher
from serve_app.core.origin import Origin
from serve_app.core.tally import BatcherStatistics

StepT = TypeVar("StepT")

_ONE_STEP = BatchLimits(max_cost=1, max_items=1)


class FairThread(Generic[StepT]):
    """Runs steps of about the same length one after another, in `FairQueue`'s order.

    Whoever comes waits for the step that is being run, and not for the others' next
    ones, however many others there are.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._turns: MicroBatcher[Callable[[], StepT], StepT] = MicroBatcher(
            self._run, cost=lambda step: 1, limits=_ONE_STEP
        )

    async def run(self, step: Callable[[], StepT], origin: Origin) -> StepT:
        """Returns what the step returns.

        Cancelling drops a step that has not begun; one that has is finished before the
        thread does anything else.

        Raises:
            DeadlineExceeded: the deadline passed before the step's turn.
            BatcherClosed: after `close`.
            Exception: what the step raised.
        """
        return await self._turns.submit(step, origin)

    def statistics(self) -> BatcherStatistics:
        """Costs and items are steps."""
        return self._turns.statistics()

    def check(self, patience_s: float) -> None:
        """Finds out whether the thread still gets on.

        Raises:
            EngineStuck: a step takes too long.
        """
        self._turns.check(patience_s)

    async def close(self) -> None:
        """Drops what waits and ends the thread after the step that is being run."""
        await self._turns.close()
        await asyncio.to_thread(self._thread.shutdown)

    async def _run(self, steps: list[Callable[[], StepT]]) -> Sequence[StepT]:
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._thread, step) for step in steps]
