"""What KubeRay makes of a RayCluster: pods, Services and rights, as 1.7.0 was seen to make them.

tests/e2e/test_operator.py holds these functions against a record of the real operator's
objects. Not seen, and from the documentation of 1.7: what fault tolerance of the GCS adds
(the variables of Redis, the cleanup job) and the objects of a RayJob.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from dataclasses import dataclass
from decimal import Decimal

from tests.deploy.charting import Json

VERSION = "v1.7.0"
CREATED_BY = "kuberay-operator"
CLUSTER_LABEL = "ray.io/cluster"
HASH_ANNOTATION = "ray.io/hash-without-replicas-and-workers-to-delete"
REDIS_FINALIZER = "ray.io/gcs-ft-redis-cleanup-finalizer"
_PORTS = {"client": 10001, "dashboard": 8265, "gcs-server": 6379, "metrics": 8080, "serve": 8000}
_WAIT_FOR_GCS = "until ray health-check --address {address} > /dev/null 2>&1; do sleep 5; done"


_FACTORS: dict[str, Decimal] = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
}


@dataclass(frozen=True, slots=True)
class Parent:
    """Who owns an object."""

    kind: str
    name: str
    uid: str

    def references(self) -> list[Json]:
        owner = {"apiVersion": "ray.io/v1", "kind": self.kind, "name": self.name, "uid": self.uid}
        return [{**owner, "controller": True, "blockOwnerDeletion": True}]


def parent(owner: Json) -> Parent:
    return Parent(owner["kind"], owner["metadata"]["name"], owner["metadata"]["uid"])


def amount(quantity: str) -> Decimal:
    """Returns the number of a quantity, as 2147483648 of 2Gi."""
    digits = quantity.rstrip("mkMGTi")
    return Decimal(digits) * _FACTORS[quantity[len(digits) :]]


def spec_hash(spec: Json) -> str:
    """Returns a hash that ignores the sizes of worker groups, which change in place."""
    reduced = copy.deepcopy(spec)
    for group in reduced.get("workerGroupSpecs", ()):
        for key in ("replicas", "minReplicas", "maxReplicas", "scaleStrategy"):
            group.pop(key, None)
    digest = hashlib.sha1(json.dumps(reduced, sort_keys=True).encode()).digest()
    return base64.b32hexencode(digest).decode()


def ray_cluster(owner: Json, spec: Json, name: str) -> Json:
    """Returns the RayCluster of a RayService or RayJob."""
    metadata = owner["metadata"]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "annotations": {
                **_without_last_applied(metadata.get("annotations") or {}),
                HASH_ANNOTATION: spec_hash(spec),
                "ray.io/kuberay-version": VERSION,
                "ray.io/num-worker-groups": str(len(spec["workerGroupSpecs"])),
            },
            "labels": {**(metadata.get("labels") or {}), **_origin(owner)},
            "ownerReferences": parent(owner).references(),
        },
        "spec": spec,
    }


def _without_last_applied(annotations: Json) -> Json:
    return {key: value for key, value in annotations.items() if "last-applied" not in key}


def _origin(owner: Json) -> Json:
    return {
        "ray.io/originated-from-cr-name": owner["metadata"]["name"],
        "ray.io/originated-from-crd": owner["kind"],
    }


def head_service_name(cluster: str) -> str:
    return f"{cluster}-head-svc"


def head_service(owner: Json, cluster: str, name: str | None = None) -> Json:
    """Returns the head's Service: the cluster's own, or the RayService's under another name.

    The cluster's follows the application's name in the head's template, as its pods do. The
    RayService's does not, so that it finds no pod where the template has a name of its own.
    """
    selector = {
        "app.kubernetes.io/created-by": CREATED_BY,
        "app.kubernetes.io/name": "kuberay",
        CLUSTER_LABEL: cluster,
        "ray.io/identifier": f"{cluster}-head",
        "ray.io/node-type": "head",
    }
    if name is None:
        template = owner["spec"]["headGroupSpec"]["template"]
        given = template.get("metadata", {}).get("labels", {})
        selector |= {key: value for key, value in given.items() if key in selector}
        labels = dict(selector)
    else:
        service = owner["metadata"]["name"]
        labels = {"ray.io/identifier": f"{service}-head", "ray.io/node-type": "head"}
        labels |= _origin(owner)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _owned(owner, name or head_service_name(cluster), labels),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector,
            "ports": [
                {"name": key, "port": port, "targetPort": port, "appProtocol": "tcp"}
                for key, port in _PORTS.items()
            ],
        },
    }


def serve_service(service: Json, cluster: str) -> Json:
    """Returns the Service that requests come to."""
    name = service["metadata"]["name"]
    labels = {"ray.io/serve": f"{name}-serve", **_origin(service)}
    wanted = service["spec"].get("serveService") or {}
    metadata = _owned(service, f"{name}-serve-svc", labels)
    annotations = wanted.get("metadata", {}).get("annotations")
    if annotations:
        metadata["annotations"] = annotations
    ports = wanted.get("spec", {}).get("ports") or [
        {"name": "serve", "port": 8000, "targetPort": 8000}
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": wanted.get("spec", {}).get("type", "ClusterIP"),
            "selector": {CLUSTER_LABEL: cluster, "ray.io/serve": "true"},
            "ports": ports,
        },
    }


def autoscaler_rights(cluster: Json) -> list[Json]:
    """Returns the Role and RoleBinding of the autoscaler beside the head."""
    name, account = cluster["metadata"]["name"], _head_account(cluster)
    labels = {
        "app.kubernetes.io/created-by": CREATED_BY,
        "app.kubernetes.io/name": "kuberay",
        CLUSTER_LABEL: name,
    }

    def rule(group: str, resource: str, *verbs: str) -> Json:
        return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}

    api = "rbac.authorization.k8s.io"
    role = {
        "apiVersion": f"{api}/v1",
        "kind": "Role",
        "metadata": _owned(cluster, name, labels),
        "rules": [
            rule("", "pods", "get", "list", "watch", "patch"),
            rule("", "pods/resize", "patch"),
            rule("ray.io", "rayclusters", "get", "patch"),
        ],
    }
    namespace = cluster["metadata"]["namespace"]
    binding = {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": _owned(cluster, name, labels),
        "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    return [role, binding]


def _head_account(cluster: Json) -> str:
    template = cluster["spec"]["headGroupSpec"]["template"]
    return str(template["spec"].get("serviceAccountName", cluster["metadata"]["name"]))


def _owned(owner: Json, name: str, labels: Json) -> Json:
    return {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": labels,
        "ownerReferences": parent(owner).references(),
    }


def head_pod(cluster: Json) -> Json:
    """Returns the head's pod, with the autoscaler beside Ray where it is enabled."""
    spec, name = cluster["spec"], cluster["metadata"]["name"]
    group = spec["headGroupSpec"]
    pod = _pod(cluster, group["template"], f"{name}-head-", "headgroup", "head")
    pod["metadata"]["labels"]["ray.io/serve"] = "false"
    annotations = pod["metadata"].setdefault("annotations", {})
    annotations["ray.io/ft-enabled"] = "true" if _redis(spec) else "false"
    annotations["ray.io/kuberay-version"] = VERSION
    annotations["ray.io/upgrade-strategy-recreate-hash"] = spec_hash(spec)
    container = pod["spec"]["containers"][0]
    parameters = {**(group.get("rayStartParams") or {}), **_common_parameters(container)}
    environment = []
    if spec.get("enableInTreeAutoscaling"):
        parameters["no-monitor"] = ""
        environment.append({"name": "RAY_enable_autoscaler_v2", "value": "true"})
    environment += _auth(spec)
    command = _start_command("ray start --head ", parameters)
    environment += _about_the_pod(command, "127.0.0.1:6379", _redis_variables(cluster, "head"))
    tags = f"kuberay_version={VERSION};kuberay_crd="
    tags += cluster["metadata"]["labels"]["ray.io/originated-from-crd"]
    environment.insert(-1, {"name": "RAY_USAGE_STATS_EXTRA_TAGS", "value": tags})
    _set_command(container, command, environment)
    if spec.get("enableInTreeAutoscaling"):
        _add_autoscaler(pod, spec, container["image"])
    return pod


def _add_autoscaler(pod: Json, spec: Json, image: str) -> None:
    options = spec.get("autoscalerOptions") or {}
    command = (
        "ray kuberay-autoscaler --cluster-name $(RAY_CLUSTER_NAME) "
        "--cluster-namespace $(RAY_CLUSTER_NAMESPACE)"
    )
    logs = {"name": "ray-logs", "mountPath": "/tmp/ray"}
    container: Json = {
        "name": "autoscaler",
        "image": options.get("image", image),
        "imagePullPolicy": options.get("imagePullPolicy", "IfNotPresent"),
        "command": ["/bin/bash", "-c", "--"],
        "args": [command],
        "env": [
            _from_field("RAY_CLUSTER_NAME", f"metadata.labels['{CLUSTER_LABEL}']"),
            _from_field("RAY_CLUSTER_NAMESPACE", "metadata.namespace"),
            _from_field("RAY_HEAD_POD_NAME", "metadata.name"),
            {"name": "KUBERAY_CRD_VER", "value": "v1"},
            {"name": "KUBERAY_GEN_AUTOSCALER_START_CMD", "value": command},
            *_auth(spec),
            *(options.get("env") or []),
        ],
        "resources": options.get("resources", {}),
        "volumeMounts": [*(options.get("volumeMounts") or []), logs],
    }
    if options.get("securityContext"):
        container["securityContext"] = options["securityContext"]
    pod["spec"]["containers"].append(container)
    pod["spec"]["containers"][0].setdefault("volumeMounts", []).append(logs)
    pod["spec"].setdefault("volumes", []).append({"name": "ray-logs", "emptyDir": {}})


def worker_pod(cluster: Json, group: Json, index: int) -> Json:
    """Returns a worker's pod, which waits for the GCS before Ray starts."""
    spec, name = cluster["spec"], cluster["metadata"]["name"]
    prefix = f"{name}-{group['groupName']}-worker-"
    pod = _pod(cluster, group["template"], prefix, group["groupName"], "worker")
    pod["metadata"]["labels"]["ray.io/serve"] = "true"
    pod["metadata"]["labels"]["ray.io/worker-group-replica-index"] = str(index)
    service = head_service_name(name)
    domain = f"{service}.{cluster['metadata']['namespace']}.svc.cluster.local"
    address = f"{domain}:6379"
    container = pod["spec"]["containers"][0]
    parameters = {"address": address, **(group.get("rayStartParams") or {})}
    parameters |= _common_parameters(container)
    limits = container.get("resources", {}).get("limits", {})
    if "cpu" in limits:
        parameters.setdefault("num-cpus", str(int(-(-amount(limits["cpu"]) // 1))))
    gpus = [count for key, count in limits.items() if key.endswith("/gpu")]
    if gpus:
        parameters.setdefault("num-gpus", str(gpus[0]))
    command = _start_command("ray start ", parameters)
    where = [{"name": "FQ_RAY_IP", "value": domain}, {"name": "RAY_IP", "value": service}]
    given = list(container.get("env") or [])
    wait = {
        "name": "wait-gcs-ready",
        "image": container["image"],
        "imagePullPolicy": container.get("imagePullPolicy", "IfNotPresent"),
        "command": ["/bin/bash", "-c", "--"],
        "args": [_WAIT_FOR_GCS.format(address=address)],
        "env": [*given, *_auth(spec), *where],
        "resources": {key: {"cpu": "200m", "memory": "256Mi"} for key in ("requests", "limits")},
        "volumeMounts": copy.deepcopy(container.get("volumeMounts") or []),
    }
    if container.get("securityContext"):
        wait["securityContext"] = container["securityContext"]
    pod["spec"].setdefault("initContainers", []).append(wait)
    extra = _redis_variables(cluster, "worker")
    _set_command(
        container, command, [*_auth(spec), *where, *_about_the_pod(command, address, extra)]
    )
    return pod


def _pod(cluster: Json, template: Json, prefix: str, group: str, kind: str) -> Json:
    made = copy.deepcopy(template)
    name = cluster["metadata"]["name"]
    metadata = made.setdefault("metadata", {})
    labels = {
        "app.kubernetes.io/created-by": CREATED_BY,
        "app.kubernetes.io/name": "kuberay",
        **metadata.get("labels", {}),
        CLUSTER_LABEL: name,
        "ray.io/group": group,
        "ray.io/identifier": f"{name}-{kind}",
        "ray.io/is-ray-node": "yes",
        "ray.io/node-type": kind,
    }
    metadata |= {
        "generateName": prefix,
        "namespace": cluster["metadata"]["namespace"],
        "labels": labels,
        "ownerReferences": parent(cluster).references(),
    }
    if cluster["spec"].get("enableInTreeAutoscaling"):
        # Version 2 of the autoscaler wants pods that end to stay ended.
        made["spec"]["restartPolicy"] = "Never"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": made["spec"]}


def _common_parameters(container: Json) -> dict[str, str]:
    parameters = {
        "block": "",
        "dashboard-agent-listen-port": "52365",
        "metrics-export-port": "8080",
    }
    memory = container.get("resources", {}).get("limits", {}).get("memory")
    return parameters | ({"memory": str(int(amount(memory)))} if memory else {})


def _start_command(start: str, parameters: dict[str, str]) -> str:
    words = [f"--{key}" + (f"={value}" if value else "") for key, value in parameters.items()]
    return start + "".join(f" {word} " for word in sorted(words))


def _set_command(container: Json, command: str, environment: list[Json]) -> None:
    container["command"] = ["/bin/bash", "-c", "--"]
    container["args"] = [f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; {command}"]
    given = list(container.get("env") or [])
    names = {entry["name"] for entry in given}
    container["env"] = given + [entry for entry in environment if entry["name"] not in names]


def _from_field(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _auth(spec: Json) -> list[Json]:
    options = spec.get("authOptions")
    if not options or options.get("mode") != "token":
        return []
    secret = {"name": options["secretName"], "key": "auth_token"}
    return [
        {"name": "RAY_AUTH_MODE", "value": "token"},
        {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": secret}},
    ]


def _about_the_pod(command: str, address: str, extra: list[Json]) -> list[Json]:
    values = {
        "KUBERAY_GEN_RAY_START_CMD": command,
        "RAY_PORT": "6379",
        "RAY_timeout_ms_task_wait_for_death_info": "0",
        "RAY_gcs_server_request_timeout_seconds": "5",
        "RAY_SERVE_KV_TIMEOUT_S": "5",
        "RAY_ADDRESS": address,
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
    }
    return [
        _from_field("RAY_CLUSTER_NAME", f"metadata.labels['{CLUSTER_LABEL}']"),
        _from_field("RAY_CLUSTER_NAMESPACE", "metadata.namespace"),
        _from_field("RAY_CLOUD_INSTANCE_ID", "metadata.name"),
        _from_field("RAY_NODE_TYPE_NAME", "metadata.labels['ray.io/group']"),
        *extra,
        *({"name": key, "value": value} for key, value in values.items()),
        {"name": "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE", "value": "1"},
    ]


def _redis(spec: Json) -> Json | None:
    options: Json | None = spec.get("gcsFaultToleranceOptions")
    return options if options and options.get("redisAddress") else None


def _redis_variables(cluster: Json, kind: str) -> list[Json]:
    options = _redis(cluster["spec"])
    if options is None:
        return []
    if kind == "worker":
        return [{"name": "RAY_gcs_rpc_server_reconnect_timeout_s", "value": "600"}]
    namespace = options.get("externalStorageNamespace") or cluster["metadata"]["uid"]
    found = [
        {"name": "RAY_REDIS_ADDRESS", "value": options["redisAddress"]},
        {"name": "RAY_external_storage_namespace", "value": namespace},
    ]
    password = options.get("redisPassword")
    return found + ([{"name": "REDIS_PASSWORD", **password}] if password else [])


def redis_cleanup_job(cluster: Json) -> Json:
    """Returns the job that empties Redis of a cluster that is deleted."""
    pod = head_pod(cluster)
    name = cluster["metadata"]["name"]
    container = pod["spec"]["containers"][0]
    container["args"] = [
        "python -c 'from ray._private.gcs_utils import cleanup_redis_storage; "
        'import os; host, port = os.environ["RAY_REDIS_ADDRESS"].rsplit(":", 1); '
        "import sys; sys.exit(0 if cleanup_redis_storage(host=host, port=int(port), "
        'password=os.getenv("REDIS_PASSWORD", ""), username="", use_ssl=False, '
        'storage_namespace=os.environ["RAY_external_storage_namespace"]) else 1)\''
    ]
    for key in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
        container.pop(key, None)
    container["resources"] = {
        key: {"cpu": "200m", "memory": "256Mi"} for key in ("requests", "limits")
    }
    pod["spec"]["containers"] = [container]
    labels = {**pod["metadata"]["labels"], "ray.io/node-type": "redis-cleanup"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _owned(cluster, f"{name}-redis-cleanup", labels),
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 300,
            "template": {"metadata": {"labels": labels}, "spec": pod["spec"]},
        },
    }
