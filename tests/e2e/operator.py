"""Plays KubeRay 1.7's operator on a real cluster: makes what it makes, decides as it decides.

What rests on what:

Seen of 1.7.0 on a node (and held by test_operator.py where it is an object or a status)
  - Adds its finalizer by writing the RayService whole, as field manager `kuberay-operator`,
    as Go encodes it (tests/deploy/operator_writes.py).
  - A new RayCluster NAME-xxxxx for the first specification and for every changed one, sizes of
    worker groups aside; the changed `serveConfigV2` goes to the dashboard of the same cluster.
  - The names, labels, variables and commands of pods and Services (operator_objects.py). The
    RayService's own Services appear with the first cluster that serves, and are pointed at the
    next one when it does.
  - The old cluster is deleted rayClusterDeletionDelaySeconds after that, idle or not.
  - A terminating pod counts as there: no replacement before it is gone.
  - The autoscaler is Ray's own, in the container beside the head.
  - Dashboard calls have 2 s; what fails is tried again.
  - With fault tolerance of the GCS: workers wait 600 s for it; a job made of the head's template
    empties Redis, and is given up after 5 minutes.
  - RayCronJobs do nothing without a feature gate, silently.

From the documentation of 1.7
  - With the autoscaler on, pods above the wanted number are not the operator's to remove; it
    removes those named in scaleStrategy.workersToDelete.
  - Pods that ended are deleted and made anew.
  - A RayJob in K8sJobMode: a cluster, then a Job that submits the entrypoint with
    `ray job submit`; the cluster goes ttlSecondsAfterFinished after the end.

Left out: suspension, incremental upgrades, multi-host groups, mTLS, batch schedulers, events,
and the retries and deadline of RayJobs.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import logging
import secrets
import string
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import yaml

from tests.deploy.charting import Json
from tests.deploy.operator_writes import service_as_written
from tests.e2e import operator_objects as objects
from tests.e2e.kube_api import CORE, RAY, KubeApi, Refusal
from tests.e2e.operator_jobs import RayJobs
from tests.e2e.operator_status import cluster_status, service_status

FINALIZER = "ray.io/rayservice-finalizer"
_BATCH = "/apis/batch/v1"
_RIGHTS = "/apis/rbac.authorization.k8s.io/v1"
_DASHBOARD_TIMEOUT_S = 2.0
_CLEANUP_LIMIT_S = 300.0
_PERIOD_S = 0.7
OPERATOR_IMAGE = f"quay.io/kuberay/operator:{objects.VERSION}"
_PLURALS = {
    "Service": (CORE, "services"),
    "Pod": (CORE, "pods"),
    "Job": (_BATCH, "jobs"),
    "Role": (_RIGHTS, "roles"),
    "RoleBinding": (_RIGHTS, "rolebindings"),
    "RayCluster": (RAY, "rayclusters"),
}
_log = logging.getLogger(__name__)


class PlayedOperator:
    """KubeRay's part for the RayServices, RayClusters and RayJobs of a namespace.

    Args:
        api: the API server, with `kuberay-operator` as field manager.
        namespace: that is watched.
        cron_gate: whether RayCronJobs are run, as with the feature gate.
    """

    def __init__(self, api: KubeApi, namespace: str, cron_gate: bool = False) -> None:
        self.api = api
        self.namespace = namespace
        self._jobs = RayJobs(self, cron_gate)
        self._submitted: dict[str, str] = {}
        self._applications: dict[str, Json] = {}
        self._delete_at: dict[str, float] = {}
        self._cleanup_since: dict[str, float] = {}

    # --- the loop -------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Plays for the length of the block."""
        stopping = threading.Event()

        def loop() -> None:
            while not stopping.wait(_PERIOD_S):
                self.reconcile()

        thread = threading.Thread(target=loop, name="operator")
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def reconcile(self) -> None:
        """Looks at every object once; what fails is tried again the next time."""
        for plural, one in (
            ("rayservices", self._reconcile_service),
            ("rayjobs", self._jobs.reconcile_job),
            ("raycronjobs", self._jobs.reconcile_cron_job),
            ("rayclusters", self._reconcile_cluster),
        ):
            try:
                found = self.api.items(self.path(RAY, plural))
            except (httpx.HTTPError, Refusal) as error:
                _log.info("list of %s: %s", plural, error)
                continue
            for item in found:
                item.setdefault("kind", _KINDS[plural])
                item.setdefault("apiVersion", "ray.io/v1")
                try:
                    one(item)
                except (httpx.HTTPError, Refusal) as error:
                    # Another writer was faster, or the dashboard is not up.
                    _log.info("%s %s: %s", plural, item["metadata"]["name"], error)

    def path(self, group: str, plural: str, name: str = "") -> str:
        base = f"{group}/namespaces/{self.namespace}/{plural}"
        return f"{base}/{name}" if name else base

    def create_missing(self, body: Json) -> Json:
        """Returns the object of that name, made if it is not there."""
        group, plural = _PLURALS[body["kind"]]
        found = self.api.find(self.path(group, plural, body["metadata"]["name"]))
        return found or self.api.create(self.path(group, plural), body)

    def pods(self, cluster: str) -> list[Json]:
        selector = f"{objects.CLUSTER_LABEL}={cluster}"
        return self.api.items(self.path(CORE, "pods"), selector)

    # --- RayService -----------------------------------------------------------------------

    def _reconcile_service(self, service: Json) -> None:
        metadata = service["metadata"]
        if metadata.get("deletionTimestamp"):
            # The garbage collector deletes what is owned.
            if FINALIZER in metadata.get("finalizers", []):
                metadata["finalizers"].remove(FINALIZER)
                self._write(service)
            return
        if FINALIZER not in metadata.get("finalizers", []):
            metadata.setdefault("finalizers", []).append(FINALIZER)
            self._write(service)
            return
        status = service.get("status") or {}
        active = self._cluster_of(status.get("activeServiceStatus"))
        pending = self._cluster_of(status.get("pendingServiceStatus"))
        active, pending = self._choose_clusters(service, active, pending)
        for cluster in (active, pending):
            if cluster is not None:
                self._serve(service, cluster)
        if pending is not None and self._runs(pending):
            self._point_services(service, pending)
            if active is not None:
                delay_s = service["spec"].get("rayClusterDeletionDelaySeconds", 60)
                self._delete_at[active["metadata"]["name"]] = time.monotonic() + delay_s
            active, pending = pending, None
        self._delete_old(service, active, pending)
        self._write_service_status(service, active, pending)

    def _write(self, service: Json) -> None:
        service["spec"] = service_as_written(service["spec"])
        self.api.replace(self.path(RAY, "rayservices", service["metadata"]["name"]), service)

    def _cluster_of(self, part: Json | None) -> Json | None:
        name = (part or {}).get("rayClusterName")
        return self.api.find(self.path(RAY, "rayclusters", name)) if name else None

    def _choose_clusters(
        self, service: Json, active: Json | None, pending: Json | None
    ) -> tuple[Json | None, Json | None]:
        """Returns the active and the pending cluster; makes or drops a pending one."""
        wanted = objects.spec_hash(service["spec"]["rayClusterConfig"])

        def fits(cluster: Json | None) -> bool:
            if cluster is None or cluster["metadata"].get("deletionTimestamp"):
                return False
            return bool(cluster["metadata"]["annotations"][objects.HASH_ANNOTATION] == wanted)

        if fits(active):
            return active, None
        if fits(pending):
            return active, pending
        if active is not None and service["spec"].get("upgradeStrategy", {}).get("type") == "None":
            return active, None
        suffix = "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))
        name = f"{service['metadata']['name']}-{suffix}"
        spec = service["spec"]["rayClusterConfig"]
        made = self.create_missing(objects.ray_cluster(service, spec, name))
        return active, made

    def _serve(self, service: Json, cluster: Json) -> None:
        """Submits the config where the cluster has another, and reads what came of it."""
        name = cluster["metadata"]["name"]
        head = self._ready_head(name)
        if head is None:
            return
        config = service["spec"]["serveConfigV2"]
        with self.dashboard(cluster, head) as dashboard:
            found = _answer(dashboard.get("/api/serve/applications/"))
            self._applications[name] = found["applications"]
            submitted = f"{head['metadata']['uid']}\n{config}"
            if not found["applications"] or self._submitted.get(name) != submitted:
                body = yaml.safe_load(config)
                dashboard.put("/api/serve/applications/", json=body).raise_for_status()
                self._submitted[name] = submitted

    def _ready_head(self, cluster: str) -> Json | None:
        heads = [pod for pod in self.pods(cluster) if _kind(pod) == "head"]
        ready = [pod for pod in heads if _is_ready(pod)]
        if not ready:
            self._applications.pop(cluster, None)
        return ready[0] if ready else None

    def dashboard(self, cluster: Json, head: Json) -> httpx.Client:
        """Returns a client of a head's dashboard, with Ray's token."""
        headers = {}
        options = cluster["spec"].get("authOptions")
        if options:
            secret = self.api.find(self.path(CORE, "secrets", options["secretName"])) or {}
            token = base64.b64decode(secret["data"]["auth_token"]).decode()
            headers["Authorization"] = f"Bearer {token}"
        url = f"http://{head['status']['podIP']}:8265"
        return httpx.Client(
            base_url=url, headers=headers, trust_env=False, timeout=_DASHBOARD_TIMEOUT_S
        )

    def _runs(self, cluster: Json) -> bool:
        applications = self._applications.get(cluster["metadata"]["name"])
        return bool(applications) and all(
            application["status"] == "RUNNING" for application in (applications or {}).values()
        )

    def _point_services(self, service: Json, cluster: Json) -> None:
        name, cluster_name = service["metadata"]["name"], cluster["metadata"]["name"]
        for body in (
            objects.head_service(service, cluster_name, f"{name}-head-svc"),
            objects.serve_service(service, cluster_name),
        ):
            live = self.create_missing(body)
            if live["spec"]["selector"] != body["spec"]["selector"]:
                live["spec"]["selector"] = body["spec"]["selector"]
                self.api.replace(self.path(CORE, "services", body["metadata"]["name"]), live)

    def _delete_old(self, service: Json, active: Json | None, pending: Json | None) -> None:
        keep = {cluster["metadata"]["name"] for cluster in (active, pending) if cluster}
        label = f"ray.io/originated-from-cr-name={service['metadata']['name']}"
        for cluster in self.api.items(self.path(RAY, "rayclusters"), label):
            name = cluster["metadata"]["name"]
            if name in keep or cluster["metadata"].get("deletionTimestamp"):
                continue
            if time.monotonic() >= self._delete_at.get(name, 0.0):
                self.api.delete(self.path(RAY, "rayclusters", name))

    def _write_service_status(
        self, service: Json, active: Json | None, pending: Json | None
    ) -> None:
        name = service["metadata"]["name"]
        endpoints = self.api.find(self.path(CORE, "endpoints", f"{name}-serve-svc")) or {}
        num_endpoints = sum(
            len(subset.get("addresses") or []) for subset in endpoints.get("subsets") or []
        )
        status = service_status(service, active, pending, self._applications, num_endpoints)
        self._write_status("rayservices", service, status)

    def _write_status(self, plural: str, item: Json, status: Json) -> None:
        if _without_times(status) == _without_times(item.get("status") or {}):
            return
        status["lastUpdateTime"] = now()
        body = {**item, "status": status}
        self.api.replace(self.path(RAY, plural, item["metadata"]["name"]) + "/status", body)

    # --- RayCluster -----------------------------------------------------------------------

    def _reconcile_cluster(self, cluster: Json) -> None:
        metadata = cluster["metadata"]
        if metadata.get("deletionTimestamp"):
            self._finish_cluster(cluster)
            return
        redis = cluster["spec"].get("gcsFaultToleranceOptions")
        if redis and objects.REDIS_FINALIZER not in metadata.get("finalizers", []):
            metadata.setdefault("finalizers", []).append(objects.REDIS_FINALIZER)
            self.api.replace(self.path(RAY, "rayclusters", metadata["name"]), cluster)
            return
        self.create_missing(objects.head_service(cluster, metadata["name"]))
        if cluster["spec"].get("enableInTreeAutoscaling"):
            for body in objects.autoscaler_rights(cluster):
                self.create_missing(body)
        pods = self._without_ended(self.pods(metadata["name"]))
        if not any(_kind(pod) == "head" for pod in pods):
            pods.append(self.api.create(self.path(CORE, "pods"), objects.head_pod(cluster)))
        for group in cluster["spec"]["workerGroupSpecs"]:
            self._reconcile_group(cluster, group, pods)
        status = cluster_status(cluster, pods)
        self._write_status("rayclusters", cluster, status)

    def _without_ended(self, pods: list[Json]) -> list[Json]:
        left = []
        for pod in pods:
            ended = pod["status"].get("phase") in ("Failed", "Succeeded")
            if ended and not pod["metadata"].get("deletionTimestamp"):
                self.api.delete(self.path(CORE, "pods", pod["metadata"]["name"]))
            left.append(pod)
        return left

    def _reconcile_group(self, cluster: Json, group: Json, pods: list[Json]) -> None:
        to_delete = (group.get("scaleStrategy") or {}).get("workersToDelete") or []
        mine = [
            pod
            for pod in pods
            if _kind(pod) == "worker"
            and pod["metadata"]["labels"]["ray.io/group"] == group["groupName"]
        ]
        for pod in mine:
            if pod["metadata"]["name"] in to_delete and not _is_terminating(pod):
                self.api.delete(self.path(CORE, "pods", pod["metadata"]["name"]))
        counted = [pod for pod in mine if pod["metadata"]["name"] not in to_delete]
        wanted = min(max(group["replicas"], group["minReplicas"]), group["maxReplicas"])
        for index in range(len(counted), wanted):
            body = objects.worker_pod(cluster, group, index)
            pods.append(self.api.create(self.path(CORE, "pods"), body))
        if not cluster["spec"].get("enableInTreeAutoscaling"):
            for pod in counted[wanted:]:
                self.api.delete(self.path(CORE, "pods", pod["metadata"]["name"]))

    def _finish_cluster(self, cluster: Json) -> None:
        """Empties Redis before the cluster's object goes, for five minutes at most."""
        metadata = cluster["metadata"]
        name = metadata["name"]
        for pod in self.pods(name):
            if not _is_terminating(pod) and _kind(pod) in ("head", "worker"):
                self.api.delete(self.path(CORE, "pods", pod["metadata"]["name"]))
        if objects.REDIS_FINALIZER not in metadata.get("finalizers", []):
            return
        since = self._cleanup_since.setdefault(name, time.monotonic())
        if any(_kind(pod) == "head" for pod in self.pods(name)):
            return
        job = self.create_missing(objects.redis_cleanup_job(cluster))
        done = (job.get("status") or {}).get("succeeded")
        if done or time.monotonic() - since > _CLEANUP_LIMIT_S:
            left = copy.deepcopy(cluster)
            left["metadata"]["finalizers"].remove(objects.REDIS_FINALIZER)
            self.api.replace(self.path(RAY, "rayclusters", name), left)


def operator_pod() -> list[tuple[str, Json]]:
    """Returns the namespace of the operator and a pod that stands there for it, with paths.

    `paraserve cluster doctor` reads the operator's version and feature gates from its pod.
    """
    name = "kuberay-operator"
    base = f"{CORE}/namespaces/kuberay-system"
    container = {
        "name": name,
        "image": OPERATOR_IMAGE,
        "command": ["/bin/bash", "-c", "sleep infinity & wait", name],
        "args": ["--feature-gates=RayCronJob=true"],
    }
    spec = {"serviceAccountName": name, "automountServiceAccountToken": False}
    metadata = {"name": name, "labels": {"app.kubernetes.io/name": name}}
    return [
        (f"{CORE}/namespaces", {"metadata": {"name": "kuberay-system"}}),
        (f"{base}/serviceaccounts", {"metadata": metadata}),
        (f"{base}/pods", {"metadata": metadata, "spec": {**spec, "containers": [container]}}),
    ]


_KINDS = {
    "rayservices": "RayService",
    "rayjobs": "RayJob",
    "raycronjobs": "RayCronJob",
    "rayclusters": "RayCluster",
}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _answer(answer: httpx.Response) -> Json:
    answer.raise_for_status()
    content: Json = answer.json()
    return content


def _kind(pod: Json) -> str:
    return str(pod["metadata"]["labels"].get("ray.io/node-type", ""))


def _is_terminating(pod: Json) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _is_ready(pod: Json) -> bool:
    return not _is_terminating(pod) and any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod["status"].get("conditions") or ()
    )


def _without_times(status: Json) -> Json:
    reduced = copy.deepcopy(status)
    _drop_times(reduced)
    return reduced


def _drop_times(part: object) -> None:
    if isinstance(part, list):
        for entry in part:
            _drop_times(entry)
    if isinstance(part, dict):
        for key in ("lastUpdateTime", "lastTransitionTime", "stateTransitionTimes"):
            part.pop(key, None)
        for entry in part.values():
            _drop_times(entry)
