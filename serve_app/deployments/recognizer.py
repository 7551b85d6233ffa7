"""The recogniser: chunks of any requests in, batched for the model, tokens out."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ray.serve import Application

from serve_app.core.batching import BatchLimits, MicroBatcher
from serve_app.core.chunks import Chunk, ChunkFailure, Pcm, Recognition
from serve_app.core.stages import StageReadiness
from serve_app.deployments.options import LOGGER, as_deployment
from serve_app.pipeline.loading import load_recognizer
from serve_app.settings import Settings


class RecognizerDeployment:
    """One model, one batch in flight."""

    def __init__(self, settings: Settings) -> None:
        loaded = load_recognizer(settings)
        self._engine = loaded.engine
        self._readiness = loaded.readiness
        # The engine is used by one thread at a time; this is that thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recognizer")
        self._batcher: MicroBatcher[Pcm, Recognition | ChunkFailure] = MicroBatcher(
            self._run,
            cost=lambda pcm: self._engine.cost(len(pcm)),
            limits=BatchLimits(settings.recognizer.max_batch_frames),
        )

    async def transcribe(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        """Returns a result per chunk, in order; cancelling drops what has not begun."""
        return await asyncio.gather(*(self._transcribe_one(chunk) for chunk in chunks))

    async def describe(self) -> StageReadiness:
        return self._readiness

    async def _transcribe_one(self, chunk: Chunk) -> Recognition | ChunkFailure:
        try:
            return await self._batcher.submit(chunk.pcm)
        except Exception as error:
            LOGGER.exception(
                "chunk failed",
                extra={"paraserve_request_id": chunk.request_id, "chunk": chunk.index},
            )
            return ChunkFailure("engine_error", type(error).__name__)

    async def _run(self, batch: list[Pcm]) -> list[Recognition | ChunkFailure]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._engine.transcribe, batch)


def build_recognizer(settings: Settings) -> Application:
    deployment = as_deployment(
        RecognizerDeployment, "Recognizer", settings.recognizer.deployment, settings.log_level
    )
    return deployment.bind(settings)
