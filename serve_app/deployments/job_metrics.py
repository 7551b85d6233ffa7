"""Sets the metrics of jobs; in a module of its own, which only job runners import."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from serve_app import metrics
from serve_app.deployments.metrics import Sampler
from serve_app.jobs.records import JobBacklog
from serve_app.jobs.runner import AttemptEnd
from serve_app.jobs.webhooks import DeliveryOutcome


class JobMetrics:
    """Set by a job runner replica.

    Args:
        num_running: returns the number of jobs that it works on.
    """

    def __init__(self, num_running: Callable[[], int]) -> None:
        self._num_running = num_running
        self._backlog = JobBacklog()
        self._jobs = metrics.new_gauge(metrics.JOBS)
        self._queued_audio = metrics.new_gauge(metrics.JOBS_QUEUED_AUDIO)
        self._oldest = metrics.new_gauge(metrics.JOBS_OLDEST)
        self._on_runner = metrics.new_gauge(metrics.JOBS_ON_RUNNER)
        self._ended = metrics.new_counter(metrics.JOBS_ENDED)
        self._attempts = metrics.new_counter(metrics.JOB_ATTEMPTS)
        self._audio = metrics.new_counter(metrics.JOB_AUDIO)
        self._webhooks = metrics.new_counter(metrics.WEBHOOK_ATTEMPTS)
        self._undelivered = metrics.new_counter(metrics.WEBHOOKS_UNDELIVERED)
        self._store_errors = metrics.new_counter(metrics.JOB_STORE_ERRORS)
        self.sampler = Sampler(self._sample)

    def waiting(self, backlog: JobBacklog) -> None:
        """Takes what the store has now."""
        self._backlog = backlog

    def attempt_ended(self, end: AttemptEnd) -> None:
        self._attempts.inc(tags={"outcome": end.outcome})
        if end.outcome in ("completed", "failed"):
            self._ended.inc(tags={"status": end.outcome, "code": end.code or "none"})

    def expired(self, num_jobs: int) -> None:
        self._ended.inc(num_jobs, tags={"status": "expired", "code": "none"})

    def recognized(self, audio_s: float) -> None:
        if audio_s > 0:  # Ray's counters take no 0
            self._audio.inc(audio_s)

    def webhook_tried(self, outcome: DeliveryOutcome) -> None:
        self._webhooks.inc(tags={"outcome": outcome})

    def webhook_given_up(self) -> None:
        self._undelivered.inc()

    def store_failed(self) -> None:
        self._store_errors.inc()

    def _sample(self) -> None:
        backlog = self._backlog
        self._jobs.set(backlog.num_queued, tags={"state": "queued"})
        self._jobs.set(backlog.num_running, tags={"state": "running"})
        self._queued_audio.set(backlog.queued_audio_s)
        oldest_s = 0.0
        if backlog.oldest_queued_at is not None:
            oldest_s = (datetime.now(UTC) - backlog.oldest_queued_at).total_seconds()
        self._oldest.set(max(0.0, oldest_s))
        self._on_runner.set(self._num_running())
