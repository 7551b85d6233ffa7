"""Whether two lists of waits agree, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.planning.trace import Seconds

TOLERANCE = 0.15
_BLOCK_S = 10.0
_REPEATS = 2000


@dataclass(frozen=True, slots=True)
class Waits:
    """Waits of one run; arrays of shape [items].

    Attributes:
        arrived_s: when each item came, since the start.
        waited_s: for how long it waited.
    """

    arrived_s: Seconds
    waited_s: Seconds

    def where(self, chosen: npt.NDArray[np.bool_]) -> Waits:
        return Waits(self.arrived_s[chosen], self.waited_s[chosen])

    def later(self, by_s: float) -> Waits:
        return Waits(self.arrived_s + by_s, self.waited_s)


@dataclass(frozen=True, slots=True)
class Pair:
    """The waits of one trace in both runs."""

    real: Waits
    simulated: Waits


@dataclass(frozen=True, slots=True)
class Agreement:
    """One percentile of both runs.

    Attributes:
        percent: which one.
        real_s: in the real run.
        simulated_s: in the simulated one.
        low: lower end of the ratio's 95 % interval.
        high: upper end.
    """

    percent: int
    real_s: float
    simulated_s: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        return self.simulated_s / self.real_s if self.real_s > 0 else float("inf")

    @property
    def holds(self) -> bool:
        return abs(self.ratio - 1.0) <= TOLERANCE


def joined(pairs: Sequence[Pair]) -> Pair:
    """Sets traces one after another."""
    real: list[Waits] = []
    simulated: list[Waits] = []
    start_s = 0.0
    for pair in pairs:
        real.append(pair.real.later(start_s))
        simulated.append(pair.simulated.later(start_s))
        # On the borders of the bootstrap's stretches, which then belong to one trace each.
        span_s = max(pair.real.arrived_s.max(), pair.simulated.arrived_s.max())
        start_s += (int(span_s / _BLOCK_S) + 1) * _BLOCK_S
    return Pair(_concatenated(real), _concatenated(simulated))


def _concatenated(parts: Sequence[Waits]) -> Waits:
    arrived_s = np.concatenate([part.arrived_s for part in parts])
    return Waits(arrived_s, np.concatenate([part.waited_s for part in parts]))


def agreement(pair: Pair, percent: int, seed: int = 0) -> Agreement:
    """Compares a percentile.

    Waits that follow one another are much alike, so stretches of 10 s are drawn anew,
    the same ones from both runs, since both had the same arrivals.

    Source: the block bootstrap of Kuensch, "The jackknife and the bootstrap for general
    stationary observations", 1989.
    """
    real, simulated = pair.real, pair.simulated
    random = np.random.default_rng(seed)
    end_s = max(real.arrived_s.max(), simulated.arrived_s.max())
    starts_s = np.arange(0.0, end_s, _BLOCK_S)
    blocks = [
        [
            run.waited_s[np.digitize(run.arrived_s, starts_s) == index + 1]
            for run in (real, simulated)
        ]
        for index in range(len(starts_s))
    ]
    ratios = []
    for _ in range(_REPEATS):
        drawn = random.integers(0, len(blocks), len(blocks))
        one, other = (np.concatenate([blocks[index][side] for index in drawn]) for side in (0, 1))
        if len(one) and len(other) and (bottom := np.percentile(one, percent)) > 0:
            ratios.append(np.percentile(other, percent) / bottom)
    low, high = np.percentile(ratios, (2.5, 97.5)) if ratios else (0.0, float("inf"))
    return Agreement(
        percent,
        float(np.percentile(real.waited_s, percent)),
        float(np.percentile(simulated.waited_s, percent)),
        float(low),
        float(high),
    )
