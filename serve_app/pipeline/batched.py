"""A recogniser that many callers share."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from serve_app.core.batching import BatchLimits, MicroBatcher
from serve_app.core.chunks import Chunk, ChunkFailure, Pcm, Recognition
from serve_app.core.ports import Recognizer


class BatchedRecognizer:
    """One engine, one batch in flight.

    Args:
        engine: called from one thread of this object's own.
        max_batch_frames: budget of a batch, in the engine's encoder frames.
        logger: told of chunks that fail.
    """

    def __init__(self, engine: Recognizer, max_batch_frames: int, logger: logging.Logger) -> None:
        self._engine = engine
        self._logger = logger
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recognizer")
        self._batcher: MicroBatcher[Pcm, Recognition | ChunkFailure] = MicroBatcher(
            self._run,
            cost=lambda pcm: engine.cost(len(pcm)),
            limits=BatchLimits(max_batch_frames),
        )

    async def transcribe(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        """Returns a result per chunk, in order; cancelling drops what has not begun."""
        return await asyncio.gather(*(self._transcribe_one(chunk) for chunk in chunks))

    async def close(self) -> None:
        """Fails what still waits and ends the thread."""
        await self._batcher.close()
        self._thread.shutdown(wait=True)

    async def _transcribe_one(self, chunk: Chunk) -> Recognition | ChunkFailure:
        try:
            return await self._batcher.submit(chunk.pcm)
        except Exception as error:
            self._logger.exception(
                "chunk failed",
                extra={"paraserve_request_id": chunk.origin.request_id, "chunk": chunk.index},
            )
            return ChunkFailure("engine_error", type(error).__name__)

    async def _run(self, batch: list[Pcm]) -> list[Recognition | ChunkFailure]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._engine.transcribe, batch)
