"""The length of each deployment's queue, from the metrics of the pods.

The metrics are those of `serve_app.metrics`, with `ray_` before each name; a test compares the
names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from serve_app.core.errors import ClusterRefused
from serve_app.ops.dashboard import pod_metrics
from serve_app.ops.json_view import JsonView
from serve_app.ops.kube import Kube

_NUM_AT_ONCE = 8
_SAMPLE = re.compile(r"^ray_(?P<name>\w+)\{(?P<labels>.*)\}\s+(?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Gauge:
    """The metric of a queue's length, and its unit.

    `is_shared` is a queue that all replicas have together, and each reports whole.
    """

    name: str
    unit: str
    is_shared: bool = False


GAUGES = {
    "Ingress": Gauge("paraserve_requests_waiting", "requests"),
    "Segmenter": Gauge("paraserve_backlog_audio_seconds", "s audio"),
    "Recognizer": Gauge("paraserve_queued_audio_seconds", "s audio"),
    "Punctuator": Gauge("paraserve_queued_items", "items"),
    "SpeakerEmbedder": Gauge("paraserve_queued_items", "items"),
    "JobRunner": Gauge("paraserve_jobs_queued_audio_seconds", "s audio", is_shared=True),
}


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Amounts by (application, deployment), and why some pods are missing in them."""

    amounts: Mapping[tuple[str, str], float]
    problem: str | None


def read_waiting(kube: Kube, pods: Iterable[JsonView]) -> QueueDepth:
    """Reads the metrics of the pods, several at a time; pods that do not answer are left out."""
    names = [pod.at("metadata", "name").text() for pod in pods]

    def ask(name: str) -> str | ClusterRefused:
        try:
            return pod_metrics(kube, name)
        except ClusterRefused as error:
            return error

    with ThreadPoolExecutor(_NUM_AT_ONCE) as threads:
        answers = list(threads.map(ask, names))
    problems = [answer for answer in answers if isinstance(answer, ClusterRefused)]
    texts = [answer for answer in answers if isinstance(answer, str)]
    problem = None
    if problems:
        problem = f"no metrics of {len(problems)} of {len(names)} pods: {problems[0]}"
    return QueueDepth(sum_waiting(texts), problem)


def sum_waiting(texts: Iterable[str]) -> dict[tuple[str, str], float]:
    """Returns the sums of the gauges over all replicas, once for a shared queue.

    Args:
        texts: metrics of the pods in Prometheus' format.
    """
    sums: dict[tuple[str, str], float] = {}
    for text in texts:
        for line in text.splitlines():
            found = _SAMPLE.match(line)
            if found is None:
                continue
            labels = dict(_LABEL.findall(found["labels"]))
            gauge = GAUGES.get(labels.get("deployment", ""))
            if gauge is not None and gauge.name == found["name"]:
                key = (labels.get("application", ""), labels["deployment"])
                value, before = float(found["value"]), sums.get(key, 0.0)
                sums[key] = max(before, value) if gauge.is_shared else before + value
    return sums
