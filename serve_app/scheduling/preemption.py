"""Work in a hurry makes other work of its process stand still for as long as it takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_PAUSE_S = 1.0

_of_thread = threading.local()


class RightOfWay:
    """Who may compute now: those in a hurry, or everybody.

    A core that is shared, even one by one, is not all that two computing threads get into each
    other's way with: there are the interpreter's lock, caches and memory. So threads that
    respect it stop at the next `yield_point` of what they compute while others have taken
    it. Safe to share by threads.
    """

    def __init__(self) -> None:
        self._num_holders = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Has the threads that respect it pause for the length of the block."""
        with self._changed:
            self._num_holders += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_holders -= 1
                self._changed.notify_all()

    def respect(self) -> None:
        """Has the calling thread pause at yield points from now on."""
        _of_thread.right_of_way = self

    def wait(self) -> None:
        """Returns when nobody has taken it, after a second at the latest."""
        if self._num_holders == 0:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._num_holders == 0, _MAX_PAUSE_S)


def yield_point() -> None:
    """Marks a place where a computation may pause; costs next to nothing if it need not.

    To be called every few ms, without a lock that work in a hurry could want.
    """
    right_of_way: RightOfWay | None = getattr(_of_thread, "right_of_way", None)
    if right_of_way is not None:
        right_of_way.wait()
