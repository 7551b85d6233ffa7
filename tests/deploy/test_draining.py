"""The preStop hook of the pods waits for requests, and for nothing else."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import ray
from ray.serve._private.common import ReplicaState

from loadtests.serving import environment_without_cluster
from tests.deploy.charting import CHART, cluster_specs, only, ready_values, render

SCRIPT = CHART / "files" / "drain.py"


@pytest.fixture(scope="module")
def drain() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("drain_hook", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["drain_hook"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["drain_hook"]


def test_ray_does_not_wait_for_replicas_after_the_hook() -> None:
    """A lone worker's replicas have nowhere to go, and nothing replaces its pod meanwhile."""
    (spec,) = cluster_specs(only(render(ready_values("demo-cpu")), "RayService"))
    groups = spec["workerGroupSpecs"]
    for group in (*groups, spec["headGroupSpec"]):
        (container,) = group["template"]["spec"]["containers"]
        waits = {entry["name"]: entry.get("value") for entry in container["env"]}
        expected = "0" if "lifecycle" in container else None
        assert waits.get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S") == expected
    assert all("lifecycle" in each["template"]["spec"]["containers"][0] for each in groups)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def nothing_moves() -> bool:
    return False


def time_until_over(
    drain: ModuleType,
    clock: Clock,
    counts: Callable[[float], tuple[int, int, int, int]],
    is_moving: Callable[[], bool] = nothing_moves,
    limit_s: float = 500.0,
) -> float:
    """Returns when the wait is over, for counts of requests by time."""
    waiting = drain.Waiting(clock)
    while not waiting.is_over(drain.InFlight(*counts(clock.now)), is_moving):
        clock.now += drain.POLL_S
        if clock.now > limit_s:
            return limit_s
    return clock.now


def test_wait_is_over_at_once_when_nothing_is_in_flight(drain: ModuleType, clock: Clock) -> None:
    assert time_until_over(drain, clock, lambda now: (0, 9, 0, 0)) <= 5.0


@pytest.mark.parametrize("place", [0, 2, 3])
def test_request_is_waited_for_wherever_it_is(drain: ModuleType, clock: Clock, place: int) -> None:
    """In HAProxy, in the ingress, or as a call of an ingress elsewhere."""

    def counts(now: float) -> tuple[int, int, int, int]:
        numbers = [0, 1, 0, 0]
        numbers[place] = int(now < 30)
        return numbers[0], numbers[1], numbers[2], numbers[3]

    assert 30 <= time_until_over(drain, clock, counts) <= 35


def test_requests_that_come_and_go_between_two_counts_hold_the_node(
    drain: ModuleType, clock: Clock
) -> None:
    """The Service still brings one each 3 s."""
    ended = time_until_over(drain, clock, lambda now: (0, int(min(now, 30) // 3), 0, 0))
    assert 34 <= ended <= 36


def test_replicas_that_have_nowhere_to_go_are_not_waited_for(
    drain: ModuleType, clock: Clock
) -> None:
    assert time_until_over(drain, clock, lambda now: (0, 0, 0, 0), nothing_moves) <= 5.0


def test_replacement_that_starts_elsewhere_is_waited_for(drain: ModuleType, clock: Clock) -> None:
    ended = time_until_over(drain, clock, lambda now: (0, 0, 0, 0), lambda: clock.now < 20)
    assert 20 <= ended <= 21


def test_calls_from_elsewhere_that_never_end_do_not_hold_the_node(
    drain: ModuleType, clock: Clock
) -> None:
    ended = time_until_over(drain, clock, lambda now: (0, 0, 0, 3))
    assert drain.STAGE_LIMIT_S <= ended <= drain.STAGE_LIMIT_S + 6


def test_requests_of_other_nodes_hold_the_node_only_until_one_gap(
    drain: ModuleType, clock: Clock
) -> None:
    """HAProxy on other nodes repeats a connection that is refused."""
    ended = time_until_over(drain, clock, lambda now: (0, 0, int(now != 10.0), 0))
    assert ended == 10.0


def test_node_is_found_by_its_raylet(drain: ModuleType, tmp_path: Path) -> None:
    def process(pid: int, *command: str, state: str = "S") -> None:
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "cmdline").write_bytes("\0".join(command).encode())
        (folder / "stat").write_text(f"{pid} (any) name) {state} 1 1")

    process(7, "python", "--node_id=other")
    process(8, "/ray/raylet", "--node_id=gone", "--gcs-address=head:6379", state="Z")
    assert drain.find_node(tmp_path) is None
    process(9, "/ray/raylet", "--raylet_socket_name=s", "--node_id=ab", "--gcs-address=head:6379")
    assert drain.find_node(tmp_path) == drain.Node(9, "ab", "head:6379")


@pytest.mark.parametrize(
    ("state", "node_id", "is_starting"),
    [
        (ReplicaState.STARTING, "other", True),
        (ReplicaState.STARTING, None, False),  # no node has room for it
        (ReplicaState.RUNNING, "other", False),
        (ReplicaState.STARTING, "here", False),
    ],
)
def test_replacement_counts_once_it_has_a_node(
    drain: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    state: ReplicaState,
    node_id: str | None,
    is_starting: bool,
) -> None:
    replicas = [{"state": state, "node_id": node_id}]
    deployments = {"Recognizer": {"replicas": replicas}}
    details = {"applications": {"paraserve": {"deployments": deployments}}}
    controller = SimpleNamespace(get_serve_instance_details=SimpleNamespace(remote=lambda: details))
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: controller)
    monkeypatch.setattr(ray, "get", lambda found, timeout: found)
    monkeypatch.setattr("ray._private.state.nodes", list)
    monkeypatch.setattr("ray._private.state.available_resources_per_node", dict)
    here = {"SERVE_REPLICA::paraserve#Recognizer#1": None}
    assert drain.replacement_is_starting("here", here, drain.PLACEMENT_S) is is_starting


@pytest.mark.parametrize(
    ("replicas", "workers", "elapsed_s", "waits"),
    [
        ([(ReplicaState.STARTING, None)], ["other"], 30.0, True),
        # A lone worker: its pod is replaced when it is gone.
        ([(ReplicaState.STARTING, None)], [], 30.0, False),
        # Others answer in its place.
        ([(ReplicaState.STARTING, None), (ReplicaState.RUNNING, "other")], ["other"], 30.0, False),
        # One on a node that is being drained as well does not.
        (
            [(ReplicaState.STARTING, None), (ReplicaState.PENDING_MIGRATION, "third")],
            ["other", "third"],
            30.0,
            True,
        ),
        ([(ReplicaState.STARTING, None)], ["other"], 1000.0, False),
    ],
)
def test_replacement_that_needs_a_new_worker_is_waited_for_while_requests_come_in_elsewhere(
    drain: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    replicas: list[tuple[ReplicaState, str | None]],
    workers: list[str],
    elapsed_s: float,
    waits: bool,
) -> None:
    found = [{"state": state, "node_id": node_id} for state, node_id in replicas]
    found.append({"state": ReplicaState.PENDING_MIGRATION, "node_id": "here"})
    details = {"applications": {"paraserve": {"deployments": {"Ingress": {"replicas": found}}}}}
    controller = SimpleNamespace(get_serve_instance_details=SimpleNamespace(remote=lambda: details))
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: controller)
    monkeypatch.setattr(ray, "get", lambda found, timeout: found)
    nodes = [
        {"NodeID": name, "Alive": True, "Resources": {"CPU": 2.0}} for name in ["here", *workers]
    ]
    monkeypatch.setattr("ray._private.state.nodes", lambda: nodes)
    monkeypatch.setattr("ray._private.state.available_resources_per_node", dict)
    here = {"SERVE_REPLICA::paraserve#Ingress#1": None}
    assert drain.replacement_is_starting("here", here, elapsed_s) is waits


@contextmanager
def server(answers: bool) -> Iterator[str]:
    """Accepts connections; a stopped process answers none of them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = []

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                kept.append(connection)
                if answers:
                    connection.sendall(b"\0\0\0\4\0\0\0\0\0")

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        for connection in kept:
            connection.close()


def test_control_store_that_is_stopped_does_not_answer(drain: ModuleType) -> None:
    with server(answers=True) as address:
        assert drain.gcs_answers(address)
    with server(answers=False) as address:
        assert not drain.gcs_answers(address, timeout_s=0.2)
    assert not drain.gcs_answers("127.0.0.1:9", timeout_s=0.2)
    assert not drain.gcs_answers("no address")


@pytest.mark.parametrize("case", ["refused", "silent"])
def test_hook_ends_within_ten_seconds_without_error_when_the_head_is_gone(
    drain: ModuleType, case: str
) -> None:
    began_s = time.monotonic()
    with server(answers=False) as address:
        if case == "refused":
            address = "127.0.0.1:9"
        drain.main(3600.0, drain.Node(os.getpid(), "ab", address))
    assert time.monotonic() - began_s < 10.0


def test_hook_ends_at_once_without_error_where_ray_is_gone() -> None:
    """The command of the chart, on a machine whose raylets are none of the hook's."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_RAYLETS, str(SCRIPT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "drain: no Ray node runs here\n")


_WITHOUT_RAYLETS = """
import pathlib, sys, tempfile
source = pathlib.Path(sys.argv[1]).read_text()
sys.argv = [sys.argv[1], "3600"]
empty = tempfile.mkdtemp()
exec(compile(source.replace('Path("/proc")', f'Path("{empty}")'), "drain.py", "exec"))
"""


@pytest.mark.parametrize("ending", ["import os; os._exit(7)", "import time; time.sleep(600)"])
def test_hook_survives_the_end_or_the_silence_of_rays_client(
    drain: ModuleType, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "SILENCE_S", 1.0)
    began_s = time.monotonic()
    code = f"print('drain: 1 request', flush=True); {ending}"
    with (
        server(answers=True) as address,
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as watcher,
    ):
        try:
            drain._supervise(watcher, drain.Node(os.getpid(), "ab", address), 3600.0)
        finally:
            watcher.kill()
    assert time.monotonic() - began_s < 30.0


HAPROXY_STATISTICS = """# pxname,svname,qcur,qmax,scur,smax,slim,stot
http_frontend,FRONTEND,,,5,9,,99
http-paraserve,SERVE_REPLICA-1,0,0,2,4,,30
http-paraserve,BACKEND,1,1,2,4,,31
http-paraserve-ui,BACKEND,0,0,7,9,,60
default_backend,BACKEND,0,0,1,1,,8
"""


def test_requests_in_haproxy_are_counted_but_not_the_open_pages(
    drain: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ab"
    folder.mkdir()
    monkeypatch.setenv("RAY_SERVE_HAPROXY_SOCKET_PATH", str(tmp_path / "admin.sock"))
    monkeypatch.setattr(drain, "_haproxy_processes", lambda node_id: ["41", "42"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "admin.sock"))
        listener.listen()

        def answer() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    command = connection.recv(100)
                    text = HAPROXY_STATISTICS if b"stat" in command else "Name: HAProxy\nPid: 42\n"
                    connection.sendall(text.encode())

        threading.Thread(target=answer, daemon=True).start()
        # 2 run, 1 is queued, and the process that was replaced has some left.
        assert drain.requests_of_proxy("ab") == (4, 31)


# A head without CPUs, as in the chart, and a lone worker; then two workers of which one goes.
_ON_A_CLUSTER = """
import importlib.util, os, sys, threading, time
import ray
from ray import serve
from ray.cluster_utils import Cluster

spec = importlib.util.spec_from_file_location("drain", sys.argv[1])
drain = importlib.util.module_from_spec(spec)
sys.modules["drain"] = drain
spec.loader.exec_module(drain)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
first = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, namespace="serve")
serve.start(proxy_location="Disabled")

@serve.deployment(ray_actor_options={"num_cpus": 0.5}, graceful_shutdown_timeout_s=120)
class Slow:
    def __init__(self):
        time.sleep(4)

    async def __call__(self, seconds):
        import asyncio
        await asyncio.sleep(seconds)
        return ray.get_runtime_context().get_node_id()

def node_of(added):
    (raylet,) = added.all_processes["raylet"]
    return drain.Node(raylet.process.pid, added.node_id, cluster.address)

def timed(name, function):
    began = time.monotonic()
    function()
    print(name, "took", time.monotonic() - began)

handle = serve.run(Slow.bind(), route_prefix=None)
assert handle.remote(0).result() == first.node_id
timed("idle", lambda: drain.main(200, node_of(first)))
under_way = handle.remote(8)
time.sleep(1)
timed("busy", lambda: drain.main(200, node_of(first)))
print("answered", under_way.result(timeout_s=1) == first.node_id)
second = cluster.add_node(num_cpus=1)
while handle.remote(0).result(timeout_s=60) != second.node_id:
    code = second.all_processes["raylet"][0].process.poll()
    if code is not None:
        print("the second node has ended by itself, exit code", code, file=sys.stderr, flush=True)
        for node in (cluster.head_node, first, second):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
        os._exit(int(sys.argv[2]))
    time.sleep(0.5)
third = cluster.add_node(num_cpus=1)
under_way = handle.remote(8)
time.sleep(1)
timed("moved", lambda: drain.main(200, node_of(second)))
print("answered", under_way.result(timeout_s=1) == second.node_id)
print("elsewhere", handle.remote(0).result(timeout_s=60) == third.node_id)
fourth = cluster.add_node(num_cpus=1)
timed("idle with room", lambda: drain.main(200, node_of(third)))
print("elsewhere", handle.remote(0).result(timeout_s=60) == fourth.node_id)
(gcs,) = cluster.head_node.all_processes["gcs_server"]
timer = threading.Timer(6, gcs.process.kill)
timer.start()
keeps_busy = handle.remote(600)
timed("head killed", lambda: drain.main(200, node_of(fourth)))
timed("head gone", lambda: drain.main(200, node_of(fourth)))
sys.stdout.flush()
for node in (cluster.head_node, first, second, third, fourth):
    node.kill_all_processes(check_alive=False, allow_graceful=False)
os._exit(0)
"""


_NODE_LOST = 75


def _run_on_a_cluster(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _ON_A_CLUSTER, str(SCRIPT), str(_NODE_LOST)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=360,
    )


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_hook_waits_for_what_is_in_flight_and_not_for_replicas() -> None:
    environment = {
        **environment_without_cluster(),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment["RAY_SERVE_ENABLE_HA_PROXY"] = "0"
    environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = "20"
    # Where `ray` is, as in the image.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = _run_on_a_cluster(environment)
    if done.returncode == _NODE_LOST:
        # On rare occasions a node that has just started ends, whoever drains what.
        done = _run_on_a_cluster(environment)
    # Ray writes to stdout, too.
    lines = done.stdout.splitlines()
    took = {
        line.split(" took ")[0]: float(line.split(" took ")[1])
        for line in lines
        if " took " in line
    }
    told = [line for line in lines if line.startswith(("answered ", "elsewhere "))]
    assert told == ["answered True", "answered True", *["elsewhere True"] * 2], done.stderr[-3000:]
    # A busy machine takes a while to start the second process; waiting for a lone node's
    # replicas would take the whole limit.
    assert took["idle"] < 60
    assert 6 <= took["busy"] < 90
    assert took["moved"] >= 6
    assert took["head gone"] < 10
    assert took["head killed"] < 100
