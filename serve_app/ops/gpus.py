"""Whether fractions of GPUs fill GPUs, and whether there are enough.

The same rules as the chart's (`_checks.tpl`), which refuses at an upgrade what is
refused here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """What a deployment wants.

    Attributes:
        name: of the deployment and its application.
        gpus: of a replica.
        count: replicas at least.
    """

    name: str
    gpus: float
    count: int

    @property
    def hundredths(self) -> int:
        return round(self.gpus * 100)


def untiled(demands: Sequence[Demand]) -> list[Demand]:
    """Returns those whose fraction is in no sum that fills a GPU.

    0.99 counts as a whole, for thirds.
    """
    sizes = {demand.hundredths for demand in demands if 0 < demand.hundredths < 100}
    reachable = {0}
    for total in range(1, 101):
        if any(total - size in reachable for size in sizes):
            reachable.add(total)
    return [
        demand
        for demand in demands
        if demand.hundredths in sizes
        and not {100 - demand.hundredths, 99 - demand.hundredths} & reachable
    ]


def num_gpus_needed(demands: Sequence[Demand]) -> int:
    """Returns the GPUs that the replicas need at least: first fit, the largest first."""
    whole = sum(math.ceil(each.gpus) * each.count for each in demands if each.hundredths >= 100)
    used: list[int] = []
    for demand in sorted(demands, key=lambda each: -each.hundredths):
        if not 0 < demand.hundredths < 100:
            continue
        for _ in range(demand.count):
            place = next(
                (i for i, sum_ in enumerate(used) if sum_ + demand.hundredths <= 100), None
            )
            if place is None:
                used.append(demand.hundredths)
            else:
                used[place] += demand.hundredths
    return whole + len(used)
