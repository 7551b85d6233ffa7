"""The actors that finish recordings, seen from the driver."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from serve_app.batch.outcomes import Failed
from serve_app.batch.punctuate_stage import Finished, Finisher, FinishTask
from serve_app.settings import Settings

_FINISHES_PER_CALL = 32
_CALLS_PER_FINISHER = 2
_FINISH_RETRIES = 3


class FinisherPool:
    """Hands recordings to the finishers, only so many at a time."""

    def __init__(
        self,
        settings: Settings,
        *arguments: Any,
    ) -> None:
        pool = settings.batch.punctuators
        actor: Any = ray.remote(Finisher).options(
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            max_restarts=-1,
            max_task_retries=_FINISH_RETRIES,
        )
        self._actors = [actor.remote(*arguments) for _ in range(pool.num_actors)]
        self._waiting: list[FinishTask] = []
        self._calls: dict[ray.ObjectRef[Any], tuple[int, list[FinishTask]]] = {}
        self._load = [0] * pool.num_actors

    def add(self, task: FinishTask) -> None:
        self._waiting.append(task)

    def take(self) -> Iterator[Finished | Failed]:
        """Yields what is finished; waits only while too much is waiting."""
        self._call(len(self._waiting) >= _FINISHES_PER_CALL)
        yield from self._collect(0.0)
        while len(self._waiting) > _FINISHES_PER_CALL:
            yield from self._collect(None)
            self._call(full=True)

    def drain(self) -> Iterator[Finished | Failed]:
        """Yields all the rest."""
        while self._waiting or self._calls:
            self._call(full=False)
            yield from self._collect(None)

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def _call(self, full: bool) -> None:
        """Makes calls while there is room; only full ones if asked for, unless all idle."""
        while self._waiting and min(self._load) < _CALLS_PER_FINISHER:
            if full and len(self._waiting) < _FINISHES_PER_CALL and any(self._load):
                return
            tasks = self._waiting[:_FINISHES_PER_CALL]
            del self._waiting[:_FINISHES_PER_CALL]
            self._submit(tasks)

    def _submit(self, tasks: list[FinishTask]) -> None:
        chosen = self._load.index(min(self._load))
        self._load[chosen] += 1
        self._calls[self._actors[chosen].finish.remote(tasks)] = (chosen, tasks)

    def _collect(self, timeout_s: float | None) -> Iterator[Finished | Failed]:
        if not self._calls:
            return
        done, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout_s)
        for ref in done:
            chosen, tasks = self._calls.pop(ref)
            self._load[chosen] -= 1
            try:
                finished: list[Finished] = ray.get(ref)
            except RayTaskError:
                raise
            except RayActorError as error:
                yield from self._lost(tasks, error)
                continue
            yield from finished

    def _lost(self, tasks: list[FinishTask], error: RayActorError) -> Iterator[Failed]:
        """Tries recordings alone that several finishers died of; gives up one that kills."""
        if len(tasks) > 1:
            for task in tasks:
                self._submit([task])
            return
        reason = f"{_FINISH_RETRIES + 1} finishers died while they had it: {error}".splitlines()[0]
        heard = tasks[0].heard
        audio_s = heard.end.duration_ms / 1000
        yield Failed(heard.number, "finisher_died", reason, False, 1, audio_s)
