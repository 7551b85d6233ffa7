"""The changes to a RayService's specification that a new size needs.

The GPU arithmetic follows the chart's rules (`_checks.tpl`): what is refused here would be
refused at an upgrade. Serve applies its list of deployments in place, without restarting
replicas, but replaces `autoscaling_config` as a whole (Ray 2.60, `override_deployment_info`).
Bounds alone would remove the deployment's policy, so the whole section is rebuilt from the
settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from serve_app.core.errors import ClusterError
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import Operation
from serve_app.ops.serve_config import Application, ServeConfig, read_config
from serve_app.settings import AutoscalingSettings, DeploymentSettings, Settings

GPU_SUFFIX = "/gpu"


@dataclass(frozen=True, slots=True)
class ScaleRequest:
    """A requested size; None leaves a value as it is."""

    minimum: int | None = None
    maximum: int | None = None
    replicas: int | None = None

    def check(self) -> None:
        """Checks the request by itself.

        Raises:
            ClusterError: it is empty, or a number is negative.
        """
        given = [each for each in (self.minimum, self.maximum, self.replicas) if each is not None]
        if not given:
            raise ClusterError("nothing to change: give --replicas, --min or --max")
        if min(given) < 0:
            raise ClusterError("a number of replicas cannot be negative")


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a RayService.

    Attributes:
        operations: of the JSON patch, in `spec`.
        kind: section of the annotation to which the change belongs.
        name: of the deployment or worker group.
        options: its entry in the annotation.
        told: sentences that describe the change.
    """

    operations: tuple[Operation, ...]
    kind: str
    name: str
    options: dict[str, object]
    told: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupSize:
    """Number of pods of a worker group and its bounds."""

    minimum: int
    maximum: int
    replicas: int

    def as_options(self) -> dict[str, int]:
        return {
            "minReplicas": self.minimum,
            "maxReplicas": self.maximum,
            "replicas": self.replicas,
        }

    def __str__(self) -> str:
        return f"{self.minimum} to {self.maximum} (now {self.replicas})"


def group_size(spec: JsonView) -> GroupSize:
    """Returns the size in a worker group's specification."""
    minimum = spec.at("minReplicas").count()
    replicas = spec.at("replicas").count(minimum)
    return GroupSize(minimum, spec.at("maxReplicas").count(2**31 - 1), replicas)


def num_sure(service: JsonView, group: str) -> int:
    """Returns the pods that a group has at least, whatever the autoscaler does.

    Raises:
        ClusterError: there is no such group.
    """
    size = group_size(_group(service.at("spec", "rayClusterConfig", "workerGroupSpecs"), group)[1])
    autoscaled = service.at("spec", "rayClusterConfig", "enableInTreeAutoscaling").is_true
    return size.minimum if autoscaled else size.replicas


def num_gpus_offered(groups: JsonView, resized: dict[str, int] | None = None) -> int:
    """Returns the GPUs of all groups at their maximum.

    Args:
        groups: `workerGroupSpecs`.
        resized: maxReplicas by group, in place of the specification's.
    """
    offered = 0
    for spec in groups.each():
        maximum = (resized or {}).get(spec.at("groupName").text(), group_size(spec).maximum)
        offered += gpus_of_pod(spec.at("template", "spec")) * maximum
    return offered


def gpus_of_pod(spec: JsonView) -> int:
    """Returns the number of GPUs that a pod requests."""
    gpus = 0
    for container in spec.at("containers").each():
        for resource, quantity in container.at("resources", "limits").pairs():
            if resource.endswith(GPU_SUFFIX):
                gpus += quantity.count()
    return gpus


def demands_of(config: ServeConfig, resized: dict[str, int] | None = None) -> list[Demand]:
    """Returns the GPUs that the deployments request.

    Args:
        config: with all applications.
        resized: minimum replicas by deployment of the application at `/`, in place of the config's.
    """
    found = []
    for application in config.applications:
        for deployment in application.deployments:
            gpus = application.num_gpus(deployment)
            if gpus > 0:
                count = application.bounds(deployment)[0]
                if application.route == "/":
                    count = (resized or {}).get(deployment, count)
                found.append(Demand(f"{deployment} of {application.name}", gpus, count))
    return found


def of_group(service: JsonView, group: str, request: ScaleRequest) -> Change:
    """Returns the change of a worker group.

    Raises:
        ClusterError: there is no such group, or it cannot have that size.
    """
    groups = service.at("spec", "rayClusterConfig", "workerGroupSpecs")
    spec = _group(groups, group)[1]
    before, after = group_size(spec), resized_group(spec, group, request)
    _check_gpus(demands_of(read_config(service)), num_gpus_offered(groups, {group: after.maximum}))
    base = "/spec/rayClusterConfig/workerGroupSpecs"
    options: dict[str, object] = dict(after.as_options())
    told = [f"group {group}: {before} -> {after} pods; no pod restarts"]
    autoscaled = service.at("spec", "rayClusterConfig", "enableInTreeAutoscaling").is_true
    if autoscaled and request.replicas is not None and after.minimum < after.maximum:
        told.append("the autoscaler continues from there, within the bounds")
    operations = tuple(group_operations(groups, group, request, base))
    return Change(operations, "workerGroups", group, options, tuple(told))


def group_operations(
    groups: JsonView, group: str, request: ScaleRequest, base: str
) -> list[Operation]:
    """Returns the patch of one group in a list of groups.

    Args:
        groups: `workerGroupSpecs` as it is.
        group: name of the group.
        request: its new size.
        base: path of the list.

    Raises:
        ClusterError: there is no such group, or it cannot have that size.
    """
    index, spec = _group(groups, group)
    after = resized_group(spec, group, request)
    # "add" also replaces an existing value.
    return [
        Operation("add", f"{base}/{index}/{key}", value)
        for key, value in after.as_options().items()
    ]


def resized_group(spec: JsonView, group: str, request: ScaleRequest) -> GroupSize:
    """Returns the requested size of a group.

    Raises:
        ClusterError: the bounds contradict each other.
    """
    now = group_size(spec)
    minimum = now.minimum if request.minimum is None else request.minimum
    maximum = now.maximum if request.maximum is None else request.maximum
    if minimum > maximum:
        raise ClusterError(f"{group} would have a minimum of {minimum} above its maximum {maximum}")
    if request.replicas is None:
        return GroupSize(minimum, maximum, min(max(now.replicas, minimum), maximum))
    if not minimum <= request.replicas <= maximum:
        raise ClusterError(
            f"--replicas {request.replicas} is outside of the bounds {minimum} to {maximum} of "
            f"{group}: give --min and --max as well"
        )
    return GroupSize(minimum, maximum, request.replicas)


def of_deployment(service: JsonView, deployment: str, request: ScaleRequest) -> Change:
    """Returns the change of a deployment of the application at `/`.

    Raises:
        ClusterError: there is no such deployment, or it cannot have that size.
    """
    config = read_config(service)
    application = config.main
    if deployment not in application.deployments:
        names = ", ".join(application.deployments)
        raise ClusterError(f"there is no deployment {deployment}: choose one of {names}")
    before = application.bounds(deployment)
    after = _new_bounds(application, deployment, request)
    groups = service.at("spec", "rayClusterConfig", "workerGroupSpecs")
    _check_gpus(demands_of(config, {deployment: after[0]}), num_gpus_offered(groups))
    options: dict[str, object] = {"num_replicas": after[0]}
    if is_autoscaled(application.settings, deployment):
        options = {
            "autoscaling_config": autoscaling_options(application.settings, deployment, after)
        }
    text = _with_options(config, application, deployment, options)
    told = (
        f"{deployment}: {range_text(before)} -> {range_text(after)} replicas; no replica restarts"
    )
    operation = Operation("replace", "/spec/serveConfigV2", text)
    return Change((operation,), "deployments", deployment, options, (told,))


def _new_bounds(
    application: Application, deployment: str, request: ScaleRequest
) -> tuple[int, int]:
    minimum, maximum = application.bounds(deployment)
    if request.replicas is not None:
        if request.minimum is not None or request.maximum is not None:
            raise ClusterError("a deployment takes --replicas, or --min and --max, not both")
        minimum = maximum = request.replicas
    else:
        minimum = minimum if request.minimum is None else request.minimum
        maximum = maximum if request.maximum is None else request.maximum
    if minimum > maximum:
        raise ClusterError(
            f"{deployment} would have a minimum of {minimum} above its maximum {maximum}"
        )
    if application.deployments[deployment].autoscaling is None and minimum != maximum:
        raise ClusterError(
            f"{deployment} has a fixed number of replicas: give --replicas, or autoscale it "
            f"with settings.{deployment.lower()}.deployment.autoscaling in the values"
        )
    if maximum < 1:
        raise ClusterError(f"{deployment} needs at least one replica")
    return minimum, maximum


def _with_options(
    config: ServeConfig, application: Application, deployment: str, options: dict[str, object]
) -> str:
    """Returns the Serve config with other options for one deployment."""
    applications: list[object] = []
    for entry in config.document.at("applications").each():
        content = entry.mapping()
        if entry.at("name").text() == application.name:
            others: list[object] = [
                part.value
                for part in entry.at("deployments").each()
                if part.at("name").text() != deployment
            ]
            own = application.options.get(deployment, JsonView()).mapping()
            kept = {key: own[key] for key in own if key not in _SIZES}
            content["deployments"] = [*others, {**kept, "name": deployment, **options}]
        applications.append(content)
    document = {**config.document.mapping(), "applications": applications}
    return yaml.safe_dump(document, sort_keys=True, allow_unicode=True)


_SIZES = frozenset({"num_replicas", "autoscaling_config"})


def _group(groups: JsonView, group: str) -> tuple[int, JsonView]:
    names = []
    for index, spec in enumerate(groups.each()):
        names.append(spec.at("groupName").text())
        if names[-1] == group:
            return index, spec
    raise ClusterError(f"there is no worker group {group}: choose one of {', '.join(names)}")


def _check_gpus(demands: Sequence[Demand], offered: int) -> None:
    needed = num_gpus_needed(demands)
    if needed > offered:
        raise ClusterError(
            f"the replicas would need {needed} GPUs at least, but the worker groups may have "
            f"{offered}: scale the group first (scale group gpu --max {needed})"
        )


def range_text(bounds: tuple[int, int]) -> str:
    """Returns bounds as text."""
    return str(bounds[0]) if bounds[0] == bounds[1] else f"{bounds[0]} to {bounds[1]}"


def is_fixed(options: JsonView) -> bool:
    """Returns whether options of a deployment have a fixed number of replicas."""
    return not options.at("autoscaling_config").is_there


def bounds_of_options(options: JsonView) -> tuple[int, int]:
    """Returns the minimum and maximum number of replicas in options of a deployment."""
    scaling = options.at("autoscaling_config")
    if not is_fixed(options):
        return scaling.at("min_replicas").count(1), scaling.at("max_replicas").count(1)
    number = options.at("num_replicas").count(1)
    return number, number


@dataclass(frozen=True, slots=True)
class Demand:
    """The GPUs that a deployment requests.

    Attributes:
        name: of the deployment and its application.
        gpus: of a replica.
        count: minimum number of replicas.
    """

    name: str
    gpus: float
    count: int

    @property
    def hundredths(self) -> int:
        return round(self.gpus * 100)


def untiled(demands: Sequence[Demand]) -> list[Demand]:
    """Returns the demands whose fraction is part of no sum that fills a GPU.

    A sum of 0.99 counts as full, so that thirds work.
    """
    sizes = {demand.hundredths for demand in demands if 0 < demand.hundredths < 100}
    reachable = {0}
    for total in range(1, 101):
        if any(total - size in reachable for size in sizes):
            reachable.add(total)
    return [
        demand
        for demand in demands
        if demand.hundredths in sizes
        and not {100 - demand.hundredths, 99 - demand.hundredths} & reachable
    ]


def num_gpus_needed(demands: Sequence[Demand]) -> int:
    """Returns the GPUs that the replicas need: first fit, the largest first."""
    whole = sum(math.ceil(each.gpus) * each.count for each in demands if each.hundredths >= 100)
    used: list[int] = []
    for demand in sorted(demands, key=lambda each: -each.hundredths):
        if not 0 < demand.hundredths < 100:
            continue
        for _ in range(demand.count):
            fitting = next(
                (i for i, sum_ in enumerate(used) if sum_ + demand.hundredths <= 100), None
            )
            if fitting is None:
                used.append(demand.hundredths)
            else:
                used[fitting] += demand.hundredths
    return whole + len(used)


_SECTIONS = {
    "Ingress": "ingress",
    "Segmenter": "segmenter",
    "Recognizer": "recognizer",
    "Punctuator": "punctuator",
    "SpeakerEmbedder": "speaker_embedder",
}


def is_autoscaled(settings: Settings, deployment: str) -> bool:
    """Returns whether Serve gets bounds for the deployment instead of a number.

    If the recognizer autoscales on queued audio, the segmenter has bounds too, if only from N to
    N: only autoscaled deployments can report to a policy.
    """
    if _size(settings, deployment).autoscaling is not None:
        return True
    recognizer = settings.recognizer.deployment.autoscaling
    by_queue = recognizer is not None and recognizer.policy == "queued_audio"
    return deployment == "Segmenter" and by_queue


def autoscaling_options(
    settings: Settings, deployment: str, bounds: tuple[int, int]
) -> dict[str, object]:
    """Returns `autoscaling_config` of a deployment that `is_autoscaled`.

    Args:
        settings: of its application.
        deployment: its name.
        bounds: minimum and maximum number of replicas.
    """
    # Ray takes a second to import, and only this function needs it.
    from serve_app.deployments.options import (
        by_requests,
        recognizer_autoscaling,
        segmenter_autoscaling,
    )

    size = _resized(_size(settings, deployment), bounds)
    changed = _with_size(settings, deployment, size)
    config = None
    if deployment == "Recognizer":
        config = recognizer_autoscaling(changed)
    elif deployment == "Segmenter":
        config = segmenter_autoscaling(changed)
    if config is None:
        config = by_requests(size.autoscaling or AutoscalingSettings())
    options: dict[str, object] = config.model_dump(
        mode="json", exclude_unset=True, exclude_none=True
    )
    return options


def _size(settings: Settings, deployment: str) -> DeploymentSettings:
    sizes: dict[str, DeploymentSettings] = {
        "Ingress": settings.ingress.deployment,
        "Segmenter": settings.segmenter.deployment,
        "Recognizer": settings.recognizer.deployment,
        "Punctuator": settings.punctuator.deployment,
        "SpeakerEmbedder": settings.speaker_embedder.deployment,
    }
    return sizes[deployment]


def _resized(size: DeploymentSettings, bounds: tuple[int, int]) -> DeploymentSettings:
    minimum, maximum = bounds
    if size.autoscaling is None:
        return size.model_copy(update={"num_replicas": minimum})
    scaling = size.autoscaling.model_copy(update={"min_replicas": minimum, "max_replicas": maximum})
    return size.model_copy(update={"autoscaling": scaling})


def _with_size(settings: Settings, deployment: str, size: DeploymentSettings) -> Settings:
    name = _SECTIONS[deployment]
    section = getattr(settings, name).model_copy(update={"deployment": size})
    changed: Settings = settings.model_copy(update={name: section})
    return changed
