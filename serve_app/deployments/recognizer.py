"""The recogniser: chunks of any requests in, batched for the model, tokens out."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ray.serve import Application

from serve_app.core.chunks import Chunk, ChunkFailure, Recognition
from serve_app.core.ports import Recognizer
from serve_app.core.stages import StageReadiness
from serve_app.core.throughput import Throughput
from serve_app.deployments.gpu_bytes import gpu_bytes_of
from serve_app.deployments.load_reports import RecognizerLoad
from serve_app.deployments.metering import ModelMetrics
from serve_app.deployments.options import LOGGER, as_deployment, recognizer_autoscaling
from serve_app.pipeline.batched import AloneEvent, BatchedRecognizer, recognizer_limits
from serve_app.pipeline.loading import Loaded, load_recognizer
from serve_app.settings import Settings
from serve_app.tracing import open_tracer

_THROUGHPUT_MEMORY_S = 60.0


class RecognizerDeployment:
    """One model, and as many batches in flight as it takes."""

    def __init__(self, settings: Settings) -> None:
        loaded = self.load(settings)
        self._readiness = loaded.readiness
        self._stuck_after_s = settings.recognizer.stuck_after_s
        self._recognizer = BatchedRecognizer(loaded.engine, recognizer_limits(settings), LOGGER)
        self._throughput = Throughput(_THROUGHPUT_MEMORY_S, time.monotonic())
        self._tracer = open_tracer(settings.tracing, "recognizer")
        self._metrics = ModelMetrics(
            loaded.readiness, self._recognizer.statistics, gpu_bytes_of(loaded.readiness)
        )
        self._recognizer.on_batch = self._metrics.batch_ended

    async def transcribe(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        """Returns a result per chunk, in order; cancelling drops what has not begun.

        Raises:
            DeadlineExceeded: the request's deadline passed.
        """
        audio_s = sum(chunk.duration_s for chunk in chunks)
        attributes = {"paraserve.num_chunks": len(chunks), "paraserve.audio_s": audio_s}
        with self._tracer.span("recognizer", chunks[0].origin, attributes):
            results = await self._recognizer.transcribe(chunks)
        self._throughput.done(audio_s, time.monotonic())
        return results

    async def transcribe_alone(self, chunk: Chunk) -> AsyncGenerator[AloneEvent]:
        """Yields "begun" once nothing but this chunk is being run, then its result.

        Raises:
            DeadlineExceeded: the request's deadline passed.
        """
        async with aclosing(self._recognizer.transcribe_alone(chunk)) as events:
            async for event in events:
                yield event
        self._throughput.done(chunk.duration_s, time.monotonic())

    async def record_autoscaling_stats(self) -> RecognizerLoad:
        """Returns what the autoscaling policy is told of this replica."""
        statistics = self._recognizer.statistics()
        return RecognizerLoad(
            queued_audio_s=statistics.queued_audio_s,
            running_audio_s=statistics.running_audio_s,
            rtfx=statistics.rtfx,
            audio_s_per_s=self._throughput.read(time.monotonic()),
        )

    async def describe(self) -> StageReadiness:
        return self._readiness

    async def check_health(self) -> None:
        """Serve replaces the replica if this raises."""
        self._metrics.start()
        self._recognizer.check(self._stuck_after_s)

    @staticmethod
    def load(settings: Settings) -> Loaded[Recognizer]:
        """Returns the engine; for subclasses to replace."""
        return load_recognizer(settings)


def build_recognizer(settings: Settings) -> Application:
    deployment = as_deployment(
        RecognizerDeployment,
        "Recognizer",
        settings.recognizer.deployment,
        settings.log_level,
        recognizer_autoscaling(settings),
    )
    return deployment.bind(settings)
