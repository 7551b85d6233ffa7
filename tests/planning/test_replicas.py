"""The simulated replica against the `MicroBatcher` that it models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.core.records import RequestContext
from serve_app.planning.costs import CallCost, LineCost
from serve_app.planning.cpu import Clock, OwnCores
from serve_app.planning.replicas import Call, ReplicaGroup, Request
from serve_app.planning.service_config import ReplicaGroupShape
from serve_app.planning.speech import Group
from serve_app.scheduling.micro_batcher import BatchLimits, MicroBatcher
from tests.planning.simulated_loop import run_simulated, sleep_until

Arrival = tuple[float, int, tuple[int, ...]]
"""When a call arrives, whose it is, and the frames of its chunks."""

COST = LineCost(0.02, 0.001, 0.005)


def replica_shape(max_cost: int, max_items: int, concurrency: int) -> ReplicaGroupShape:
    return ReplicaGroupShape(1, 10**9, BatchLimits(max_cost, max_items), concurrency)


def model_waits(arrivals: Sequence[Arrival], shape: ReplicaGroupShape) -> list[list[float]]:
    """Returns how long each chunk of each call waited for its batch."""
    clock = Clock()
    cores = OwnCores(clock)
    group = ReplicaGroup(clock, cores, shape, (COST, CallCost(0.0, 0.0)), by_item=True)
    group.add_replica()
    waits: dict[str, list[float]] = {}
    calls: dict[int, str] = {}

    def begun(call: Call, waited_s: float) -> None:
        waits.setdefault(calls[id(call)], []).append(waited_s)

    group.on_begin = begun
    sent = []
    for number, (arrived_s, key, frames) in enumerate(arrivals):
        request = Request(number, arrived_s, 0.0, f"key-{key}", 1.0, float("inf"))
        call = Call(request, Group(frames, sum(frames), 0.0), arrived_s)
        calls[id(call)] = str(number)
        sent.append(call)
        clock.at(arrived_s, group.submit, call)
    clock.run()
    return [sorted(waits[str(number)]) for number in range(len(arrivals))]


def batcher_waits(arrivals: Sequence[Arrival], shape: ReplicaGroupShape) -> list[list[float]]:
    """Returns the same for the service's own batcher."""

    async def run() -> list[list[float]]:
        loop = asyncio.get_running_loop()
        waits: list[list[float]] = [[] for _ in arrivals]
        model = asyncio.Lock()

        async def compute(batch: list[tuple[int, float, int]]) -> list[None]:
            began_s = loop.time()
            for number, arrived_s, _ in batch:
                waits[number].append(began_s - arrived_s)
            async with model:
                await asyncio.sleep(COST.of(sum(cost for _, _, cost in batch), len(batch)))
            return [None] * len(batch)

        batcher = MicroBatcher[tuple[int, float, int], None](
            compute,
            lambda item: item[2],
            shape.limits,
            concurrency=shape.concurrency,
            clock=loop.time,
        )

        async def send(number: int, arrival: Arrival) -> None:
            arrived_s, key, frames = arrival
            await sleep_until(arrived_s)
            context = RequestContext(str(number), f"key-{key}")
            items = [(number, loop.time(), cost) for cost in frames]
            await asyncio.gather(*(batcher.submit(item, context) for item in items))

        await asyncio.gather(*(send(*each) for each in enumerate(arrivals)))
        await batcher.close()
        return [sorted(each) for each in waits]

    return run_simulated(run())


@given(
    calls=st.lists(
        st.tuples(
            st.integers(1, 400),
            st.integers(0, 2),
            st.lists(st.integers(1, 500), min_size=1, max_size=6).map(tuple),
        ),
        min_size=1,
        max_size=40,
    ),
    max_cost=st.integers(100, 2000),
    max_items=st.integers(1, 8),
    concurrency=st.integers(1, 2),
)
@settings(deadline=None)
def test_a_simulated_replica_forms_the_batches_of_the_micro_batcher(
    calls: list[tuple[int, int, tuple[int, ...]]], max_cost: int, max_items: int, concurrency: int
) -> None:
    shape = replica_shape(max_cost, max_items, concurrency)
    arrivals: list[Arrival] = []
    now_s = 0.0
    for gap, key, frames in calls:
        # Irrational steps: no call arrives at the very moment at which a batch ends.
        now_s += gap * 0.0031415926
        arrivals.append((now_s, key, frames))
    model, service = model_waits(arrivals, shape), batcher_waits(arrivals, shape)
    for number, (simulated, real) in enumerate(zip(model, service, strict=True)):
        assert simulated == pytest.approx(real, abs=1e-6), f"call {number}"
