"""Runs the jobs of the store, a few at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.jobs.attempt import Attempt, Outcome, Workplace
from serve_app.jobs.dispatching import IDLE_S, Dispatcher, unless
from serve_app.jobs.records import Lease
from serve_app.scheduling.backoff import Backoff

_MAX_REMEMBERED = 10_000
_SETBACKS = Backoff(1.0, 30.0)


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt at a job ended.

    Attributes:
        outcome: see `Outcome`.
        code: of the error; None without one.
    """

    outcome: Outcome
    code: str | None


class Runner:
    """Takes jobs from the store and runs them.

    A job that the service cannot run now goes back to the queue, and is not taken again for a
    while that grows each time. As long as that happens to one job after the other, this runner
    pauses as well.

    Args:
        name: of this runner, in the store.
        workplace: what the attempts work with.
        max_running: jobs at once, at least 1.
        on_end: told of each attempt's end.
        idle_s: longest wait before the store is asked again for jobs.
    """

    def __init__(
        self,
        name: str,
        workplace: Workplace,
        max_running: int,
        on_end: Callable[[AttemptEnd], None] = lambda end: None,
        idle_s: float = IDLE_S,
    ) -> None:
        self._name = name
        self._workplace = workplace
        self._on_end = on_end
        self._stopping = asyncio.Event()
        self._setbacks: dict[str, int] = {}
        self._num_in_a_row = 0
        self._dispatcher = Dispatcher(
            workplace.store,
            self._take,
            self._attempt,
            max_at_once=max_running,
            logger=workplace.logger,
            on_outage=workplace.on_outage,
            idle_s=idle_s,
        )

    @property
    def num_running(self) -> int:
        return self._dispatcher.num_running

    async def run(self) -> None:
        """Runs jobs until `stop` is called; then hands back those that are running."""
        await self._dispatcher.run(self._stopping)

    def stop(self) -> None:
        """Ends `run` within seconds."""
        self._stopping.set()

    async def _take(self) -> Lease | None:
        return await self._workplace.store.lease(self._name, self._workplace.lease_s)

    async def _attempt(self, lease: Lease) -> None:
        job_id = lease.job.id
        attempt = Attempt(self._workplace, lease, self._setbacks.pop(job_id, 0))
        outcome = await attempt.run(self._stopping)
        self._on_end(AttemptEnd(outcome, attempt.code))
        if outcome == "handed_back" and not self._stopping.is_set():
            await self._slow_down(job_id, attempt.num_setbacks)
        else:
            self._num_in_a_row = 0

    async def _slow_down(self, job_id: str, num_setbacks: int) -> None:
        """Remembers a job that could not run, and keeps its place in this runner for a while."""
        if len(self._setbacks) >= _MAX_REMEMBERED:
            self._setbacks.clear()
        self._setbacks[job_id] = num_setbacks
        self._num_in_a_row += 1
        pause_s = _SETBACKS.pause_s(self._num_in_a_row)
        await unless(self._stopping, asyncio.sleep(pause_s))
