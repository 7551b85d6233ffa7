"""A release of the chart on a cluster, driven by helm, kubectl and `paraserve cluster`."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import helm_python as helm
import yaml

from serve_app.settings.keys import KeyEntry, as_yaml, hash_of, new_key
from tests.deploy.charting import CHART, Json, combined, command, ready_values
from tests.e2e.traffic import POD, load_pod
from tests.waiting import wait_until

NAMESPACE = "paraserve-e2e"
RELEASE = "speech"
NAME = "speech-paraserve"
KEY_SECRET = "paraserve-test-key"
RECORDINGS = "e2e-recordings"
_READY_LIMIT_S = 240.0
_SETTLED_S = 6.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where the release goes.

    Attributes:
        kubeconfig: of somebody who may do everything in the namespace.
        repository: of the image, as pods name it.
        tags: two of them, for an image upgrade; the first is installed.
        is_played: whether tests/e2e plays the operator; else KubeRay's own runs.
    """

    kubeconfig: Path
    repository: str
    tags: tuple[str, str]
    is_played: bool


class ReleaseUnderTest:
    """The release, its key, and the commands against it.

    Args:
        target: where it goes.
        releases: Helm there.
    """

    def __init__(self, target: Target, releases: helm.Config) -> None:
        self.target = target
        self.key = new_key()
        self._releases = releases
        self.values = self._first_values()
        self.spoken = ""

    def _first_values(self) -> Json:
        entry = KeyEntry(name="e2e", sha256=hash_of(self.key))
        keys = yaml.safe_dump({"keys": [as_yaml(entry)]}, sort_keys=False)
        return combined(
            ready_values("demo-cpu"),
            {
                "image": {"repository": self.target.repository, "tag": self.target.tags[0]},
                "settings": {"auth": {"mode": "auto"}},
                "apiKeys": {"keys": keys},
                "helmTest": {"apiKeySecret": KEY_SECRET},
                "serve": {
                    # So that old clusters do not pile up within the minutes of this run.
                    "oldClusterDeletionDelaySeconds": 20,
                    # Two workers have the cores for both replicas of a stage.
                    "replicaSurgePercent": 100,
                },
                "workerGroups": {"cpu": {"maxReplicas": 3}},
                # What the batch job transcribes.
                "pods": {
                    "volumes": [{"name": "recordings", "configMap": {"name": RECORDINGS}}],
                    "volumeMounts": [
                        {"name": "recordings", "mountPath": "/recordings", "readOnly": True}
                    ],
                },
                "batch": {"ttlSecondsAfterFinished": 5},
                # The Redis of this run, on clusters that enforce network policies.
                "networkPolicy": {"egress": {"extra": [{"ports": [{"port": 6379}]}]}},
            },
        )

    # --- commands ---------------------------------------------------------------------------

    @property
    def kubectl_command(self) -> list[str]:
        kubeconfig = str(self.target.kubeconfig)
        return [command("kubectl"), "--kubeconfig", kubeconfig, "--namespace", NAMESPACE]

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """Runs kubectl and returns its output.

        Raises:
            RuntimeError: it failed; with what it wrote.
        """
        return _run([*self.kubectl_command, *arguments], given)

    def get(self, *arguments: str) -> Json:
        content: Json = json.loads(self.kubectl("get", *arguments, "--output", "json"))
        return content

    def items(self, *arguments: str) -> list[Json]:
        found: list[Json] = self.get(*arguments)["items"]
        return found

    def create(self, body: Json) -> None:
        self.kubectl("create", "--filename", "-", given=json.dumps(body))

    def cluster(self, *arguments: str, exit_codes: tuple[int, ...] = (0,)) -> str:
        """Runs `paraserve cluster` and returns its output.

        Raises:
            RuntimeError: it ended with another exit code.
        """
        place = ["--namespace", NAMESPACE, "--kubeconfig", str(self.target.kubeconfig)]
        words = [sys.executable, "-m", "serve_app.cli.main", "cluster", *arguments, *place]
        return _run(words, exit_codes=exit_codes)

    # --- the release ------------------------------------------------------------------------

    def prepare(self) -> None:
        """Makes what the release needs beforehand, and the pod that sends requests."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": KEY_SECRET},
            "stringData": {"key": self.key},
        }
        self.create(secret)
        clip = (resources.files("serve_app.packs.builtin") / "samples" / "clip.flac").read_bytes()
        recordings = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": RECORDINGS},
            "binaryData": {"clip.flac": base64.b64encode(clip).decode()},
        }
        self.create(recordings)
        image = f"{self.target.repository}:{self.target.tags[0]}"
        self.create(load_pod(image, "IfNotPresent"))
        self.kubectl("wait", f"pod/{POD}", "--for=condition=Ready", "--timeout=300s")

    def install(self) -> None:
        self._releases.install(CHART, RELEASE, self.values)

    def upgrade(self, changes: Json) -> None:
        """Upgrades with changed values, which later upgrades keep."""
        self.values = combined(self.values, changes)
        self._releases.upgrade(CHART, RELEASE, self.values)

    def rollback(self) -> None:
        self._releases.rollback(RELEASE)

    def test(self) -> str:
        """Runs `helm test` and returns the log of its pod."""
        told = self._releases.test(RELEASE, timeout=300, logs=True)
        return str(told["logs"])

    def uninstall(self) -> None:
        self._releases.uninstall(RELEASE)

    @property
    def url(self) -> str:
        return f"http://{NAME}-serve-svc:8000"

    def transcribe(self) -> str:
        """Sends the clip once, from a pod through the Service, and returns the text."""
        script = (
            "import httpx, sys; from importlib import resources; "
            "clip = resources.files('serve_app.packs.builtin') / 'samples' / 'clip.flac'; "
            "answer = httpx.post(sys.argv[1] + '/v1/audio/transcriptions', timeout=120, "
            "trust_env=False, headers={'Authorization': 'Bearer ' + sys.argv[2]}, "
            "data={'model': 'whisper-1'}, files={'file': ('clip.flac', clip.read_bytes())}); "
            "print(answer.status_code, answer.text)"
        )
        told = self.kubectl("exec", POD, "--", "python", "-c", script, self.url, self.key)
        status, _, content = told.partition(" ")
        if status != "200":
            raise RuntimeError(f"transcription: {told}")
        return str(json.loads(content)["text"])

    # --- what to wait for -------------------------------------------------------------------

    def service(self) -> Json:
        return self.get("rayservice", NAME)

    def is_settled(self) -> bool:
        """True if the last change is active and nothing is pending or unhealthy."""
        service = self.service()
        status = service.get("status") or {}
        if status.get("observedGeneration") != service["metadata"]["generation"]:
            return False
        conditions = {entry["type"]: entry["status"] for entry in status.get("conditions") or ()}
        active = status.get("activeServiceStatus") or {}
        pending = status.get("pendingServiceStatus") or {}
        applications = (active.get("applicationStatuses") or {}).values()
        healthy = all(
            deployment["status"] == "HEALTHY"
            for application in applications
            for deployment in application["serveDeploymentStatuses"].values()
        )
        return (
            conditions.get("Ready") == "True"
            and conditions.get("UpgradeInProgress") == "False"
            and not pending.get("rayClusterName")
            and bool(applications)
            and healthy
        )

    def wait_settled(self, limit_s: float = _READY_LIMIT_S) -> None:
        """Waits until the release is settled and stays so.

        KubeRay writes that all is well before it has looked at what it has just changed.
        """
        since: list[float] = []

        def settled() -> bool:
            if not self.is_settled():
                since.clear()
                return False
            since.append(time.monotonic())
            return since[-1] - since[0] >= _SETTLED_S

        self.wait(settled, "the release to settle", limit_s)

    def wait(self, condition: Callable[[], bool], what: str, limit_s: float) -> None:
        wait_until(condition, what, limit_s=limit_s, interval_s=0.5)

    def clusters(self) -> list[Json]:
        """Returns the RayClusters of the service, old and new."""
        return self.items("raycluster", "--selector", "ray.io/originated-from-crd=RayService")

    def active_cluster(self) -> str:
        return str(self.service()["status"]["activeServiceStatus"]["rayClusterName"])

    def pods(self, kind: str) -> list[Json]:
        """Returns the pods of the active cluster, `head` or `worker`, without terminating ones."""
        selector = f"ray.io/cluster={self.active_cluster()},ray.io/node-type={kind}"
        return [
            pod
            for pod in self.items("pods", "--selector", selector)
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def ready_workers(self) -> list[Json]:
        return [pod for pod in self.pods("worker") if _is_ready(pod)]

    def head_is_ready(self) -> bool:
        return any(_is_ready(pod) for pod in self.pods("head"))

    def images(self) -> set[str]:
        """Returns the images of the active cluster's Ray containers."""
        pods = [*self.pods("head"), *self.pods("worker")]
        return {pod["spec"]["containers"][0]["image"] for pod in pods}

    def evict(self, name: str) -> bool:
        """Evicts a pod as a drain does; returns False if the disruption budget forbids it."""
        served = self.kubectl("api-versions").split()
        version = "policy/v1" if "policy/v1" in served else "policy/v1beta1"
        metadata = {"name": name, "namespace": NAMESPACE}
        body = {"apiVersion": version, "kind": "Eviction", "metadata": metadata}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
        try:
            self.kubectl("create", "--raw", path, "--filename", "-", given=json.dumps(body))
        except RuntimeError as error:
            if "disruption budget" in str(error):
                return False
            raise
        return True

    @property
    def redis_image(self) -> str:
        """The played nodes' containers have this machine's programs, Redis included."""
        if self.target.is_played:
            return f"{self.target.repository}:{self.target.tags[0]}"
        return os.environ.get("E2E_REDIS_IMAGE", "redis:7")


def _is_ready(pod: Json) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod["status"].get("conditions") or ()
    )


def _run(words: list[str], given: str = "", exit_codes: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    if done.returncode not in exit_codes:
        shown = " ".join(words[:8])
        raise RuntimeError(f"{shown}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
