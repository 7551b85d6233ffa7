"""The preStop hook of the pods empties a node, on a real cluster of three nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.charting import CHART

pytestmark = pytest.mark.ray

_RESULTS = ("left ", "answered ", "elsewhere ")
# A head without CPUs, as in the chart, and two workers of which one goes. A request that
# takes a while is under way on it.
_SCRIPT = """
import importlib.util, sys, time
import ray
from ray import serve
from ray.cluster_utils import Cluster

spec = importlib.util.spec_from_file_location("drain", sys.argv[1])
drain = importlib.util.module_from_spec(spec)
spec.loader.exec_module(drain)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
first = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, namespace="serve")
serve.start(proxy_location="Disabled")

@serve.deployment(ray_actor_options={"num_cpus": 0.5}, graceful_shutdown_timeout_s=120)
class Slow:
    async def __call__(self, seconds):
        import asyncio
        await asyncio.sleep(seconds)
        return ray.get_runtime_context().get_node_id()

handle = serve.run(Slow.bind(), route_prefix=None)
node_id = handle.remote(0).result()
assert node_id == first.node_id
assert drain.replicas_on(node_id) == 1
second = cluster.add_node(num_cpus=1)
under_way = handle.remote(8)
time.sleep(1)
drain.drain(cluster.address, node_id, 90)
print("left", drain.replicas_on(node_id))
print("answered", under_way.result(timeout_s=1) == node_id)
print("elsewhere", handle.remote(0).result(timeout_s=30) == second.node_id)
serve.shutdown()
ray.shutdown()
cluster.shutdown()
"""


def test_hook_waits_for_running_work_and_leaves_the_node_empty() -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
    # Where `ray` is, as in the image.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(CHART / "files" / "drain.py")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Ray writes to stdout, too.
    told = [line for line in done.stdout.splitlines() if line.startswith(_RESULTS)]
    assert told == ["left 0", "answered True", "elsewhere True"]
