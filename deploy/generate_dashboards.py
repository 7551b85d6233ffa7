"""Writes the Grafana dashboards of the chart: `python deploy/generate_dashboards.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent / "helm" / "paraserve" / "files" / "dashboards"
_CLUSTER = 'ray_io_cluster=~"$cluster"'
_PANELS_PER_ROW = 3
_WIDTH = 24 // _PANELS_PER_ROW
_HEIGHT = 8

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart.

    Attributes:
        title: what it shows.
        unit: Grafana's name of the unit.
        queries: PromQL by legend; `$SEL` stands for the choice of the cluster.
        help: how to read it.
    """

    title: str
    unit: str
    queries: dict[str, str]
    help: str


def _quantile(quantile: float, metric: str, by: str, where: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return (
        f"histogram_quantile({quantile}, sum by ({labels}) "
        f"(rate(ray_paraserve_{metric}_bucket{{$SEL{where}}}[5m])))"
    )


def _share_of_limit(gauge: str, limit: str) -> str:
    return (
        f"sum (ray_paraserve_{gauge}{{$SEL}}) / "
        f'sum (ray_paraserve_admission_limit{{$SEL, limit="{limit}"}})'
    )


def _rate(metric: str, by: str = "") -> str:
    aggregation = f"sum by ({by}) " if by else "sum "
    return f"{aggregation}(rate(ray_paraserve_{metric}{{$SEL}}[5m]))"


def _gauge(function: str, metric: str, by: str = "") -> str:
    aggregation = f"{function} by ({by}) " if by else f"{function} "
    return f"{aggregation}(ray_paraserve_{metric}{{$SEL}})"


SERVICE = [
    Panel(
        "Requests by status",
        "reqps",
        {"{{status}} {{code}}": _rate("requests_total", "status, code")},
        "429 is load that was refused, 5xx is for the operator.",
    ),
    Panel(
        "Time of a request",
        "s",
        {
            "answered, p50": _quantile(0.5, "request_seconds", "", ', status="200"'),
            "answered, p95": _quantile(0.95, "request_seconds", "", ', status="200"'),
            "{{status}}, p95": _quantile(0.95, "request_seconds", "status", ', status!="200"'),
        },
        "Refusals are fast, so each status stands apart. All lengths of recordings together.",
    ),
    Panel(
        "Audio transcribed per second",
        "none",
        {
            "done": _rate("audio_done_seconds_total"),
            "accepted": _rate("audio_accepted_seconds_total"),
        },
        "Throughput in seconds of audio; accepted above done for long means a growing queue.",
    ),
    Panel(
        "Refused with 429",
        "reqps",
        {"{{reason}}": _rate("requests_shed_total", "reason")},
        "By the limit that refused.",
    ),
    Panel(
        "Requests in the ingress",
        "short",
        {
            "running": _gauge("sum", "requests_running"),
            "waiting": _gauge("sum", "requests_waiting"),
        },
        "Waiting at its limit means that the next is refused.",
    ),
    Panel(
        "Partial transcripts, deadlines, retries",
        "ops",
        {
            "partial": _rate("partial_transcripts_total"),
            "without speaker labels": _rate("unlabelled_transcripts_total"),
            "deadline": _rate("deadline_misses_total"),
            "retry {{stage}}": _rate("retries_total", "stage"),
        },
        "Retries alone lose nothing; partial transcripts do, and say so.",
    ),
    Panel(
        "Uploads in flight",
        "bytes",
        {"bytes": _gauge("sum", "upload_bytes_in_flight")},
        "Bounded by settings.admission.max_bytes per ingress replica.",
    ),
    Panel(
        "Wait of the first request in the queue",
        "s",
        {"wait": _gauge("max", "line_oldest_wait_seconds")},
        "At the ingress, before any work.",
    ),
    Panel(
        "Replicas and their targets",
        "short",
        {
            "{{deployment}}": "sum by (deployment) (ray_serve_deployment_replica_healthy{$SEL})",
            "{{deployment}}, target": "max by (deployment) "
            "(ray_serve_autoscaling_target_replicas{$SEL})",
        },
        "Zero of a deployment is an outage. Targets are those of autoscaled deployments.",
    ),
    Panel(
        "Use of the limits",
        "percentunit",
        {
            "running": _share_of_limit("requests_running", "running"),
            "waiting": _share_of_limit("requests_waiting", "waiting"),
            "upload bytes": _share_of_limit("upload_bytes_in_flight", "bytes"),
            "audio": _share_of_limit("audio_in_flight_seconds", "audio_s"),
        },
        "Of settings.admission, over all ingress replicas. At 1 the next request is refused.",
    ),
    Panel(
        "Audio by API key",
        "none",
        {"{{key}}": _rate("key_audio_seconds_total", "key")},
        "Seconds of audio transcribed per second, by the key's name.",
    ),
    Panel(
        "Requests by API key",
        "reqps",
        {"{{key}} {{status}}": _rate("key_requests_total", "key, status")},
        "429 of one key alone means that its own limit refuses.",
    ),
]
STAGES = [
    Panel(
        "Queued audio",
        "s",
        {
            "queued": _gauge("sum", "queued_audio_seconds"),
            "running": _gauge("sum", "running_audio_seconds"),
            "backlog of the segmenters": _gauge("sum", "backlog_audio_seconds"),
        },
        "What the recognizers' number follows.",
    ),
    Panel(
        "Oldest in a queue",
        "s",
        {"{{stage}}": _gauge("max", "queue_oldest_wait_seconds", "stage")},
        "Above a minute an alert is raised.",
    ),
    Panel(
        "Speed of a recognizer",
        "none",
        {"{{replica}}": _gauge("avg", "rtfx", "replica")},
        "Seconds of audio per second of work. One that is slower than its like shares a device.",
    ),
    Panel(
        "Wait for a batch, p95",
        "s",
        {"{{stage}}": _quantile(0.95, "stage_queue_seconds", "stage")},
        "Grows first when a stage is the bottleneck.",
    ),
    Panel(
        "Time of a batch, p95",
        "s",
        {"{{stage}}": _quantile(0.95, "stage_work_seconds", "stage")},
        "Follows the batch budget of the settings.",
    ),
    Panel(
        "Items in a batch",
        "short",
        {"{{stage}}": f"{_rate('batch_items_total', 'stage')} / {_rate('batches_total', 'stage')}"},
        "Small batches under load mean too many replicas.",
    ),
    Panel(
        "Padding",
        "none",
        {"{{stage}}": _gauge("avg", "padding_ratio", "stage")},
        "Computed over useful; 1 is none.",
    ),
    Panel(
        "Chunks by result",
        "ops",
        {"{{status}}": _rate("chunks_total", "status")},
        "A failed chunk is a gap in a transcript.",
    ),
    Panel(
        "Memory of the nodes",
        "percentunit",
        {"{{ip}}": "max by (ip) (ray_node_mem_used{$SEL} / ray_node_mem_total{$SEL})"},
        "Of each pod, of its limit. Near 1 Ray ends replicas, then Kubernetes the pod.",
    ),
    Panel(
        "Disk of the nodes",
        "percentunit",
        {
            "{{ip}}": "max by (ip) (ray_node_disk_usage{$SEL} / "
            "(ray_node_disk_usage{$SEL} + ray_node_disk_free{$SEL}))"
        },
        "Logs and uploads fill it.",
    ),
    Panel(
        "Memory on the GPUs",
        "bytes",
        {"{{replica}} {{kind}}": _gauge("max", "gpu_memory_bytes", "replica, kind")},
        "Reserved stays within the fraction of the replica.",
    ),
    Panel(
        "Model packs",
        "short",
        {
            "{{stage}} {{pack}} {{checksum}} {{device}}": _gauge(
                "count", "pack_info", "stage, pack, checksum, device"
            )
        },
        "Replicas by what they have loaded: two checksums of one pack are an upgrade under way.",
    ),
    Panel(
        "Model cache",
        "bytes",
        {"{{replica}}": _gauge("max", "models_loaded_bytes", "replica")},
        "What the loaded models take, estimated; the bound is recognizer.models_bytes.",
    ),
    Panel(
        "Replicas that hold a model",
        "short",
        {"{{model}}": _gauge("sum", "model_loaded", "model")},
        "A request for one that no replica holds waits until it is loaded.",
    ),
    Panel(
        "Models loaded and evicted",
        "ops",
        {
            "loaded {{model}}": _rate("model_loads_total", "model"),
            "evicted {{model}}": _rate("model_evictions_total", "model"),
        },
        "Both at once, all the time: the budget is too small for what is asked for.",
    ),
]
LIVE = [
    Panel(
        "Live sessions",
        "short",
        {
            "open": _gauge("sum", "live_sessions"),
            "speaking": _gauge("sum", "live_sessions_speaking"),
        },
        "settings.live.max_sessions bounds those of each replica.",
    ),
    Panel(
        "Time to a segment's first text",
        "s",
        {
            "p50": _quantile(0.5, "live_first_partial_seconds", ""),
            "p95": _quantile(0.95, "live_first_partial_seconds", ""),
        },
        "From the arrival of its start. Two decodes must agree, so at least twice "
        "settings.live.partial_interval_s.",
    ),
    Panel(
        "Time to a segment's final text",
        "s",
        {
            "p50": _quantile(0.5, "live_final_seconds", ""),
            "p95": _quantile(0.95, "live_final_seconds", ""),
        },
        "From the arrival of the audio that ended it. Above a second the recognizers are too few.",
    ),
    Panel(
        "Lag",
        "s",
        {"{{replica}}": _gauge("max", "live_lag_seconds", "replica")},
        "Audio that waits, of the session that is furthest behind. It must not grow.",
    ),
    Panel(
        "Decodes of open segments",
        "ops",
        {
            "decoded": _rate("live_partials_total"),
            "left out": _rate("live_partials_thinned_total"),
        },
        "What is left out thins the partial texts, before final texts are late.",
    ),
    Panel(
        "Segments by result",
        "ops",
        {"{{status}}": _rate("live_segments_total", "status")},
        "A failed segment is a gap in a transcript.",
    ),
    Panel(
        "Sessions ended and refused",
        "ops",
        {
            "ended": _rate("live_sessions_ended_total"),
            "refused: {{reason}}": _rate("live_sessions_refused_total", "reason"),
        },
        "`overloaded` is a limit of settings.live.",
    ),
    Panel(
        "Live audio per second",
        "none",
        {"received": _rate("live_audio_seconds_total")},
        "Seconds of audio received per second: about the number of senders.",
    ),
    Panel(
        "Words taken back",
        "ops",
        {"retractions": _rate("live_retractions_total")},
        "0 by construction; anything else is a bug.",
    ),
]
JOBS = [
    Panel(
        "Jobs",
        "short",
        {
            "{{state}}": _gauge("max", "jobs", "state"),
            "on runners": _gauge("sum", "jobs_on_runner"),
        },
        "Queued jobs wait for settings.jobs.max_running of each runner.",
    ),
    Panel(
        "Audio of the queued jobs",
        "s",
        {"queued": _gauge("max", "jobs_queued_audio_seconds")},
        "What settings.jobs.autoscaling_weight of it is worth recognizers.",
    ),
    Panel(
        "Age of the oldest queued job",
        "s",
        {"age": _gauge("max", "jobs_oldest_queued_seconds")},
        "Requests run before jobs; if it only grows, there are too few recognizers.",
    ),
    Panel(
        "Audio recognized for jobs per second",
        "none",
        {"recognized": _rate("job_audio_recognized_seconds_total")},
        "Zero with queued jobs is a queue that does not move.",
    ),
    Panel(
        "Jobs that ended",
        "ops",
        {"{{status}} {{code}}": _rate("jobs_ended_total", "status, code")},
        "The code says why a job failed.",
    ),
    Panel(
        "Attempts at jobs",
        "ops",
        {"{{outcome}}": _rate("job_attempts_total", "outcome")},
        "Handed back: the service could not run them then. Abandoned: look for errors in the log.",
    ),
    Panel(
        "Webhooks",
        "ops",
        {
            "{{outcome}}": _rate("webhook_attempts_total", "outcome"),
            "given up": _rate("webhooks_undelivered_total"),
        },
        "Attempts by what they came to; given up after the last of ten.",
    ),
    Panel(
        "Errors of the store",
        "ops",
        {"errors": _rate("job_store_errors_total")},
        "Calls that the database or the storage of jobs did not answer.",
    ),
]


def dashboard(title: str, uid: str, panels: list[Panel]) -> Json:
    return {
        "title": title,
        "uid": uid,
        "tags": ["paraserve"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_datasource(), _cluster()]},
        "panels": [_panel(panel, number) for number, panel in enumerate(panels)],
    }


def _datasource() -> Json:
    return {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus"}


def _cluster() -> Json:
    return {
        "name": "cluster",
        "label": "Cluster",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "query": "label_values(ray_paraserve_requests_running, ray_io_cluster)",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(panel: Panel, number: int) -> Json:
    row, column = divmod(number, _PANELS_PER_ROW)
    source = {"type": "prometheus", "uid": "$datasource"}
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": source,
            "expr": query.replace("$SEL", _CLUSTER),
            "legendFormat": legend,
        }
        for index, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "targets": targets,
    }


def outputs() -> dict[Path, str]:
    """Returns the content of each file."""
    dashboards = {
        "paraserve-service.json": dashboard("Paraserve: service", "paraserve-service", SERVICE),
        "paraserve-live.json": dashboard("Paraserve: live", "paraserve-live", LIVE),
        "paraserve-stages.json": dashboard("Paraserve: stages", "paraserve-stages", STAGES),
        "paraserve-jobs.json": dashboard("Paraserve: jobs", "paraserve-jobs", JOBS),
    }
    return {
        TARGET / name: json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        for name, content in dashboards.items()
    }


if __name__ == "__main__":
    TARGET.mkdir(parents=True, exist_ok=True)
    for path, content in outputs().items():
        path.write_text(content, encoding="utf-8")
