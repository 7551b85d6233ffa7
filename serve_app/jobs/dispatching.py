"""Takes work from the store while there is room for it, and waits without asking it often."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs.ports import JobStore
from serve_app.scheduling.backoff import Backoff

WorkT = TypeVar("WorkT")
ResultT = TypeVar("ResultT")

IDLE_S = 5.0
"""Longest wait before the store is asked again for work of which it does not tell: leases that
ran out, and messages whose pause is over."""

_ANSWER_S = 30.0
_OUTAGE = Backoff(0.5, 15.0)


class Dispatcher(Generic[WorkT]):
    """Does one kind of work, several pieces at once.

    Args:
        store: wakes it when there may be work.
        take: takes the next piece from the store; None if there is none.
        work: does a piece; must not raise.
        max_at_once: pieces at once, at least 1.
        logger: told when the store does not answer, and when it does again.
        on_outage: called for each call that the store does not answer.
        idle_s: longest wait between two calls of `take`.
    """

    def __init__(
        self,
        store: JobStore,
        take: Callable[[], Awaitable[WorkT | None]],
        work: Callable[[WorkT], Coroutine[Any, Any, None]],
        *,
        max_at_once: int,
        logger: logging.Logger,
        on_outage: Callable[[], None],
        idle_s: float = IDLE_S,
    ) -> None:
        self._store = store
        self._take = take
        self._work = work
        self._max_at_once = max_at_once
        self._logger = logger
        self._on_outage = on_outage
        self._idle_s = idle_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_failures = 0

    @property
    def num_running(self) -> int:
        return len(self._tasks)

    async def run(self, stopping: asyncio.Event) -> None:
        """Works until `stopping` is set and the pieces that are begun have ended."""
        try:
            while not stopping.is_set():
                await self._step(stopping)
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()

    async def _step(self, stopping: asyncio.Event) -> None:
        if len(self._tasks) >= self._max_at_once:
            await self._room(stopping)
            return
        try:
            async with asyncio.timeout(_ANSWER_S):
                work = await self._take()
            self._answered()
            if work is None:
                await unless(stopping, self._store.wait(self._idle_s))
            else:
                task = asyncio.create_task(self._work(work))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
        except Exception as error:
            self._failed(error)
            await unless(stopping, asyncio.sleep(_OUTAGE.pause_s(self._num_failures)))

    async def _room(self, stopping: asyncio.Event) -> None:
        """Waits until a piece has ended."""
        ended = asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        await unless(stopping, ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._logger.error("a piece of work failed unexpectedly", exc_info=error)

    def _failed(self, error: Exception) -> None:
        self._on_outage()
        self._num_failures += 1
        is_outage = isinstance(error, StoreUnavailable | TimeoutError)
        if self._num_failures == 1:
            self._logger.error(
                "the store of jobs does not answer; it is asked again",
                exc_info=None if is_outage else error,
            )

    def _answered(self) -> None:
        if self._num_failures:
            self._logger.info("the store of jobs answers again")
        self._num_failures = 0


async def unless(stopping: asyncio.Event, awaited: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """Returns what is awaited; cancels it and returns None once `stopping` is set."""
    task = asyncio.ensure_future(awaited)
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        await cancelled(task, stop)


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancels tasks and waits until they have ended; their outcome is not looked at."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # asyncio reports an exception that nobody has asked for
