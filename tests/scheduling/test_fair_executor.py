"""FairExecutor: one step at a time, and a newcomer's before the others' next ones."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from serve_app.core.records import RequestContext
from serve_app.scheduling.fair_executor import FairExecutor
from serve_app.scheduling.micro_batcher import BatcherClosed, EngineStuck


async def test_newcomer_waits_for_the_running_step_and_no_other() -> None:
    thread: FairExecutor[None] = FairExecutor("test")
    entered = threading.Semaphore(0)
    gate = threading.Semaphore(0)
    ran: list[str] = []

    def step(name: str) -> None:
        entered.release()
        gate.acquire(timeout=10)
        ran.append(name)

    async def file(name: str) -> None:
        for _ in range(3):
            await thread.run(partial(step, name), RequestContext(name))

    files = [asyncio.create_task(file(name)) for name in "abcd"]
    for _ in range(5):
        await asyncio.to_thread(entered.acquire)
        gate.release()
    await asyncio.to_thread(entered.acquire)
    clip = asyncio.create_task(thread.run(partial(step, "clip"), RequestContext("clip")))
    await asyncio.sleep(0)
    gate.release(20)
    await clip
    await asyncio.gather(*files)
    assert ran.index("clip") == 6
    await thread.close()


async def test_step_that_raises_fails_its_caller_alone() -> None:
    thread: FairExecutor[int] = FairExecutor("test")

    def broken() -> int:
        raise ValueError("bad audio")

    with pytest.raises(ValueError, match="bad audio"):
        await thread.run(broken, RequestContext("a"))
    assert await thread.run(lambda: 7, RequestContext("b")) == 7
    await thread.close()


async def test_health_check_fails_for_a_step_that_does_not_end() -> None:
    thread: FairExecutor[bool] = FairExecutor("test")
    entered = threading.Event()
    gate = threading.Event()

    def step() -> bool:
        entered.set()
        return gate.wait(10)

    call = asyncio.create_task(thread.run(step, RequestContext("a")))
    await asyncio.to_thread(entered.wait)
    thread.check(patience_s=60)
    with pytest.raises(EngineStuck):
        thread.check(patience_s=-1)
    with pytest.raises(EngineStuck):
        await call
    gate.set()
    await thread.close()


async def test_after_closing_nothing_is_run() -> None:
    thread: FairExecutor[int] = FairExecutor("test")
    await thread.close()
    with pytest.raises(BatcherClosed):
        await thread.run(lambda: 1, RequestContext("a"))


async def test_urgent_step_is_run_beside_one_that_is_not() -> None:
    thread: FairExecutor[str] = FairExecutor("test")
    entered, gate = threading.Event(), threading.Event()

    def long_step() -> str:
        entered.set()
        gate.wait(10)
        return "file"

    file = asyncio.create_task(thread.run(long_step, RequestContext("file")))
    await asyncio.to_thread(entered.wait)
    assert await thread.run(lambda: "clip", RequestContext("clip"), urgent=True) == "clip"
    assert not file.done()
    gate.set()
    assert await file == "file"
    await thread.close()
