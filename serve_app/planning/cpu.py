"""The simulated clock, and the cores that simulated work runs on: its own or shared ones."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias


class Cores(Protocol):
    """Runs work that is given in seconds of one undisturbed core."""

    def run(
        self, work_s: float, handler: Handler, argument: Any = None, delay_s: float = 0.0
    ) -> None:
        """Calls `handler(argument)` once the work is done and a delay has passed."""
        ...


class OwnCores:
    """Every thread has a core, as on nodes sized for what Ray places on them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def run(
        self, work_s: float, handler: Handler, argument: Any = None, delay_s: float = 0.0
    ) -> None:
        self._clock.after(work_s + delay_s, handler, argument)


class SharedCores:
    """All threads share a machine's cores equally.

    Processor sharing in virtual time: with k threads at work each advances by
    `speeds[k] * dt`, so that a thread that starts now with work w is done when the
    virtual time has grown by w, whoever comes and goes.

    Args:
        clock: the simulation's.
        num_cores: cores of the machine.
        slowdown: how much longer work takes on a core while the others are busy, for
            threads share caches and execution units; 1.0 for not at all.

    Source: virtual time of egalitarian processor sharing, as in Kleinrock,
    Queueing Systems II (1976), ch. 4.4.
    """

    def __init__(self, clock: Clock, num_cores: float, slowdown: float = 1.0) -> None:
        self._clock = clock
        self._num_cores = num_cores
        self._num_others = 0.0
        self._slowdown = slowdown
        self._virtual_s = 0.0
        self._since_s = 0.0
        self._works: list[tuple[float, int, Handler, Any, float]] = []
        self._num_started = 0
        self._version = 0
        self._busy_s = 0.0

    @property
    def busy_s(self) -> float:
        """Core seconds spent so far."""
        return self._busy_s

    def compete(self, num_threads: float) -> None:
        """Has this many threads of others share the cores from now on."""
        self._advance()
        self._num_others = num_threads
        self._schedule()

    def follow(self, changes: Sequence[tuple[float, float]]) -> None:
        """Has others come and go: pairs of a time in s and their threads from then on."""
        for time_s, num_threads in changes:
            self._clock.at(time_s, self.compete, num_threads)

    def run(
        self, work_s: float, handler: Handler, argument: Any = None, delay_s: float = 0.0
    ) -> None:
        self._advance()
        self._num_started += 1
        work = (self._virtual_s + work_s, self._num_started, handler, argument, delay_s)
        heapq.heappush(self._works, work)
        self._schedule()

    def _speed(self) -> float:
        num_works = len(self._works)
        if num_works == 0:
            return 0.0
        share = min(1.0, self._num_cores / (num_works + self._num_others))
        # Between one busy core and all of them, linear.
        crowding = min(1.0, max(0.0, (num_works - 1) / max(1.0, self._num_cores - 1)))
        return share / (1.0 + (self._slowdown - 1.0) * crowding)

    def _advance(self) -> None:
        elapsed_s = self._clock.now - self._since_s
        if elapsed_s > 0:
            speed = self._speed()
            self._virtual_s += elapsed_s * speed
            self._busy_s += elapsed_s * speed * len(self._works)
            self._since_s = self._clock.now

    def _schedule(self) -> None:
        """Plans the next completion; the plans before it are void."""
        self._version += 1
        if self._works:
            left_s = max(0.0, self._works[0][0] - self._virtual_s)
            self._clock.after(left_s / self._speed(), self._complete, self._version)

    def _complete(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        # What rounding left over must not make the clock stand still.
        virtual_s, _, handler, argument, delay_s = heapq.heappop(self._works)
        self._virtual_s = max(self._virtual_s, virtual_s)
        self._schedule()
        if delay_s > 0:
            self._clock.after(delay_s, handler, argument)
        else:
            handler(argument)


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
