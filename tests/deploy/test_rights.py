"""Who may do what, as the API server answers."""

from __future__ import annotations

from dataclasses import dataclass

import helm_python as helm
import pytest
from kubernetes import client

from tests.deploy.charting import ready_values
from tests.deploy.cluster import KubeServer
from tests.deploy.live import NAME, NAMESPACE, account, gpu_values, install
from tests.deploy.scaling import RayServices, scale_group

pytestmark = pytest.mark.k8s


@dataclass(frozen=True, slots=True)
class Question:
    """May who do what?"""

    verb: str
    group: str
    resource: str
    name: str = ""
    subresource: str = ""


def may(kube: KubeServer, user: str, question: Question) -> bool:
    attributes = client.V1ResourceAttributes(
        namespace=NAMESPACE,
        verb=question.verb,
        group=question.group,
        resource=question.resource,
        name=question.name,
        subresource=question.subresource,
    )
    spec = client.V1SubjectAccessReviewSpec(user=user, resource_attributes=attributes)
    with kube.api_client() as api_client:
        answer = client.AuthorizationV1Api(api_client).create_subject_access_review(
            client.V1SubjectAccessReview(spec=spec)
        )
    return bool(answer.status is not None and answer.status.allowed)


def test_head_may_change_its_cluster_and_nothing_else(
    releases: helm.Config, kube: KubeServer
) -> None:
    install(releases, ready_values("demo-cpu"))
    head = account("head")
    assert may(kube, head, Question("patch", "ray.io", "rayclusters"))
    assert may(kube, head, Question("list", "", "pods"))
    for refused in (
        Question("get", "", "secrets"),
        Question("delete", "ray.io", "rayclusters"),
        Question("patch", "ray.io", "rayservices"),
        Question("create", "", "pods"),
        Question("create", "", "pods", subresource="exec"),
    ):
        assert not may(kube, head, refused)


def test_workers_may_do_nothing(releases: helm.Config, kube: KubeServer) -> None:
    install(releases, ready_values("demo-cpu"))
    for question in (
        Question("get", "ray.io", "rayclusters"),
        Question("list", "", "pods"),
        Question("get", "", "secrets"),
    ):
        assert not may(kube, account("worker"), question)


def test_operators_may_scale_this_release_and_read_no_secret(
    releases: helm.Config, kube: KubeServer
) -> None:
    olga = {"kind": "User", "name": "olga", "apiGroup": "rbac.authorization.k8s.io"}
    install(releases, gpu_values(rbac={"operators": [olga]}))
    assert may(kube, "olga", Question("patch", "ray.io", "rayservices", NAME))
    assert may(kube, "olga", Question("get", "", "pods", subresource="log"))
    for refused in (
        Question("patch", "ray.io", "rayservices", "another"),
        Question("delete", "ray.io", "rayservices", NAME),
        Question("get", "", "secrets"),
        Question("create", "", "pods", subresource="exec"),
    ):
        assert not may(kube, "olga", refused)


def test_operators_rights_suffice_for_scaling(releases: helm.Config, kube: KubeServer) -> None:
    olga = {"kind": "User", "name": "olga", "apiGroup": "rbac.authorization.k8s.io"}
    install(releases, gpu_values(rbac={"operators": [olga]}))
    with kube.api_client(impersonate="olga") as api_client:
        services = RayServices(api_client, NAMESPACE)
        scale_group(services, NAME, "gpu", maxReplicas=17)
    with kube.api_client(impersonate="stranger") as api_client:
        services = RayServices(api_client, NAMESPACE)
        with pytest.raises(client.ApiException) as refused:
            scale_group(services, NAME, "gpu", maxReplicas=18)
        assert refused.value.status == 403
