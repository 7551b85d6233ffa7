"""What a look at a cluster has found, and the specification's own faults."""

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
    demands_of,
    is_autoscaled,
    num_gpus_needed,
    num_gpus_offered,
    untiled,
)
from serve_app.ops.serve_config import Application, ServeConfig

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to act on.

    Attributes:
        problem: what is wrong, or what could not be seen.
        remedy: what to do.
        is_certain: False if it could not be seen whether anything is wrong.
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
    """Yields what can be told from the RayService alone."""
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
            f"{demand.name} takes {demand.gpus:g} of a GPU, which no sum of the fractions in use "
            "completes to 1.0, so a part of each GPU lies idle",
            "take fractions such as 0.5, 0.25 and 0.25 (settings.*.deployment.num_gpus)",
        )
    offered = num_gpus_offered(service.at("spec", "rayClusterConfig", "workerGroupSpecs"))
    needed = num_gpus_needed(demands)
    if needed > offered:
        yield Finding(
            f"the least number of replicas needs {needed} GPUs, the worker groups may have "
            f"{offered}: some replicas never find a place",
            f"paraserve cluster scale group NAME --max {needed}, or smaller fractions",
        )


def _access_findings(application: Application) -> Iterator[Finding]:
    settings, name = application.settings, application.name
    host = settings.http.host
    if host in _LOOPBACK:
        yield Finding(
            f"{name} listens on {host}, which nothing outside of the pod reaches",
            "leave settings.http to the chart",
        )
    elif not settings.auth.demanded:
        yield Finding(
            f"{name} asks for no API key: whoever reaches the service may use it",
            "settings.auth.mode keys, or bound it with networkPolicy.clients",
        )
    elif settings.auth.keys_file is None:
        yield Finding(
            f"{name} demands API keys and has no keys file: it will not start",
            "set apiKeys.existingSecret or apiKeys.keys",
        )


def _scaling_findings(application: Application) -> Iterator[Finding]:
    for deployment, options in application.options.items():
        if deployment not in application.deployments:
            yield Finding(
                f"options for {deployment}, which {application.name} does not have: Serve "
                "refuses the whole config",
                f"remove deployments.{deployment}, or what was scaled with --set keepScaling=false",
            )
            continue
        given = options.at("autoscaling_config")
        if not given.is_there:
            continue
        if not is_autoscaled(application.settings, deployment):
            yield Finding(
                f"{deployment} was given bounds, but its settings say a fixed number",
                "helm upgrade with --set keepScaling=false, then scale again",
            )
            continue
        bounds = application.bounds(deployment)
        if given.mapping() != autoscaling_options(application.settings, deployment, bounds):
            yield Finding(
                f"{deployment} was scaled before its autoscaling settings changed, and still "
                "follows the old ones",
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
                f"the autoscaler is {version}: it does not drain a worker before it removes it",
                "autoscalerOptions.version v2, as the chart sets",
            )
    elif follows:
        yield Finding(
            "deployments follow the load, but the autoscaler is off: replicas beyond the pods "
            "that there are wait for a place",
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
                f"{group} has no {resource} {kind}: its node may take it down under pressure",
                f"set resources.{kind} of {group}",
            )
        grace_s = pod.at("terminationGracePeriodSeconds").number(30.0)
        if group != "head" and grace_s < longest:
            yield Finding(
                f"pods of {group} are killed {grace_s:g} s after they are told to go, but a "
                f"request may take {longest:g} s",
                "pods.terminationGracePeriodSeconds 0 (it follows the settings then)",
            )
    parameters = service.at("spec", "rayClusterConfig", "headGroupSpec", "rayStartParams")
    if parameters.at("num-cpus").text() != "0":
        yield Finding(
            "the head offers CPUs, so replicas may run beside Ray's control store",
            "rayStartParams of the head: num-cpus '0'",
        )


_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"
_OVERRIDE = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
_HARD_STOP = "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"
_LAUNCHER = "RAY_SERVE_HAPROXY_BINARY_PATH"
_REASONS = {
    _PROXY: "",
    _HARD_STOP: ": longer requests are cut off when ingress replicas change",
    _LAUNCHER: ": half a header holds a connection for ever, and HAProxy's pages are open",
    _OVERRIDE: ": replicas without num_gpus lose sight of the devices",
    flow.IMPORT_PATH_VARIABLE: ": uploads that wait in line lie in memory whole",
}


def _wanted_environment(config: ServeConfig) -> dict[str, str]:
    """Returns what `serve_app.launch.prepare_environment` would set."""
    haproxy = any(application.settings.http.haproxy for application in config.applications)
    longest = max(hard_stop_after_s(each.settings.ingress) for each in config.applications)
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
                "a scaling was cut short: the next helm upgrade would meet a conflict",
                "give the last `paraserve cluster scale` again",
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
                f"{deployment} was scaled, but the application has it no more",
                "helm upgrade with --set keepScaling=false",
            )
