"""The checks of `paraserve cluster doctor` on the API server, the pods and the network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata

import httpx

from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops.clusters import age_text, head_problem, read_clusters, unschedulable
from serve_app.ops.dashboard import open_dashboard
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import (
    CLAIM,
    NODE,
    POD,
    RAY_CLUSTER,
    RAY_CRON_JOB,
    SECRET,
    Kube,
)
from serve_app.ops.rollout import progress_of
from serve_app.ops.scale_plan import GPU_SUFFIX, gpus_of_pod, group_size
from serve_app.ops.serve_config import ServeConfig, read_config
from serve_app.ops.service import ServiceState, find_service, pods_of, read_state
from serve_app.ops.spec_checks import Finding, containers_of, specification_findings

HUBS = ("https://www.modelscope.cn", "https://huggingface.co")
_INSTANCE = "app.kubernetes.io/instance"
_SCHEDULE_GATE = "RayCronJob"
_OPERATOR = "app.kubernetes.io/name=kuberay-operator"
_OLDEST_KUBERAY = (1, 7)
_NOT_FOUND = 404
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_HUB_TIMEOUT_S = 5.0


def state_findings(state: ServiceState) -> Iterator[Finding]:
    """Yields why the service is not ready."""
    progress = progress_of(state)
    if not progress.is_done:
        yield Finding(progress.told, "paraserve cluster rollout wait, or logs of what fails")


def version_findings(
    kube: Kube, service: JsonView, state: ServiceState, *, is_head_ready: bool
) -> Iterator[Finding]:
    """Compares the versions of Ray and Paraserve in the cluster with this installation's."""
    ray, own = metadata.version("ray"), metadata.version("paraserve")
    configured = service.at("spec", "rayClusterConfig", "rayVersion").text()
    if configured != ray:
        yield Finding(
            f"rayVersion is {configured}, but this version of paraserve is made for Ray {ray}",
            "use the paraserve of the image, and rayVersion as the image has it",
        )
    tags = {_tag(container.at("image").text()) for _, _, container in containers_of(service)}
    for tag in sorted(tags):
        found = _VERSION.match(tag)
        if found is not None and found[0].removeprefix("v") != own:
            yield Finding(
                f"the image is {tag}, this paraserve {own}: their settings may differ",
                f"install version {found[0].removeprefix('v')} here from its checkout or URL (see "
                "the README), or upgrade the release",
            )
    if not is_head_ready:
        return
    try:
        running = open_dashboard(kube, service, state.active).ray_version()
    except ClusterError as error:
        yield _unseen("the version of the Ray that runs", error)
        return
    if running != configured:
        yield Finding(
            f"the image has Ray {running}, but rayVersion says {configured}",
            f"rayVersion: {running} in the values",
        )


def operator_findings(kube: Kube, service: JsonView) -> Iterator[Finding]:
    """Checks the version of the KubeRay operator, and the feature gate that schedules need."""
    try:
        pods = kube.list(POD, label_selector=_OPERATOR, everywhere=True)
    except ClusterRefused as error:
        yield _unseen("the version of the KubeRay operator", error)
        return
    acted_on = service.at("status", "observedGeneration").count()
    # A managed operator has no pods that its users see.
    if not pods and acted_on < service.at("metadata", "generation").count(1):
        yield Finding(
            "no pod of the KubeRay operator: nothing acts on the RayService",
            "helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0",
        )
    images = {
        each.at("image").text() for pod in pods for each in pod.at("spec", "containers").each()
    }
    for image in sorted(images):
        found = _VERSION.match(_tag(image))
        if found is not None and (int(found[1]), int(found[2])) < _OLDEST_KUBERAY:
            yield Finding(
                f"KubeRay is {found[0]}; the chart uses fields of 1.7, which older ones drop",
                "upgrade the operator and its CRDs to 1.7 or newer",
            )
    yield from _schedule_findings(kube, service, pods)


def _schedule_findings(
    kube: Kube, service: JsonView, operator_pods: Sequence[JsonView]
) -> Iterator[Finding]:
    """Finds schedules of the release that the operator ignores."""
    instance = service.at("metadata", "labels", _INSTANCE).text()
    if not instance:
        return
    try:
        schedules = kube.list(RAY_CRON_JOB, label_selector=f"{_INSTANCE}={instance}")
    except ClusterRefused as error:
        if error.status != _NOT_FOUND:
            yield _unseen("the RayCronJobs", error)
        return
    if not schedules or not operator_pods or any(map(_has_schedule_gate, operator_pods)):
        return
    names = ", ".join(each.at("metadata", "name").text() for each in schedules)
    yield Finding(
        f"the KubeRay operator runs without its feature gate {_SCHEDULE_GATE}: the RayCronJob "
        f"{names} never starts a job",
        "helm upgrade kuberay-operator with featureGates: "
        f"[{{name: {_SCHEDULE_GATE}, enabled: true}}] in its values",
    )


def _has_schedule_gate(pod: JsonView) -> bool:
    for container in pod.at("spec", "containers").each():
        words = [*container.at("command").each(), *container.at("args").each()]
        text = " ".join(word.text() for word in words)
        if re.search(rf"\b{_SCHEDULE_GATE}=true\b", text, re.IGNORECASE):
            return True
    return False


def secret_findings(kube: Kube, service: JsonView) -> Iterator[Finding]:
    """Checks that the Secrets of the pods exist and have their keys; values are not kept."""
    for secret, keys in sorted(_wanted_secrets(service).items()):
        try:
            present = {key for key, _ in kube.get(SECRET, secret).at("data").pairs()}
        except ClusterRefused as error:
            if error.status != _NOT_FOUND:
                yield _unseen(f"the Secret {secret}", error)
                continue
            yield Finding(
                f"there is no Secret {secret}: pods that need it do not start",
                f"kubectl -n {kube.namespace} create secret generic {secret} ...",
            )
            continue
        for key in sorted(keys - present):
            yield Finding(f"the Secret {secret} has no key {key}", f"add {key} to {secret}")


def _wanted_secrets(service: JsonView) -> dict[str, set[str]]:
    """Returns the keys of each Secret that the pods need."""
    wanted: dict[str, set[str]] = {}

    def want(reference: JsonView, name: str = "name") -> None:
        if reference.at(name).text() and not reference.at("optional").is_true:
            keys = wanted.setdefault(reference.at(name).text(), set())
            keys.update({reference.at("key").text()} - {""})
            keys.update(item.at("key").text() for item in reference.at("items").each())

    for _, pod, container in containers_of(service):
        for volume in pod.at("volumes").each():
            want(volume.at("secret"), "secretName")
        for entry in container.at("env").each():
            want(entry.at("valueFrom", "secretKeyRef"))
        for entry in pod.at("imagePullSecrets").each():
            want(entry)
    spec = service.at("spec", "rayClusterConfig")
    want(spec.at("gcsFaultToleranceOptions", "redisPassword", "valueFrom", "secretKeyRef"))
    token = spec.at("authOptions", "secretName").text()
    if token:
        wanted.setdefault(token, set()).add("auth_token")
    return wanted


def claim_findings(kube: Kube, service: JsonView) -> Iterator[Finding]:
    """Checks that the volumes of the pods are bound."""
    claims = {
        volume.at("persistentVolumeClaim", "claimName").text()
        for _, pod, _ in containers_of(service)
        for volume in pod.at("volumes").each()
    }
    for claim in sorted(claims - {""}):
        try:
            phase = kube.get(CLAIM, claim).at("status", "phase").text()
        except ClusterRefused as error:
            if error.status != _NOT_FOUND:
                yield _unseen(f"the claim {claim}", error)
                continue
            yield Finding(
                f"there is no PersistentVolumeClaim {claim}: its pods stay Pending",
                "helm upgrade creates it again, or set models.existingClaim",
            )
            continue
        if phase != "Bound":
            yield Finding(
                f"the PersistentVolumeClaim {claim} is {phase or 'not bound'}",
                f"kubectl -n {kube.namespace} describe pvc {claim}; usually the storage class "
                "is missing or does not support ReadWriteMany",
            )


def node_findings(kube: Kube, service: JsonView) -> Iterator[Finding]:
    """Checks that some node has the GPUs that a pod of each group requests."""
    groups = service.at("spec", "rayClusterConfig", "workerGroupSpecs")
    wanted = {
        each.at("groupName").text(): gpus_of_pod(each.at("template", "spec"))
        for each in groups.each()
    }
    if not any(wanted.values()):
        return
    try:
        nodes = kube.list(NODE)
    except ClusterRefused as error:
        yield _unseen("the GPUs of the nodes", error)
        return
    largest = max((_gpus_of_node(node) for node in nodes), default=0)
    for group, gpus in wanted.items():
        if gpus > largest:
            yield Finding(
                f"a pod of {group} requests {gpus} GPUs, but no node has more than {largest} now",
                "install the GPU device plugin, or add GPU nodes (a cluster autoscaler may still "
                "add one)",
            )


def _gpus_of_node(node: JsonView) -> int:
    return sum(
        quantity.count()
        for resource, quantity in node.at("status", "allocatable").pairs()
        if resource.endswith(GPU_SUFFIX)
    )


def running_findings(kube: Kube, service: JsonView, state: ServiceState) -> Iterator[Finding]:
    """Compares the bounds of the running clusters with the RayService's."""
    configured = _sizes(service.at("spec", "rayClusterConfig", "workerGroupSpecs"))
    for cluster in state.clusters:
        try:
            live = kube.get(RAY_CLUSTER, cluster.name)
        except ClusterRefused as error:
            yield _unseen(f"the RayCluster {cluster.name}", error)
            continue
        for group, bounds in _sizes(live.at("spec", "workerGroupSpecs")).items():
            if configured.get(group, bounds) != bounds:
                low, high = configured[group]
                yield Finding(
                    f"group {group} of the running {cluster.name} has the bounds {bounds[0]} to "
                    f"{bounds[1]}, the RayService {low} to {high}: KubeRay applies bounds only to "
                    "new clusters",
                    f"paraserve cluster scale group {group} --min {low} --max {high}",
                )


def old_cluster_findings(
    kube: Kube, service: JsonView, state: ServiceState, pods: list[JsonView]
) -> Iterator[Finding]:
    """Finds clusters that no longer serve, if a serving one lacks room."""
    try:
        clusters = read_clusters(kube, service, state, pods, datetime.now(UTC))
    except ClusterRefused as error:
        yield _unseen("the RayClusters", error)
        return
    old = [cluster for cluster in clusters if cluster.role == "old"]
    if len(old) > 1 or (old and any(unschedulable(pod) is not None for pod in pods)):
        told = "; ".join(
            f"{each.name} ({age_text(each.age_s)} old, {each.cpus} cores) waits for "
            f"{each.waits_for}"
            for each in old
        )
        yield Finding(
            f"RayClusters that no longer serve hold cores: {told}",
            "wait, or delete one that has no requests: kubectl -n "
            f"{kube.namespace} delete raycluster {old[0].name}; a shorter delay for the next "
            "upgrade: serve.oldClusterDeletionDelaySeconds",
        )


def _sizes(groups: JsonView) -> dict[str, tuple[int, int]]:
    return {
        spec.at("groupName").text(): (group_size(spec).minimum, group_size(spec).maximum)
        for spec in groups.each()
    }


def _pod_findings(pod: JsonView, namespace: str) -> Iterator[Finding]:
    name = pod.at("metadata", "name").text()
    reason = unschedulable(pod)
    if reason is not None:
        yield Finding(
            f"{name} finds no node: {reason}",
            "add nodes, request less, or check taints and nodeSelector",
        )
    for kind in ("initContainerStatuses", "containerStatuses"):
        for status in pod.at("status", kind).each():
            container = status.at("name").text()
            reason = status.at("state", "waiting", "reason").text()
            if reason not in ("", "PodInitializing", "ContainerCreating"):
                yield Finding(
                    f"{container} of {name} is in {reason}",
                    f"kubectl -n {namespace} describe pod {name}; "
                    "paraserve cluster logs --containers --previous",
                )
            if status.at("lastState", "terminated", "reason").text() == "OOMKilled":
                yield Finding(
                    f"{container} of {name} was killed because it ran out of memory, "
                    f"{status.at('restartCount').text('some')} restarts",
                    "more memory in the group's resources, or smaller batches",
                )


def hub_findings(
    config: ServeConfig, transport: httpx.BaseTransport | None = None
) -> Iterator[Finding]:
    """Checks from here that the model hubs can be reached, if the cluster may download."""
    if all(application.settings.offline for application in config.applications):
        return
    problems = []
    for hub in HUBS:
        try:
            with httpx.Client(timeout=_HUB_TIMEOUT_S, transport=transport) as client:
                client.head(hub)
        except httpx.HTTPError as error:
            problems.append(f"{hub} ({type(error).__name__})")
        else:
            return
    yield Finding(
        f"from here (not from the cluster) no hub can be reached: {', '.join(problems)}",
        "if the cluster has no internet access either: models.source pvc filled elsewhere, volume "
        "or baked; --no-hub skips this check",
    )


def _unseen(what: str, error: Exception) -> Finding:
    return Finding(
        f"could not check {what}: {error}", "get the right, or ask someone who has it", False
    )


def _tag(image: str) -> str:
    last = image.rsplit("/", 1)[-1]
    return last.split(":", 1)[1] if ":" in last and "@" not in last else ""


def examine(kube: Kube, name: str | None, with_hub: bool = True) -> Iterator[Finding]:
    """Yields the problems of a release, and what could not be checked.

    Args:
        kube: namespace.
        name: of the RayService or the release; None for the only one.
        with_hub: whether to check the model hubs from here.

    Raises:
        ClusterRefused: the RayService may not be read, or the API server does not answer.
        ClusterError: there is no RayService, or no CRD of it.
    """
    service = find_service(kube, name)
    state = read_state(service)
    pods = None
    try:
        pods = pods_of(kube, state.clusters)
    except ClusterRefused as error:
        yield _unseen("the pods", error)
    head = None if state.active is None or pods is None else head_problem(state.active, pods)
    if head is None:
        yield from state_findings(state)
    else:
        # KubeRay's status lags behind, and what needs the head would only fail after a timeout.
        yield Finding(
            head,
            f"kubectl -n {kube.namespace} get pods; KubeRay replaces it. Without GCS fault "
            "tolerance requests fail until then (gcsFaultTolerance in the values)",
        )
    yield from operator_findings(kube, service)
    yield from version_findings(kube, service, state, is_head_ready=head is None)
    yield from secret_findings(kube, service)
    yield from claim_findings(kube, service)
    yield from node_findings(kube, service)
    for pod in pods or ():
        is_head = pod.at("metadata", "labels", "ray.io/node-type").text() == "head"
        if head is None or not is_head:
            yield from _pod_findings(pod, kube.namespace)
    yield from old_cluster_findings(kube, service, state, pods or [])
    yield from running_findings(kube, service, state)
    try:
        config = read_config(service)
    except ClusterError as error:
        yield Finding(str(error), "correct the values, then run helm upgrade")
        return
    yield from specification_findings(service, config)
    if with_hub:
        yield from hub_findings(config)


def exit_code(findings: list[Finding]) -> int:
    """Returns 0 without findings, 1 if there are problems, 2 if checks could not be made."""
    if any(finding.is_certain for finding in findings):
        return 1
    return 2 if findings else 0
