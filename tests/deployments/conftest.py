"""A recorder in place of Ray's metrics."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from serve_app import metrics
from serve_app.deployments import metrics as stage_metrics
from serve_app.metrics import Metric

Recorded = dict[str, list[tuple[float, dict[str, str]]]]


class Recorder:
    """Stands for Ray's counters, gauges and histograms."""

    def __init__(self, metric: Metric, recorded: Recorded) -> None:
        self._metric = metric
        self._values = recorded.setdefault(metric.name, [])

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        assert value > 0, "Ray refuses 0"
        self._record(value, tags)

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        self._record(value, tags)

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        self._record(value, tags)

    def _record(self, value: float, tags: Mapping[str, str] | None) -> None:
        assert set(tags or {}) == set(self._metric.labels), self._metric.name
        self._values.append((value, dict(tags or {})))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded: Recorded = {}
    for kind in ("counter", "gauge", "histogram"):
        monkeypatch.setattr(metrics, f"new_{kind}", lambda metric: Recorder(metric, recorded))
    stage_metrics._retries.cache_clear()
    return recorded
