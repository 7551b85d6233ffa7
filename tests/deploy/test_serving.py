"""What the chart renders runs: deployed to a local Ray as KubeRay does it, and used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtests.ports import free_port
from loadtests.serving import environment_without_cluster
from serve_app.core.paths import default_pack_dir
from serve_app.packs import PackContents
from tests.deploy.charting import CHART, Json, combined, ready_values, render, serve_config
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

_TIMEOUT_S = 180
# A cluster as the chart's pods make one: Ray alone, the application comes by HTTP. Without an
# address Ray would join whichever cluster of this machine runs already.
_CLUSTER = """
import sys, ray
context = ray.init(address="local", num_cpus=2, object_store_memory=200 * 2**20,
                   include_dashboard=True, dashboard_port=int(sys.argv[1]), log_to_driver=False)
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def config(folder: Path, vad_pack: PackContents) -> Json:
    """The demo's Serve config, with places of this machine in it."""
    here = {
        "serve": {"port": free_port()},
        # Where the VAD is, which the image would have baked in.
        "models": {"mountPath": str(default_pack_dir())},
        "settings": {"audio": {"spool_dir": str(folder)}},
    }
    return serve_config(render(combined(ready_values("demo-cpu"), here)))


@pytest.fixture(scope="module")
def dashboard(folder: Path, config: Json) -> Iterator[httpx.Client]:
    """Ray's REST API, by which KubeRay deploys applications."""
    port = free_port()
    environment = {
        **environment_without_cluster(),
        "RAY_AUTH_MODE": "disabled",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", _CLUSTER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        assert cluster.stdout.readline() == b"up\n"
        base = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=base, timeout=60, trust_env=False) as api:
            yield api
            api.delete("/api/serve/applications/")
        cluster.stdin.close()


def test_demo_of_the_chart_transcribes(dashboard: httpx.Client, config: Json) -> None:
    accepted = dashboard.put("/api/serve/applications/", json=config)
    assert accepted.is_success, accepted.text
    states: list[Json] = []

    def running() -> bool:
        answer: Json = dashboard.get("/api/serve/applications/").json()
        states[:] = [answer["applications"].get("paraserve", {})]
        assert states[0].get("status") != "DEPLOY_FAILED", states[0].get("message")
        return states[0].get("status") == "RUNNING"

    wait_until(running, "the application to run")
    replicas = {
        name: entry["deployment_config"].get("num_replicas")
        for name, entry in states[0]["deployments"].items()
    }
    assert replicas == dict.fromkeys(["Ingress", "Punctuator", "Recognizer", "Segmenter"], 1)
    url = f"http://127.0.0.1:{config['http_options']['port']}"
    smoke = [sys.executable, str(CHART / "files" / "smoke.py"), url, "0.03"]
    done = subprocess.run(smoke, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "error rate 0.00%" in done.stdout


def test_scaling_by_the_list_of_deployments_restarts_no_replica(
    dashboard: httpx.Client, config: Json
) -> None:
    def replica_ids() -> set[str]:
        answer: Json = dashboard.get("/api/serve/applications/").json()
        deployments = answer["applications"]["paraserve"]["deployments"]
        return {
            replica["replica_id"]
            for entry in deployments.values()
            for replica in entry["replicas"]
            if replica["state"] == "RUNNING"
        }

    before = replica_ids()
    scaled: Json = json.loads(json.dumps(config))
    for entry in scaled["applications"][0]["deployments"]:
        if entry["name"] == "Punctuator":
            entry["num_replicas"] = 2
    assert dashboard.put("/api/serve/applications/", json=scaled).is_success
    wait_until(lambda: len(replica_ids()) == len(before) + 1, "one more")
    assert before < replica_ids()
