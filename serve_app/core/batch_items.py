"""What a batcher holds: items that wait, and batches that run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


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
    def cost(self) -> int:
        return sum(waiting.cost for waiting in self.batch)

    @property
    def size_s(self) -> float:
        return sum(waiting.size_s for waiting in self.batch)


def fail(waiting: Waiting[ItemT, ResultT], error: Exception) -> None:
    """Has the caller of an item get an error, unless it has its answer or is gone."""
    if not waiting.future.done():
        waiting.future.set_exception(error)
