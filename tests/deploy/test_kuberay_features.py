"""What KubeRay 1.7 offers beyond the defaults: rendered as its definitions want it."""

from __future__ import annotations

from collections.abc import Iterator

import jsonschema
import pytest

from tests.deploy.charting import (
    EVERYTHING,
    Json,
    cluster_specs,
    combined,
    notes,
    only,
    ready_values,
    render,
)
from tests.deploy.crds import schema_of, strict
from tests.deploy.operator_writes import job_as_written, service_as_written
from tests.deploy.test_rendering import _broken_rules
from tests.deploy.test_values import refusal

INCREMENTAL: Json = {
    "serve": {
        "upgradeStrategy": "NewClusterWithIncrementalUpgrade",
        "incrementalUpgrade": {"gatewayClassName": "istio"},
    },
    "ingress": {"enabled": False},
}
ROCKSDB: Json = {"gcsFaultTolerance": {"enabled": True, "backend": "rocksdb"}}
NO_REDIS: Json = {"gcsFaultTolerance": {"redisAddress": "", "redisPasswordSecret": ""}}
KUEUE: Json = {
    "batch": {
        "job": {"enabled": True},
        "source": "s3://calls/",
        "output": "s3://texts/",
        "kueue": {"queue": "gpus", "priorityClass": "night"},
    }
}
SUSPENDED: Json = {"suspend": True}
CASES: dict[str, Json] = {
    "incremental": combined(ready_values("many-gpus"), INCREMENTAL),
    "rocksdb": combined(ready_values("many-gpus"), NO_REDIS, ROCKSDB),
    "rocksdb on a claim": combined(
        ready_values("demo-cpu"),
        ROCKSDB,
        {"gcsFaultTolerance": {"storage": {"claimName": "gcs"}}},
    ),
    "kueue": combined(ready_values("one-gpu"), KUEUE),
    "suspended": combined(ready_values("demo-cpu"), SUSPENDED),
}


def ray_objects(values: Json) -> Iterator[Json]:
    for item in render(values):
        if item["kind"] in {"RayService", "RayJob", "RayCronJob"}:
            yield item


@pytest.mark.parametrize("case", CASES)
def test_objects_keep_to_the_definitions_and_their_rules(case: str, crds: dict[str, Json]) -> None:
    for item in ray_objects(CASES[case]):
        schema = schema_of(crds[item["kind"]])
        faults = jsonschema.Draft202012Validator(strict(schema)).iter_errors(item)
        assert [f"{fault.json_path}: {fault.message}" for fault in faults] == []
        assert list(_broken_rules(item, schema, "")) == []


@pytest.mark.parametrize("case", CASES)
def test_objects_are_rendered_as_the_operator_writes_them(case: str) -> None:
    for item in ray_objects(CASES[case]):
        written = service_as_written if item["kind"] == "RayService" else job_as_written
        assert written(item["spec"]) == item["spec"]


def test_incremental_upgrade_has_the_options_that_it_requires() -> None:
    strategy = only(render(CASES["incremental"]), "RayService")["spec"]["upgradeStrategy"]
    assert strategy == {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {
            "gatewayClassName": "istio",
            "stepSizePercent": 25,
            "intervalSeconds": 30,
            "maxSurgePercent": 25,
        },
    }
    usual = only(render(ready_values("many-gpus")), "RayService")["spec"]["upgradeStrategy"]
    assert usual == {"type": "NewCluster"}


def test_route_to_an_incremental_upgrade_goes_through_the_gateway_of_the_operator() -> None:
    own = {"enabled": True, "parentRefs": [{"name": "public"}], "backendService": "gateway-istio"}
    (rule,) = only(render(combined(CASES["incremental"], {"httpRoute": own})), "HTTPRoute")["spec"][
        "rules"
    ]
    assert rule["backendRefs"] == [{"name": "gateway-istio", "port": 80}]
    assert rule["timeouts"]["request"] == "3600s"
    assert "through the Gateway speech-paraserve-gateway" in notes(CASES["incremental"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"serve": {"incrementalUpgrade": {"gatewayClassName": ""}}},
            "needs serve.incrementalUpgrade.gatewayClassName",
        ),
        ({"autoscaler": {"enabled": False}}, "needs autoscaler.enabled"),
        ({"serve": {"incrementalUpgrade": {"stepSizePercent": 50}}}, "must not exceed"),
        (
            {"ingress": {"enabled": True, "hosts": ["a.example.com"]}},
            "would bypass the shares of an incremental upgrade",
        ),
        (
            {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}},
            "set httpRoute.backendService",
        ),
    ],
)
def test_incremental_upgrade_that_the_operator_would_refuse_or_bypass_is_refused(
    changes: Json, sentence: str
) -> None:
    assert sentence in refusal(combined(CASES["incremental"], changes))


def test_control_store_on_a_claim_needs_no_redis() -> None:
    (spec,) = cluster_specs(only(render(CASES["rocksdb"]), "RayService"))
    assert spec["gcsFaultToleranceOptions"] == {
        "backend": "rocksdb",
        "storage": {"size": "1Gi", "deletionPolicy": "DeleteWithCluster"},
    }
    (spec,) = cluster_specs(only(render(CASES["rocksdb on a claim"]), "RayService"))
    options = spec["gcsFaultToleranceOptions"]
    assert options == {"backend": "rocksdb", "storage": {"claimName": "gcs"}}
    assert "GCSFaultToleranceEmbeddedStorage" in notes(CASES["rocksdb"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"redisAddress": "redis:6379"}, "takes no redisAddress"),
        ({"storage": {"claimName": "a", "storageClassName": "fast"}}, "a claim of yours"),
    ],
)
def test_mixture_of_control_stores_is_refused(changes: Json, sentence: str) -> None:
    values = combined(ready_values("demo-cpu"), ROCKSDB, {"gcsFaultTolerance": changes})
    assert sentence in refusal(values)


def test_notes_order_the_uninstall_of_a_release_with_redis() -> None:
    text = notes(ready_values("many-gpus"))
    assert "kubectl -n asr delete rayservice speech-paraserve --timeout=10m" in text
    assert "delete rayservice" not in notes(ready_values("demo-cpu"))


def test_queued_job_states_its_pods_and_follows_no_autoscaler() -> None:
    job = only(render(CASES["kueue"]), "RayJob")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "night"
    (spec,) = cluster_specs(job)
    assert spec["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in spec
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    (service,) = cluster_specs(only(render(CASES["kueue"]), "RayService"))
    assert service["enableInTreeAutoscaling"] is True
    assert "LocalQueue gpus" in notes(CASES["kueue"])


def test_queue_of_scheduled_jobs_is_refused_as_they_get_no_label() -> None:
    cron: Json = {"batch": {"job": {"enabled": False}, "cron": {"enabled": True}}}
    assert "exclude each other" in refusal(combined(CASES["kueue"], cron))


def test_scheduled_jobs_are_said_to_need_their_feature_gate() -> None:
    text = notes(combined(ready_values("many-gpus"), EVERYTHING))
    assert '[{"name": "RayCronJob", "enabled": true}]' in text
    assert "RayCronJob" not in notes(ready_values("many-gpus"))


def test_suspended_service_is_kept_without_pods() -> None:
    assert only(render(CASES["suspended"]), "RayService")["spec"]["suspend"] is True
    assert "suspend" not in only(render(ready_values("demo-cpu")), "RayService")["spec"]
    assert "--set suspend=false" in notes(CASES["suspended"])
