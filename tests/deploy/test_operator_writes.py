"""The chart renders what KubeRay would write, so that Helm keeps the fields that it applies."""

from __future__ import annotations

from collections.abc import Iterator

import helm_python as helm
import pytest

from tests.deploy.charting import (
    CHART,
    EVERYTHING,
    READY_MADE,
    Json,
    combined,
    only,
    ready_values,
    render,
)
from tests.deploy.cluster import KubeServer
from tests.deploy.live import NAME, NAMESPACE, install
from tests.deploy.operator_writes import (
    add_finalizer,
    canonical_quantity,
    fields_of_operator,
    job_as_written,
    remove_finalizer,
    service_as_written,
)
from tests.deploy.scaling import RayServices

# Values that are right and that Go writes in another way.
UNUSUAL: Json = {
    "head": {"resources": {"requests": {"cpu": 0.5, "memory": "4096Mi"}}},
    "autoscaler": {"resources": {"limits": {"cpu": "1000m", "memory": "1.5Gi"}}},
    "workerGroups": {
        "cpu": {
            "resources": {
                "requests": {"cpu": 2, "memory": "8192Mi", "ephemeral-storage": "5000M"},
                "limits": {"cpu": "2000m", "memory": "8Gi"},
            },
            "tmpSize": "4096Mi",
            "pod": {
                "probes": {"initialDelaySeconds": 0},
                "env": [
                    {"name": "EMPTY", "value": ""},
                    {
                        "name": "CORES",
                        "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}},
                    },
                ],
                "volumes": [
                    {"name": "calls", "persistentVolumeClaim": {"claimName": "calls"}},
                    {"name": "scratch", "emptyDir": {"medium": "", "sizeLimit": "0.5Gi"}},
                ],
                "volumeMounts": [
                    {"name": "calls", "mountPath": "/calls", "readOnly": False},
                    {"name": "scratch", "mountPath": "/scratch", "subPath": ""},
                ],
            },
        }
    },
    "batch": {"ttlSecondsAfterFinished": 0},
}
CASES: dict[str, Json] = {
    **{name: ready_values(name) for name in READY_MADE},
    "everything": combined(ready_values("many-gpus"), EVERYTHING),
    "unusual": combined(ready_values("many-gpus"), EVERYTHING, UNUSUAL),
}


@pytest.mark.parametrize("case", CASES)
def test_rayservice_is_rendered_as_the_operator_writes_it(case: str) -> None:
    spec = only(render(CASES[case]), "RayService")["spec"]
    assert service_as_written(spec) == spec


@pytest.mark.parametrize("case", ["everything", "unusual"])
def test_rayjob_is_rendered_as_the_operator_writes_it(case: str) -> None:
    spec = only(render(CASES[case]), "RayJob")["spec"]
    assert job_as_written(spec) == spec


def test_every_worker_group_has_the_structure_that_the_operator_adds() -> None:
    groups = only(render(ready_values("one-gpu")), "RayService")["spec"]["rayClusterConfig"]
    assert [group["scaleStrategy"] for group in groups["workerGroupSpecs"]] == [{}, {}]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("1000m", "1"),
        (2, "2"),
        (0.5, "500m"),
        ("1500m", "1500m"),
        ("2000", "2k"),
        ("2048Mi", "2Gi"),
        ("1.5Gi", "1536Mi"),
        ("1000Mi", "1000Mi"),
        ("5000M", "5G"),
        ("512", "512"),
        ("0", "0"),
    ],
)
def test_quantities_get_their_canonical_form(given: str | float, written: str) -> None:
    assert canonical_quantity(given) == written
    resources = {"requests": {"cpu": given, "memory": "1Gi"}, "limits": {"cpu": "2"}}
    values = combined(ready_values("demo-cpu"), {"autoscaler": {"resources": resources}})
    spec = only(render(values), "RayService")["spec"]["rayClusterConfig"]
    assert spec["autoscalerOptions"]["resources"]["requests"]["cpu"] == written


@pytest.fixture
def seen_by_operator(kube: KubeServer) -> Iterator[None]:
    """Removes the finalizer that a test has set, so that the release can be uninstalled."""
    yield
    with kube.api_client() as api_client:
        remove_finalizer(api_client, NAMESPACE, NAME)


@pytest.mark.k8s
@pytest.mark.parametrize("case", ["demo-cpu", "many-gpus", "unusual"])
def test_upgrade_works_after_the_operator_has_written_the_object(
    case: str,
    releases: helm.Config,
    services: RayServices,
    kube: KubeServer,
    seen_by_operator: None,
) -> None:
    values = CASES[case]
    install(releases, values)
    with kube.api_client() as api_client:
        written = add_finalizer(api_client, NAMESPACE, NAME)
    assert fields_of_operator(written) == []
    releases.upgrade(CHART, "speech", combined(values, {"image": {"tag": "9.9.9"}}))
    live = services.get(NAME)["spec"]["rayClusterConfig"]
    (container,) = live["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert container["image"].endswith((":9.9.9", "@" + values.get("image", {}).get("digest", "-")))
