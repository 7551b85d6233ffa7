"""What a batcher holds: items that wait, batches that run, and why one may get no result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class BatcherClosed(RuntimeError):
    """Raised by `submit` after `close`."""


class EngineStuck(RuntimeError):
    """The engine does not come back; whoever runs this process must replace it.

    An engine may raise it itself: then nothing more is asked of it.

    Args:
        begun: False for an item that was still waiting: it is not what the engine is stuck on.
    """

    def __init__(self, *reason: object, begun: bool = True) -> None:
        super().__init__(*reason)
        self.begun = begun


@dataclass(slots=True, eq=False)
class Waiting(Generic[ItemT, ResultT]):
    """An item whose caller waits for it, and when it came."""

    item: ItemT
    cost: int
    size_s: float
    since: float
    left_s: float
    alone: bool
    urgent: bool
    background: bool
    on_begun: Callable[[], Awaitable[None]] | None
    future: asyncio.Future[ResultT]


@dataclass(slots=True, eq=False)
class Running(Generic[ItemT, ResultT]):
    """A batch that is being run, and since when."""

    batch: list[Waiting[ItemT, ResultT]]
    since: float

    @property
    def urgent(self) -> bool:
        return all(waiting.urgent for waiting in self.batch)

    @property
    def background(self) -> bool:
        return all(waiting.background for waiting in self.batch)

    @property
    def alone(self) -> bool:
        return any(waiting.alone for waiting in self.batch)

    @property
    def cost(self) -> int:
        return sum(waiting.cost for waiting in self.batch)

    @property
    def size_s(self) -> float:
        return sum(waiting.size_s for waiting in self.batch)


class InFlight(Generic[ItemT, ResultT]):
    """The batches that are being run, and what may be run beside them."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[None], Running[ItemT, ResultT]] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._running)

    @property
    def batches(self) -> list[Running[ItemT, ResultT]]:
        return list(self._running.values())

    @property
    def items(self) -> list[Waiting[ItemT, ResultT]]:
        return [waiting for running in self._running.values() for waiting in running.batch]

    @property
    def cost(self) -> int:
        return sum(running.cost for running in self._running.values())

    @property
    def size_s(self) -> float:
        return sum(running.size_s for running in self._running.values())

    @property
    def background_size_s(self) -> float:
        """Audio for which nobody waits."""
        return sum(running.size_s for running in self._running.values() if running.background)

    def add(
        self, task: asyncio.Task[None], batch: list[Waiting[ItemT, ResultT]], now: float
    ) -> None:
        self._running[task] = Running(batch, now)

    def remove(self, task: asyncio.Task[None]) -> list[Waiting[ItemT, ResultT]]:
        return self._running.pop(task).batch

    def admits(self, first: Waiting[ItemT, ResultT], *, in_turn: bool, overtaking: bool) -> bool:
        """Whether a batch that begins with an item may be run now.

        Args:
            first: the item.
            in_turn: there is room for a batch of any kind.
            overtaking: a batch of urgent items may be run beside others.
        """
        running = self._running.values()
        if running and (first.alone or any(one.alone for one in running)):
            return False
        if first.background and any(not one.background for one in running):
            return False
        if in_turn:
            return True
        return overtaking and first.urgent and not any(one.urgent for one in running)


def fail(waiting: Waiting[ItemT, ResultT], error: Exception) -> None:
    """Has the caller of an item get an error, unless it has its answer or is gone."""
    if not waiting.future.done():
        waiting.future.set_exception(error)
