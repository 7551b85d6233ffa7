"""Empties this Ray node before its pod ends: `drain.py SECONDS`, as a preStop hook.

Ray is told that the node goes. Serve then starts replacements elsewhere, sends no new
requests here, and stops the replicas when what they have begun is done. The hook ends
when no replica is left, or after the given time.
"""

from __future__ import annotations

import subprocess
import sys
import time

import ray
from ray.util.state import list_actors

POLL_S = 2.0


def main(limit_s: float) -> None:
    ray.init(address="auto", namespace="serve", log_to_driver=False)
    context = ray.get_runtime_context()
    drain(context.gcs_address, context.get_node_id(), limit_s)


def drain(gcs_address: str, node_id: str, limit_s: float) -> None:
    """Returns when no replica is left on the node, or the time is over."""
    deadline = time.monotonic() + limit_s
    command = ["ray", "drain-node", "--address", gcs_address, "--node-id", node_id]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the pod ends"]
    # With a deadline Ray would end actors that are still at work when it passes.
    command += ["--deadline-remaining-seconds", str(int(limit_s) + 60)]
    subprocess.run(command, check=True)  # noqa: S603 (no word of it is a caller's)
    while replicas_on(node_id) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def replicas_on(node_id: str) -> int:
    """Returns how many of Serve's replicas are alive on a node."""
    actors = list_actors(filters=[("node_id", "=", node_id), ("state", "=", "ALIVE")], limit=1000)
    return sum(actor.name.startswith("SERVE_REPLICA::") for actor in actors)


if __name__ == "__main__":
    main(float(sys.argv[1]))
