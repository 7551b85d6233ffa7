"""The live deployment: WebSockets of live transcription over the other deployments' models.

It is an application of its own beside the API's, because it has a route prefix of its own, and
because a change of its settings must not restart the models. A session lives in one replica: its
VAD runs here, and its audio is recognized and punctuated by the main application.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from serve_app.api.draining import counter_of_process
from serve_app.api.live_routes import build_live_api
from serve_app.core.errors import (
    Overloaded,
    ParaserveError,
    RecognitionFailed,
    ShuttingDown,
)
from serve_app.core.in_flight import InFlightCounter
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    Recognition,
    RequestContext,
)
from serve_app.deployments.client_errors import quiet_client_errors
from serve_app.deployments.handles import RemoteRecognizer
from serve_app.deployments.live_metrics import LiveMetrics
from serve_app.deployments.metrics import take_retries
from serve_app.deployments.options import LOGGER, as_deployment
from serve_app.deployments.replica_stop import stopping_since_s, watch_replica_stop
from serve_app.deployments.retries import RetryPolicy, call_until_answered
from serve_app.inference.loading import load_vad
from serve_app.live.ports import Label
from serve_app.live.records import AudioFormat, SessionOptions
from serve_app.live.segmenting import VAD_BLOCK_FRAMES, Boundary
from serve_app.live.session import Session, SessionLimits, SessionModels
from serve_app.scheduling.fair_executor import FairExecutor
from serve_app.settings import Settings
from serve_app.transcript.punctuation import PunctuationState
from serve_app.transcript.sentences import PunctuationResult, PunctuationTask

_RETRY_AFTER_S = 5.0
_FAREWELL_S = 15.0
"""Before the end of a replica's grace period, its sessions finish what has arrived."""
_ABORT_S = 5.0
"""Before the end of the grace period, sessions that have not finished are ended."""


class RemoteModels:
    """Recognizes and punctuates by the handles of the main application.

    Args:
        settings: of the whole application.
        recognizer: handle of the recognizer.
        punctuator: handle of the punctuator; None without one.
    """

    def __init__(
        self,
        settings: Settings,
        recognizer: DeploymentHandle[Any],
        punctuator: DeploymentHandle[Any] | None,
    ) -> None:
        self._recognizer = RemoteRecognizer(recognizer, settings)
        self._punctuator = punctuator
        self._retry_policy = RetryPolicy(
            settings.max_attempts, replacement_s=settings.replacement_timeout_s
        )

    async def recognize(self, chunks: list[Chunk]) -> Sequence[Recognition | ChunkFailure]:
        """Returns a result per chunk, even if replicas die.

        Raises:
            ParaserveError: there is none.
        """
        try:
            return await self._recognizer.recognize(chunks)
        except RayTaskError as error:
            raise _own_error(error) from None

    @property
    def label(self) -> Label | None:
        """Predicts marks; None without a punctuator."""
        punctuator = self._punctuator
        if punctuator is None:
            return None

        async def label(context: RequestContext, words: Sequence[str]) -> list[str]:
            task = PunctuationTask(context, PunctuationState(), tuple(words), final=True)
            try:
                result: PunctuationResult = await call_until_answered(
                    lambda: punctuator.punctuate.remote(task),
                    retry_policy=self._retry_policy,
                    stage="punctuation",
                    context=context,
                )
            except RayTaskError as error:
                raise _own_error(error) from None
            return [mark for _, mark in result.pairs]

        return label


def _own_error(error: RayTaskError) -> ParaserveError:
    """Returns our error without Ray's wrapper, whose text is a remote traceback."""
    cause = error.cause
    if isinstance(cause, ParaserveError):
        return cause
    return RecognitionFailed(type(cause).__name__)


class LiveSessionPool:
    """Implements `LiveSessions`: the open sessions of one replica.

    Args:
        models: for all sessions.
        settings: of the whole application.
        metrics: told of sessions and their latencies.
        counter: of the requests in flight under `paraserve serve`; None elsewhere.
        stopping_since: returns since when the replica is being stopped, monotonic; None if it
            is not.
        clock: in seconds, monotonic.
    """

    def __init__(
        self,
        models: SessionModels,
        settings: Settings,
        metrics: LiveMetrics,
        counter: InFlightCounter | None = None,
        stopping_since: Callable[[], float | None] = stopping_since_s,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        live = settings.live
        self._models = models
        self._limits = SessionLimits(live.partial_interval_s, live.max_segment_s, live.max_lag_s)
        self._max_sessions = live.max_sessions
        self._key_max_sessions = live.key_max_sessions or live.max_sessions
        self._grace_s = live.deployment.graceful_shutdown_timeout_s
        self._metrics = metrics
        self._counter = counter
        self._stopping_since = stopping_since
        self._clock = clock
        self._open: set[PooledSession] = set()

    @property
    def sessions(self) -> frozenset[PooledSession]:
        """Those that are open."""
        return frozenset(self._open)

    async def open(
        self, context: RequestContext, audio: AudioFormat, options: SessionOptions
    ) -> PooledSession:
        if self._counter is not None:
            self._counter.enter()
        try:
            self._check(context.key)
            session = PooledSession(
                self, context, audio, options, self._models, self._limits, self._metrics
            )
        except BaseException as error:
            if isinstance(error, ParaserveError):
                self._metrics.refused(error.code)
            if self._counter is not None:
                self._counter.leave()
            raise
        self._open.add(session)
        return session

    def release(self, session: PooledSession, context: RequestContext) -> None:
        """Forgets a session that was closed; a second time does nothing."""
        if session not in self._open:
            return
        self._open.discard(session)
        take_retries(context)
        self._metrics.ended(session.statistics())
        if self._counter is not None:
            self._counter.leave()

    def drain(self) -> None:
        """Ends sessions if the replica or the service is being stopped.

        To be called about once a second. If the whole service stops, sessions end at once, since
        no other replica takes them; otherwise when the grace period is nearly over.
        """
        since_s = self._stopping_since()
        if self._counter is not None and self._counter.is_draining:
            self._end(abort=False)
        elif since_s is not None:
            left_s = self._grace_s - (self._clock() - since_s)
            if left_s <= min(_ABORT_S, self._grace_s / 4):
                self._end(abort=True)
            elif left_s <= min(_FAREWELL_S, self._grace_s / 2):
                self._end(abort=False)

    def _end(self, *, abort: bool) -> None:
        for session in self._open:
            if abort:
                session.abort(ShuttingDown())
            else:
                session.end_with(ShuttingDown())

    def _check(self, key: str) -> None:
        stops = self._counter is not None and self._counter.is_draining
        if stops or self._stopping_since() is not None:
            raise ShuttingDown
        of_keys = Counter(session.key for session in self._open)
        if len(self._open) >= self._max_sessions or of_keys[key] >= self._key_max_sessions:
            raise Overloaded(_RETRY_AFTER_S)


class PooledSession(Session):
    """A session that frees its place when it is closed.

    Args:
        pool: that it is open in.
    """

    def __init__(
        self,
        pool: LiveSessionPool,
        context: RequestContext,
        audio: AudioFormat,
        options: SessionOptions,
        models: SessionModels,
        limits: SessionLimits,
        metrics: LiveMetrics,
    ) -> None:
        super().__init__(context, audio, options, models, limits, metrics)
        self._pool = pool
        self._own_context = context

    @property
    def key(self) -> str:
        """Name of the caller's API key."""
        return self._own_context.key

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            self._pool.release(self, self._own_context)


class LiveReplica:
    """FastAPI with WebSockets on a Serve replica.

    Args:
        settings: of the whole application.
    """

    def __init__(self, settings: Settings) -> None:
        quiet_client_errors()
        watch_replica_stop()
        self._settings = settings
        self._stuck_after_s = settings.segmenter.stuck_after_s
        vad = load_vad(settings, VAD_BLOCK_FRAMES) if "vad" in settings.stages else None
        # Sessions alternate on this thread, one block at a time.
        self._thread: FairExecutor[list[Boundary]] = FairExecutor("live")
        remote = RemoteModels(
            settings,
            _handle("Recognizer", settings),
            _handle("Punctuator", settings) if "punctuation" in settings.stages else None,
        )
        self._metrics = LiveMetrics(vad.readiness if vad else None)
        models = SessionModels(
            remote.recognize, remote.label, vad.engine if vad else None, self._run
        )
        self._pool = LiveSessionPool(models, settings, self._metrics, counter_of_process())
        self._metrics.watch(
            lambda: [session.statistics() for session in self._pool.sessions], self._pool.drain
        )

    async def check_health(self) -> None:
        """Serve replaces the replica if this raises."""
        self._metrics.start()
        self._thread.check(self._stuck_after_s)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_live_api(self._pool, self._settings, LOGGER)

    async def _run(
        self, step: Callable[[], list[Boundary]], context: RequestContext
    ) -> list[Boundary]:
        return await self._thread.run(step, context)


def _handle(deployment: str, settings: Settings) -> DeploymentHandle[Any]:
    """Returns a handle of the main application, which may still be starting."""
    return serve.get_deployment_handle(deployment, settings.app_name, _check_exists=False)


def build_live(settings: Settings) -> Application:
    deployment = as_deployment(
        serve.ingress()(LiveReplica), "Live", settings.live.deployment, settings.log_level
    )
    return deployment.bind(settings)
