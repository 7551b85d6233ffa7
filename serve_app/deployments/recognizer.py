"""The recognizer deployment: batches the chunks of all requests and recognizes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial

from ray import serve
from ray.serve import Application

from serve_app.core.ports import Recognizer
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    HotwordCheck,
    Recognition,
    RecognitionOptions,
    StageReadiness,
)
from serve_app.deployments.client_errors import quiet_client_errors
from serve_app.deployments.metrics import ModelCacheMetrics, ModelMetrics, gpu_bytes_of
from serve_app.deployments.options import LOGGER, as_deployment, recognizer_autoscaling
from serve_app.inference.batched import AloneEvent, recognizer_limits, thread_niceness_of
from serve_app.inference.loading import Loaded, load_recognizer
from serve_app.inference.recognizer_models import RecognizerModels
from serve_app.scheduling.autoscaling import EwmaRate, RecognizerLoad
from serve_app.settings import Settings
from serve_app.tracing import open_tracer

_THROUGHPUT_MEMORY_S = 60.0


class RecognizerReplica:
    """Recognizes chunks with the models in its cache, usually one, which share the device.

    The replica reports its loaded models to Serve, whose handles then prefer it for calls
    that name one of them.
    """

    def __init__(self, settings: Settings) -> None:
        quiet_client_errors()
        opened = RecognizerModels(
            settings,
            recognizer_limits(settings),
            LOGGER,
            partial(thread_niceness_of, settings, settings.recognizer.device),
            self.load,
        )
        self._readiness = opened.readiness
        self._hotword_validator = opened.hotword_validator
        self._stuck_after_s = settings.recognizer.stuck_after_s
        self._recognizer = opened.cache
        self._announce = _announcer(len(settings.recognizer.packs))
        self._throughput = EwmaRate(_THROUGHPUT_MEMORY_S, time.monotonic())
        self._tracer = open_tracer(settings.tracing, "recognizer")
        self._metrics = ModelMetrics(
            opened.readiness, self._recognizer.statistics, gpu_bytes_of(opened.readiness)
        )
        self._cache_metrics = ModelCacheMetrics(self._recognizer.cache_statistics)
        self._recognizer.on_batch = self._metrics.batch_ended

    async def transcribe(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        """Returns a result per chunk, in order; canceling drops chunks that are still queued.

        Raises:
            DeadlineExceeded: the request's deadline passed.
            ModelNotFound: the request's model is not served here.
            ModelUnavailable: it could not be loaded.
        """
        await self._announce(self._recognizer.name_of(chunks[0]))
        audio_s = sum(chunk.duration_s for chunk in chunks)
        attributes = {"paraserve.num_chunks": len(chunks), "paraserve.audio_s": audio_s}
        with self._tracer.span("recognizer", chunks[0].context, attributes):
            results = await self._recognizer.transcribe(chunks)
        self._count(chunks[0], audio_s)
        return results

    async def transcribe_alone(self, chunk: Chunk) -> AsyncGenerator[AloneEvent]:
        """Yields "begun" once the chunk runs with no other beside it, then its result.

        Raises:
            DeadlineExceeded: the request's deadline passed.
            ModelNotFound: the request's model is not served here.
            ModelUnavailable: it could not be loaded.
        """
        await self._announce(self._recognizer.name_of(chunk))
        async with aclosing(self._recognizer.transcribe_alone(chunk)) as events:
            async for event in events:
                yield event
        self._count(chunk, chunk.duration_s)

    def _count(self, chunk: Chunk, audio_s: float) -> None:
        if not chunk.context.background:
            self._throughput.done(audio_s, time.monotonic())

    async def check_hotwords(self, recognition_options: RecognitionOptions) -> HotwordCheck:
        """Returns which of a request's hotwords its model can use."""
        return await asyncio.to_thread(self._hotword_validator.validate, recognition_options)

    async def record_autoscaling_stats(self) -> RecognizerLoad:
        """Returns this replica's load for the autoscaling policy."""
        statistics = self._recognizer.statistics()
        queued_s = statistics.background_queued_audio_s
        running_s = statistics.background_running_audio_s
        return RecognizerLoad(
            queued_audio_s=max(0.0, statistics.queued_audio_s - queued_s),
            running_audio_s=max(0.0, statistics.running_audio_s - running_s),
            rtfx=statistics.rtfx,
            audio_s_per_s=self._throughput.read(time.monotonic()),
            background_audio_s=queued_s + running_s,
        )

    async def describe(self) -> StageReadiness:
        return self._readiness

    async def check_health(self) -> None:
        """Serve replaces the replica if this raises."""
        self._metrics.start()
        self._cache_metrics.start()
        self._recognizer.check(self._stuck_after_s)

    @staticmethod
    def load(settings: Settings) -> Loaded[Recognizer]:
        """Returns the engine; for subclasses to replace."""
        return load_recognizer(settings)


def _announcer(num_models: int) -> Callable[[str], Awaitable[str]]:
    """Returns a function that reports to Serve which model this replica is about to use.

    Serve's own model cache counts models, not bytes, and evicts those that still have work,
    so it gets names only. A call that reaches a replica after the model was evicted waits
    until it is loaded again.
    """

    async def announce(model_id: str) -> str:
        return model_id

    if num_models == 1:
        return announce
    announced: Callable[[str], Awaitable[str]] = serve.multiplexed(
        max_num_models_per_replica=num_models
    )(announce)
    return announced


def build_recognizer(settings: Settings) -> Application:
    deployment = as_deployment(
        RecognizerReplica,
        "Recognizer",
        settings.recognizer.deployment,
        settings.log_level,
        recognizer_autoscaling(settings),
    )
    return deployment.bind(settings)
