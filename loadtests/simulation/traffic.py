"""Arrivals that make a queue: a quiet stream, and bursts of more than the service can do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.planning.trace import Seconds, Trace, make_trace

LENGTHS_S = (3.0, 6.0, 12.0, 30.0, 60.0)
SHARES = (0.25, 0.25, 0.2, 0.2, 0.1)
MEAN_S = float(np.dot(LENGTHS_S, SHARES))


@dataclass(frozen=True, slots=True)
class Traffic:
    """How much is asked of the service, as shares of what its recognizers can do.

    Bursts of several times the capacity make a queue of seconds, whose length is
    what came less what was done: not a matter of milliseconds, nor of luck.

    Attributes:
        every_s: from the start of one burst to that of the next.
        burst_s: how long one lasts.
        burst_load: in a burst.
        quiet_load: in between.
    """

    every_s: float = 24.0
    burst_s: float = 3.0
    burst_load: float = 3.0
    quiet_load: float = 0.3

    @property
    def mean_load(self) -> float:
        quiet_s = self.every_s - self.burst_s
        return (self.burst_load * self.burst_s + self.quiet_load * quiet_s) / self.every_s

    def is_for_costs(self, time_s: Seconds) -> npt.NDArray[np.bool_]:
        """Says of times which are in a stretch that costs are measured in; the delays of
        the others are compared. The stretches take turns, burst by burst, so that a
        machine whose speed wanders is the same one for both."""
        is_even: npt.NDArray[np.bool_] = (time_s // self.every_s).astype(np.int64) % 2 == 0
        return is_even


def make_traffic(traffic: Traffic, capacity: float, span_s: float, seed: int) -> Trace:
    """Returns Poisson arrivals at the changing rate.

    Args:
        traffic: what is asked.
        capacity: audio seconds a second that the recognizers can do.
        span_s: of the arrivals; a burst begins an eighth into each `every_s`.
        seed: of times and lengths.
    """
    random = np.random.default_rng(seed)
    per_s = capacity / MEAN_S
    highest = per_s * max(traffic.burst_load, traffic.quiet_load)
    # More than are needed, at the highest rate; each is kept with its moment's share.
    drawn_s = random.uniform(0.0, span_s, random.poisson(highest * span_s))
    phase_s = (drawn_s - traffic.every_s / 8) % traffic.every_s
    load = np.where(phase_s < traffic.burst_s, traffic.burst_load, traffic.quiet_load)
    kept = random.uniform(0.0, highest, len(drawn_s)) < load * per_s
    arrival_s: Seconds = np.sort(drawn_s[kept])
    return make_trace(arrival_s, random.choice(LENGTHS_S, len(arrival_s), p=SHARES))
