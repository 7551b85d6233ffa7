"""The punctuator deployment: batches the words of all requests and punctuates them."""

from __future__ import annotations

from ray.serve import Application

from serve_app.core.records import StageReadiness
from serve_app.deployments.client_errors import quiet_client_errors
from serve_app.deployments.metrics import ModelMetrics, gpu_bytes_of
from serve_app.deployments.options import as_deployment
from serve_app.inference.batched import BatchedPunctuator, punctuator_limits, thread_niceness_of
from serve_app.inference.loading import load_punctuator
from serve_app.settings import Settings
from serve_app.tracing import open_tracer
from serve_app.transcript.sentences import PunctuationResult, PunctuationTask


class PunctuatorReplica:
    """Punctuates words with one model."""

    def __init__(self, settings: Settings) -> None:
        quiet_client_errors()
        loaded = load_punctuator(settings)
        self._readiness = loaded.readiness
        self._stuck_after_s = settings.punctuator.stuck_after_s
        self._punctuator = BatchedPunctuator(
            loaded.engine,
            punctuator_limits(settings),
            thread_niceness_of(settings, settings.punctuator.device, loaded.engine),
        )
        self._tracer = open_tracer(settings.tracing, "punctuator")
        self._metrics = ModelMetrics(
            loaded.readiness, self._punctuator.statistics, gpu_bytes_of(loaded.readiness)
        )
        self._punctuator.on_batch = self._metrics.batch_ended

    async def punctuate(self, task: PunctuationTask) -> PunctuationResult:
        """Returns the marks; canceling drops a task that is still queued.

        Raises:
            DeadlineExceeded: the request's deadline passed.
        """
        attributes = {"paraserve.num_words": len(task.words)}
        with self._tracer.span("punctuator", task.context, attributes):
            return await self._punctuator.punctuate(task)

    async def describe(self) -> StageReadiness:
        return self._readiness

    async def check_health(self) -> None:
        """Serve replaces the replica if this raises."""
        self._metrics.start()
        self._punctuator.check(self._stuck_after_s)


def build_punctuator(settings: Settings) -> Application:
    deployment = as_deployment(
        PunctuatorReplica, "Punctuator", settings.punctuator.deployment, settings.log_level
    )
    return deployment.bind(settings)
