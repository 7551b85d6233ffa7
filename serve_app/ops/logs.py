"""The logs of replicas and of pods.

Replicas write to files of their nodes, which Ray's dashboard serves; the output of the
containers holds what Ray itself says, and the autoscaler.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from serve_app.ops.dashboard import Dashboard
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import Kube

_POLL_S = 2.0
_ID_FIELDS = ("paraserve_request_id", "request_id")


@dataclass(frozen=True, slots=True)
class LogFile:
    """The log file of a replica; `source` is what is told before its lines."""

    source: str
    node_id: str
    path: str


def replica_logs(applications: JsonView, deployment: str | None) -> list[LogFile]:
    """Returns the log files of replicas, the dead that Serve still knows included.

    Args:
        applications: as Ray's dashboard tells them.
        deployment: whose; None for all.
    """
    files = []
    for _, application in applications.pairs():
        for name, details in application.at("deployments").pairs():
            if deployment not in (None, name):
                continue
            for kind in ("replicas", "recent_dead_replicas"):
                for replica in details.at(kind).each():
                    path = replica.at("log_file_path").text()
                    if path:
                        source = f"{name}/{replica.at('replica_id').text()}"
                        files.append(LogFile(source, replica.at("node_id").text(), path))
    return files


def matches(line: str, request_id: str | None) -> bool:
    """True if a line belongs to the request, or no request is asked for."""
    if request_id is None:
        return True
    if request_id not in line:
        return False
    try:
        fields = json.loads(line)
    except json.JSONDecodeError:
        return True  # a traceback that names it
    if not isinstance(fields, dict):
        return True
    # The id may be part of another one, or of a message.
    return any(fields.get(field) == request_id for field in _ID_FIELDS) or not any(
        field in fields for field in _ID_FIELDS
    )


def new_lines(seen: Sequence[str], tail: Sequence[str]) -> Sequence[str]:
    """Returns what a tail has that the tail before it had not.

    Args:
        seen: the tail before, oldest first.
        tail: the tail now.
    """
    for length in range(min(len(seen), len(tail)), 0, -1):
        if list(seen[-length:]) == list(tail[:length]):
            return tail[length:]
    return tail


def read_logs(
    dashboard: Dashboard,
    files: Callable[[], list[LogFile]],
    num_lines: int,
    follow: bool,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[str, str]]:
    """Yields source and line; goes on if followed, with replicas that come later.

    Args:
        dashboard: that serves the files.
        files: returns those that there are now.
        num_lines: of each, at most, to begin with and between two looks.
        follow: whether to go on.
        pause: waits for a number of s.

    Raises:
        ClusterRefused: the dashboard cannot be reached.
    """
    seen: dict[str, list[str]] = {}
    while True:
        for file in files():
            tail = dashboard.log_tail(file.node_id, file.path, num_lines)
            for line in new_lines(seen.get(file.path, []), tail):
                yield file.source, line
            seen[file.path] = tail
        if not follow:
            return
        pause(_POLL_S)


def container_logs(
    kube: Kube, pod: str, container: str, num_lines: int, previous: bool
) -> list[str]:
    """Returns the last lines that a container has written.

    Args:
        kube: where.
        pod: its name.
        container: its name.
        num_lines: at most.
        previous: of the container before its last restart.

    Raises:
        ClusterRefused: the API server refuses.
    """
    query = {"container": container, "tailLines": str(num_lines)}
    if previous:
        query["previous"] = "true"
    return kube.get_text(f"{kube.path('pods', pod)}/log", query, {}).splitlines()
