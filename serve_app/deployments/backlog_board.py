"""Passes the segmenters' backlog and the waiting jobs to the recognizer's autoscaling policy.

Serve calls the policies of all deployments in the controller's process, one after the other,
and gives each only the metrics of its own replicas. So the policies of the segmenter and of the
job runner store their replicas' reports here, and the recognizer's policy reads them. After a
restart of the controller the board is empty until they report again.

This is a separate module because Serve sends the module of a policy by value: each copy would
have its own board.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReportedBacklog:
    """The backlog of an application's segmenters.

    Attributes:
        audio_s: audio that is not recognized yet, summed over the segmenters that reported.
        all_reported: whether every running segmenter reported recently.
        at_s: monotonic time of the report.
    """

    audio_s: float
    all_reported: bool
    at_s: float


@dataclass(frozen=True, slots=True)
class ReportedJobs:
    """The jobs of an application that have not begun.

    Attributes:
        audio_s: their audio, as far as it is worth replicas.
        at_s: monotonic time of the report.
    """

    audio_s: float
    at_s: float


_board: dict[str, ReportedBacklog] = {}
_jobs: dict[str, ReportedJobs] = {}


def leave_backlog(app_name: str, backlog: ReportedBacklog) -> None:
    _board[app_name] = backlog


def backlog_of(app_name: str) -> ReportedBacklog | None:
    return _board.get(app_name)


def leave_jobs(app_name: str, jobs: ReportedJobs) -> None:
    _jobs[app_name] = jobs


def jobs_of(app_name: str) -> ReportedJobs | None:
    return _jobs.get(app_name)
