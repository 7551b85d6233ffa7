"""The autoscaling policies, as Ray Serve's controller calls them.

Each policy belongs to one deployment, not to the application: Serve reads an application's
policy only from a config file, and these must also work with `serve.run`. An instance lives
until the controller ends or the deployment's settings change; then all delays start anew, and
the number of replicas is kept.

Serve sends this module to the controller by value, so it has no global state.
Source: ray 2.60, serve/config.py and serve/_private/autoscaling_state.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ray.serve.autoscaling_policy import replica_queue_length_autoscaling_policy
from ray.serve.config import AutoscalingContext

from serve_app.deployments.backlog_board import (
    ReportedBacklog,
    ReportedJobs,
    backlog_of,
    jobs_of,
    leave_backlog,
    leave_jobs,
)
from serve_app.scheduling.autoscaling import LoadSample, ScalingLimits, ScalingPolicy

_REPORTS_MISSED = 5  # after this many, a replica's last report is ignored
_MIN_REPORT_AGE_S = 10.0


@dataclass(slots=True)
class _Seen:
    sent_at: float
    at_s: float


class _Reports:
    """The latest report of each replica, unless it is too old.

    The age of a report is measured with this process's clock, since clocks of other nodes may
    differ.
    """

    def __init__(self, report_interval_s: float) -> None:
        self.max_age_s = max(_MIN_REPORT_AGE_S, _REPORTS_MISSED * report_interval_s)
        self._seen: dict[str, _Seen] = {}

    def latest(self, ctx: AutoscalingContext, now: float) -> list[dict[str, float]]:
        """Returns the values by name, an entry per running replica that reports."""
        running = {replica.to_full_id_str(): replica for replica in ctx.running_replicas}
        self._seen = {name: seen for name, seen in self._seen.items() if name in running}
        raw = ctx.raw_metrics or {}
        reports: list[dict[str, float]] = []
        for name, replica in running.items():
            points = {
                metric: series[replica] for metric, series in raw.items() if series.get(replica)
            }
            if points and self._is_fresh(name, max(p[-1].timestamp for p in points.values()), now):
                reports.append({metric: series[-1].value for metric, series in points.items()})
        return reports

    def _is_fresh(self, name: str, sent_at: float, now: float) -> bool:
        seen = self._seen.get(name)
        if seen is None or sent_at != seen.sent_at:
            self._seen[name] = _Seen(sent_at, now)
            return True
        return now - seen.at_s <= self.max_age_s


class SegmenterPolicy:
    """Scales segmenters by their requests, and posts their backlog on the board.

    Args:
        report_interval_s: how often the replicas report.
    """

    def __init__(self, report_interval_s: float) -> None:
        self._reports = _Reports(report_interval_s)

    def __call__(self, ctx: AutoscalingContext) -> tuple[float, dict[str, object]]:
        now = time.monotonic()
        reports = self._reports.latest(ctx, now)
        backlog_s = [r["backlog_audio_s"] for r in reports if "backlog_audio_s" in r]
        leave_backlog(
            ctx.app_name or "",
            ReportedBacklog(sum(backlog_s), len(backlog_s) == len(ctx.running_replicas), now),
        )
        num_replicas, state = replica_queue_length_autoscaling_policy(ctx)
        return num_replicas, state


class JobRunnerPolicy:
    """Keeps the number of job runners, and posts the waiting jobs on the board.

    Args:
        report_interval_s: how often the replicas report.
    """

    def __init__(self, report_interval_s: float) -> None:
        self._reports = _Reports(report_interval_s)

    def __call__(self, ctx: AutoscalingContext) -> tuple[float, dict[str, object]]:
        now = time.monotonic()
        reports = self._reports.latest(ctx, now)
        # Each runner reports all jobs of the store.
        waiting_s = max((r.get("waiting_audio_s", 0.0) for r in reports), default=0.0)
        leave_jobs(ctx.app_name or "", ReportedJobs(waiting_s, now))
        num_replicas, state = replica_queue_length_autoscaling_policy(ctx)
        return num_replicas, state


class QueuedAudioPolicy:
    """Scales recognizers by the queued audio.

    Args:
        report_interval_s: how often the replicas report.
        limits: the fields of `ScalingLimits`.
    """

    def __init__(self, report_interval_s: float, limits: Mapping[str, float]) -> None:
        self._reports = _Reports(report_interval_s)
        self._policy = ScalingPolicy(ScalingLimits(**limits))  # type: ignore[arg-type]  # from JSON
        # Serve configures the handlers of this logger in the controller.
        self._logger = logging.getLogger("ray.serve")

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, object]]:
        now = time.monotonic()
        sample = self._sample(ctx, now)
        decided = self._policy.decide(sample, now)
        if decided != ctx.target_num_replicas:
            self._logger.info(
                f"queued audio: {ctx.target_num_replicas} -> {decided} replicas of "
                f"{ctx.deployment_name} for {sample}"
            )
        return decided, {}

    def _sample(self, ctx: AutoscalingContext, now: float) -> LoadSample:
        reports = self._reports.latest(ctx, now)
        backlog = backlog_of(ctx.app_name or "")
        if backlog is not None and now - backlog.at_s > self._reports.max_age_s:
            backlog = None
        jobs = jobs_of(ctx.app_name or "")
        if jobs is not None and now - jobs.at_s > self._reports.max_age_s:
            jobs = None
        return load_sample(
            reports,
            backlog,
            num_running=len(ctx.running_replicas),
            num_replicas=ctx.target_num_replicas,
            calls_wait=(ctx.total_queued_requests or 0.0) > 0,
            waiting_audio_s=0.0 if jobs is None else jobs.audio_s,
        )


def load_sample(
    reports: Sequence[Mapping[str, float]],
    backlog: ReportedBacklog | None,
    *,
    num_running: int,
    num_replicas: int,
    calls_wait: bool = False,
    waiting_audio_s: float = 0.0,
) -> LoadSample:
    """Returns the load of the recognizers.

    Args:
        reports: a `RecognizerLoad` of each recognizer that reports.
        backlog: of the segmenters, None if unknown.
        num_running: running recognizers.
        num_replicas: target number of recognizers.
        calls_wait: whether a caller's handle has calls queued that no replica has.
        waiting_audio_s: of jobs that have not begun; 0 if unknown, for the service does without
            the runners.
    """
    reports = [report for report in reports if "queued_audio_s" in report]
    queued_s = sum(report["queued_audio_s"] for report in reports)
    running_s = sum(report["running_audio_s"] for report in reports)
    rates = [report["rtfx"] for report in reports if report["rtfx"] > 0]
    # The recognizers' audio is part of the segmenters' backlog; the rest is hidden.
    hidden_s = None if backlog is None else max(0.0, backlog.audio_s - queued_s - running_s)
    all_reported = len(reports) == num_running and (backlog is None or backlog.all_reported)
    return LoadSample(
        queued_audio_s=queued_s if reports or num_running == 0 else None,
        running_audio_s=running_s if reports or num_running == 0 else None,
        hidden_audio_s=hidden_s,
        rtfx_per_replica=sum(rates) / len(rates) if rates else None,
        num_replicas=num_replicas,
        throughput=sum(report["audio_s_per_s"] for report in reports) if reports else None,
        all_reported=all_reported,
        starting=num_running == 0 < num_replicas,
        in_use=calls_wait or any(report.get("background_audio_s", 0.0) > 0 for report in reports),
        waiting_audio_s=waiting_audio_s,
    )
