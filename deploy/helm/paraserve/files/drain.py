"""Finishes the requests of this Ray node before its pod ends: `drain.py SECONDS`, a preStop hook.

A pod that is being deleted leaves the Service at once, and KubeRay replaces it only when it is
gone. So the hook waits for requests, not for replicas. It tells Ray that the node is going
away, so that Serve starts replacements elsewhere, and ends when

- no request passes through this node's HAProxy or runs in a replica of this node, and
- no replacement is starting on another node: until it runs, others still call the replicas here.

The hook ends within 10 s when Ray, its control store (GCS) or the head is gone, and its exit
code is always 0: a failed hook does not keep a pod alive, it only raises an alarm.

Ray's client may hang or end its process when the GCS is gone. Therefore this process uses the
standard library only and watches a second one, `drain.py --watch`, which talks to Ray.
"""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POLL_S = 0.5
"""Time between two counts of the requests in flight."""

QUIET_S = 5.0
"""How long HAProxy must be without a request: until all nodes have updated the Service, which
takes busy ones seconds, and connections that clients keep open may bring another one."""

PLACEMENT_S = 10.0
"""How long Serve and Ray may take to start a replacement on a node with free resources."""

WORKER_S = 150.0
"""How long a new worker may take that the only replicas of a deployment move to. Until then
requests reach the replicas here through the other workers."""

STAGE_LIMIT_S = 60.0
"""How long calls from other nodes are waited for when nothing can replace the replicas here.
Such calls never stop under load; the ingress repeats a call whose replica is gone."""

SILENCE_S = 8.0
"""How long the second process may be silent before the hook gives up."""

START_S = 60.0
"""How long a busy node may take to start the second process."""

_CALL_S = 3.0
_CONTROLLER = "SERVE_CONTROLLER_ACTOR"
_REPLICA = "SERVE_REPLICA::"
_PAGE_SUFFIX = "-ui"
"""End of the web page's application name. Browsers hold its connections open for hours."""

_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""What a gRPC client sends first: the preface of HTTP/2 and empty settings."""


@dataclass(frozen=True, slots=True)
class Node:
    """This Ray node.

    Attributes:
        raylet: process id of its raylet.
        node_id: Ray's id of the node.
        gcs_address: `host:port` of the GCS.
    """

    raylet: int
    node_id: str
    gcs_address: str


def main(limit_s: float, node: Node | None = None) -> None:
    """Drains the node; returns when its pod may end.

    Args:
        limit_s: longest wait.
        node: to drain; by default the one that runs on this machine.
    """
    node = node or find_node()
    if node is None:
        print("drain: no Ray node runs here", flush=True)
        return
    if not gcs_answers(node.gcs_address):
        print(f"drain: the GCS at {node.gcs_address} does not answer", flush=True)
        return
    command = [sys.executable, __file__, "--watch", node.gcs_address, node.node_id, str(limit_s)]
    # Ray's own messages go to stderr; stdout carries one line per count.
    with subprocess.Popen(command, stdout=subprocess.PIPE) as watcher:  # noqa: S603 (no shell)
        try:
            _supervise(watcher, node, limit_s)
        finally:
            watcher.kill()


def _supervise(watcher: subprocess.Popen[bytes], node: Node, limit_s: float) -> None:
    """Returns when the watcher has ended, or waiting for it has become pointless."""
    if watcher.stdout is None:
        raise ValueError("the watcher's stdout must be a pipe")
    os.set_blocking(watcher.stdout.fileno(), False)
    began_s = heard_s = answered_s = time.monotonic()
    has_begun = False
    while (now_s := time.monotonic()) - began_s < limit_s:
        lines = watcher.stdout.read()
        if lines:
            has_begun, heard_s = True, now_s
            for line in filter(None, lines.decode(errors="replace").splitlines()):
                print(line, flush=True)
        if watcher.poll() is not None:
            return
        if not is_running(node.raylet):
            print("drain: the Ray node has ended", flush=True)
            return
        if gcs_answers(node.gcs_address, timeout_s=1.0):
            answered_s = time.monotonic()
        silence_s = now_s - heard_s
        if silence_s > SILENCE_S and (now_s - answered_s > SILENCE_S or has_begun):
            print("drain: Ray does not answer", flush=True)
            return
        if not has_begun and silence_s > START_S:
            print(f"drain: could not connect to Ray within {START_S:.0f} s", flush=True)
            return
        time.sleep(POLL_S)
    print(f"drain: requests still run after {limit_s:.0f} s", flush=True)


def find_node(proc: Path = Path("/proc")) -> Node | None:
    """Returns the Ray node of this machine, as its raylet's command line describes it."""
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(command[0]).name != "raylet" or not is_running(int(folder.name), proc):
                continue
            options = dict(each.lstrip("-").split("=", 1) for each in command[1:] if "=" in each)
            node_id = options.get("node_id") or options.get("node-id", "")
            address = options.get("gcs-address") or options.get("gcs_address", "")
            if node_id and address:
                return Node(int(folder.name), node_id, address)
    return None


def is_running(pid: int, proc: Path = Path("/proc")) -> bool:
    """Returns whether a process exists and has not ended."""
    try:
        state = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


def gcs_answers(address: str, timeout_s: float = 3.0) -> bool:
    """Returns whether a gRPC server answers at the address; a stopped process does not."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout_s) as connection:
            connection.settimeout(timeout_s)
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return True
            connection.sendall(_HTTP2)
            return bool(connection.recv(1))
    except (OSError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class InFlight:
    """The requests in flight on the node.

    Attributes:
        proxied: in HAProxy, wherever they are answered.
        arrived: at HAProxy so far; a short request comes and goes between two counts.
        ingress: in replicas that answer HTTP; lost if the node ends.
        stages: calls in other replicas; repeated elsewhere if the node ends.
    """

    proxied: int
    arrived: int
    ingress: int
    stages: int


@dataclass(slots=True)
class Waiting:
    """Decides when the node may end.

    Attributes:
        clock: monotonic time in s.
    """

    clock: Callable[[], float] = time.monotonic
    _arrived: int | None = field(default=None, init=False)
    _quiet_since_s: float | None = field(default=None, init=False)
    _stages_since_s: float | None = field(default=None, init=False)

    def is_over(self, found: InFlight, is_moving: Callable[[], bool]) -> bool:
        """Returns whether the wait is over.

        Args:
            found: requests in flight now.
            is_moving: whether a replacement is starting elsewhere; asked only if it matters.
        """
        now_s = self.clock()
        has_arrived = self._arrived not in (None, found.arrived)
        self._arrived = found.arrived
        if found.proxied or has_arrived:
            self._quiet_since_s = self._stages_since_s = None
            return False
        if self._quiet_since_s is None:
            self._quiet_since_s = now_s
        if found.ingress or now_s - self._quiet_since_s < QUIET_S:
            self._stages_since_s = None
            return False
        if is_moving():
            self._stages_since_s = None
            return False
        if self._stages_since_s is None:
            self._stages_since_s = now_s
        return not found.stages or now_s - self._stages_since_s >= STAGE_LIMIT_S


def watch(gcs_address: str, node_id: str, limit_s: float) -> None:
    """Drains the node through Ray, and prints a line whenever it has counted the requests."""
    import ray

    ray.init(address=gcs_address, namespace="serve", log_to_driver=False, logging_level="ERROR")
    replicas = replicas_on(node_id)
    if replicas:
        # Without replicas Ray would stop the node at once, and with it HAProxy.
        request_drain(gcs_address, node_id, limit_s)
    began_s = time.monotonic()
    waiting, told = Waiting(), ""

    def is_moving() -> bool:
        return replacement_is_starting(node_id, replicas, time.monotonic() - began_s)

    while True:
        found = count_in_flight(node_id, replicas)
        line = (
            f"drain: {found.proxied} requests in HAProxy, {found.ingress} in ingress replicas, "
            f"{found.stages} calls in other replicas"
        )
        print(line if line != told else "", flush=True)  # an empty line is a sign of life
        told = line
        if waiting.is_over(found, is_moving):
            return
        time.sleep(POLL_S)


def request_drain(gcs_address: str, node_id: str, limit_s: float) -> None:
    """Tells Ray that the node is going away."""
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    # Ray ends the actors at the deadline, and Serve stops replicas that have no replacement
    # their graceful_shutdown_timeout_s earlier, which is at most `limit_s`.
    deadline_ms = int((time.time() + 2 * limit_s + 60) * 1000)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = GcsClient(address=gcs_address).drain_node(
        node_id, reason, "the pod is being deleted", deadline_ms
    )
    if not accepted:
        print(f"drain: Ray does not drain the node: {why}", flush=True)


def replicas_on(node_id: str) -> dict[str, Any]:
    """Returns handles of Serve's live replicas on a node by actor name, without the web page."""
    import ray
    from ray._private import state

    names = [
        actor["Name"]
        for actor in state.actors(actor_state_name="ALIVE").values()
        if actor["Address"]["NodeID"] == node_id and actor["Name"].startswith(_REPLICA)
    ]
    found = {}
    for name in names:
        if not _application(name).endswith(_PAGE_SUFFIX):
            with suppress(ValueError):
                found[name] = ray.get_actor(name, namespace="serve")
    return found


def count_in_flight(node_id: str, replicas: dict[str, Any]) -> InFlight:
    """Returns the requests in flight; replicas that have ended are removed from the mapping."""
    import ray

    calls = {name: each.get_num_ongoing_requests.remote() for name, each in replicas.items()}
    if calls:
        ray.wait(list(calls.values()), num_returns=len(calls), timeout=_CALL_S)
    numbers = {"ingress": 0, "stages": 0}
    for name, call in calls.items():
        kind = "ingress" if _deployment(name) == "Ingress" else "stages"
        try:
            numbers[kind] += ray.get(call, timeout=0.1)
        except ray.exceptions.GetTimeoutError:
            numbers[kind] += 1  # too busy to answer, so not idle
        except ray.exceptions.RayError:
            del replicas[name]
    return InFlight(*requests_of_proxy(node_id), numbers["ingress"], numbers["stages"])


def replacement_is_starting(node_id: str, replicas: dict[str, Any], elapsed_s: float) -> bool:
    """Returns whether a replacement of the replicas starts on another node, or soon may.

    One that waits for a new worker counts if nothing else could answer in its place, and only
    beside other workers: a lone one has left the Service, and is replaced when it is gone.

    Args:
        node_id: the node that is being drained.
        replicas: its live replicas by actor name.
        elapsed_s: time since the drain began, in s.
    """
    import ray
    from ray._private import state

    if not replicas:
        return False
    try:
        controller = ray.get_actor(_CONTROLLER, namespace="serve")
        details = ray.get(controller.get_serve_instance_details.remote(), timeout=_CALL_S)
    except (ValueError, ray.exceptions.RayError):
        return False  # nobody is there who could replace them
    is_missing = False
    for application, deployment in {(_application(name), _deployment(name)) for name in replicas}:
        parts = details["applications"].get(application, {}).get("deployments", {})
        found = parts.get(deployment, {}).get("replicas", ())
        elsewhere = {each["state"] for each in found if each.get("node_id") not in (None, node_id)}
        if elsewhere & {"STARTING", "UPDATING"}:
            return True
        is_waiting = any(
            each["state"] == "STARTING" and each.get("node_id") is None for each in found
        )
        is_missing |= is_waiting and "RUNNING" not in elsewhere
    if elapsed_s >= (WORKER_S if is_missing else PLACEMENT_S):
        return False
    schedulable = {
        each["NodeID"]
        for each in state.nodes()
        if each["Alive"] and each["NodeID"] != node_id and each["Resources"].get("CPU", 0) > 0
    }
    if is_missing and schedulable:
        return True
    free = state.available_resources_per_node()
    return any(free.get(each, {}).get("CPU", 0) > 0 for each in schedulable)


def requests_of_proxy(node_id: str) -> tuple[int, int]:
    """Returns how many requests pass through the HAProxy of a node, and how many ever have.

    Processes that a newer HAProxy has replaced live as long as they have requests, and do not
    tell how many: each counts as one. A newer one counts its own requests, from 0.
    """
    configured = os.environ.get("RAY_SERVE_HAPROXY_SOCKET_PATH", "/tmp/haproxy-serve/admin.sock")  # noqa: S108  # Ray's default
    path = Path(configured)
    path = path.parent / node_id / path.name
    try:
        rows = csv.DictReader(_ask_haproxy(path, "show stat").lstrip("# ").splitlines())
        applications = [
            row
            for row in rows
            if row["svname"] == "BACKEND"
            and row["pxname"].startswith("http-")
            and not row["pxname"].endswith(_PAGE_SUFFIX)
        ]
        current = sum(int(row["scur"] or 0) + int(row["qcur"] or 0) for row in applications)
        arrived = sum(int(row["stot"] or 0) for row in applications)
        info = _ask_haproxy(path, "show info").splitlines()
        pid = next((each.split(":")[1].strip() for each in info if each.startswith("Pid:")), "")
    except (OSError, KeyError, ValueError):
        current, arrived, pid = 0, 0, ""
    return current + sum(each != pid for each in _haproxy_processes(node_id)), arrived


def _ask_haproxy(path: Path, command: str) -> str:
    """Returns the answer of HAProxy's admin socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CALL_S)
        connection.connect(str(path))
        connection.sendall(f"{command}\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")


def _haproxy_processes(node_id: str) -> list[str]:
    """Returns the process ids of the HAProxy processes of a node."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):
            is_haproxy = (folder / "comm").read_text().strip() == "haproxy"
            if is_haproxy and node_id in (folder / "cmdline").read_bytes().decode(errors="replace"):
                found.append(folder.name)
    return found


def _application(replica: str) -> str:
    return replica.removeprefix(_REPLICA).split("#")[0]


def _deployment(replica: str) -> str:
    return replica.removeprefix(_REPLICA).split("#")[1]


if __name__ == "__main__":
    if sys.argv[1] == "--watch":
        watch(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    else:
        main(float(sys.argv[1]))
