"""Engines behind a batcher, so that many callers share one model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from serve_app.core.errors import ServiceError
from serve_app.core.ports import Punctuator, Recognizer, SpeakerEmbedder
from serve_app.core.records import Chunk, ChunkFailure, Recognition
from serve_app.core.speakers import Embeddings
from serve_app.scheduling.batch_state import BatcherStatistics
from serve_app.scheduling.device_slots import DeviceSlots
from serve_app.scheduling.micro_batcher import BatcherClosed, BatchLimits, EngineStuck, MicroBatcher
from serve_app.scheduling.preemption import Preemption, ThreadNiceness, lower_priority
from serve_app.settings import Settings
from serve_app.transcript.sentences import PunctuationResult, PunctuationTask, punctuate_tasks

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

BEGUN: Literal["begun"] = "begun"
"""What `transcribe_alone` yields right before it gives the chunk to the model."""

AloneEvent: TypeAlias = Literal["begun"] | Recognition | ChunkFailure
OnBegun: TypeAlias = Callable[[], Awaitable[None]]

_MAX_ITEMS = 256
_EQUAL_PRIORITY = ThreadNiceness()
_BEGUN_DELIVERY_S = 0.05
"""Time for `BEGUN` to reach a caller in another process, in case the chunk kills this one."""


class _BatchedModel(Generic[ItemT, ResultT]):
    """An engine's batcher and the threads that it runs batches on."""

    def __init__(
        self,
        name: str,
        limits: BatchLimits,
        max_in_flight: int,
        cost: Callable[[ItemT], int],
        size_s: Callable[[ItemT], float],
        niceness: ThreadNiceness,
        device_slots: DeviceSlots | None = None,
        preemption: Preemption | None = None,
    ) -> None:
        self._urgent_ms = niceness.urgent_ms
        self._preemption = preemption or Preemption()
        self._threads = ThreadPoolExecutor(
            max_in_flight,
            name,
            initializer=lower_priority,
            initargs=(niceness.nice, self._preemption),
        )
        self._urgent_thread = ThreadPoolExecutor(1, f"{name}-urgent")
        self._batcher: MicroBatcher[ItemT, ResultT] = MicroBatcher(
            self._run,
            cost,
            limits,
            size_s=size_s,
            on_batch=self._batch_ended,
            concurrency=max_in_flight,
            run_urgent=self._run_urgent if niceness.urgent_ms else None,
            device_slots=device_slots,
        )
        self.on_batch: Callable[[Sequence[float], float], None] | None = None
        """Called after each batch with the waits of its items and its duration, in s."""

    def statistics(self) -> BatcherStatistics:
        return self._batcher.statistics()

    def check(self, patience_s: float) -> None:
        """Checks that the engine makes progress.

        Raises:
            EngineStuck: it makes none.
        """
        self._batcher.check(patience_s)

    async def close(self) -> None:
        """Fails the waiting calls and ends the threads."""
        await self._batcher.close()
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._urgent_thread.shutdown)

    def _batch_ended(self, waits_s: Sequence[float], took_s: float) -> None:
        if self.on_batch is not None:
            self.on_batch(waits_s, took_s)

    async def _run(self, batch: list[ItemT]) -> list[ResultT]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._compute, batch)

    async def _run_urgent(self, batch: list[ItemT]) -> list[ResultT]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._urgent_thread, self._compute_urgent, batch)

    def _compute_urgent(self, batch: list[ItemT]) -> list[ResultT]:
        with self._preemption.taken():
            return self._compute(batch)

    def _compute(self, batch: list[ItemT]) -> list[ResultT]:
        raise NotImplementedError


class BatchedRecognizer(_BatchedModel[Chunk, Recognition | ChunkFailure]):
    """A recognizer with up to `engine.max_in_flight` batches in flight.

    Args:
        engine: called from this object's own threads.
        limits: of a batch, in the engine's encoder frames.
        logger: for chunks that fail.
        niceness: what is urgent; if anything is, the engine must be reentrant.
        device_slots: shared with the other models on the device.
        preemption: shared with the other models of the process.
    """

    def __init__(
        self,
        engine: Recognizer,
        limits: BatchLimits,
        logger: logging.Logger,
        niceness: ThreadNiceness = _EQUAL_PRIORITY,
        device_slots: DeviceSlots | None = None,
        preemption: Preemption | None = None,
    ) -> None:
        self._engine = engine
        self._logger = logger
        super().__init__(
            "recognizer",
            limits,
            engine.max_in_flight,
            cost=lambda chunk: engine.cost(chunk.num_samples),
            size_s=lambda chunk: chunk.duration_s,
            niceness=niceness,
            device_slots=device_slots,
            preemption=preemption,
        )

    async def transcribe(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        """Returns a result per chunk, in order; canceling drops chunks that have not started.

        Raises:
            DeadlineExceeded: the request's deadline passed before all chunks had started.
            BatcherClosed: `close` was called.
        """
        return await _all(self._transcribe_one(chunk) for chunk in chunks)

    async def transcribe_alone(self, chunk: Chunk) -> AsyncGenerator[AloneEvent]:
        """Yields `BEGUN` when the chunk is about to run in a batch of its own, then its result.

        If this process dies between the two, the chunk caused it.

        Raises:
            DeadlineExceeded: the request's deadline passed before the chunk had started.
            BatcherClosed: `close` was called.
        """
        begun = asyncio.Event()

        async def notify() -> None:
            begun.set()
            await asyncio.sleep(_BEGUN_DELIVERY_S)

        call = asyncio.ensure_future(self._transcribe_one(chunk, notify))
        waiting = asyncio.ensure_future(begun.wait())
        try:
            await asyncio.wait((call, waiting), return_when=asyncio.FIRST_COMPLETED)
            if begun.is_set():
                yield BEGUN
            yield await call
        finally:
            waiting.cancel()
            call.cancel()

    async def _transcribe_one(
        self, chunk: Chunk, on_begun: OnBegun | None = None
    ) -> Recognition | ChunkFailure:
        alone = on_begun is not None
        try:
            return await self._batcher.submit(
                chunk,
                chunk.context,
                alone=alone,
                urgent=chunk.start_ms < self._urgent_ms,
                on_begun=on_begun,
            )
        except (ServiceError, BatcherClosed, EngineStuck):
            raise
        except Exception as error:
            self._logger.exception(
                "chunk failed",
                extra={"paraserve_request_id": chunk.context.request_id, "chunk": chunk.index},
            )
            return ChunkFailure("engine_error", type(error).__name__)

    def _compute(self, batch: list[Chunk]) -> list[Recognition | ChunkFailure]:
        return self._engine.transcribe(
            [chunk.pcm for chunk in batch], [chunk.recognition_options for chunk in batch]
        )


class BatchedPunctuator(_BatchedModel[PunctuationTask, PunctuationResult]):
    """A punctuation model; the windows of a task run in sequence, batched with other tasks'.

    Args:
        engine: called from this object's own threads.
        limits: of a batch, in words.
        niceness: see `BatchedRecognizer`.
    """

    def __init__(
        self, engine: Punctuator, limits: BatchLimits, niceness: ThreadNiceness = _EQUAL_PRIORITY
    ) -> None:
        self._engine = engine
        super().__init__(
            "punctuator",
            limits,
            engine.max_in_flight,
            cost=lambda task: len(task.words),
            size_s=lambda task: 0.0,
            niceness=niceness,
        )

    async def punctuate(self, task: PunctuationTask) -> PunctuationResult:
        """Returns the marks; canceling drops a task that has not started.

        Raises:
            DeadlineExceeded: the request's deadline passed before the task started.
            BatcherClosed: `close` was called.
        """
        urgent = task.end_ms < self._urgent_ms
        return await self._batcher.submit(task, task.context, urgent=urgent)

    def _compute(self, batch: list[PunctuationTask]) -> list[PunctuationResult]:
        return punctuate_tasks(self._engine, batch)


class BatchedEmbedder(_BatchedModel[Chunk, Embeddings]):
    """A speaker model whose batches mix the chunks of all requests.

    Args:
        engine: called from this object's own threads.
        limits: of a batch, in windows.
        niceness: see `BatchedRecognizer`.
    """

    def __init__(
        self,
        engine: SpeakerEmbedder,
        limits: BatchLimits,
        niceness: ThreadNiceness = _EQUAL_PRIORITY,
    ) -> None:
        self._engine = engine
        super().__init__(
            "speakers",
            limits,
            engine.max_in_flight,
            cost=lambda chunk: engine.cost(chunk.num_samples),
            size_s=lambda chunk: chunk.duration_s,
            niceness=niceness,
        )

    async def embed(self, chunks: list[Chunk]) -> list[Embeddings]:
        """Returns the embeddings of each chunk's windows, in order; canceling drops chunks that
        have not started.

        Raises:
            DeadlineExceeded: the request's deadline passed before all chunks had started.
            BatcherClosed: `close` was called.
        """
        return await _all(
            self._batcher.submit(chunk, chunk.context, urgent=chunk.start_ms < self._urgent_ms)
            for chunk in chunks
        )

    def _compute(self, batch: list[Chunk]) -> list[Embeddings]:
        return self._engine.embed([chunk.pcm for chunk in batch])


async def _all(calls: Iterable[Coroutine[Any, Any, ResultT]]) -> list[ResultT]:
    """Returns the results in order; the first failure, or being canceled, ends all calls."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def thread_niceness_of(
    settings: Settings, device: str, engine: Recognizer | Punctuator | SpeakerEmbedder
) -> ThreadNiceness:
    """Returns the niceness of an engine's threads for urgent and other work.

    On a GPU all batches have equal priority: they run in sequence anyway, and the thread that
    feeds the GPU must not wait for a core. On a CPU, only reentrant engines can run urgent
    batches beside others.
    """
    if device != "cpu":
        return _EQUAL_PRIORITY
    urgent_ms = round(settings.audio.urgent_s * 1000)
    return ThreadNiceness(urgent_ms if engine.is_reentrant else 0, settings.compute_nice)


def recognizer_limits(settings: Settings) -> BatchLimits:
    section = settings.recognizer
    return BatchLimits(section.max_batch_frames, _MAX_ITEMS, max_s=section.max_batch_s)


def punctuator_limits(settings: Settings) -> BatchLimits:
    section = settings.punctuator
    return BatchLimits(section.max_batch_words, _MAX_ITEMS, max_s=section.max_batch_s)


def embedder_limits(settings: Settings) -> BatchLimits:
    section = settings.speaker_embedder
    return BatchLimits(section.max_batch_windows, _MAX_ITEMS, max_s=section.max_batch_s)
