"""Where the segmenters' backlog is left for the recognizer's autoscaling policy.

Serve asks the policies of all deployments in one process, the controller's, one after
the other, and gives each the metrics of its own replicas only. So the segmenter's
policy leaves what its replicas report here, and the recognizer's policy picks it up:
no actor in between, nothing to wait for, nothing that outlives the controller. A
controller that starts anew has an empty board until the segmenters report again.

A module of its own, because Serve sends the module of a policy by value, and each copy
would have a board to itself.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReportedBacklog:
    """What the segmenters of an application know of.

    Attributes:
        audio_s: audio that is still to be recognized, summed over those that reported.
        all_reported: whether every running segmenter has, lately.
        at_s: monotonic time at which it was left here.
    """

    audio_s: float
    all_reported: bool
    at_s: float


_board: dict[str, ReportedBacklog] = {}


def leave_backlog(app_name: str, backlog: ReportedBacklog) -> None:
    _board[app_name] = backlog


def backlog_of(app_name: str) -> ReportedBacklog | None:
    return _board.get(app_name)
