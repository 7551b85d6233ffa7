"""The simulated clock, and the CPU cores on which simulated work runs.

Work runs on a core of its own (`OwnCores`) or on cores shared by all threads of a machine
(`SharedCores`).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias


class Cores(Protocol):
    """Runs work, which is given in seconds of one otherwise idle core."""

    def run(
        self, work_s: float, handler: Handler, argument: Any = None, delay_s: float = 0.0
    ) -> None:
        """Calls `handler(argument)` when the work is done and then the delay has passed."""
        ...


class OwnCores:
    """Every thread has its own core, as on nodes sized for the replicas that Ray places there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def run(
        self, work_s: float, handler: Handler, argument: Any = None, delay_s: float = 0.0
    ) -> None:
        self._clock.after(work_s + delay_s, handler, argument)


class SharedCores:
    """All threads share the cores of a machine equally.

    Processor sharing in virtual time: while k threads run, virtual time advances at the
    speed of one of them. A thread that starts with work w ends when virtual time has
    advanced by w, however many threads start and end meanwhile.

    Args:
        clock: the simulation's.
        num_cores: cores of the machine.
        slowdown: factor by which work on a core takes longer while the others are busy,
            since threads share caches and execution units; 1.0 for none.

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
        """Lets this many threads of other programs share the cores from now on."""
        self._advance()
        self._num_others = num_threads
        self._schedule()

    def follow(self, changes: Sequence[tuple[float, float]]) -> None:
        """Schedules `compete` calls: pairs of a time in s and the threads from then on."""
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
        """Schedules the next completion; earlier schedules become void."""
        self._version += 1
        if self._works:
            left_s = max(0.0, self._works[0][0] - self._virtual_s)
            self._clock.after(left_s / self._speed(), self._complete, self._version)

    def _complete(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        # A rounding error must not stop the clock.
        virtual_s, _, handler, argument, delay_s = heapq.heappop(self._works)
        self._virtual_s = max(self._virtual_s, virtual_s)
        self._schedule()
        if delay_s > 0:
            self._clock.after(delay_s, handler, argument)
        else:
            handler(argument)


# `Any`, since each handler has its own argument type; an event class for each would take
# longer than the handlers themselves.
Handler: TypeAlias = Callable[[Any], None]


class Clock:
    """Calls handlers at their times; those due at the same time in the order of scheduling."""

    def __init__(self) -> None:
        self.now = 0.0
        self.num_events = 0
        self._events: list[tuple[float, int, Handler, Any]] = []
        self._stopped = False

    def at(self, time_s: float, handler: Handler, argument: Any = None) -> None:
        """Schedules `handler(argument)` at a time; a time in the past means now."""
        self.num_events += 1
        heapq.heappush(self._events, (time_s, self.num_events, handler, argument))

    def after(self, delay_s: float, handler: Handler, argument: Any = None) -> None:
        self.num_events += 1
        heapq.heappush(self._events, (self.now + delay_s, self.num_events, handler, argument))

    def stop(self) -> None:
        """Ends `run` after the current handler."""
        self._stopped = True

    def run(self, until_s: float = math.inf) -> None:
        """Runs until no event is left, `stop` is called, or a time is reached."""
        events = self._events
        pop = heapq.heappop
        while events and events[0][0] <= until_s and not self._stopped:
            time_s, _, handler, argument = pop(events)
            if time_s > self.now:
                self.now = time_s
            handler(argument)
        if math.isfinite(until_s):
            self.now = max(self.now, until_s)
