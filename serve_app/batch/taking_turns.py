"""One core that several threads use one after another."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turn:
    """A lock that goes to whoever has waited the longest.

    Python's own lets a thread that releases it take it again at once, so that one
    recording could keep the others waiting to its end.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Waits for the turn and has it for the length of the block."""
        self._take()
        try:
            yield
        finally:
            self._pass_on()

    @contextmanager
    def given_up(self) -> Iterator[None]:
        """Lets others have the turn for the length of the block; only within `mine`."""
        self._pass_on()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()

    def _pass_on(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False
