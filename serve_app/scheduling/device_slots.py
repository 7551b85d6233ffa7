"""Shares one device among the batchers of several models, first come, first served."""

from __future__ import annotations

from collections.abc import Callable, Hashable


class DeviceSlots:
    """Grants batchers the device in FIFO order.

    A refused batcher is queued and woken when it is first and a slot is free, so no model
    waits for more than one batch of each other model.

    Args:
        num_batches: number of batches that the device runs at once, of any models.
    """

    def __init__(self, num_batches: int = 1) -> None:
        self._num_batches = num_batches
        self._num_running = 0
        self._queue: dict[Hashable, Callable[[], None]] = {}

    def may_begin(self, who: Hashable, wake: Callable[[], None]) -> bool:
        """Whether a batch may start now; if not, `wake` is called when it may."""
        if self._is_free() and next(iter(self._queue), who) == who:
            return True
        self._queue.setdefault(who, wake)
        return False

    def begin(self, who: Hashable) -> None:
        """Takes a slot for a batch."""
        self._queue.pop(who, None)
        self._num_running += 1
        self._wake_first()

    def end(self) -> None:
        """Frees the slot of a finished batch."""
        self._num_running -= 1
        self._wake_first()

    def withdraw(self, who: Hashable) -> None:
        """Leaves the queue, with nothing left to run."""
        if self._queue.pop(who, None) is not None:
            self._wake_first()

    def _is_free(self) -> bool:
        return self._num_running < self._num_batches

    def _wake_first(self) -> None:
        if self._queue and self._is_free():
            next(iter(self._queue.values()))()
