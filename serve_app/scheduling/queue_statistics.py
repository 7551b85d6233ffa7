"""How full a queue is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """A snapshot of a queue.

    Attributes:
        num_items: items that wait.
        cost: their summed cost.
        size_s: their summed audio in s.
        background_size_s: that of those for which nobody waits.
        oldest_wait_s: age of the item that waits the longest.
        num_flows: requests that have items here.
        num_keys: callers that have items here.
    """

    num_items: int
    cost: int
    size_s: float
    background_size_s: float
    oldest_wait_s: float
    num_flows: int
    num_keys: int
