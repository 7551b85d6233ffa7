"""Plays KubeRay's part for RayJobs and RayCronJobs (operator.py says what rests on what)."""

from __future__ import annotations

import json
import secrets
import shlex
import string
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.deploy.charting import Json
from tests.e2e import operator_objects as objects
from tests.e2e.kube_api import RAY

if TYPE_CHECKING:
    from tests.e2e.operator import PlayedOperator

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_BATCH = "/apis/batch/v1"


class RayJobs:
    """RayJobs in K8sJobMode, and RayCronJobs that run every minute.

    Args:
        operator: that plays the rest.
        cron_gate: whether RayCronJobs are run.
    """

    def __init__(self, operator: PlayedOperator, cron_gate: bool) -> None:
        self._operator = operator
        self._cron_gate = cron_gate
        self._ended_at: dict[str, float] = {}
        self._last_run: dict[str, str] = {}

    def reconcile_job(self, job: Json) -> None:
        metadata, spec = job["metadata"], job["spec"]
        status = job.get("status") or {}
        if metadata.get("deletionTimestamp"):
            return
        if not status.get("rayClusterName"):
            suffix = _suffix()
            self._write(
                job,
                {
                    "rayClusterName": f"{metadata['name']}-{suffix}",
                    "jobId": f"{metadata['name']}-{suffix}",
                    "jobDeploymentStatus": "Initializing",
                },
            )
            return
        if status.get("jobDeploymentStatus") in ("Complete", "Failed"):
            self._clean_up(job, status)
            return
        cluster = self._operator.create_missing(
            objects.ray_cluster(job, spec["rayClusterSpec"], status["rayClusterName"])
        )
        if (cluster.get("status") or {}).get("state") != "ready":
            return
        self._submit(job, cluster)
        self._follow(job, cluster)

    def _submit(self, job: Json, cluster: Json) -> None:
        """Makes the Job whose pod submits the entrypoint and waits for its end."""
        spec, status = job["spec"], job["status"]
        pod = json.loads(json.dumps(spec["submitterPodTemplate"]))
        container = pod["spec"]["containers"][0]
        namespace = job["metadata"]["namespace"]
        head = f"{objects.head_service_name(cluster['metadata']['name'])}.{namespace}"
        words = ["ray", "job", "submit", "--address", f"http://{head}.svc.cluster.local:8265"]
        words += ["--submission-id", status["jobId"]]
        if spec.get("metadata"):
            words += ["--metadata-json", json.dumps(spec["metadata"])]
        command = f"{shlex.join(words)} -- {spec['entrypoint']}"
        container["command"], container["args"] = ["/bin/bash", "-c", "--"], [command]
        container.setdefault("env", []).extend(objects._auth(spec["rayClusterSpec"]))
        body = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": job["metadata"]["name"],
                "namespace": namespace,
                "ownerReferences": objects.parent(job).references(),
            },
            "spec": {"backoffLimit": 2, "template": pod},
        }
        self._operator.create_missing(body)

    def _follow(self, job: Json, cluster: Json) -> None:
        operator, status = self._operator, job["status"]
        heads = [
            pod
            for pod in operator.pods(cluster["metadata"]["name"])
            if pod["metadata"]["labels"].get("ray.io/node-type") == "head"
        ]
        with operator.dashboard(cluster, heads[0]) as dashboard:
            answer = dashboard.get(f"/api/jobs/{status['jobId']}")
        if answer.status_code == 404:
            return
        answer.raise_for_status()
        told = answer.json()["status"]
        deployed = {"SUCCEEDED": "Complete", "FAILED": "Failed", "STOPPED": "Failed"}
        changed = {**status, "jobStatus": told}
        changed["jobDeploymentStatus"] = deployed.get(told, "Running")
        if told in _ENDED:
            changed["endTime"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._ended_at[job["metadata"]["uid"]] = time.monotonic()
        if changed != status:
            self._write(job, changed)

    def _clean_up(self, job: Json, status: Json) -> None:
        """Deletes the cluster of an ended job when its time is over."""
        spec = job["spec"]
        ended = self._ended_at.get(job["metadata"]["uid"], 0.0)
        due = time.monotonic() >= ended + spec.get("ttlSecondsAfterFinished", 0)
        if spec.get("shutdownAfterJobFinishes") and due:
            operator = self._operator
            operator.api.delete(operator.path(RAY, "rayclusters", status["rayClusterName"]))

    def _write(self, job: Json, status: Json) -> None:
        path = self._operator.path(RAY, "rayjobs", job["metadata"]["name"])
        self._operator.api.replace(f"{path}/status", {**job, "status": status})

    def reconcile_cron_job(self, cron: Json) -> None:
        """Makes a RayJob each minute, where the gate is on; other schedules wait for ever."""
        metadata, spec = cron["metadata"], cron["spec"]
        minute = datetime.now(UTC).strftime("%Y%m%d%H%M")
        if not self._cron_gate or spec.get("suspend") or spec["schedule"] != "* * * * *":
            return
        first = self._last_run.setdefault(metadata["uid"], minute)
        if metadata.get("deletionTimestamp") or first == minute:
            return
        self._last_run[metadata["uid"]] = minute
        operator = self._operator
        body = {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {
                "name": f"{metadata['name']}-{_suffix()}",
                "namespace": metadata["namespace"],
                "labels": metadata.get("labels") or {},
                "ownerReferences": objects.parent(cron).references(),
            },
            "spec": spec["jobTemplate"],
        }
        operator.api.create(operator.path(RAY, "rayjobs"), body)


def _suffix() -> str:
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(5))
