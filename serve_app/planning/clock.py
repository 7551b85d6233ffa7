"""Simulated time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any, TypeAlias

# The argument is whatever its handler takes; a typed event per kind would cost more
# time than the handlers do.
Handler: TypeAlias = Callable[[Any], None]


class Clock:
    """Calls handlers at their times; of those due together, the first one asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.num_events = 0
        self._events: list[tuple[float, int, Handler, Any]] = []
        self._stopped = False

    def at(self, time_s: float, handler: Handler, argument: Any = None) -> None:
        """Has `handler(argument)` called at a time; one in the past counts as now."""
        self.num_events += 1
        heapq.heappush(self._events, (time_s, self.num_events, handler, argument))

    def after(self, delay_s: float, handler: Handler, argument: Any = None) -> None:
        self.num_events += 1
        heapq.heappush(self._events, (self.now + delay_s, self.num_events, handler, argument))

    def stop(self) -> None:
        """Ends `run` once the handler that is being called returns."""
        self._stopped = True

    def run(self, until_s: float = math.inf) -> None:
        """Runs until nothing is left to happen, it is stopped, or until a time."""
        events = self._events
        pop = heapq.heappop
        while events and events[0][0] <= until_s and not self._stopped:
            time_s, _, handler, argument = pop(events)
            if time_s > self.now:
                self.now = time_s
            handler(argument)
        if math.isfinite(until_s):
            self.now = max(self.now, until_s)
