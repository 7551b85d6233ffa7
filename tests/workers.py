"""How pytest-xdist spreads the tests over its workers.

Tests that start a cluster, an API server or a browser wait most of their time. They run in
workers of their own, beside the unit tests that use the cores meanwhile. Tests that share
something expensive form a group (`pytest.mark.xdist_group`), which one worker runs; by default
the cluster tests of a folder are a group. Unit tests go to the workers file by file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

CLUSTER_MARKS = frozenset({"ray", "browser", "k8s"})
NUM_CLUSTER_WORKERS = 3
_CLUSTER_TIMEOUT_S = 400  # A test may be the first, which starts the cluster on a busy machine.

# The longest ones begin first; the others follow by their number of tests.
_LONGEST_FIRST = (
    "other-apps",
    "service",
    "lifecycle-1",
    "lifecycle-2",
    "lifecycle-3",
    "lifecycle-4",
)
_GROUP = "@"
# Below the ports that Linux gives to outgoing connections.
_FIRST_INGRESS_PORT = 30_000
_NUM_INGRESS_PORTS = 250


def needs_cluster(item: pytest.Item) -> bool:
    """Whether a test needs a cluster, an API server or a browser."""
    return any(mark.name in CLUSTER_MARKS for mark in item.iter_markers())


def prepare_cluster_tests(items: Iterable[pytest.Item]) -> None:
    """Gives the cluster tests that name no group the one of their folder, and time to start."""
    for item in filter(needs_cluster, items):
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.parent.name))
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_CLUSTER_TIMEOUT_S))


def give_worker_its_own_ports() -> None:
    """Sets which ports the Ray Serve replicas of this worker's clusters listen on.

    HAProxy may send requests to the port of a replica that has just ended. Nobody else's
    replica may listen there.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = _FIRST_INGRESS_PORT + int(worker) % 10 * _NUM_INGRESS_PORTS
    os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", str(first))
    os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT", str(first + _NUM_INGRESS_PORTS))


class ClusterScheduling(LoadGroupScheduling):
    """Gives groups to some workers and files to the others.

    A worker changes to the other kind only if nobody else is left to do it: a unit test must
    not find what a cluster has left in its process.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        self._takes_groups: dict[WorkerController, bool] = {}

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)
        return nodeid.partition("::")[0] if scope == nodeid else f"{_GROUP}{scope}"

    def _assign_work_unit(self, node: WorkerController) -> None:
        wants_groups = self._kind_of(node)
        if not any(is_group(scope) == wants_groups for scope in self.workqueue):
            if self._others_do_the_rest(node):
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

    def _others_do_the_rest(self, node: WorkerController) -> bool:
        takes_groups = self._takes_groups[node]
        return any(self._takes_groups[other] != takes_groups for other in self._active(node))

    def _active(self, but: WorkerController) -> list[WorkerController]:
        return [
            node
            for node in self.nodes
            if node is not but and node in self._takes_groups and not node.shutting_down
        ]


def is_group(scope: str) -> bool:
    return scope.startswith(_GROUP)


def _rank(scope: str) -> int:
    name = scope.removeprefix(_GROUP)
    return _LONGEST_FIRST.index(name) if name in _LONGEST_FIRST else len(_LONGEST_FIRST)
