"""When requests are due: seeded arrival processes and traces, fixed before the first is sent."""

from __future__ import annotations

import bisect
import csv
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtests.load.mixes import Mix


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that is due.

    Attributes:
        at_s: since the start of the run.
        audio_s: length that is asked for.
        key: which of the API keys sends it, from 0.
    """

    at_s: float
    audio_s: float
    key: int = 0


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second as a function of time.

    Attributes:
        at: the rate at a time in s.
        most: its upper bound over the run.
    """

    at: Callable[[float], float]
    most: float


def steady(per_s: float) -> Rate:
    return Rate(lambda _: per_s, per_s)


def ramp(per_s: float, duration_s: float) -> Rate:
    """From nothing to twice the mean rate, in a line."""
    return Rate(lambda at_s: 2 * per_s * at_s / duration_s, 2 * per_s)


def square(per_s: float, period_s: float) -> Rate:
    """Twice the mean rate for half a period, nothing for the other half."""
    return Rate(lambda at_s: 2 * per_s if at_s % period_s < period_s / 2 else 0.0, 2 * per_s)


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


def draw(
    rate: Rate, mix: Mix, duration_s: float, dice: random.Random, *, num_keys: int = 1
) -> list[Arrival]:
    """Returns the arrivals of a Poisson process whose rate changes over time.

    Source: thinning, Lewis and Shedler, "Simulation of nonhomogeneous Poisson
    processes by thinning" (1979): points of the largest rate are kept with the
    probability that the rate of their moment has of it.

    Raises:
        ValueError: the rate or the duration is not positive.
    """
    if rate.most <= 0 or duration_s <= 0:
        raise ValueError("rate and duration must be positive")
    return list(_draw(rate, mix, duration_s, dice, num_keys))


def _draw(
    rate: Rate, mix: Mix, duration_s: float, dice: random.Random, num_keys: int
) -> Iterator[Arrival]:
    at_s = dice.expovariate(rate.most)
    while at_s < duration_s:
        if dice.random() * rate.most < rate.at(at_s):
            yield Arrival(at_s, mix.draw(dice), dice.randrange(num_keys))
        at_s += dice.expovariate(rate.most)


def read_trace(path: Path) -> list[Arrival]:
    """Returns a recorded trace: CSV with `arrival_s`, `audio_s` and, if it has it, `key`.

    Names of keys are numbered in the order of their first appearance.

    Raises:
        ValueError: a column is missing, or a value is not a number of its range.
    """
    keys: dict[str, int] = {}
    arrivals = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"arrival_s", "audio_s"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} lacks the columns arrival_s and audio_s")
        for number, row in enumerate(reader, 2):
            try:
                at_s, audio_s = float(row["arrival_s"]), float(row["audio_s"])
            except (TypeError, ValueError):
                raise ValueError(f"{path}, line {number}: not a number") from None
            if at_s < 0 or not 0 < audio_s < float("inf"):
                raise ValueError(f"{path}, line {number}: out of range")
            key = keys.setdefault(row.get("key") or "", len(keys))
            arrivals.append(Arrival(at_s, audio_s, key))
    return sorted(arrivals, key=lambda arrival: arrival.at_s)
