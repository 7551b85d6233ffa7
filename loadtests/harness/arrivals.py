"""Which recordings are due when: mixes of lengths and seeded arrivals, fixed in advance."""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_BOUNDS = ((5.0, "3 s"), (30.0, "15 s"), (150.0, "1 min"), (1200.0, "10 min"), (5400.0, "1 h"))
"""Up to which length in s a recording belongs to a class of the report."""
_LONGEST = "3 h"
_NAMES = (*(name for _, name in _BOUNDS), _LONGEST)


@dataclass(frozen=True, slots=True)
class Mix:
    """Lengths of recordings in s, and how often each comes relative to the others."""

    weights: dict[float, float]

    def draw(self, dice: random.Random) -> float:
        """Returns the length of the next recording in s."""
        return dice.choices(list(self.weights), list(self.weights.values()))[0]


MIXES = {
    "clips": Mix({3.0: 1}),
    "short": Mix({3.0: 60, 15.0: 25, 60.0: 10}),
    "mixed": Mix({3.0: 60, 15.0: 25, 60.0: 10, 600.0: 4, 3600.0: 0.8, 10_800.0: 0.2}),
}


def class_name(audio_s: float) -> str:
    """Returns the length class under which a recording is reported."""
    return next((name for bound_s, name in _BOUNDS if audio_s <= bound_s), _LONGEST)


def in_order(names: Iterable[str]) -> list[str]:
    """Returns the class names from the shortest to the longest."""
    return sorted(set(names), key=_NAMES.index)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A recording of a length that is due so long after the start of the run."""

    at_s: float
    audio_s: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second as a function of the time in s.

    Attributes:
        at: the rate at a time.
        most: its upper bound over the run.
    """

    at: Callable[[float], float]
    most: float


def steady(per_s: float) -> Rate:
    return Rate(lambda _: per_s, per_s)


def bursts(per_s: float, duration_s: float, dice: random.Random, *, factor: float = 5.0) -> Rate:
    """A two-state Markov-modulated rate: calm most of the time, `factor` times that in bursts.

    Bursts last 5 s and calms 20 s on average; the mean over both is `per_s`.
    """
    burst_s, calm_s = 5.0, 20.0
    calm_per_s = per_s * (burst_s + calm_s) / (calm_s + factor * burst_s)
    # Calms begin at the even ones of these moments, bursts at the odd ones.
    changes_s = [0.0]
    while changes_s[-1] < duration_s:
        changes_s.append(changes_s[-1] + dice.expovariate(1 / calm_s))
        changes_s.append(changes_s[-1] + dice.expovariate(1 / burst_s))

    def rate(now_s: float) -> float:
        in_calm = bisect.bisect_right(changes_s, now_s) % 2 == 1
        return calm_per_s if in_calm else calm_per_s * factor

    return Rate(rate, calm_per_s * factor)


def draw(rate: Rate, mix: Mix, duration_s: float, dice: random.Random) -> list[Arrival]:
    """Returns the arrivals of a Poisson process whose rate changes over time.

    Source: thinning, Lewis and Shedler, "Simulation of nonhomogeneous Poisson
    processes by thinning" (1979): points of the largest rate are kept with the
    probability that the rate of their moment has of it.

    Raises:
        ValueError: the rate or the duration is not positive.
    """
    if rate.most <= 0 or duration_s <= 0:
        raise ValueError("rate and duration must be positive")
    arrivals = []
    at_s = dice.expovariate(rate.most)
    while at_s < duration_s:
        if dice.random() * rate.most < rate.at(at_s):
            arrivals.append(Arrival(at_s, mix.draw(dice)))
        at_s += dice.expovariate(rate.most)
    return arrivals
