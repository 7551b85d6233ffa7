"""What a batcher holds and has done: queued items, running batches, statistics, and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.scheduling.batch_budget import BatchLimits
from serve_app.scheduling.fair_queue import QueueStatistics

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """A snapshot of a batcher.

    Attributes:
        num_waiting: queued items.
        waiting_cost: their summed cost.
        queued_audio_s: their summed size.
        running_cost: summed cost of the running batches, 0 when idle.
        running_audio_s: their summed size.
        oldest_wait_s: age of the oldest queued item, in s.
        num_batches: batches run so far.
        num_items: items run so far.
        num_expired: items whose deadline passed while they were queued.
        padding_ratio: cost including padding over cost without it, of all batches; 1.0 is none.
        rtfx: recent seconds of audio per second of compute; 0 before the first batch.
        last_batch_items: number of items of the last batch.
        background_queued_audio_s: background part of `queued_audio_s`.
        background_running_audio_s: background part of `running_audio_s`.
    """

    num_waiting: int
    waiting_cost: int
    queued_audio_s: float
    running_cost: int
    running_audio_s: float
    oldest_wait_s: float
    num_batches: int
    num_items: int
    num_expired: int
    padding_ratio: float
    rtfx: float
    last_batch_items: int
    background_queued_audio_s: float = 0.0
    background_running_audio_s: float = 0.0


class BatchStats:
    """Running totals over all batches."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._num_batches = 0
        self._num_items = 0
        self._last_batch_items = 0
        self._cost_asked = 0
        self._cost_paid = 0
        self.num_expired = 0
        """Items whose deadline passed while they were queued."""

    def count(self, costs: Sequence[int]) -> None:
        """Records a finished batch by the costs of its items."""
        self._num_batches += 1
        self._num_items += len(costs)
        self._last_batch_items = len(costs)
        self._cost_asked += sum(costs)
        self._cost_paid += self._limits.batch_cost(costs)

    def statistics(
        self, queue: QueueStatistics, running: InFlight[ItemT, ResultT], rtfx: float
    ) -> BatcherStatistics:
        return BatcherStatistics(
            num_waiting=queue.num_items,
            waiting_cost=queue.cost,
            queued_audio_s=queue.size_s,
            running_cost=running.cost,
            running_audio_s=running.size_s,
            oldest_wait_s=queue.oldest_wait_s,
            num_batches=self._num_batches,
            num_items=self._num_items,
            num_expired=self.num_expired,
            padding_ratio=self._cost_paid / self._cost_asked if self._cost_asked else 1.0,
            rtfx=rtfx,
            last_batch_items=self._last_batch_items,
            background_queued_audio_s=queue.background_size_s,
            background_running_audio_s=running.background_size_s,
        )


def combine(
    parts: Sequence[BatcherStatistics], *, waiting_audio_s: float = 0.0, num_waiting: int = 0
) -> BatcherStatistics:
    """Merges the statistics of several batchers on one device.

    Audio and items are summed. `rtfx` is weighted by the audio that each model holds; idle
    models count only if all are idle.

    Args:
        parts: at least one.
        waiting_audio_s: audio not yet queued in any of them.
        num_waiting: items not yet queued in any of them.
    """
    num_batches = sum(part.num_batches for part in parts)
    paid = sum(part.padding_ratio * part.num_batches for part in parts)
    return BatcherStatistics(
        num_waiting=sum(part.num_waiting for part in parts) + num_waiting,
        waiting_cost=sum(part.waiting_cost for part in parts),
        queued_audio_s=sum(part.queued_audio_s for part in parts) + waiting_audio_s,
        running_cost=sum(part.running_cost for part in parts),
        running_audio_s=sum(part.running_audio_s for part in parts),
        oldest_wait_s=max(part.oldest_wait_s for part in parts),
        num_batches=num_batches,
        num_items=sum(part.num_items for part in parts),
        num_expired=sum(part.num_expired for part in parts),
        padding_ratio=paid / num_batches if num_batches else 1.0,
        rtfx=_joint_rtfx(parts),
        last_batch_items=parts[0].last_batch_items,
        background_queued_audio_s=sum(part.background_queued_audio_s for part in parts),
        background_running_audio_s=sum(part.background_running_audio_s for part in parts),
    )


def _joint_rtfx(parts: Sequence[BatcherStatistics]) -> float:
    measured = [
        (part.queued_audio_s + part.running_audio_s, part.rtfx) for part in parts if part.rtfx > 0
    ]
    if not measured:
        return 0.0
    if not any(audio_s for audio_s, _ in measured):
        measured = [(1.0, rtfx) for _, rtfx in measured]
    return sum(audio_s for audio_s, _ in measured) / sum(
        audio_s / rtfx for audio_s, rtfx in measured
    )


class BatcherClosed(RuntimeError):
    """Raised by `submit` after `close`."""


class EngineStuck(RuntimeError):
    """The engine hangs; the process must be replaced.

    An engine may raise it itself; the batcher then stops calling it.

    Args:
        begun: False for an item that was still queued, so cannot be the cause.
    """

    def __init__(self, *reason: object, begun: bool = True) -> None:
        super().__init__(*reason)
        self.begun = begun


@dataclass(slots=True, eq=False)
class QueuedItem(Generic[ItemT, ResultT]):
    """An item with its options, arrival time and the future of its result."""

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
class RunningBatch(Generic[ItemT, ResultT]):
    """A batch that is running, and its start time."""

    batch: list[QueuedItem[ItemT, ResultT]]
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
    """The running batches, and which further batches may run beside them."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[None], RunningBatch[ItemT, ResultT]] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._running)

    @property
    def batches(self) -> list[RunningBatch[ItemT, ResultT]]:
        return list(self._running.values())

    @property
    def items(self) -> list[QueuedItem[ItemT, ResultT]]:
        return [waiting for running in self._running.values() for waiting in running.batch]

    @property
    def cost(self) -> int:
        return sum(running.cost for running in self._running.values())

    @property
    def size_s(self) -> float:
        return sum(running.size_s for running in self._running.values())

    @property
    def background_size_s(self) -> float:
        """Audio of background batches, in s."""
        return sum(running.size_s for running in self._running.values() if running.background)

    def add(
        self, task: asyncio.Task[None], batch: list[QueuedItem[ItemT, ResultT]], now: float
    ) -> None:
        self._running[task] = RunningBatch(batch, now)

    def remove(self, task: asyncio.Task[None]) -> list[QueuedItem[ItemT, ResultT]]:
        return self._running.pop(task).batch

    def admits(self, first: QueuedItem[ItemT, ResultT], *, in_turn: bool, overtaking: bool) -> bool:
        """Whether a batch that starts with an item may run now.

        Args:
            first: the item.
            in_turn: there is room for a batch of any kind.
            overtaking: a batch of urgent items may run beside others.
        """
        running = self._running.values()
        if running and (first.alone or any(one.alone for one in running)):
            return False
        if first.background and any(not one.background for one in running):
            return False
        if in_turn:
            return True
        return overtaking and first.urgent and not any(one.urgent for one in running)


def fail(waiting: QueuedItem[ItemT, ResultT], error: Exception) -> None:
    """Fails an item, unless it has its result or its caller is gone."""
    if not waiting.future.done():
        waiting.future.set_exception(error)
