"""What waits, from Prometheus' format."""

from __future__ import annotations

from serve_app.metrics import METRICS
from serve_app.ops.queue_metrics import GAUGES, sum_waiting

TEXT = """# HELP ray_paraserve_queued_audio_seconds Audio that waits
# TYPE ray_paraserve_queued_audio_seconds gauge
ray_paraserve_queued_audio_seconds{application="paraserve",deployment="Recognizer",replica="a"} 12.5
ray_paraserve_queued_audio_seconds{application="paraserve",deployment="Recognizer",replica="b"} 7.5
ray_paraserve_queued_audio_seconds{application="fast",deployment="Recognizer",replica="c"} 1.0
ray_paraserve_queued_items{application="paraserve",deployment="Recognizer",replica="a"} 99.0
ray_paraserve_queued_items{application="paraserve",deployment="Punctuator",stage="punctuation"} 3.0
ray_node_cpu_count{ip="10.0.0.1"} 8.0
"""


def test_gauges_are_summed_over_replicas_by_application() -> None:
    assert sum_waiting([TEXT, TEXT]) == {
        ("paraserve", "Recognizer"): 40.0,
        ("fast", "Recognizer"): 2.0,
        ("paraserve", "Punctuator"): 6.0,
    }


def test_queue_that_all_replicas_share_counts_once() -> None:
    labels = 'application="paraserve",deployment="JobRunner",replica='
    name = "ray_paraserve_jobs_queued_audio_seconds"
    text = f'{name}{{{labels}"a"}} 3600.0\n{name}{{{labels}"b"}} 3590.0\n'
    assert sum_waiting([text, text]) == {("paraserve", "JobRunner"): 3600.0}


def test_gauges_are_metrics_that_the_service_exports() -> None:
    exported = {metric.name for metric in METRICS.values() if metric.kind == "gauge"}
    assert {gauge.name for gauge in GAUGES.values()} <= exported
