"""Load on the Service under test, and what came of it, as rows of one table."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.charting import Json

POD = "e2e-load"
_SCRIPT = Path(__file__).parent / "load.py"
_REFUSING = (429, 503, -1)


@dataclass(frozen=True, slots=True)
class Sent:
    """One request.

    Attributes:
        sent_at: seconds since the epoch.
        took_s: until its answer or failure.
        status: HTTP status; 0 without an answer, -1 if no connection was accepted.
        text: of the transcript.
        error: what was wrong.
    """

    sent_at: float
    took_s: float
    status: int
    text: str
    error: str


@dataclass(slots=True)
class Row:
    """A step's line in the table.

    Attributes:
        step: what was done.
        took_s: how long the step took.
        spoken: the transcript that is right.
        requests: what was sent meanwhile.
        note: what the step adds.
    """

    step: str
    took_s: float = 0.0
    spoken: str = ""
    requests: list[Sent] = field(default_factory=list)
    note: str = ""

    @property
    def right(self) -> list[Sent]:
        return [one for one in self.requests if one.status == 200 and one.text == self.spoken]

    @property
    def refused(self) -> list[Sent]:
        """Those that were told to come again, or found no connection: nothing was begun."""
        return [one for one in self.requests if one.status in _REFUSING]

    @property
    def lost(self) -> list[Sent]:
        """Those that were begun and not answered rightly."""
        fine = {id(one) for one in (*self.right, *self.refused)}
        return [one for one in self.requests if id(one) not in fine]

    @property
    def p95_s(self) -> float | None:
        times = sorted(one.took_s for one in self.right)
        return times[min(len(times) - 1, int(0.95 * len(times)))] if times else None

    @property
    def outage_s(self) -> float:
        """From the first request that was not answered rightly to the last such."""
        times = [one.sent_at for one in (*self.refused, *self.lost)]
        return max(times) - min(times) if times else 0.0


class Table:
    """The rows of all steps."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def text(self) -> str:
        head = (
            f"{'step':44} {'s':>6} {'sent':>5} {'right':>5} {'refused':>7} {'lost':>4} {'p95 s':>6}"
        )
        return "\n".join([head, *(line(row) for row in self.rows)])


def line(row: Row) -> str:
    p95 = "-" if row.p95_s is None else f"{row.p95_s:.2f}"
    counts = f"{len(row.requests):5} {len(row.right):5} {len(row.refused):7} {len(row.lost):4}"
    failed = f"  failures over {row.outage_s:.0f} s" if row.refused or row.lost else ""
    note = f"  {row.note}" if row.note else ""
    return f"{row.step:44} {row.took_s:6.1f} {counts} {p95:>6}{failed}{note}"


def load_pod(image: str, pull_policy: str) -> Json:
    """Returns a pod with the image, in which load is begun by `kubectl exec`."""
    container = {
        "name": "load",
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": ["/bin/bash", "-c", "sleep infinity & wait"],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "labels": {"app": POD}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


@contextlib.contextmanager
def load(kubectl: list[str], url: str, rate: float, key: str, row: Row) -> Iterator[None]:
    """Sends requests for the length of the block; they are then in the row.

    Args:
        kubectl: the command, with its namespace.
        url: of the Service, as pods see it.
        rate: requests a second.
        key: API key.
        row: gets the requests, and the time that the block took.

    Raises:
        RuntimeError: the pod that sends has failed.
    """
    script = _SCRIPT.read_text(encoding="utf-8")
    command = [*kubectl, "exec", "--stdin", POD, "--"]
    process = subprocess.Popen(
        [*command, "python", "-c", script, url, str(rate), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "started\n":
            _, told = process.communicate()
            raise RuntimeError(f"no load: {told}")
        started = time.monotonic()
        try:
            yield
        finally:
            row.took_s += time.monotonic() - started
            answers, told = process.communicate("stop\n", timeout=200)
            row.requests += [Sent(**json.loads(answer)) for answer in answers.splitlines()]
        if process.returncode:
            raise RuntimeError(f"load ended with {process.returncode}: {told}")
    finally:
        process.kill()
        process.wait()
