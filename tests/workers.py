"""How pytest-xdist spreads the tests over its workers (`--dist loadgroup`).

Tests that start a cluster, an API server or a browser run in workers of their own, beside the
unit tests; once these are done, one more worker takes such tests. Tests that share something
expensive form a group, which one worker runs: by default those of a folder. Unit tests go to the
workers file by file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

NUM_CLUSTER_WORKERS = 3 if (os.cpu_count() or 1) >= 8 else 1
"""Workers for clusters beside those for unit tests."""
NUM_CLUSTER_WORKERS_AT_END = NUM_CLUSTER_WORKERS + 1
"""The same once the unit tests are done. On two cores three clusters start in minutes rather than
seconds."""

_CLUSTER_MARKS = frozenset({"ray", "browser", "k8s"})
_SLOW_MARKS = frozenset({"slow", "reference"})
_CLUSTER_MARK = re.compile(rf"mark\.({'|'.join(sorted(_CLUSTER_MARKS))})\b")
_LONG_TIMEOUT_S = 400
"""A busy machine takes minutes to start a cluster, or for what takes seconds of a whole core."""

_OTHER_APPS = "other-apps"
_CHART = "chart"
_GROUPS = {
    # They deploy applications beside the one that the rest of their folder shares.
    "tests/service/test_faults.py": _OTHER_APPS,
    "tests/service/test_hybrid.py": _OTHER_APPS,
    "tests/service/test_live.py": _OTHER_APPS,
    "tests/service/test_jobs.py": _OTHER_APPS,
    "tests/service/test_models.py": _OTHER_APPS,
    "tests/service/test_onnx.py": _OTHER_APPS,
    "tests/deploy/test_draining.py": _CHART,
    "tests/deploy/test_serving.py": _CHART,
}
_EACH_TEST_BY_ITSELF = frozenset({"tests/service/test_lifecycle.py"})
_EACH_FILE_BY_ITSELF = ("tests/ui/", "tests/compatibility/")
_FIRST = (
    # They start Ray in the worker's own process, and share the service.
    *("@batch", "@other-apps", "@service"),
    # The longest of the others.
    *("@deploy", "@chart", "@loadtests", "@lifecycle"),
)
"""Groups in the order in which they begin; the others follow by their number of tests."""
_GROUP = "@"

_FIRST_PORT = 30_000
_NUM_PORTS = 250
_ROOT = Path(__file__).parents[1]


def give_slow_tests_time(items: Iterable[pytest.Item]) -> None:
    """Gives a longer timeout to the tests that start something or compute for long."""
    for item in items:
        names = {mark.name for mark in item.iter_markers()}
        if names & (_CLUSTER_MARKS | _SLOW_MARKS) and "timeout" not in names:
            item.add_marker(pytest.mark.timeout(_LONG_TIMEOUT_S))


def give_worker_its_own_ports() -> None:
    """Sets which ports the Ray Serve replicas of this worker's clusters listen on.

    HAProxy may send requests to the port of a replica that has just ended. Nobody else's
    replica may listen there. The ports end below those of outgoing connections.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = _FIRST_PORT + int(worker) % 10 * _NUM_PORTS
    os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", str(first))
    os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT", str(first + _NUM_PORTS))


@cache
def group_of(path: str) -> str | None:
    """Returns the group of a file's tests, None if they need no cluster."""
    if not _CLUSTER_MARK.search((_ROOT / path).read_text(encoding="utf-8")):
        return None
    return _GROUPS.get(path, Path(path).parent.name)


def scope_of(nodeid: str) -> str:
    """Returns what a worker runs whole: a group, a file, or a test by itself."""
    path, _, name = nodeid.partition("::")
    group = group_of(path)
    if group is None:
        return path
    if path in _EACH_TEST_BY_ITSELF:
        return f"{_GROUP}{Path(path).stem.removeprefix('test_')}-{name}"
    if path.startswith(_EACH_FILE_BY_ITSELF):
        return f"{_GROUP}{group}-{Path(path).stem.removeprefix('test_')}"
    return f"{_GROUP}{group}"


def is_group(scope: str) -> bool:
    return scope.startswith(_GROUP)


class ClusterScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist is untyped
    """Gives groups to some workers and files to the others.

    A worker that had files may take groups when no file is left. A worker that had groups takes
    files only if nobody else is left to do it: a unit test must not find what a cluster has left
    in its process.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        self._takes_groups: dict[WorkerController, bool] = {}

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _reschedule(self, node: WorkerController) -> None:
        # A worker needs the next test to know what to tear down, and no more: what it is given
        # early waits for it while another worker idles.
        if self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        wants_groups = self._kind_of(node)
        if not any(is_group(scope) == wants_groups for scope in self.workqueue):
            if not self._may_change(node):
                node.shutdown()
                return
            wants_groups = self._takes_groups[node] = not wants_groups
        scopes = [scope for scope in self.workqueue if is_group(scope) == wants_groups]
        self.workqueue.move_to_end(min(scopes, key=_rank), last=False)
        super()._assign_work_unit(node)

    def _kind_of(self, node: WorkerController) -> bool:
        """Whether a worker takes groups; decides that for a new one."""
        if node not in self._takes_groups:
            num_taking = sum(self._takes_groups[each] for each in self._active(node))
            wanted = min(NUM_CLUSTER_WORKERS, max(self.numnodes - 1, 1))
            has_groups = any(map(is_group, self.workqueue))
            has_files = not all(map(is_group, self.workqueue))
            self._takes_groups[node] = has_groups and (num_taking < wanted or not has_files)
        return self._takes_groups[node]

    def _may_change(self, node: WorkerController) -> bool:
        """Whether a worker takes the other kind, now that its own is done."""
        others = [self._takes_groups[other] for other in self._active(node)]
        if self._takes_groups[node]:
            return all(others)
        return sum(others) < NUM_CLUSTER_WORKERS_AT_END

    def _active(self, but: WorkerController) -> list[WorkerController]:
        return [
            node
            for node in self.nodes
            if node is not but and node in self._takes_groups and not node.shutting_down
        ]


def _rank(scope: str) -> int:
    for rank, prefix in enumerate(_FIRST):
        if scope.startswith(prefix):
            return rank
    return len(_FIRST)
