"""MicroBatcher: batches follow the engine, and nobody loses a neighbor."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.core.errors import DeadlineExceeded
from serve_app.core.records import RequestContext
from serve_app.scheduling.micro_batcher import BatcherClosed, BatchLimits, EngineStuck, MicroBatcher

CONTEXT = RequestContext("request")


class GatedEngine:
    """Records its batches; runs one only when it is let to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = asyncio.Event()
        self.gate = asyncio.Semaphore(0)
        self.poison: set[int] = set()

    async def run(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.started.set()
        await self.gate.acquire()
        if self.poison & set(items):
            raise MemoryError("poison")
        return [item * 10 for item in items]

    async def wait_started(self) -> None:
        await self.started.wait()
        self.started.clear()


@pytest.fixture
async def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
async def batcher(engine: GatedEngine) -> AsyncIterator[MicroBatcher[int, int]]:
    batcher = MicroBatcher(engine.run, cost=lambda item: item, limits=BatchLimits(100))
    yield batcher
    await batcher.close()


async def test_single_item_runs_at_once(
    engine: GatedEngine, batcher: MicroBatcher[int, int]
) -> None:
    engine.gate.release()
    assert await batcher.submit(7, CONTEXT) == 70


async def test_items_that_arrive_while_the_engine_is_busy_form_one_batch(
    engine: GatedEngine, batcher: MicroBatcher[int, int]
) -> None:
    first = asyncio.create_task(batcher.submit(1, CONTEXT))
    await engine.wait_started()
    later = [asyncio.create_task(batcher.submit(item, CONTEXT)) for item in (2, 3, 4)]
    await asyncio.sleep(0)
    engine.gate.release()
    engine.gate.release()
    assert await asyncio.gather(first, *later) == [10, 20, 30, 40]
    assert engine.batches == [[1], [2, 3, 4]]


async def test_batch_stays_within_its_budget_and_skips_what_does_not_fit(
    engine: GatedEngine, batcher: MicroBatcher[int, int]
) -> None:
    first = asyncio.create_task(batcher.submit(1, CONTEXT))
    await engine.wait_started()
    later = [
        asyncio.create_task(batcher.submit(item, RequestContext(str(item))))
        for item in (60, 50, 40)
    ]
    await asyncio.sleep(0)
    for _ in range(3):
        engine.gate.release()
    await asyncio.gather(first, *later)
    assert engine.batches == [[1], [40, 50], [60]]


async def test_item_over_the_budget_runs_alone(
    engine: GatedEngine, batcher: MicroBatcher[int, int]
) -> None:
    first = asyncio.create_task(batcher.submit(1, CONTEXT))
    await engine.wait_started()
    later = [asyncio.create_task(batcher.submit(item, CONTEXT)) for item in (500, 2)]
    await asyncio.sleep(0)
    for _ in range(3):
        engine.gate.release()
    await asyncio.gather(first, *later)
    assert engine.batches == [[1], [500], [2]]


async def test_cancelled_item_never_reaches_the_engine(
    engine: GatedEngine, batcher: MicroBatcher[int, int]
) -> None:
    first = asyncio.create_task(batcher.submit(1, CONTEXT))
    await engine.wait_started()
    unwanted = asyncio.create_task(batcher.submit(2, CONTEXT))
    wanted = asyncio.create_task(batcher.submit(3, CONTEXT))
    await asyncio.sleep(0)
    unwanted.cancel()
    await asyncio.sleep(0)
    engine.gate.release()
    engine.gate.release()
    await asyncio.gather(first, wanted)
    assert engine.batches == [[1], [3]]


async def test_failing_batch_is_halved_until_the_poison_item_fails_alone(
    engine: GatedEngine, batcher: MicroBatcher[int, int]
) -> None:
    engine.poison = {4}
    first = asyncio.create_task(batcher.submit(1, CONTEXT))
    await engine.wait_started()
    later = [asyncio.create_task(batcher.submit(item, CONTEXT)) for item in (2, 3, 4, 5)]
    await asyncio.sleep(0)
    for _ in range(10):
        engine.gate.release()
    results = await asyncio.gather(first, *later, return_exceptions=True)
    assert results[:3] == [10, 20, 30]
    assert isinstance(results[3], MemoryError)
    assert results[4] == 50


async def test_wrong_number_of_results_is_an_error_not_a_mix_up() -> None:
    async def run(items: list[int]) -> list[int]:
        return []

    batcher: MicroBatcher[int, int] = MicroBatcher(run, lambda item: 1, BatchLimits(10))
    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        await batcher.submit(1, CONTEXT)
    await batcher.close()


async def test_close_fails_queued_and_running_items(engine: GatedEngine) -> None:
    batcher = MicroBatcher(engine.run, cost=lambda item: item, limits=BatchLimits(100))
    running = asyncio.create_task(batcher.submit(1, CONTEXT))
    await engine.wait_started()
    waiting = asyncio.create_task(batcher.submit(2, CONTEXT))
    await asyncio.sleep(0)
    await batcher.close()
    results = await asyncio.gather(running, waiting, return_exceptions=True)
    assert all(isinstance(result, BatcherClosed) for result in results)
    with pytest.raises(BatcherClosed):
        await batcher.submit(3, CONTEXT)


async def test_item_whose_deadline_passed_fails_without_being_run(engine: GatedEngine) -> None:
    unix_s = 1000.0
    batcher = MicroBatcher(
        engine.run,
        lambda item: item,
        BatchLimits(100),
        clock=lambda: unix_s - 900,
        unix_clock=lambda: unix_s,
    )
    first = asyncio.create_task(batcher.submit(1, CONTEXT))
    await engine.wait_started()
    late = asyncio.create_task(batcher.submit(2, RequestContext("late", deadline=1005.0)))
    early = asyncio.create_task(batcher.submit(3, RequestContext("early", deadline=1015.0)))
    await asyncio.sleep(0)
    unix_s = 1010.0
    engine.gate.release()
    engine.gate.release()
    with pytest.raises(DeadlineExceeded):
        await late
    assert (await first, await early) == (10, 30)
    assert engine.batches == [[1], [3]]
    assert batcher.statistics().num_expired == 1
    await batcher.close()


async def test_clip_overtakes_the_backlog_of_a_long_file(engine: GatedEngine) -> None:
    batcher = MicroBatcher(engine.run, lambda item: 50, BatchLimits(50))
    file = [
        asyncio.create_task(batcher.submit(number, RequestContext("file"))) for number in range(4)
    ]
    await engine.wait_started()
    clip = asyncio.create_task(batcher.submit(99, RequestContext("clip")))
    await asyncio.sleep(0)
    for _ in range(5):
        engine.gate.release()
    await asyncio.gather(clip, *file)
    assert engine.batches == [[0], [99], [1], [2], [3]]
    await batcher.close()


async def test_as_many_batches_run_at_once_as_the_engine_takes(engine: GatedEngine) -> None:
    batcher = MicroBatcher(engine.run, lambda item: 1, BatchLimits(1), concurrency=2)
    calls = [asyncio.create_task(batcher.submit(number, CONTEXT)) for number in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert engine.batches == [[0], [1]]
    for _ in range(3):
        engine.gate.release()
    await asyncio.gather(*calls)
    await batcher.close()


async def test_item_that_is_to_run_alone_has_the_engine_to_itself(engine: GatedEngine) -> None:
    batcher = MicroBatcher(engine.run, lambda item: 1, BatchLimits(1), concurrency=2)
    begun: list[int] = []

    async def on_begun() -> None:
        begun.append(1)

    calls = [
        asyncio.create_task(batcher.submit(0, CONTEXT)),
        asyncio.create_task(batcher.submit(1, CONTEXT, alone=True, on_begun=on_begun)),
        asyncio.create_task(batcher.submit(2, CONTEXT)),
    ]
    await engine.wait_started()
    await asyncio.sleep(0)
    assert (engine.batches, len(begun)) == ([[0]], 0)
    engine.gate.release()
    await engine.wait_started()
    await asyncio.sleep(0)
    assert (engine.batches, len(begun)) == ([[0], [1]], 1)
    engine.gate.release()
    engine.gate.release()
    assert await asyncio.gather(*calls) == [0, 10, 20]
    await batcher.close()


class TwoStreams:
    """A batcher whose urgent batches have an engine of their own."""

    def __init__(self) -> None:
        self.usual, self.urgent = GatedEngine(), GatedEngine()
        self.batcher: MicroBatcher[int, int] = MicroBatcher(
            self.usual.run, lambda item: 50, BatchLimits(100), run_urgent=self.urgent.run
        )

    def submit(self, item: int, name: str, *, urgent: bool) -> asyncio.Task[int]:
        return asyncio.create_task(self.batcher.submit(item, RequestContext(name), urgent=urgent))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_urgent_batch_is_run_beside_one_that_is_not() -> None:
    streams = TwoStreams()
    file = [streams.submit(number, "file", urgent=False) for number in range(4)]
    await streams.usual.wait_started()
    clips = [streams.submit(number, f"clip {number}", urgent=True) for number in (7, 8, 9)]
    await settle()
    assert (streams.usual.batches, streams.urgent.batches) == ([[0, 1]], [[7, 8]])
    streams.urgent.gate.release()
    streams.urgent.gate.release()
    assert await asyncio.gather(*clips) == [70, 80, 90]
    assert streams.usual.batches == [[0, 1]]
    streams.usual.gate.release()
    streams.usual.gate.release()
    await asyncio.gather(*file)
    await streams.batcher.close()


async def test_non_urgent_item_joins_no_urgent_batch() -> None:
    streams = TwoStreams()
    first = streams.submit(0, "file", urgent=False)
    await streams.usual.wait_started()
    others = [streams.submit(1, "clip", urgent=True), streams.submit(2, "other", urgent=False)]
    await settle()
    assert (streams.usual.batches, streams.urgent.batches) == ([[0]], [[1]])
    for engine in (streams.usual, streams.urgent):
        engine.gate.release()
        engine.gate.release()
    await asyncio.gather(first, *others)
    await streams.batcher.close()


async def test_urgent_batches_do_not_overtake_each_other() -> None:
    streams = TwoStreams()
    first = streams.submit(1, "a", urgent=True)
    await streams.urgent.wait_started()
    second = streams.submit(2, "b", urgent=True)
    await settle()
    assert (streams.usual.batches, streams.urgent.batches) == ([], [[1]])
    streams.urgent.gate.release()
    streams.urgent.gate.release()
    assert list(await asyncio.gather(first, second)) == [10, 20]
    await streams.batcher.close()


async def test_nothing_overtakes_an_item_that_is_to_run_alone() -> None:
    streams = TwoStreams()
    alone = asyncio.create_task(streams.batcher.submit(1, RequestContext("poison"), alone=True))
    await streams.usual.wait_started()
    clip = streams.submit(2, "clip", urgent=True)
    await settle()
    assert streams.urgent.batches == []
    streams.usual.gate.release()
    streams.urgent.gate.release()
    assert list(await asyncio.gather(alone, clip)) == [10, 20]
    await streams.batcher.close()


async def test_caller_with_many_clips_overtakes_no_further_than_its_share() -> None:
    streams = TwoStreams()
    file = [
        asyncio.create_task(streams.batcher.submit(number, RequestContext("file", "a")))
        for number in range(20)
    ]
    await streams.usual.wait_started()
    flood = [
        asyncio.create_task(
            streams.batcher.submit(100 + number, RequestContext(f"clip {number}", "b"), urgent=True)
        )
        for number in range(100)
    ]
    for _ in range(100):
        streams.urgent.gate.release()
        await settle()
    # The usual batches have not moved, and yet the flood stands still by now.
    assert len(streams.usual.batches) == 1
    assert 0 < sum(len(batch) for batch in streams.urgent.batches) < 30
    for _ in range(100):
        streams.usual.gate.release()
    await asyncio.gather(*file, *flood)
    await streams.batcher.close()


async def test_health_check_fails_for_a_batch_that_takes_too_long(engine: GatedEngine) -> None:
    now = 0.0
    batcher = MicroBatcher(engine.run, lambda item: item, BatchLimits(100), clock=lambda: now)
    first = asyncio.create_task(batcher.submit(10, CONTEXT))
    await engine.wait_started()
    now = 1.0
    engine.gate.release()
    await first
    second = asyncio.create_task(batcher.submit(20, CONTEXT))
    await engine.wait_started()
    now = 60.0
    waiting = asyncio.create_task(batcher.submit(30, CONTEXT))
    await asyncio.sleep(0)
    # 2 s are expected, it has been 59.
    batcher.check(patience_s=5.0, factor=40.0)
    batcher.check(patience_s=100.0, factor=10.0)
    with pytest.raises(EngineStuck, match="59 s"):
        batcher.check(patience_s=5.0, factor=10.0)
    for call, begun in ((second, True), (waiting, False)):
        with pytest.raises(EngineStuck) as stuck:
            await call
        assert stuck.value.begun is begun
        assert pickle.loads(pickle.dumps(stuck.value)).begun is begun
    with pytest.raises(BatcherClosed):
        await batcher.submit(1, CONTEXT)
    engine.gate.release()
    with pytest.raises(EngineStuck, match="59 s"):
        batcher.check(patience_s=100.0, factor=10.0)
    await batcher.close()


async def test_batches_shrink_to_the_time_that_one_may_take() -> None:
    now = 0.0
    batches: list[int] = []

    async def run(items: list[int]) -> list[int]:
        nonlocal now
        batches.append(len(items))
        now += 0.1 * len(items)
        await asyncio.sleep(0)
        return items

    limits = BatchLimits(1000, max_s=0.5)
    batcher = MicroBatcher(run, lambda item: 10, limits, clock=lambda: now)
    await asyncio.gather(*(batcher.submit(number, CONTEXT) for number in range(30)))
    assert batches[:3] == [1, 4, 5]
    assert max(batches) == 5
    await batcher.close()


async def test_statistics_tell_queue_wait_and_padding(engine: GatedEngine) -> None:
    now = 100.0
    batcher = MicroBatcher(
        engine.run,
        lambda item: item,
        BatchLimits(100, padded=True),
        size_s=lambda item: item / 10,
        clock=lambda: now,
    )
    running = asyncio.create_task(batcher.submit(10, CONTEXT))
    await engine.wait_started()
    waiting = [asyncio.create_task(batcher.submit(item, CONTEXT)) for item in (20, 40)]
    await asyncio.sleep(0)
    now = 103.0
    statistics = batcher.statistics()
    assert (statistics.num_waiting, statistics.waiting_cost) == (2, 60)
    assert (statistics.running_cost, statistics.running_audio_s) == (10, 1.0)
    assert statistics.queued_audio_s == 6.0
    assert statistics.oldest_wait_s == 3.0
    engine.gate.release()
    engine.gate.release()
    await asyncio.gather(running, *waiting)
    # 10 alone, then 20 padded to 40: 90 paid for 70 asked.
    assert batcher.statistics().padding_ratio == pytest.approx(90 / 70)
    assert batcher.statistics().num_items == 3
    await batcher.close()


@given(
    costs=st.lists(st.integers(1, 150), min_size=1, max_size=40),
    max_items=st.integers(1, 8),
    padded=st.booleans(),
)
def test_every_item_runs_once_in_batches_within_limits(
    costs: list[int], max_items: int, padded: bool
) -> None:
    limits = BatchLimits(100, max_items, padded)
    batches: list[list[int]] = []

    async def run(items: list[int]) -> list[int]:
        batches.append([costs[item] for item in items])
        await asyncio.sleep(0)
        return items

    async def submit_all() -> list[int]:
        batcher: MicroBatcher[int, int] = MicroBatcher(run, lambda item: costs[item], limits)
        results = await asyncio.gather(
            *(batcher.submit(item, CONTEXT) for item in range(len(costs)))
        )
        await batcher.close()
        return list(results)

    assert asyncio.run(submit_all()) == list(range(len(costs)))
    assert sum(len(batch) for batch in batches) == len(costs)
    for batch in batches:
        assert len(batch) <= max_items
        assert len(batch) == 1 or limits.batch_cost(batch) <= limits.max_cost


async def test_engine_that_reports_its_loss_is_not_called_again() -> None:
    runs: list[list[int]] = []

    async def run(items: list[int]) -> list[int]:
        runs.append(items)
        raise EngineStuck("the device failed")

    batcher: MicroBatcher[int, int] = MicroBatcher(run, lambda item: item, BatchLimits(100))
    results = await asyncio.gather(
        *(batcher.submit(item, CONTEXT) for item in (60, 30, 90)), return_exceptions=True
    )
    assert [type(result) for result in results] == [EngineStuck] * 3
    assert len(runs) == 1
    with pytest.raises(EngineStuck, match="the device failed"):
        batcher.check(patience_s=60)
    await batcher.close()
