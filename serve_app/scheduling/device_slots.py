"""Several models, one device: their batches take turns."""

from __future__ import annotations

from collections.abc import Callable, Hashable


class DeviceSlots:
    """Says which of several batchers may begin its next batch.

    Whoever is refused stands in line and is woken when it is first and there is room,
    so that no model waits for more than one batch of each of the others.

    Args:
        num_batches: that the device takes at once, of whichever models.
    """

    def __init__(self, num_batches: int = 1) -> None:
        self._num_batches = num_batches
        self._num_running = 0
        self._line: dict[Hashable, Callable[[], None]] = {}

    def may_begin(self, who: Hashable, wake: Callable[[], None]) -> bool:
        """Whether a batch may begin now; if not, `wake` is called when it may."""
        if self._is_free() and next(iter(self._line), who) == who:
            return True
        self._line.setdefault(who, wake)
        return False

    def begin(self, who: Hashable) -> None:
        """Takes note of a batch that begins."""
        self._line.pop(who, None)
        self._num_running += 1
        self._wake_first()

    def end(self) -> None:
        """Takes note of a batch that has ended."""
        self._num_running -= 1
        self._wake_first()

    def withdraw(self, who: Hashable) -> None:
        """Leaves the line, having nothing to run any more."""
        if self._line.pop(who, None) is not None:
            self._wake_first()

    def _is_free(self) -> bool:
        return self._num_running < self._num_batches

    def _wake_first(self) -> None:
        if self._line and self._is_free():
            next(iter(self._line.values()))()
