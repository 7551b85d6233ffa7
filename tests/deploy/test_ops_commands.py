"""`paraserve cluster` on a real API server, as somebody calls it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import helm_python as helm
import pytest
import yaml
from kubernetes import client
from typer.testing import CliRunner, Result

from serve_app.cli.main import app
from serve_app.core.errors import ClusterError, ClusterRefused
from serve_app.ops.kube import RAY_SERVICE, Kube, KubeContext, connect
from serve_app.ops.scale import scale_group
from serve_app.ops.scale_plan import ScaleRequest
from tests.deploy.cluster import KubeServer
from tests.deploy.live import NAME, NAMESPACE, gpu_values, groups, install
from tests.deploy.operator import create_cluster, play_operator, set_ready
from tests.deploy.scaling import RayServices

pytestmark = pytest.mark.k8s

READING = [
    {"apiGroups": ["ray.io"], "resources": ["rayservices", "rayclusters"], "verbs": ["get", "list"]}
]
SCALING = [{"apiGroups": ["ray.io"], "resources": ["rayservices"], "verbs": ["get", "patch"]}]


@pytest.fixture
def admin(kube: KubeServer) -> Iterator[Kube]:
    with kube.api_client() as api_client:
        yield Kube(api_client, NAMESPACE)


@pytest.fixture
def running(releases: helm.Config, admin: Kube) -> Iterator[str]:
    install(releases, gpu_values())
    with create_cluster(admin, NAME, "abcde") as name:
        play_operator(admin, NAME, active=name)
        yield name


def account(
    kube: KubeServer, folder: Path, name: str, rules: list[dict[str, list[str]]]
) -> KubeContext:
    """Makes a ServiceAccount with these rights, and a kubeconfig with its token."""
    metadata = client.V1ObjectMeta(name=name, namespace=NAMESPACE)
    with kube.api_client() as api_client:
        rights = client.RbacAuthorizationV1Api(api_client)
        allowed = [
            client.V1PolicyRule(
                api_groups=rule["apiGroups"], resources=rule["resources"], verbs=rule["verbs"]
            )
            for rule in rules
        ]
        rights.create_namespaced_role(NAMESPACE, client.V1Role(metadata=metadata, rules=allowed))
        binding = client.V1RoleBinding(
            metadata=metadata,
            role_ref=client.V1RoleRef(
                api_group="rbac.authorization.k8s.io", kind="Role", name=name
            ),
            subjects=[client.RbacV1Subject(kind="ServiceAccount", name=name, namespace=NAMESPACE)],
        )
        rights.create_namespaced_role_binding(NAMESPACE, binding)
        core = client.CoreV1Api(api_client)
        core.create_namespaced_service_account(
            NAMESPACE, client.V1ServiceAccount(metadata=metadata)
        )
        spec = client.V1TokenRequestSpec(audiences=["https://kubernetes.default.svc"])
        told = core.create_namespaced_service_account_token(
            name, NAMESPACE, client.AuthenticationV1TokenRequest(spec=spec)
        )
    config = yaml.safe_load(kube.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": told.status.token if told.status else ""}
    path = folder / f"{name}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return KubeContext(NAMESPACE, path)


def call(kube: KubeServer, *arguments: str) -> Result:
    context = ["-n", NAMESPACE, "--kubeconfig", str(kube.kubeconfig)]
    return CliRunner().invoke(app, ["cluster", *arguments, *context])


def test_reader_may_read_and_scaling_names_the_missing_right(
    running: str, kube: KubeServer, tmp_path: Path
) -> None:
    reader = connect(account(kube, tmp_path, "reader", READING))
    with pytest.raises(ClusterRefused) as refused:
        scale_group(reader, NAME, "gpu", ScaleRequest(maximum=20))
    assert refused.value.status == 403
    assert str(refused.value).startswith(
        f"system:serviceaccount:asr:reader may not patch rayservices {NAME} in asr;"
    )


def test_interrupted_scaling_is_reported(
    running: str, kube: KubeServer, tmp_path: Path, services: RayServices
) -> None:
    half = connect(account(kube, tmp_path, "half", SCALING))
    with pytest.raises(ClusterRefused, match="the RayService is changed, but not the running"):
        scale_group(half, NAME, "gpu", ScaleRequest(maximum=20))
    assert groups(services)["gpu"]["maxReplicas"] == 20


def test_status_works_without_the_right_to_read_nodes(running: str, kube: KubeServer) -> None:
    result = call(kube, "status", "--json")
    assert result.exit_code == 0, result.output
    status = json.loads(result.stdout)
    assert status["state"]["active"]["name"] == running
    assert {row["name"]: row["status"] for row in status["deployments"]} == dict.fromkeys(
        ("Ingress", "Segmenter", "Recognizer", "Punctuator"), "HEALTHY"
    )
    assert (status["gpus_needed"], status["gpus_offered"]) == (3, 16)
    assert "no replica counts from Serve" in status["notes"][0]


def test_status_is_a_table(running: str, kube: KubeServer) -> None:
    told = call(kube, "status", NAME).stdout
    assert f"{NAME}: cluster {running} serves on 4 pods" in told
    assert "Recognizer" in told
    assert "GPUs: 3 needed, up to 16 available" in told


def test_scale_is_printed_and_takes_effect(
    running: str, kube: KubeServer, services: RayServices
) -> None:
    result = call(kube, "scale", "group", "gpu", "--max", "20")
    assert result.stdout.splitlines() == [
        "group gpu: 2 to 16 (now 2) -> 2 to 20 (now 2) pods; no pod restarts",
        f"the running RayCluster {running} is changed as well",
    ]
    assert groups(services)["gpu"]["maxReplicas"] == 20


def test_rollout_tells_by_its_exit_code(running: str, kube: KubeServer, admin: Kube) -> None:
    assert call(kube, "rollout", "status").exit_code == 0
    play_operator(admin, NAME, active=running, settled=False)
    result = call(kube, "rollout", "status")
    assert result.exit_code == 1
    assert "KubeRay has not processed the last change yet" in result.stdout
    waited = call(kube, "rollout", "wait", "--timeout", "0")
    assert isinstance(waited.exception, ClusterError)
    assert "not complete after 0 s" in str(waited.exception)


def test_doctor_reports_missing_parts_of_the_server(running: str, kube: KubeServer) -> None:
    result = call(kube, "doctor", "--json", "--no-hub")
    assert result.exit_code == 1, result.output
    told = [finding["problem"] for finding in json.loads(result.stdout)]
    for expected in (
        "there is no Secret paraserve-api-keys",
        "there is no Secret paraserve-redis",
        "a pod of gpu requests 1 GPUs, but no node has more than 0",
    ):
        assert any(expected in problem for problem in told), told


def test_doctor_cannot_tell_without_a_server(kube: KubeServer, tmp_path: Path) -> None:
    config = yaml.safe_load(kube.kubeconfig.read_text())
    config["clusters"][0]["cluster"] = {"server": "http://127.0.0.1:9"}
    path = tmp_path / "nowhere"
    path.write_text(yaml.safe_dump(config))
    result = CliRunner().invoke(app, ["cluster", "doctor", "--kubeconfig", str(path)])
    assert result.exit_code == 2


def test_missing_service_is_reported(kube: KubeServer) -> None:
    result = call(kube, "status", "--name", "nobody")
    assert "no RayService nobody in asr" in str(result.exception)


def test_name_is_an_argument_of_every_command(running: str, kube: KubeServer) -> None:
    for arguments in (
        ("status", NAME),
        ("status", "speech"),  # the Helm release
        ("rollout", "status", NAME),
        ("rollout", NAME, "status"),
        ("scale", NAME, "group", "gpu", "--max", "17"),
        ("scale", "punctuator", NAME, "--replicas", "5"),
    ):
        result = call(kube, *arguments)
        assert result.exit_code == 0, (arguments, result.output, result.exception)
    for arguments in (
        ("doctor", "nobody"),
        ("restart", "nobody", "recognizer"),
        ("logs", "nobody"),
    ):
        result = call(kube, *arguments)
        assert "no RayService nobody in asr" in str(result.exception), arguments


def test_every_cluster_of_the_release_is_listed(
    running: str, kube: KubeServer, admin: Kube
) -> None:
    with create_cluster(admin, NAME, "older"):
        status = json.loads(call(kube, "status", "--json").stdout)
    found = {each["name"]: each["role"] for each in status["clusters"]}
    assert found == {running: "active", f"{NAME}-older": "old"}


def test_head_that_is_down_is_told_at_once(running: str, kube: KubeServer, admin: Kube) -> None:
    set_ready(admin, f"{running}-head", is_ready=False)
    told = call(kube, "status").stdout
    assert f"{NAME}: the head of {running} is not ready" in told
    assert "serves on 4 pods" not in told


def test_rollback_that_undoes_scaling_is_found(
    running: str, kube: KubeServer, releases: helm.Config
) -> None:
    call(kube, "scale", "punctuator", "--replicas", "6")
    releases.rollback("speech", version=1)
    told = call(kube, "doctor", "--json", "--no-hub").stdout
    problems = [finding["problem"] for finding in json.loads(told)]
    assert any("Punctuator was scaled to 6, but the release has 4" in each for each in problems)


def test_forced_upgrade_takes_the_worker_groups_back_from_the_operator(
    running: str, kube: KubeServer, admin: Kube
) -> None:
    owns = "the KubeRay operator owns the list of worker groups"
    api = client.CustomObjectsApi(admin._client.client)
    place = ("ray.io", "v1", NAMESPACE, "rayservices", NAME)
    live = admin.get(RAY_SERVICE, NAME).mapping()
    live["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["scaleStrategy"] = {  # type: ignore[index]
        "workersToDelete": ["none"]
    }
    api.replace_namespaced_custom_object(*place, live, field_manager="kuberay-operator")
    found = json.loads(call(kube, "doctor", "--json", "--no-hub").stdout)
    (finding,) = (each for each in found if owns in each["problem"])
    assert f"-n {NAMESPACE} -f VALUES --force-conflicts" in finding["remedy"]
