"""What the loss of each kind of process costs a caller who tries again.

    python -m loadtests outages [--only haproxy raylet ...]

Runs `paraserve serve --restart 3`, and starts it again should it end, as an init system would.
Clips of 3 s are sent at a steady rate, each tried again as OpenAI's clients do (a pause of 0.5 s
at most, twice as long each time, at most 8 s, or a Retry-After of at most a minute), while one
process of a kind is killed with SIGKILL. OpenAI's clients try twice again unless told otherwise
(`max_retries`); here a request is tried until it is answered, and those that took more than two
retries are counted. Exit code 0 if every request was answered right in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.loops import open_loop
from loadtests.harness.report import Cell, Report, parse, parser
from loadtests.harness.requests import Attempt, Caller, Fate, Request, Retries
from loadtests.serving import ServingProcess, start_serving
from serve_app.launch import wait_until_ready

VICTIMS = {
    "haproxy": ("haproxy",),
    "proxy manager": ("ray::HAProxyManager", "ray::ProxyActor"),
    "controller": ("ray::ServeController",),
    "ingress": ("ray::ServeReplica:paraserve:Ingress",),
    "recognizer": ("ray::ServeReplica:paraserve:Recognizer",),
    "agent": ("dashboard/agent.py", "ray::DashboardAgent"),
    "segmenter": ("ray::ServeReplica:paraserve:Segmenter",),
    "punctuator": ("ray::ServeReplica:paraserve:Punctuator",),
    "job runner": ("ray::ServeReplica:paraserve:JobRunner",),
    "raylet": ("raylet/raylet",),
    "control store": ("gcs/gcs_server",),
}
"""Kinds of processes, by what their command lines hold."""

_LATER = frozenset({"segmenter", "punctuator", "job runner"})
"""Kinds that other commands kill: `chaos` and `jobs`."""

COLUMNS = (
    *("killed", "sent", "right", "repeated", "failed with two retries"),
    *("refused s", "longest s", "restarts"),
)
_CLIP_S = 3.0
_READY_S = 180.0
_BEFORE_S = 5.0
_RETRIES = Retries(refusals=True, breaks=True, failures=True, max_attempts=30)
_RESTARTS = 3
_DEFAULT_RETRIES = 2
"""Of OpenAI's clients, version 3.57 for Python."""
_POLL_S = 0.25


class SupervisedService:
    """`paraserve serve`, started again whenever it ends.

    Args:
        log: for the output of all starts.
        assignments: settings, `NAME=VALUE` each.
    """

    def __init__(self, log: Path, *assignments: str) -> None:
        self._log = log
        self._assignments = assignments
        self._service = self._start(port=None)
        self.url = self._service.url
        self.restarts = 0

    def watch(self) -> None:
        """Starts it again if it has ended."""
        if self._service.process.poll() is not None:
            self.restarts += 1
            self._service = self._start(self._service.port)

    def victims(self, kind: str) -> list[psutil.Process]:
        """Returns the processes of a kind that belong to this service."""
        found = []
        for process in self._service.descendants():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if kind == "haproxy":
                    matches = process.name() == "haproxy"
                else:
                    matches = any(part in line for part in VICTIMS[kind])
                if matches:
                    found.append(process)
        return found

    def processes(self) -> list[psutil.Process]:
        """Returns all processes of the service."""
        return [*self._service.descendants(), psutil.Process(self._service.process.pid)]

    def logs(self, deployment: str) -> list[Path]:
        """Returns the log files of a deployment's replicas."""
        return sorted(self._service.directory.glob(f"**/logs/serve/*{deployment}*.log"))

    def kill(self) -> None:
        """Kills everything at once, as a power failure would."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=_READY_S)

    def stop(self) -> None:
        self._service.stop()

    def _start(self, port: int | None) -> ServingProcess:
        with self._log.open("ab") as log:
            return start_serving(*self._assignments, port=port, output=log, restarts=_RESTARTS)


@contextmanager
def supervised(log: Path, *assignments: str) -> Iterator[SupervisedService]:
    """Runs the service for the length of the block, once it is ready."""
    service = SupervisedService(log, *assignments)
    try:
        wait_until_ready(service.url, _READY_S)
        yield service
    finally:
        service.stop()


def main(given: Sequence[str] | None = None) -> int:
    made = parser("outages", __doc__)
    names = tuple(name for name in VICTIMS if name not in _LATER)
    add = made.add_argument
    add("--only", nargs="+", choices=names, default=names, metavar="KIND", help=", ".join(names))
    add("--rate", type=float, default=1.0, help="requests per second")
    add("--seconds", type=float, default=20.0, help="of requests after the kill")
    options = parse(made, given)
    with tempfile.TemporaryDirectory() as directory, Report("outages", options) as report:
        library = ClipLibrary(Path(directory))
        report.table("Loss of one process of each kind", COLUMNS)
        for victim in options.only:
            with supervised(Path(directory) / "serve.log") as service:
                requests = asyncio.run(_send_through(service, victim, library, options))
            add_outage(report, victim, requests, service.restarts)
        judge(report)
    return report.exit_code


async def _send_through(
    service: SupervisedService, victim: str, library: ClipLibrary, options: argparse.Namespace
) -> list[list[Attempt]]:
    """Kills one process while clips are sent; returns the attempts at each clip."""
    content = library.content(_CLIP_S)
    async with Caller(service.url, timeout_s=60.0) as caller:
        text = await caller.text(content)

        async def send(number: int, due_s: float) -> list[Attempt]:
            if number == round(_BEFORE_S * options.rate):
                found = service.victims(victim)
                if not found:
                    raise LookupError(f"there is no {victim} to kill")
                found[0].send_signal(signal.SIGKILL)
            return await caller.send(Request(content, text), _RETRIES)

        watching = asyncio.create_task(_supervise(service))
        try:
            number = round((_BEFORE_S + options.seconds) * options.rate)
            found = await open_loop((i / options.rate for i in range(number)), send)
        finally:
            watching.cancel()
    return [attempts for attempts in found if attempts is not None]


def add_outage(
    report: Report, victim: str, requests: Sequence[Sequence[Attempt]], restarts: int
) -> None:
    """Adds a row on what a loss cost, by the attempts at each request."""
    right = [attempts for attempts in requests if attempts[-1].fate is Fate.RIGHT]
    failed_s = [one.ended_s for each in requests for one in each if one.fate is not Fate.RIGHT]
    beyond = len(requests) - sum(len(attempts) <= 1 + _DEFAULT_RETRIES for attempts in right)
    cells: tuple[Cell, ...] = (
        victim,
        len(requests),
        len(right),
        sum(len(attempts) - 1 for attempts in requests),
        beyond,
        f"{max(failed_s, default=0.0) - min(failed_s, default=0.0):.1f}",
        f"{max((_took_s(attempts) for attempts in right), default=0.0):.1f}",
        restarts,
    )
    report.row(*cells)
    tries = _listed(max(requests, key=_took_s))
    report.note(f"{victim}, slowest: {tries}")
    report.say(f"{victim}: {len(right)} of {len(requests)} right; slowest: {tries}")
    for attempts in requests:
        if len(attempts) > 1 + _DEFAULT_RETRIES:
            report.note(f"{victim}, more than two retries: {_listed(attempts)}")


def _listed(attempts: Sequence[Attempt]) -> str:
    return "; ".join(
        f"{each.ended_s - attempts[0].began_s:.1f} s {each.fate} {each.detail}"
        + (f" (Retry-After {each.retry_after_s:.0f})" if each.retry_after_s else "")
        for each in attempts
    )


def judge(report: Report) -> None:
    """Adds the promise, by the rows of the outages."""
    sent, right = (sum(int(row[i] or 0) for row in report.tables[-1].rows) for i in (1, 2))
    report.promise("every request answered right in the end", f"{right} of {sent}", right == sent)


def _took_s(attempts: Sequence[Attempt]) -> float:
    return attempts[-1].ended_s - attempts[0].began_s


async def _supervise(service: SupervisedService) -> None:
    while True:
        await asyncio.to_thread(service.watch)
        await asyncio.sleep(_POLL_S)


if __name__ == "__main__":
    sys.exit(main())
