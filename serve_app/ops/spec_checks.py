"""Findings of `paraserve cluster doctor`, and the checks of a RayService's specification."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from serve_app.api import flow
from serve_app.core.errors import ClusterError
from serve_app.hosting.ray_environment import LAUNCHER_IN_IMAGE, hard_stop_after_s
from serve_app.ops.json_view import JsonView, read_yaml
from serve_app.ops.kube import FIELD_MANAGER
from serve_app.ops.scale import ANNOTATION
from serve_app.ops.scale_plan import (
    autoscaling_options,
    bounds_of_options,
    demands_of,
    group_size,
    is_autoscaled,
    is_fixed,
    num_gpus_needed,
    num_gpus_offered,
    range_text,
    untiled,
)
from serve_app.ops.serve_config import Application, ServeConfig

_OPERATOR = "kuberay-operator"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to act on.

    Attributes:
        problem: what is wrong, or what could not be checked.
        remedy: what to do.
        is_certain: False if the check could not be made.
    """

    problem: str
    remedy: str
    is_certain: bool = True


def containers_of(service: JsonView) -> Iterator[tuple[str, JsonView, JsonView]]:
    """Yields group, pod specification and Ray container of head and worker groups."""
    spec = service.at("spec", "rayClusterConfig")
    groups = [("head", spec.at("headGroupSpec"))]
    groups += [(each.at("groupName").text(), each) for each in spec.at("workerGroupSpecs").each()]
    for name, group in groups:
        pod = group.at("template", "spec")
        # KubeRay takes the first container for Ray's.
        yield name, pod, next(pod.at("containers").each(), JsonView())


def specification_findings(service: JsonView, config: ServeConfig) -> Iterator[Finding]:
    """Yields the problems that the RayService itself shows."""
    yield from _gpu_findings(service, config)
    for application in config.applications:
        yield from _access_findings(application)
        yield from _scaling_findings(application)
    yield from _autoscaler_findings(service, config)
    yield from _container_findings(service, config)
    yield from _ownership_findings(service)
    yield from _note_findings(service, config)


def _gpu_findings(service: JsonView, config: ServeConfig) -> Iterator[Finding]:
    demands = demands_of(config)
    for demand in untiled(demands):
        yield Finding(
            f"{demand.name} takes {demand.gpus:g} of a GPU, and no combination of the fractions in "
            "use adds up to 1.0, so part of each GPU stays idle",
            "use fractions such as 0.5, 0.25 and 0.25 (settings.*.deployment.num_gpus)",
        )
    offered = num_gpus_offered(service.at("spec", "rayClusterConfig", "workerGroupSpecs"))
    needed = num_gpus_needed(demands)
    if needed > offered:
        yield Finding(
            f"the minimum number of replicas needs {needed} GPUs, the worker groups may have "
            f"{offered}: some replicas can never start",
            f"paraserve cluster scale group NAME --max {needed}, or smaller fractions",
        )


def _access_findings(application: Application) -> Iterator[Finding]:
    settings, name = application.settings, application.name
    host = settings.http.host
    if host in _LOOPBACK:
        yield Finding(
            f"{name} listens on {host}, which cannot be reached from outside the pod",
            "leave settings.http to the chart",
        )
    elif not settings.auth.demanded:
        yield Finding(
            f"{name} requires no API key: anyone who reaches the service may use it",
            "settings.auth.mode keys, or restrict access with networkPolicy.clients",
        )
    elif settings.auth.keys_file is None:
        yield Finding(
            f"{name} requires API keys and has no keys file: it will not start",
            "set apiKeys.existingSecret or apiKeys.keys",
        )


def _scaling_findings(application: Application) -> Iterator[Finding]:
    for deployment, options in application.options.items():
        if deployment not in application.deployments:
            yield Finding(
                f"options for {deployment}, which {application.name} does not have: Serve "
                "rejects the whole config",
                f"remove deployments.{deployment}, or discard scaling with --set keepScaling=false",
            )
            continue
        given = options.at("autoscaling_config")
        if not given.is_there:
            continue
        if not is_autoscaled(application.settings, deployment):
            yield Finding(
                f"{deployment} has autoscaling bounds, but its settings have a fixed number",
                "helm upgrade with --set keepScaling=false, then scale again",
            )
            continue
        bounds = application.bounds(deployment)
        if given.mapping() != autoscaling_options(application.settings, deployment, bounds):
            yield Finding(
                f"{deployment} was scaled before its autoscaling settings changed, and still "
                "uses the old ones",
                f"scale it again: paraserve cluster scale {deployment.lower()} "
                f"--min {bounds[0]} --max {bounds[1]}",
            )


def _autoscaler_findings(service: JsonView, config: ServeConfig) -> Iterator[Finding]:
    spec = service.at("spec", "rayClusterConfig")
    follows = any(
        application.bounds(deployment)[0] < application.bounds(deployment)[1]
        for application in config.applications
        for deployment in application.deployments
    )
    if spec.at("enableInTreeAutoscaling").is_true:
        version = spec.at("autoscalerOptions", "version").text("v1")
        if version != "v2":
            yield Finding(
                f"the autoscaler is {version}, which removes workers without draining them",
                "autoscalerOptions.version v2, as the chart sets",
            )
    elif follows:
        yield Finding(
            "deployments are autoscaled, but Ray's autoscaler is off: replicas that do not fit "
            "into the running pods stay pending",
            "autoscaler.enabled true in the values, or enough replicas of the worker groups",
        )


def _container_findings(service: JsonView, config: ServeConfig) -> Iterator[Finding]:
    wanted = _wanted_environment(config)
    longest = max(each.settings.ingress.request_timeout_s for each in config.applications)
    for group, pod, container in containers_of(service):
        variables = {entry.at("name").text(): entry for entry in container.at("env").each()}
        for name, value in wanted.items():
            entry = variables.get(name, JsonView())
            if entry.at("valueFrom").is_there or entry.at("value").text() == value:
                continue
            found = entry.at("value").text() or "not set (unless by the image)"
            yield Finding(
                f"{name} of {group} is {found}, not {value}{_REASONS[name]}",
                f"pods.env in the values: {{name: {name}, value: {value!r}}}",
            )
        for kind, resource in _missing_resources(container):
            yield Finding(
                f"{group} has no {resource} {kind}: its node may evict it under pressure",
                f"set resources.{kind} of {group}",
            )
        grace_s = pod.at("terminationGracePeriodSeconds").number(30.0)
        if group != "head" and grace_s < longest:
            yield Finding(
                f"pods of {group} are killed {grace_s:g} s after their deletion begins, but a "
                f"request may take {longest:g} s",
                "pods.terminationGracePeriodSeconds 0 (then it is derived from the settings)",
            )
    parameters = service.at("spec", "rayClusterConfig", "headGroupSpec", "rayStartParams")
    if parameters.at("num-cpus").text() != "0":
        yield Finding(
            "the head offers CPUs, so replicas may run beside Ray's control store (GCS)",
            "rayStartParams of the head: num-cpus '0'",
        )


_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"
_OVERRIDE = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
_HARD_STOP = "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"
_LAUNCHER = "RAY_SERVE_HAPROXY_BINARY_PATH"
_REASONS = {
    _PROXY: "",
    _HARD_STOP: ": longer requests are cut off when ingress replicas change",
    _LAUNCHER: ": incomplete headers hold connections forever, and HAProxy's status pages are open",
    _OVERRIDE: ": replicas without num_gpus see no GPU",
    flow.IMPORT_PATH_VARIABLE: ": queued uploads are held in memory",
}


def _wanted_environment(config: ServeConfig) -> dict[str, str]:
    """Returns the variables that `serve_app.launch.prepare_environment` would set."""
    haproxy = any(application.settings.http.haproxy for application in config.applications)
    longest = max(hard_stop_after_s(each.settings) for each in config.applications)
    bounds = {_HARD_STOP: str(longest), _LAUNCHER: LAUNCHER_IN_IMAGE}
    return {
        _PROXY: "1" if haproxy else "0",
        **(bounds if haproxy else {}),
        _OVERRIDE: "0",
        flow.IMPORT_PATH_VARIABLE: flow.IMPORT_PATH,
    }


def _missing_resources(container: JsonView) -> Iterator[tuple[str, str]]:
    for kind in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            if not container.at("resources", kind, resource).is_there:
                yield kind, resource


def _ownership_findings(service: JsonView) -> Iterator[Finding]:
    for entry in service.at("metadata", "managedFields").each():
        is_ours = entry.at("manager").text() == FIELD_MANAGER
        if is_ours and entry.at("fieldsV1", "f:spec").is_there and _is_applied(service):
            yield Finding(
                "`paraserve cluster scale` was interrupted: the next helm upgrade would conflict",
                "repeat the last `paraserve cluster scale`",
            )
        groups = ("f:spec", "f:rayClusterConfig", "f:workerGroupSpecs")
        is_operator = entry.at("manager").text() == _OPERATOR
        if is_operator and entry.at("fieldsV1", *groups).is_there and _is_applied(service):
            release = service.at("metadata", "labels", "app.kubernetes.io/instance").text("RELEASE")
            namespace = service.at("metadata", "namespace").text("NAMESPACE")
            yield Finding(
                "the KubeRay operator owns the list of worker groups: helm upgrade (Helm 4) fails "
                "with a conflict",
                f"once: helm upgrade {release} CHART -n {namespace} -f VALUES --force-conflicts; "
                "this chart renders the fields that the operator adds, so it does not recur",
            )


def _is_applied(service: JsonView) -> bool:
    entries = service.at("metadata", "managedFields").each()
    return any(entry.at("operation").text() == "Apply" for entry in entries)


def _note_findings(service: JsonView, config: ServeConfig) -> Iterator[Finding]:
    try:
        text = service.at("metadata", "annotations").at(ANNOTATION).text()
        note = read_yaml(text, f"annotation {ANNOTATION}")
        present = set(config.main.deployments)
    except ClusterError as error:
        yield Finding(str(error), "see `kubectl get rayservice -o yaml`")
        return
    for deployment, _ in note.at("deployments").pairs():
        if deployment not in present:
            yield Finding(
                f"{deployment} was scaled, but the application no longer has it",
                "helm upgrade with --set keepScaling=false",
            )
    yield from _rollback_findings(service, config, note)


def _rollback_findings(service: JsonView, config: ServeConfig, note: JsonView) -> Iterator[Finding]:
    """Finds scaling that a helm rollback has undone; its annotation stays."""
    undone = []
    for deployment, options in note.at("deployments").pairs():
        own = config.main.options.get(deployment, JsonView())
        if deployment in config.main.deployments and any(
            own.at(key).value != value.value for key, value in options.pairs()
        ):
            scaled, now = bounds_of_options(options), config.main.bounds(deployment)
            undone.append((deployment, deployment.lower(), scaled, now, not is_fixed(options)))
    for spec in service.at("spec", "rayClusterConfig", "workerGroupSpecs").each():
        group = spec.at("groupName").text()
        noted = note.at("workerGroups", group)
        if any(spec.at(key).value != value.value for key, value in noted.pairs()):
            scaled = (noted.at("minReplicas").count(), noted.at("maxReplicas").count())
            size = group_size(spec)
            now = (size.minimum, size.maximum)
            undone.append((f"group {group}", f"group {group}", scaled, now, True))
    for name, words, scaled, now, has_bounds in undone:
        options_text = (
            f"--min {scaled[0]} --max {scaled[1]}" if has_bounds else f"--replicas {scaled[0]}"
        )
        yield Finding(
            f"{name} was scaled to {range_text(scaled)}, but the release has {range_text(now)} "
            "again: a helm rollback undoes scaling, and the next helm upgrade restores it",
            f"paraserve cluster scale {words} {options_text}, or discard it with helm upgrade "
            "--set keepScaling=false",
        )
