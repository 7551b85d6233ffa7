"""The job runner deployment: runs the jobs of the store, sends webhooks, and sweeps.

It serves no calls: its loops begin with the replica. The ingress works without it; jobs that are
created meanwhile wait.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from serve_app.api.fetching import CheckedBackend
from serve_app.api.webhook_urls import WebhookPolicy
from serve_app.core.job_errors import StoreUnavailable
from serve_app.deployments.client_errors import quiet_client_errors
from serve_app.deployments.ingress import HandleTranscriptionService
from serve_app.deployments.job_metrics import JobMetrics
from serve_app.deployments.job_transcriber import ServiceTranscriber
from serve_app.deployments.options import LOGGER, as_deployment, job_runner_autoscaling
from serve_app.jobs.attempt import Workplace
from serve_app.jobs.local_copy import remove_leftovers
from serve_app.jobs.opening import open_files, open_store
from serve_app.jobs.records import JobBacklog
from serve_app.jobs.runner import Runner
from serve_app.jobs.sweeper import Sweeper
from serve_app.jobs.webhooks import HttpSender, WebhookRunner
from serve_app.scheduling.autoscaling import JobRunnerLoad
from serve_app.settings import Settings
from serve_app.settings.jobs import JobSettings
from serve_app.settings.webhook_secrets import read_webhook_secrets

_STOP_S = 15.0
_BACKLOG_PERIOD_S = 10.0
_BACKLOG_AGE_S = 60.0
"""Age from which the last known backlog no longer counts in autoscaling."""


class JobRunnerReplica:
    """Runs jobs, delivers webhooks and sweeps, from its construction to `stop`.

    Args:
        settings: of the whole application.
        segmenter: handle of the segmenter.
        recognizer: handle of the recognizer.
        punctuator: handle of the punctuator, None without one.
        speaker_embedder: handle of the speaker embedder, None without one.

    Raises:
        ConfigurationError: the storage or the database cannot be used at all.
    """

    def __init__(
        self,
        settings: Settings,
        segmenter: DeploymentHandle[Any],
        recognizer: DeploymentHandle[Any],
        punctuator: DeploymentHandle[Any] | None = None,
        speaker_embedder: DeploymentHandle[Any] | None = None,
    ) -> None:
        quiet_client_errors()
        jobs = settings.jobs
        service = HandleTranscriptionService(
            settings, segmenter, recognizer, punctuator, speaker_embedder
        )
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._weight = jobs.autoscaling_weight
        self._spool_dir = settings.audio.spool_dir
        self._metrics = JobMetrics(lambda: self._runner.num_running)
        self._store, files = open_store(jobs), open_files(jobs)
        workplace = Workplace(
            self._store,
            files,
            ServiceTranscriber(service, settings),
            LOGGER,
            self._spool_dir,
            jobs.lease_s,
            jobs.checkpoint_audio_s,
            jobs.max_attempts,
            self._metrics.store_failed,
            self._metrics.recognized,
        )
        self._runner = Runner(name, workplace, jobs.max_running, self._metrics.attempt_ended)
        self._webhooks = WebhookRunner(
            name,
            self._store,
            _sender(jobs),
            LOGGER,
            on_outcome=self._metrics.webhook_tried,
            on_given_up=self._metrics.webhook_given_up,
            on_outage=self._metrics.store_failed,
        )
        self._sweeper = Sweeper(
            self._store, files, LOGGER, self._metrics.expired, self._metrics.store_failed
        )
        self._backlog = JobBacklog()
        self._backlog_at_s = float("-inf")
        self._tasks: list[asyncio.Task[None]] = []
        self._start()

    async def record_autoscaling_stats(self) -> JobRunnerLoad:
        """Returns the waiting jobs for the autoscaling policy."""
        is_fresh = time.monotonic() - self._backlog_at_s <= _BACKLOG_AGE_S
        waiting_s = self._backlog.queued_audio_s if is_fresh else 0.0
        return JobRunnerLoad(waiting_audio_s=self._weight * waiting_s)

    async def check_health(self) -> None:
        """Serve replaces the replica if this raises."""
        for task in self._tasks:
            if task.done():
                cause = None if task.cancelled() else task.exception()
                raise RuntimeError("a loop of the job runner has ended") from cause

    async def stop(self) -> None:
        """Hands the jobs back and ends the loops; what takes too long is left to the leases."""
        self._runner.stop()
        self._webhooks.stop()
        self._sweeper.stop()
        *working, watching = self._tasks
        watching.cancel()
        await asyncio.wait(working, timeout=_STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._metrics.sampler.stop()
        await self._store.close()

    def _start(self) -> None:
        """Starts the loops; Serve constructs replicas in their event loop."""
        self._metrics.sampler.start()
        loops = (self._runner.run(), self._webhooks.run(), self._sweeper.run(), self._watch())
        self._tasks = [asyncio.get_running_loop().create_task(loop) for loop in loops]

    async def _watch(self) -> None:
        """Reads now and then what waits."""
        await asyncio.to_thread(remove_leftovers, self._spool_dir)
        while True:
            try:
                self._backlog = await self._store.backlog()
                self._backlog_at_s = time.monotonic()
                self._metrics.waiting(self._backlog)
            except Exception as error:
                self._metrics.store_failed()
                if not isinstance(error, StoreUnavailable):
                    LOGGER.error("the backlog of jobs could not be read", exc_info=error)
            await asyncio.sleep(_BACKLOG_PERIOD_S)


class _ServedJobRunner(JobRunnerReplica):
    """As Serve runs it, which calls `__del__` before it ends a replica."""

    async def __del__(self) -> None:
        await self.stop()


def _sender(jobs: JobSettings) -> HttpSender:
    path = jobs.webhook_secrets_file

    def read_secrets() -> Mapping[str, Sequence[str]]:
        return {} if path is None else read_webhook_secrets(path)

    return HttpSender(
        CheckedBackend(allow_private=jobs.webhook_allow_private),
        WebhookPolicy(jobs).check,
        read_secrets,
        LOGGER,
    )


def build_job_runner(
    settings: Settings,
    segmenter: Application,
    recognizer: Application,
    punctuator: Application | None,
    speaker_embedder: Application | None = None,
) -> Application:
    deployment = as_deployment(
        _ServedJobRunner,
        "JobRunner",
        settings.jobs.deployment,
        settings.log_level,
        job_runner_autoscaling(settings),
    )
    optional = {"punctuator": punctuator, "speaker_embedder": speaker_embedder}
    bound = {name: stage for name, stage in optional.items() if stage is not None}
    return deployment.bind(settings, segmenter, recognizer, **bound)
