"""A simulated replica of a model, and the batches at it."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from serve_app.planning.records import Call
from serve_app.scheduling.batch_budget import Pace
from serve_app.scheduling.fair_queue import FairQueue
from serve_app.scheduling.throughput import Throughput

Item: TypeAlias = tuple[Call, int]
"""A call, and what one of its items costs."""

_RATE_MEMORY_S = 60.0


class ReplicaModel:
    """One replica; the station that it belongs to does the work.

    Attributes:
        num_calls: calls that it holds.
        busy_s: time that its model was at work.
    """

    __slots__ = (
        "alive",
        "batches",
        "busy_s",
        "draining",
        "num_calls",
        "pace",
        "queue",
        "throughput",
    )

    def __init__(self, now: float) -> None:
        self.queue: FairQueue[Item] = FairQueue()
        self.pace = Pace()
        self.throughput = Throughput(_RATE_MEMORY_S, now)
        self.num_calls = 0
        self.batches: deque[Batch] = deque()
        self.busy_s = 0.0
        self.alive = True
        self.draining = False


class Batch:
    """Items that are computed together; the first batch of a replica is at the model."""

    __slots__ = ("began_s", "cost", "items", "replica", "work_s")

    def __init__(
        self, replica: ReplicaModel, items: list[Item], cost: int, work_s: float, began_s: float
    ) -> None:
        self.replica = replica
        self.items = items
        self.cost = cost
        self.work_s = work_s
        self.began_s = began_s
