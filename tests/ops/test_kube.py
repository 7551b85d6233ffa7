"""Refusals in plain words, and where a cluster is."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from serve_app.core.errors import ClusterError, ClusterRefused, ConfigurationError
from serve_app.ops.kube import POD, KubeContext, connect, explain
from serve_app.ops.service import find_service
from tests.fakes.recorded_kube import CORE, SERVICES, RecordedKube, pod, ray_service


def forbidden(message: str) -> str:
    return json.dumps({"kind": "Status", "message": message})


def test_missing_right_names_user_verb_resource_and_name() -> None:
    message = (
        'rayservices.ray.io "speech" is forbidden: User "olga" cannot patch resource '
        '"rayservices" in API group "ray.io" in the namespace "asr"'
    )
    told = explain(403, forbidden(message), "asr")
    assert told.startswith("olga may not patch rayservices speech in asr; rbac.operators")


def test_missing_right_on_a_list_has_no_name() -> None:
    message = 'pods is forbidden: User "olga" cannot list resource "pods" in API group ""'
    assert explain(403, forbidden(message), "asr").startswith("olga may not list pods in asr;")


def test_refusal_of_another_kind_is_passed_on() -> None:
    told = explain(403, forbidden("exceeded quota: gpus"), "asr")
    assert "exceeded quota: gpus" in told


def test_answer_that_is_not_json_is_truncated() -> None:
    assert len(explain(502, "x" * 5000, "asr")) < 300


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    contexts = [
        {"name": name, "context": {"cluster": "c", "user": "u", "namespace": f"ns-{name}"}}
        for name in ("one", "two")
    ]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "very-secret"}}],
        "contexts": contexts,
        "current-context": "one",
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    return path


def test_namespace_is_that_of_the_chosen_context(kubeconfig: Path) -> None:
    assert connect(KubeContext(kubeconfig=kubeconfig)).namespace == "ns-one"
    assert connect(KubeContext(kubeconfig=kubeconfig, context="two")).namespace == "ns-two"
    assert connect(KubeContext("mine", kubeconfig)).namespace == "mine"


def test_unreachable_server_is_reported_without_the_token(kubeconfig: Path) -> None:
    with pytest.raises(ClusterRefused, match="no answer from http://127") as refused:
        find_service(connect(KubeContext(kubeconfig=kubeconfig, timeout_s=2.0)), None)
    assert "very-secret" not in str(refused.value)
    assert refused.value.status == 0


def test_missing_kubeconfig_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give --kubeconfig"):
        connect(KubeContext(kubeconfig=tmp_path / "none"))


def test_missing_client_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'paraserve\[ops\]'"):
        connect(KubeContext())


def test_only_service_needs_no_name() -> None:
    kube = RecordedKube({SERVICES: {"items": [ray_service()]}})
    assert find_service(kube, None).at("metadata", "name").text() == "speech"


def test_several_services_are_named() -> None:
    kube = RecordedKube({SERVICES: {"items": [ray_service(), ray_service()]}})
    with pytest.raises(ClusterError, match=r"several RayServices in asr \(speech, speech\)"):
        find_service(kube, None)


def test_missing_definition_is_distinguished_from_a_missing_service() -> None:
    with pytest.raises(ClusterError, match="install the KubeRay operator"):
        find_service(RecordedKube({}), "speech")
    with pytest.raises(ClusterError, match="no RayService speech in asr"):
        find_service(RecordedKube({"/apis/ray.io/v1": {}}), "speech")


def test_service_is_found_by_the_name_of_its_helm_release() -> None:
    query = "labelSelector=app.kubernetes.io%2Finstance%3Dasr-prod"
    kube = RecordedKube({f"{SERVICES}?{query}": {"items": [ray_service()]}})
    assert find_service(kube, "asr-prod").at("metadata", "name").text() == "speech"


def test_list_reads_all_pages() -> None:
    pages = {
        f"{CORE}/pods": {"items": [pod("a", "gpu")], "metadata": {"continue": "next"}},
        f"{CORE}/pods?continue=next": {"items": [pod("b", "gpu")], "metadata": {}},
    }
    found = RecordedKube(pages).list(POD)
    assert [each.at("metadata", "name").text() for each in found] == ["a", "b"]


def test_list_starts_again_when_the_server_has_forgotten_it() -> None:
    kube = RecordedKube({f"{CORE}/pods": {"items": [], "metadata": {"continue": "old"}}})
    whole = {"items": [pod("a", "gpu")], "metadata": {}}

    class Expired(ClusterRefused):
        def __init__(self) -> None:
            super().__init__("expired", 410)
            kube.answers[f"{CORE}/pods"] = whole

    kube.answers[f"{CORE}/pods?continue=old"] = Expired
    found = kube.list(POD)
    assert [each.at("metadata", "name").text() for each in found] == ["a"]


def test_name_with_a_slash_is_no_other_path() -> None:
    kube = RecordedKube({})
    with pytest.raises(ClusterRefused):
        kube.get(POD, "x/../../secrets/token?a")
    assert kube.paths == [f"{CORE}/pods/x%2F..%2F..%2Fsecrets%2Ftoken%3Fa"]


def test_nothing_is_discovered_or_cached_on_this_machine(kubeconfig: Path) -> None:
    """Discovery has no timeout, and its cache is a file that other users can write."""
    before = set(Path(tempfile.gettempdir()).glob("osrcp-*"))
    connect(KubeContext(kubeconfig=kubeconfig))
    assert set(Path(tempfile.gettempdir()).glob("osrcp-*")) == before
