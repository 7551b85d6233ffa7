"""A Ray cluster of several nodes on this machine, and the application on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loadtests.serving import own_settings
from serve_app.launch import prepare_environment, wait_until_ready
from serve_app.settings import Settings

if TYPE_CHECKING:
    from ray._private.node import Node
    from ray.cluster_utils import Cluster

_LOCAL = "127.0.0.1"
# A loopback address, too; Ray would turn the usual one into that of the network card.
_NODE_ADDRESS = "127.0.0.2"
_OBJECT_STORE_BYTES = 256 * 2**20
_NODE_CPUS = 2
_READY_TIMEOUT_S = 120.0
_REPLICAS = 2
_STAGES = ("ingress", "segmenter", "recognizer", "punctuator")


class LocalNodes:
    """A head node without work, and worker nodes that can be killed and added.

    Args:
        num_workers: nodes that the replicas are spread over.
        dashboard_port: where jobs can be submitted; None for no dashboard.
    """

    def __init__(self, num_workers: int, dashboard_port: int | None = None) -> None:
        from ray.cluster_utils import Cluster

        # Idle workers in reserve would only take memory and processor time.
        system = {"prestart_worker_first_driver": False, "enable_worker_prestart": False}
        self._cluster: Cluster = Cluster(
            initialize_head=True,
            # Its handlers of signals could only be set by the main thread, and nodes
            # are added by others; `application` and `main` clean up instead.
            shutdown_at_exit=False,
            head_node_args={
                "num_cpus": 0,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "node_ip_address": _NODE_ADDRESS,
                "include_dashboard": dashboard_port is not None,
                "_system_config": system,
                **({} if dashboard_port is None else {"dashboard_port": dashboard_port}),
            },
        )
        self._workers: list[Node] = []
        for _ in range(num_workers):
            self.add()
        self._cluster.wait_for_nodes()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    @property
    def num_workers(self) -> int:
        return len(self._workers)

    def add(self) -> None:
        """Starts a worker node; it joins when it is up."""
        node = self._cluster.add_node(
            wait=False,
            num_cpus=_NODE_CPUS,
            object_store_memory=_OBJECT_STORE_BYTES,
            node_ip_address=_NODE_ADDRESS,
        )
        self._workers.append(node)

    def kill(self, number: int) -> int:
        """Kills a worker node with everything on it; returns its raylet's process id."""
        node = self._workers.pop(number)
        pid: int = node.all_processes["raylet"][0].process.pid
        self._cluster.remove_node(node, allow_graceful=False)
        return pid

    def shutdown(self) -> None:
        self._cluster.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped


def replicated_settings(assignments: Sequence[str] = ()) -> Settings:
    """Returns the demo profile with two replicas of every deployment."""
    return own_settings(
        [*(f"{stage}.deployment.num_replicas={_REPLICAS}" for stage in _STAGES), *assignments]
    )


@contextmanager
def application(settings: Settings, num_workers: int) -> Iterator[tuple[str, LocalNodes]]:
    """Runs the application on several nodes for the length of the block.

    One proxy listens, on the head node: the nodes share one address here, so that a
    proxy on each would compete for the port.

    Raises:
        StartFailed: it did not come up.
    """
    prepare_environment(settings)
    import ray
    from ray import serve

    from serve_app.app import build

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    nodes = LocalNodes(num_workers)
    try:
        ray.init(
            address=nodes.address,
            _node_ip_address=_NODE_ADDRESS,
            namespace="serve",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": settings.http.host, "port": settings.http.port},
        )
        serve.run(build(settings), name=settings.app_name, route_prefix="/")
        url = f"http://{_LOCAL}:{settings.http.port}"
        wait_until_ready(url, _READY_TIMEOUT_S)
        yield url, nodes
    finally:
        if ray.is_initialized():
            serve.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
            ray.shutdown()
        nodes.shutdown()
