"""Prometheus itself evaluates the alerts and the dashboards, on made-up series.

It needs promtool: Debian's package `prometheus`, which `make .promtool` installs, or the program
that `PROMTOOL` names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import yaml

from serve_app.metrics import METRICS, Metric
from tests.deploy.charting import EVERYTHING, Json, combined, only, ready_values, render
from tests.deploy.test_monitoring import dashboard_queries

CLUSTER = "speech-paraserve-abcde"
# What labels may say; others get their own name.
_VALUES = {
    "status": ("200", "429", "500"),
    "limit": ("running", "waiting", "bytes", "audio_s"),
}
_OF_RAY = (
    'ray_serve_deployment_replica_healthy{deployment="Recognizer"}',
    'ray_serve_autoscaling_target_replicas{deployment="Recognizer"}',
    'ray_node_mem_used{ip="10.0.0.1"}',
    'ray_node_mem_total{ip="10.0.0.1"}',
    'ray_node_disk_usage{ip="10.0.0.1"}',
    'ray_node_disk_free{ip="10.0.0.1"}',
)


@dataclass(frozen=True, slots=True)
class Case:
    """Series in which an alert fires, and in which it does not.

    Attributes:
        firing: values by series, in promtool's notation, a minute apart.
        quiet: the same, in which it stays silent.
        minutes: after which both are looked at.
    """

    firing: dict[str, str]
    quiet: dict[str, str]
    minutes: int = 20


_OK = 'ray_paraserve_requests_total{status="200", code="none"}'
CASES = {
    "ParaserveNoReplica": Case(
        {'ray_serve_deployment_replica_healthy{deployment="Recognizer"}': "1 1 0x30"},
        {'ray_serve_deployment_replica_healthy{deployment="Recognizer"}': "1 0 0 1x30"},
    ),
    "ParaserveServerErrors": Case(
        {
            _OK: "0+90x30",
            'ray_paraserve_requests_total{status="500", code="internal_error"}': "0+10x30",
        },
        {
            _OK: "0+990x30",
            'ray_paraserve_requests_total{status="500", code="internal_error"}': "0+10x30",
        },
    ),
    "ParaserveKeysStale": Case(
        {"ray_paraserve_keys_stale_seconds": "0+15x30"},
        {"ray_paraserve_keys_stale_seconds": "0x30"},
    ),
    "ParaserveShedding": Case(
        {_OK: "0+90x30", 'ray_paraserve_requests_shed_total{reason="overloaded"}': "0+10x30"},
        {_OK: "0+990x30", 'ray_paraserve_requests_shed_total{reason="overloaded"}': "0+10x30"},
    ),
    "ParaserveQueueWait": Case(
        {'ray_paraserve_queue_oldest_wait_seconds{stage="asr"}': "61x30"},
        {'ray_paraserve_queue_oldest_wait_seconds{stage="asr"}': "61 61 5x30"},
    ),
    # The first of a replica: its series begins with 0.
    "ParaservePartialTranscripts": Case(
        {"ray_paraserve_partial_transcripts_total": "0 0 0 0 0 0 0 0 0 0 0 0 1x30"},
        {"ray_paraserve_partial_transcripts_total": "0x30"},
    ),
    "ParaserveRetries": Case(
        {'ray_paraserve_retries_total{stage="asr"}': "0+12x40"},
        {'ray_paraserve_retries_total{stage="asr"}': "0+1x40"},
        minutes=30,
    ),
    "ParaserveDeadlines": Case(
        {"ray_paraserve_deadline_misses_total": "0+2x40"},
        {"ray_paraserve_deadline_misses_total": "0x40"},
        minutes=30,
    ),
    "ParaserveReplicasMissing": Case(
        {
            'ray_serve_autoscaling_target_replicas{deployment="Recognizer"}': "4x30",
            'ray_serve_deployment_replica_healthy{deployment="Recognizer", replica="a"}': "1x30",
        },
        {
            'ray_serve_autoscaling_target_replicas{deployment="Recognizer"}': "1x30",
            'ray_serve_deployment_replica_healthy{deployment="Recognizer", replica="a"}': "1x30",
        },
    ),
    "ParaserveJobsStuck": Case(
        {
            'ray_paraserve_jobs{state="queued"}': "3x40",
            "ray_paraserve_job_audio_recognized_seconds_total": "0+60x5 300x40",
        },
        {
            'ray_paraserve_jobs{state="queued"}': "3x40",
            "ray_paraserve_job_audio_recognized_seconds_total": "0+1x40",
        },
        minutes=38,
    ),
    # The first of a runner: its series begins with 0.
    "ParaserveWebhooksUndelivered": Case(
        {"ray_paraserve_webhooks_undelivered_total": "0 0 0 0 0 1x30"},
        {"ray_paraserve_webhooks_undelivered_total": "0x30"},
    ),
    "ParaserveJobStore": Case(
        {"ray_paraserve_job_store_errors_total": "0+4x30"},
        {"ray_paraserve_job_store_errors_total": "0 0 3x30"},
    ),
    "ParaserveNodeMemory": Case(
        {'ray_node_mem_used{ip="a"}': "95x30", 'ray_node_mem_total{ip="a"}': "100x30"},
        {'ray_node_mem_used{ip="a"}': "80x30", 'ray_node_mem_total{ip="a"}': "100x30"},
    ),
}


@pytest.fixture(scope="session")
def promtool() -> str:
    found = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if found is None:
        message = "NOT RUN: promtool is not here; get it with `make .promtool`, or set PROMTOOL"
        if os.environ.get("TESTS_MUST_RUN"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def rule_groups() -> list[Json]:
    objects = render(combined(ready_values("many-gpus"), EVERYTHING))
    groups: list[Json] = only(objects, "PrometheusRule")["spec"]["groups"]
    return groups


def alerts() -> list[str]:
    return [rule["alert"] for group in rule_groups() for rule in group["rules"]]


def of_cluster(series: str, cluster: str = CLUSTER) -> str:
    """Returns a series with the label that the PodMonitor adds."""
    label = f'ray_io_cluster="{cluster}"'
    return series.replace("{", f"{{{label}, ") if "{" in series else f"{series}{{{label}}}"


def run_tests(promtool: str, folder: Path, tests: list[Json]) -> str:
    """Returns what promtool complains about."""
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": rule_groups()}), encoding="utf-8")
    file = folder / "tests.yaml"
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def firing_test(promtool: str, folder: Path, alert: str, values: dict[str, str]) -> str:
    """Returns promtool's complaint about a test that expects no alert."""
    series = [{"series": of_cluster(name), "values": given} for name, given in values.items()]
    expected: Json = {"eval_time": f"{CASES[alert].minutes}m", "alertname": alert}
    test: Json = {"interval": "1m", "input_series": series}
    test["alert_rule_test"] = [{**expected, "exp_alerts": []}]
    return run_tests(promtool, folder, [test])


def test_every_alert_has_its_case() -> None:
    assert set(alerts()) == set(CASES)


@pytest.mark.parametrize("alert", CASES)
def test_alert_fires_when_it_should(promtool: str, tmp_path: Path, alert: str) -> None:
    complaint = firing_test(promtool, tmp_path, alert, CASES[alert].firing)
    assert f'alertname="{alert}"' in complaint.replace(" ", "").replace("alertname:", "alertname=")


@pytest.mark.parametrize("alert", CASES)
def test_alert_is_silent_when_all_is_well(promtool: str, tmp_path: Path, alert: str) -> None:
    assert firing_test(promtool, tmp_path, alert, CASES[alert].quiet) == ""


def test_series_of_another_release_raise_no_alert(promtool: str, tmp_path: Path) -> None:
    series = of_cluster("ray_paraserve_keys_stale_seconds", "other-paraserve-abcde")
    test: Json = {"interval": "1m", "input_series": [{"series": series, "values": "0+15x30"}]}
    expected = {"eval_time": "20m", "alertname": "ParaserveKeysStale", "exp_alerts": []}
    assert run_tests(promtool, tmp_path, [{**test, "alert_rule_test": [expected]}]) == ""


def series_of(metric: Metric) -> Iterator[Json]:
    """Yields series of a metric that a service under load could export."""
    names = {"histogram": ("_bucket",)}.get(metric.kind, ("",))
    labels = [*metric.labels, "replica"]
    choices = [_VALUES.get(label, (label,)) for label in labels]
    bounds = [f"{bound:g}" for bound in metric.buckets] + ["+Inf"] if metric.buckets else [""]
    for values, name in product(product(*choices), names):
        for number, bound in enumerate(bounds):
            pairs = dict(zip(labels, values, strict=True)) | ({"le": bound} if bound else {})
            text = ", ".join(f'{label}="{value}"' for label, value in pairs.items())
            step = number + 1
            given = "7x30" if metric.kind == "gauge" else f"0+{step}x30"
            yield {
                "series": of_cluster(f"ray_{metric.name}{name}{{{text}}}"),
                "values": given,
            }


def test_every_query_of_the_dashboards_has_an_answer_under_load(
    promtool: str, tmp_path: Path
) -> None:
    series = [each for metric in METRICS.values() for each in series_of(metric)]
    series += [{"series": of_cluster(name), "values": "3x30"} for name in _OF_RAY]
    answered = {"labels": "{}", "value": 1}
    expressions = [
        {"expr": f"count({query}) > bool 0", "eval_time": "20m", "exp_samples": [answered]}
        for query in dashboard_queries()
    ]
    assert len(expressions) > 30
    test: Json = {"interval": "1m", "input_series": series, "promql_expr_test": expressions}
    assert run_tests(promtool, tmp_path, [test]) == ""


def test_size_of_batches_and_times_by_status_are_what_was_put_in(
    promtool: str, tmp_path: Path
) -> None:
    (size,) = (query for query in dashboard_queries() if "batch_items_total" in query)
    (slow,) = (
        query
        for query in dashboard_queries()
        if "0.95" in query and "request_seconds_bucket" in query and 'status="200"' in query
    )
    bounds = METRICS["paraserve_request_seconds"].buckets
    # Two items a batch; answers take between 2.5 and 5 s, refusals under 0.1 s.
    values = {
        'ray_paraserve_batch_items_total{stage="asr"}': "0+20x30",
        'ray_paraserve_batches_total{stage="asr"}': "0+10x30",
        **{
            f'ray_paraserve_request_seconds_bucket{{status="200", le="{bound:g}"}}': (
                "0+1x30" if bound >= 5 else "0x30"
            )
            for bound in (*bounds, float("inf"))
        },
        **{
            f'ray_paraserve_request_seconds_bucket{{status="429", le="{bound:g}"}}': "0+99x30"
            for bound in (*bounds, float("inf"))
        },
    }
    named = {name.replace('"inf"', '"+Inf"'): given for name, given in values.items()}
    test: Json = {
        "interval": "1m",
        "input_series": [
            {"series": of_cluster(name), "values": given} for name, given in named.items()
        ],
        "promql_expr_test": [
            {
                "expr": size,
                "eval_time": "20m",
                "exp_samples": [{"labels": '{stage="asr"}', "value": 2}],
            },
            {
                "expr": f"{slow} > bool 2.5",
                "eval_time": "20m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            },
        ],
    }
    assert run_tests(promtool, tmp_path, [test]) == ""
