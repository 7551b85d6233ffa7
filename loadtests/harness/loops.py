"""Open loops, which send when a request is due, and closed ones, which wait for answers."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from loadtests.harness.arrivals import Arrival
from loadtests.harness.clips import Clip, ClipLibrary
from loadtests.harness.requests import Attempt, Caller, Fate, Outcome, Request, Retries
from loadtests.harness.watch import cluster_cpu_s

T = TypeVar("T")
_YARDSTICK_ADDITIONS = 1_000_000
_NO_RETRIES = Retries()


async def open_loop(
    times_s: Iterable[float],
    send: Callable[[int, float], Coroutine[None, None, T]],
    grace_s: float | None = None,
) -> list[T | None]:
    """Sends each request when it is due, whatever the answers to the others do.

    Args:
        times_s: after the start of the loop, in order.
        send: called with the number of a request and the monotonic time at which it is due.
        grace_s: how long answers are waited for after the last arrival; None to the end.

    Returns:
        What `send` returned; None for what was not over by then.
    """
    began_s = time.monotonic()
    tasks: list[asyncio.Task[T]] = []
    try:
        for number, at_s in enumerate(times_s):
            await asyncio.sleep(began_s + at_s - time.monotonic())
            tasks.append(asyncio.create_task(send(number, began_s + at_s)))
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return [None if isinstance(result, BaseException) else result for result in results]


async def closed_loop(
    items: Iterable[T], work: Callable[[T], Awaitable[object]], num_workers: int
) -> None:
    """Works on items with so many at a time, each worker taking the next when it is done."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as workers:
        for _ in range(num_workers):
            workers.create_task(worker())


async def send_arrivals(
    caller: Caller,
    library: ClipLibrary,
    arrivals: Sequence[Arrival],
    texts: Mapping[Clip, str],
    *,
    stream: bool = False,
    retries: Retries = _NO_RETRIES,
    grace_s: float = 120.0,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Sends recordings when they are due and returns what became of each.

    Latencies count from the time at which a request was due, so that a stalled service cannot
    hide its stall by holding back the requests that would have met it (coordinated omission).

    Args:
        caller: sends them.
        library: where the recordings come from.
        arrivals: in order of time.
        texts: the right answer to each recording.
        stream: whether answers are asked for as server-sent events.
        retries: what is tried again.
        grace_s: how long after the last arrival answers are waited for.
        on_outcome: called as each ends.
    """
    clips = [library.clip(arrival.audio_s) for arrival in arrivals]
    contents = {clip: library.path(clip).read_bytes() for clip in set(clips)}
    attempts: list[list[Attempt]] = [[] for _ in arrivals]
    began_s = time.monotonic()

    async def send(number: int, due_s: float) -> Outcome:
        clip, late_s = clips[number], time.monotonic() - due_s
        request = Request(contents[clip], texts[clip], stream)
        await caller.send(request, retries, attempts[number])
        outcome = Outcome(clip.audio_s, due_s, tuple(attempts[number]), late_s)
        on_outcome(outcome)
        return outcome

    found = await open_loop((arrival.at_s for arrival in arrivals), send, grace_s)
    now_s = time.monotonic()
    return [
        outcome
        or Outcome(
            clips[number].audio_s,
            began_s + arrivals[number].at_s,
            (*attempts[number], Attempt(Fate.UNFINISHED, now_s, now_s)),
        )
        for number, outcome in enumerate(found)
    ]


@dataclass(frozen=True, slots=True)
class Probe:
    """Recordings that were sent one after another.

    Attributes:
        latencies_s: of those that were answered right.
        num_refused: those that got 429 or 503.
        num_other: those that ended in any other way.
        cpu_s: of the whole cluster a recording; only means something if it is ours
            and did nothing else.
        yardstick_s: median of a fixed computation between the recordings, which takes
            longer only when the machine is busy with something else.
    """

    latencies_s: tuple[float, ...]
    num_refused: int = 0
    num_other: int = 0
    cpu_s: float = 0.0
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
        sum(each.num_refused for each in probes),
        sum(each.num_other for each in probes),
        statistics.median(each.cpu_s for each in probes),
        statistics.median(each.yardstick_s for each in probes),
    )


async def probe(
    caller: Caller,
    request: Request,
    goes_on: Callable[[int], bool],
    *,
    pause_s: float = 0.1,
    retries: Retries = _NO_RETRIES,
) -> Probe:
    """Sends a recording again and again, each time after the answer to the one before.

    Args:
        caller: sends it.
        request: the recording.
        goes_on: called with the number of answers; the loop ends when it returns False.
        pause_s: between an answer and the next request.
        retries: what is tried again.
    """
    before_s = cluster_cpu_s()
    tried: list[Attempt] = []
    yardsticks_s: list[float] = []
    latencies_s: list[float] = []
    while goes_on(len(tried)):
        yardsticks_s.append(_yardstick_s())
        attempts = await caller.send(
            Request(request.content, request.text, request.stream), retries
        )
        tried.append(attempts[-1])
        if tried[-1].fate is Fate.RIGHT:
            latencies_s.append(attempts[-1].ended_s - attempts[0].began_s)
        elif tried[-1].fate is not Fate.REFUSED:
            print(f"  a clip: {tried[-1].fate} {tried[-1].status} {tried[-1].detail}", flush=True)
        await asyncio.sleep(pause_s)
    refused = sum(one.fate in {Fate.REFUSED, Fate.UNAVAILABLE} for one in tried)
    return Probe(
        tuple(latencies_s),
        refused,
        len(tried) - len(latencies_s) - refused,
        (cluster_cpu_s() - before_s) / max(1, len(tried)),
        statistics.median(yardsticks_s or [1.0]),
    )


def times(number: int) -> Callable[[int], bool]:
    """Lets a probe go on until so many recordings have been answered."""
    return lambda answered: answered < number


def _yardstick_s() -> float:
    """Times a fixed computation of some ten milliseconds."""
    began_s = time.perf_counter()
    sum(range(_YARDSTICK_ADDITIONS))
    return time.perf_counter() - began_s
