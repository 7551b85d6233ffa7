"""The logs of replicas and pods.

Replicas write to files on their nodes, which Ray's dashboard serves. The output of the
containers holds the messages of Ray itself and of the autoscaler.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from serve_app.ops.dashboard import Dashboard
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import POD, Kube

_POLL_S = 2.0
_ID_FIELDS = ("paraserve_request_id", "request_id")


@dataclass(frozen=True, slots=True)
class LogFile:
    """The log file of a replica; `source` is printed before its lines."""

    source: str
    node_id: str
    path: str


def replica_logs(applications: JsonView, deployment: str | None) -> list[LogFile]:
    """Returns the log files of replicas, including dead ones that Serve still knows.

    Args:
        applications: Serve's details of them.
        deployment: of the replicas; None for all.
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
    """Returns whether a line belongs to the request; True if no request is given."""
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
    # The text may be part of another id, or of a message.
    return any(fields.get(field) == request_id for field in _ID_FIELDS) or not any(
        field in fields for field in _ID_FIELDS
    )


def new_lines(seen: Sequence[str], tail: Sequence[str]) -> Sequence[str]:
    """Returns the lines that were added between two reads of a log's end.

    Args:
        seen: the earlier lines, oldest first.
        tail: the later lines.
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
    """Yields source and line; if followed, new lines and the lines of new replicas too.

    Args:
        dashboard: of the cluster.
        files: returns the current log files.
        num_lines: of each file, at the start and in each poll; maximum.
        follow: whether to continue.
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
    """Returns the last lines of a container's output.

    Args:
        kube: namespace.
        pod: name of the pod.
        container: name of the container.
        num_lines: maximum.
        previous: read the output before the last restart.

    Raises:
        ClusterRefused: the API server refuses.
    """
    query = {"container": container, "tailLines": str(num_lines)}
    if previous:
        query["previous"] = "true"
    return kube.get_text(POD, pod, "log", query).splitlines()
