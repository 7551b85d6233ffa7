"""The punctuator: words of any requests in, batched for the model, marks out."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ray.serve import Application

from serve_app.core.batching import BatchLimits, MicroBatcher
from serve_app.core.joining import PunctuationResult, PunctuationTask, punctuate_tasks
from serve_app.core.stages import StageReadiness
from serve_app.deployments.options import as_deployment
from serve_app.pipeline.loading import load_punctuator
from serve_app.settings import Settings


class PunctuatorDeployment:
    """One model, one batch in flight; a task's windows run one after another."""

    def __init__(self, settings: Settings) -> None:
        loaded = load_punctuator(settings)
        self._engine = loaded.engine
        self._readiness = loaded.readiness
        # The engine is used by one thread at a time; this is that thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="punctuator")
        self._batcher: MicroBatcher[PunctuationTask, PunctuationResult] = MicroBatcher(
            self._run,
            cost=lambda task: len(task.words),
            limits=BatchLimits(settings.punctuator.max_batch_words),
        )

    async def punctuate(self, task: PunctuationTask) -> PunctuationResult:
        return await self._batcher.submit(task)

    async def describe(self) -> StageReadiness:
        return self._readiness

    async def _run(self, batch: list[PunctuationTask]) -> list[PunctuationResult]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, punctuate_tasks, self._engine, batch)


def build_punctuator(settings: Settings) -> Application:
    deployment = as_deployment(
        PunctuatorDeployment, "Punctuator", settings.punctuator.deployment, settings.log_level
    )
    return deployment.bind(settings)
