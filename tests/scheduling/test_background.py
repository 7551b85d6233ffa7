"""Work for which nobody waits: it has what is left, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from serve_app.core.records import RequestContext
from serve_app.scheduling.fair_queue import FairQueue
from serve_app.scheduling.micro_batcher import BatchLimits, MicroBatcher
from tests.scheduling.test_micro_batcher import GatedEngine

WIDE = BatchLimits(max_cost=1000)
ONLINE = RequestContext("online")
BACKGROUND = RequestContext("file", key="batch", background=True)


def push(queue: FairQueue[str], name: str, *, background: bool, cost: int = 10) -> None:
    queue.push(name, key=name, flow=name, cost=cost, now=0.0, background=background)


def test_background_item_goes_last_however_long_it_has_waited() -> None:
    queue: FairQueue[str] = FairQueue()
    push(queue, "background", background=True, cost=1)
    for i in range(50):
        push(queue, f"online {i}", background=False, cost=100)
    order = [queue.pop_batch(BatchLimits(max_cost=0), 0.0)[0] for _ in range(51)]
    assert order[-1] == "background"


def test_batch_of_others_is_not_filled_up_with_background_items() -> None:
    queue: FairQueue[str] = FairQueue()
    push(queue, "background", background=True)
    push(queue, "online", background=False)
    assert queue.pop_batch(WIDE, 0.0) == ["online"]
    assert queue.pop_batch(WIDE, 0.0) == ["background"]


def test_background_item_after_one_that_does_not_fit_waits_with_it() -> None:
    queue: FairQueue[str] = FairQueue()
    push(queue, "small", background=False, cost=1)
    push(queue, "large", background=False, cost=2000)
    push(queue, "background", background=True, cost=1)
    assert queue.pop_batch(WIDE, 0.0) == ["small"]
    assert queue.pop_batch(WIDE, 0.0) == ["large"]
    assert queue.pop_batch(WIDE, 0.0) == ["background"]


def test_same_caller_may_have_work_of_both_kinds() -> None:
    queue: FairQueue[str] = FairQueue()
    for name, background in (("later", True), ("now", False)):
        queue.push(name, key="team", flow="flow", cost=1, now=0.0, background=background)
    assert [queue.pop_batch(WIDE, 0.0), queue.pop_batch(WIDE, 0.0)] == [["now"], ["later"]]


async def test_statistics_count_background_audio_separately() -> None:
    engine = GatedEngine()
    batcher: MicroBatcher[int, int] = MicroBatcher(
        engine.run, cost=lambda item: item, limits=WIDE, size_s=float
    )
    running = asyncio.ensure_future(batcher.submit(2, BACKGROUND))
    await engine.wait_started()
    waiting = [
        asyncio.ensure_future(batcher.submit(*each)) for each in ((3, ONLINE), (4, BACKGROUND))
    ]
    await asyncio.sleep(0)
    found = batcher.statistics()
    assert (found.queued_audio_s, found.background_queued_audio_s) == (7.0, 4.0)
    assert (found.running_audio_s, found.background_running_audio_s) == (2.0, 2.0)
    for _ in range(3):
        engine.gate.release()
    await asyncio.gather(running, *waiting)
    assert batcher.statistics().background_queued_audio_s == 0.0
    await batcher.close()


async def test_background_batch_does_not_begin_beside_another() -> None:
    engine = GatedEngine()
    batcher: MicroBatcher[int, int] = MicroBatcher(
        engine.run, cost=lambda item: item, limits=WIDE, concurrency=2
    )
    online = asyncio.ensure_future(batcher.submit(1, ONLINE))
    await engine.wait_started()
    background = asyncio.ensure_future(batcher.submit(2, BACKGROUND))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert engine.batches == [[1]]
    engine.gate.release()
    engine.gate.release()
    assert list(await asyncio.gather(online, background)) == [10, 20]
    await batcher.close()


async def test_urgent_item_overtakes_a_background_batch_that_runs() -> None:
    engine, express = GatedEngine(), GatedEngine()
    batcher: MicroBatcher[int, int] = MicroBatcher(
        engine.run, cost=lambda item: item, limits=WIDE, run_urgent=express.run
    )
    background = asyncio.ensure_future(batcher.submit(2, BACKGROUND, urgent=True))
    await engine.wait_started()
    express.gate.release()
    assert await batcher.submit(1, ONLINE, urgent=True) == 10
    assert express.batches == [[1]]
    engine.gate.release()
    assert await background == 20
    await batcher.close()


async def test_background_batches_are_short() -> None:
    now_s = 0.0
    taken: list[int] = []

    async def run(items: list[int]) -> list[int]:
        nonlocal now_s
        taken.append(len(items))
        now_s += 0.05 * len(items)
        return items

    batcher: MicroBatcher[int, int] = MicroBatcher(
        run, cost=lambda item: 1, limits=WIDE, clock=lambda: now_s
    )
    origins = [replace(BACKGROUND, request_id=str(i)) for i in range(40)]
    await asyncio.gather(*(batcher.submit(i, context) for i, context in enumerate(origins)))
    assert max(taken) <= 2  # of 0.05 s each in 0.1 s
    await batcher.close()
