"""What the chart renders is what Kubernetes, KubeRay and Ray Serve understand."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celpy
import celpy.adapter
import jsonschema
import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel
from ray.serve._private.build_app import build_app
from ray.serve.schema import ServeDeploySchema

from serve_app.app import build
from serve_app.hosting.haproxy_launcher import OPTIONS_VARIABLE, ProxyOptions
from serve_app.hosting.ray_environment import LAUNCHER_IN_IMAGE
from serve_app.settings import Settings
from serve_app.settings.admission import AuthSettings
from tests.deploy.charting import (
    CHART,
    EVERYTHING,
    READY_MADE,
    ROOT,
    YAML_LOADER,
    Json,
    cluster_specs,
    combined,
    only,
    pods_within,
    ready_values,
    render,
    serve_config,
)
from tests.deploy.crds import schema_of, strict

KUBERNETES_VERSIONS = ("1.30", "1.33", "1.36")
CASES = (*READY_MADE, "everything")
_RAY_KINDS = {"RayService", "RayJob", "RayCronJob", "RayCluster"}
_FOREIGN_KINDS = {"PodMonitor", "PrometheusRule", "HTTPRoute"}


def objects(case: str) -> list[Json]:
    if case == "everything":
        return render(combined(ready_values("many-gpus"), EVERYTHING))
    return render(ready_values(case))


def plain_manifest() -> list[Json]:
    text = (ROOT / "deploy" / "ray-cluster.yaml").read_text(encoding="utf-8")
    return [item for item in yaml.load_all(text, YAML_LOADER) if item]


def unknown_keys(value: Any, model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yields the keys of a mapping that a model does not have, at any depth."""
    for key, entry in value.items():
        field = model.model_fields.get(key)
        if field is None:
            yield f"{path}.{key}"
            continue
        inner = _model_of(field.annotation)
        if inner is not None:
            for each in entry if isinstance(entry, list) else [entry]:
                if isinstance(each, dict):
                    yield from unknown_keys(each, inner, f"{path}.{key}")


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    for argument in typing.get_args(annotation):
        found = _model_of(argument)
        if found is not None:
            return found
    return None


@pytest.mark.parametrize("case", CASES)
def test_every_key_of_the_serve_config_is_one_of_rays(case: str) -> None:
    config = serve_config(objects(case))
    assert list(unknown_keys(config, ServeDeploySchema)) == []
    ServeDeploySchema.model_validate(config)


@pytest.mark.parametrize("case", CASES)
def test_every_argument_of_an_application_is_a_setting(case: str) -> None:
    for application in serve_config(objects(case))["applications"]:
        assert list(unknown_keys(application["args"], Settings)) == []
        settings = Settings.model_validate(application["args"])
        assert settings.http.host == "0.0.0.0"


@pytest.mark.parametrize("case", CASES)
def test_haproxy_is_bounded_and_outlasts_the_longest_request(case: str) -> None:
    found = objects(case)
    longest_s = max(
        Settings.model_validate(application["args"]).ingress.max_request_timeout_s
        for application in serve_config(found)["applications"]
    )
    (service,) = [item for item in found if item["kind"] == "RayService"]
    spec = service["spec"]["rayClusterConfig"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        container = group["template"]["spec"]["containers"][0]
        variables = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert variables["RAY_SERVE_HAPROXY_BINARY_PATH"] == LAUNCHER_IN_IMAGE
        assert int(variables["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) >= longest_s + 60
        options = ProxyOptions(**json.loads(variables[OPTIONS_VARIABLE]))
        assert options.header_timeout_s == 10


def test_search_for_unknown_keys_finds_them_at_depth() -> None:
    wrong = {"applications": [{"name": "a", "import_path": "a:b", "deploymentz": []}]}
    assert list(unknown_keys(wrong, ServeDeploySchema)) == [".applications.deploymentz"]
    assert list(unknown_keys({"recognizer": {"deployment": {"gpus": 1}}}, Settings)) == [
        ".recognizer.deployment.gpus"
    ]


@pytest.mark.parametrize("case", CASES)
def test_number_of_replicas_is_set_in_one_place(case: str) -> None:
    for application in serve_config(objects(case))["applications"]:
        settings = Settings.model_validate(application["args"])
        for entry in application.get("deployments", []):
            if "num_replicas" not in entry:
                continue
            section = entry["name"].lower()
            assert getattr(settings, section).deployment.autoscaling is None
            given = application["args"].get(section, {}).get("deployment", {})
            assert "num_replicas" not in given


@pytest.mark.parametrize("case", CASES)
def test_deployments_of_the_serve_config_are_those_that_are_built(case: str) -> None:
    for application in serve_config(objects(case))["applications"]:
        settings = Settings.model_validate(application["args"])
        # The keys file is in the pods.
        without_keys = settings.model_copy(update={"auth": AuthSettings(mode="off")})
        built = {
            deployment.name: deployment._deployment_config.autoscaling_config
            for deployment in build_app(build(without_keys), name="built").deployments
        }
        for entry in application.get("deployments", []):
            # Serve refuses a name that it does not know, and a number beside bounds.
            assert built[entry["name"]] is None


@pytest.mark.parametrize("case", CASES)
def test_ray_objects_keep_to_the_definitions(case: str, crds: dict[str, Json]) -> None:
    found = [item for item in objects(case) if item["kind"] in _RAY_KINDS]
    assert found
    for item in found:
        schema = strict(schema_of(crds[item["kind"]]))
        faults = jsonschema.Draft202012Validator(schema).iter_errors(item)
        assert [f"{fault.json_path}: {fault.message}" for fault in faults] == []


def test_plain_cluster_keeps_to_the_definition(crds: dict[str, Json]) -> None:
    schema = strict(schema_of(crds["RayCluster"]))
    jsonschema.validate(only(plain_manifest(), "RayCluster"), schema)


@pytest.mark.parametrize("case", CASES)
def test_ray_objects_keep_to_the_rules_of_the_definitions(case: str, crds: dict[str, Json]) -> None:
    for item in objects(case):
        if item["kind"] in _RAY_KINDS:
            assert list(_broken_rules(item, schema_of(crds[item["kind"]]), "")) == []


def _broken_rules(value: Any, schema: Json, path: str) -> Iterator[str]:
    """Yields the CEL rules that a value breaks; those on changes need an old value."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" in rule["rule"]:
            continue
        environment = celpy.Environment()
        program = environment.program(environment.compile(rule["rule"]))
        if not program.evaluate({"self": celpy.adapter.json_to_cel(value)}):
            yield f"{path}: {rule['rule']}"
    if isinstance(value, dict):
        for key, entry in value.items():
            inner = schema.get("properties", {}).get(key)
            if inner:
                yield from _broken_rules(entry, inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _broken_rules(entry, schema.get("items", {}), f"{path}[{index}]")


@pytest.mark.slow
@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_objects_are_valid_in_kubernetes(case: str, version: str) -> None:
    for item in objects(case) + plain_manifest():
        for each in [*pods_within(item), item]:
            if each["kind"] not in _RAY_KINDS | _FOREIGN_KINDS:
                kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_duplicate_names_in_lists_of_a_pod_do_not_occur(case: str) -> None:
    for item in objects(case):
        for pod in pods_within(item):
            spec = pod["spec"]
            lists = [spec.get("volumes", [])]
            for container in spec["containers"]:
                lists += [container.get("env", []), container.get("ports", [])]
                mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
                assert len(mounts) == len(set(mounts))
            for entries in lists:
                names = [entry["name"] for entry in entries]
                assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES)
def test_mounted_volumes_exist(case: str) -> None:
    for item in objects(case):
        for pod in pods_within(item):
            volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
            for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@pytest.mark.parametrize("case", CASES)
def test_pods_have_no_more_rights_than_they_need(case: str) -> None:
    for item in objects(case):
        for pod in pods_within(item):
            assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
            assert pod["spec"]["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
            component = pod["metadata"].get("labels", {}).get("app.kubernetes.io/component", "")
            is_head = component in {"head", "batch-head"}
            assert pod["spec"]["automountServiceAccountToken"] is is_head
            for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
                context = container["securityContext"]
                assert context["readOnlyRootFilesystem"] is True
                assert context["allowPrivilegeEscalation"] is False
                assert context["capabilities"] == {"drop": ["ALL"]}
                assert {"cpu", "memory"} <= set(container["resources"]["limits"])


@pytest.mark.parametrize("case", CASES)
def test_pods_outlive_the_longest_request(case: str) -> None:
    rendered = objects(case)
    longest = max(
        Settings.model_validate(application["args"]).ingress.request_timeout_s
        for application in serve_config(rendered)["applications"]
    )
    for item in rendered:
        for spec in cluster_specs(item):
            for template in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
                assert template["template"]["spec"]["terminationGracePeriodSeconds"] > longest


@pytest.mark.parametrize("case", CASES)
def test_pods_ask_for_whole_gpus_and_the_head_offers_no_cpu(case: str) -> None:
    for item in objects(case):
        for spec in cluster_specs(item):
            assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
            assert spec["autoscalerOptions"]["version"] == "v2"
            for group in spec["workerGroupSpecs"]:
                limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
                assert str(limits.get("nvidia.com/gpu", "0")).isdecimal()


def test_one_gpu_is_shared_to_the_last_quarter() -> None:
    applications = serve_config(objects("one-gpu"))["applications"]
    settings = [Settings.model_validate(application["args"]) for application in applications]
    fractions = [entry.recognizer.deployment.num_gpus for entry in settings]
    fractions += [
        entry.punctuator.deployment.num_gpus for entry in settings if "punctuation" in entry.stages
    ]
    assert sorted(fractions) == [0.25, 0.25, 0.5]


def test_airgapped_site_fetches_nothing() -> None:
    rendered = objects("airgapped")
    for application in serve_config(rendered)["applications"]:
        assert Settings.model_validate(application["args"]).offline
    policy = only(rendered, "NetworkPolicy")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule.get("ports", [])}
    assert 443 not in ports
    assert [item for item in rendered if item["kind"] == "Job"] == []
    assert "@sha256:" in str(rendered)


def test_ports_of_ray_itself_are_closed_to_others() -> None:
    policy = only(objects("many-gpus"), "NetworkPolicy")["spec"]
    inner, *outer = policy["ingress"]
    assert "ports" not in inner
    assert inner["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "speech"
    opened = {port["port"]: rule for rule in outer for port in rule["ports"] if "from" not in rule}
    assert set(opened) == {8000}
    assert {port["port"] for rule in outer for port in rule["ports"]} == {8000, 8080, 8265}


def test_preload_job_fetches_the_packs_that_the_settings_name() -> None:
    container = only(objects("one-gpu"), "Job")["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][2:] == ["ct-punc", "fsmn-vad", "paraformer-large", "paraformer-small"]


def test_plain_cluster_deploys_the_same_application() -> None:
    config = yaml.safe_load(Path(ROOT / "deploy" / "serve-config.yaml").read_text("utf-8"))
    assert list(unknown_keys(config, ServeDeploySchema)) == []
    Settings.model_validate(config["applications"][0]["args"])


def test_every_template_makes_one_object() -> None:
    for path in (CHART / "templates").rglob("*.yaml"):
        kinds = path.read_text(encoding="utf-8").count("\nkind: ")
        assert kinds == (0 if path.name == "extra.yaml" else 1), path.name
