"""An event loop whose clock jumps to the next timer, so that real code runs in simulated time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class _JumpingSelector(selectors.SelectSelector):
    """Advances the clock by the time that the loop would have slept."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0.0)
        if not ready:
            assert timeout is not None, "nothing is left to happen, and the run has not ended"
            self.now_s += max(0.0, timeout)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """A loop without real delays."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def run_simulated(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Runs a coroutine in simulated time, which starts at 0."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(work)


async def sleep_until(time_s: float) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(max(0.0, time_s - loop.time()))
