"""How fast a single recording is answered, one after another."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from loadtests.load.memory import cluster_cpu_s
from loadtests.load.outcomes import Fate
from loadtests.load.sending import Request, attempt

_YARDSTICK_ADDITIONS = 1_000_000


@dataclass(frozen=True, slots=True)
class Probe:
    """Recordings that were sent one at a time.

    Attributes:
        latencies_s: of those that were answered right.
        num_other: those that were not.
        cpu_s: of the whole cluster a recording; only means something if it is ours
            and did nothing else.
        yardstick_s: median of a fixed computation between the recordings, which takes
            longer only when the machine is busy with something else.
    """

    latencies_s: tuple[float, ...]
    num_other: int
    cpu_s: float
    yardstick_s: float = 1.0

    @property
    def median_s(self) -> float:
        return statistics.median(self.latencies_s)

    def slowdown_from(self, before: Probe) -> float:
        """Returns the ratio of the medians, each by the yardstick of its own time."""
        return (self.median_s / self.yardstick_s) / (before.median_s / before.yardstick_s)


def joined(probes: Sequence[Probe]) -> Probe:
    """Returns several probes as one; of CPU time and yardstick, the medians of theirs."""
    return Probe(
        tuple(latency_s for each in probes for latency_s in each.latencies_s),
        sum(each.num_other for each in probes),
        statistics.median(each.cpu_s for each in probes),
        statistics.median(each.yardstick_s for each in probes),
    )


async def probe(
    client: httpx.AsyncClient, content: bytes, text: str, number: int, *, pause_s: float = 0.1
) -> Probe:
    """Sends a recording `number` times, each after the answer to the one before.

    Raises:
        ValueError: not one answer was right.
    """
    clock = asyncio.get_running_loop().time
    before_s = cluster_cpu_s()
    latencies_s: list[float] = []
    yardsticks_s: list[float] = []
    for _ in range(number):
        yardsticks_s.append(_yardstick_s())
        began_s = clock()
        tried, _ = await attempt(client, Request(content, text), clock)
        if tried.fate is Fate.RIGHT:
            latencies_s.append(tried.ended_s - began_s)
        await asyncio.sleep(pause_s)
    if not latencies_s:
        raise ValueError("no recording was answered right")
    cpu_s = (cluster_cpu_s() - before_s) / number
    num_other = number - len(latencies_s)
    return Probe(tuple(latencies_s), num_other, cpu_s, statistics.median(yardsticks_s))


def _yardstick_s() -> float:
    """Times a fixed computation of some ten milliseconds."""
    began_s = time.perf_counter()
    sum(range(_YARDSTICK_ADDITIONS))
    return time.perf_counter() - began_s
