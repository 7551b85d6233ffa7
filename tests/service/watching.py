"""What tests see of the running service besides its answers: metrics and log lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from tests.service.requests import post
from tests.waiting import wait_until


def scrape() -> str:
    import ray

    (node,) = ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with httpx.Client(trust_env=False, timeout=30) as http:
        return http.get(url).text


def log_directory() -> Path:
    from ray._private import worker

    node = worker._global_node
    assert node is not None
    return Path(node.get_session_dir_path()) / "logs" / "serve"


def log_lines_of(request_id: str) -> list[dict[str, Any]]:
    """Returns the lines of a request that any of Serve's processes has written."""
    return [
        record
        for path in sorted(log_directory().glob("*.log"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("{")
        if (record := json.loads(line)).get("paraserve_request_id") == request_id
    ]


def value_of(name: str, *labels: str) -> float:
    """Returns the sum of a metric's series that have all of the labels, as `code="x"`."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in scrape().splitlines()
        if line.startswith(f"ray_{name}{{") and all(label in line for label in labels)
    )


def wait_for_export(client: httpx.Client) -> None:
    """Waits until all that was counted so far is exported: a process exports it together."""
    labels = 'code="model_not_found"'
    before = value_of("paraserve_requests_total", labels)
    assert post(client, b"RIFF", model="nothing").status_code == 404
    wait_until(lambda: value_of("paraserve_requests_total", labels) > before)
