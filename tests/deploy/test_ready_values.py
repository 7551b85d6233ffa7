"""The ready-made values and the test of a release work on an ordinary cluster."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.deploy.charting import (
    CHART,
    READY_MADE,
    ROOT,
    Json,
    combined,
    notes,
    only,
    pods_within,
    ready_values,
    render,
)


def images(values: Json) -> set[str]:
    return {
        container["image"]
        for item in render(values)
        for pod in pods_within(item)
        for container in pod["spec"]["containers"]
    }


def chart_version() -> str:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    return str(metadata["appVersion"])


@pytest.mark.parametrize(
    ("name", "suffix"), [("demo-cpu", ""), ("one-gpu", "-cuda"), ("many-gpus", "-cuda")]
)
def test_profile_on_gpus_gets_the_image_with_cuda(name: str, suffix: str) -> None:
    assert images(ready_values(name)) == {f"paraserve:{chart_version()}{suffix}"}


def test_image_with_cuda_is_chosen_by_any_application_and_by_the_batch_job() -> None:
    cuda = f"paraserve:{chart_version()}-cuda"
    stage: Json = {"settings": {"punctuator": {"device": "cuda:0"}}}
    assert images(combined(ready_values("demo-cpu"), stage)) == {cuda}
    batch: Json = {"source": "a", "output": "b", "profile": "paraformer-large"}
    batch["job"] = {"enabled": True}
    assert images(combined(ready_values("demo-cpu"), {"batch": batch})) == {cuda}


def test_own_tag_wins() -> None:
    values = combined(ready_values("one-gpu"), {"image": {"tag": "mine"}})
    assert images(values) == {"paraserve:mine"}


def test_volume_of_one_gpu_is_one_that_usual_storage_classes_have() -> None:
    claim = only(render(ready_values("one-gpu")), "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert "all pods must run on one node" in notes(ready_values("one-gpu"))
    assert "all pods must run on one node" not in notes(ready_values("many-gpus"))


@pytest.mark.parametrize("name", READY_MADE)
def test_no_pod_wants_a_priority_that_quotas_refuse(name: str) -> None:
    for item in render(ready_values(name)):
        for pod in pods_within(item):
            assert not pod["spec"].get("priorityClassName", "").startswith("system-")


@pytest.mark.parametrize("name", ["one-gpu", "many-gpus", "airgapped"])
def test_key_of_the_test_is_optional_and_its_command_is_told(name: str) -> None:
    (pod,) = (item for item in render(ready_values(name)) if item["kind"] == "Pod")
    (volume,) = (entry for entry in pod["spec"]["volumes"] if entry["name"] == "api-key")
    assert volume["secret"]["optional"] is True
    assert "create secret generic paraserve-test-key --from-literal=key=" in notes(
        ready_values(name)
    )


def test_pod_of_a_test_that_succeeded_does_not_stay() -> None:
    (pod,) = (item for item in render(ready_values("demo-cpu")) if item["kind"] == "Pod")
    policies = pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(",")
    assert set(policies) == {"before-hook-creation", "hook-succeeded"}


def test_documented_install_builds_the_image_adds_the_repository_and_makes_every_secret() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    install = page[page.index("## Install") : page.index("## Day-2 operations")]
    for command in ("docker build", "docker push", "helm repo add kuberay"):
        assert command in install
    wanted = {
        secret
        for name in READY_MADE
        for secret in re.findall(r"paraserve-(?:api-keys|test-key)", str(ready_values(name)))
    }
    assert all(f"create secret generic {secret}" in install for secret in wanted)
