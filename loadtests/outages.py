"""What the loss of each kind of process costs a caller who tries again.

    python -m loadtests outages [--only haproxy raylet ...]

Runs `paraserve serve --restart 3`, and starts it again should it end, as an init system would.
Clips of 3 s are sent at a steady rate, each tried again as OpenAI's clients do (a pause of 0.5 s,
twice as long each time, at most 8 s, or Retry-After), while one process of a kind is killed with
SIGKILL. OpenAI's clients try twice again unless told otherwise (`max_retries`); here a request is
tried until it is answered, and those that took more than two retries are counted. Exit code 0 if
every request was answered right in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from loadtests.bench.tables import Cell, Table
from loadtests.load.clips import ClipLibrary
from loadtests.load.generator import Bounds, Retries, open_client
from loadtests.load.outcomes import Attempt, Fate
from loadtests.load.sending import Request, attempt
from loadtests.load.target import machine
from loadtests.serving import ServingProcess, start_serving
from serve_app.launch import wait_until_ready

VICTIMS = {
    "haproxy": ("haproxy",),
    "proxy manager": ("ray::HAProxyManager", "ray::ProxyActor"),
    "controller": ("ray::ServeController",),
    "ingress": ("ray::ServeReplica:paraserve:Ingress",),
    "recognizer": ("ray::ServeReplica:paraserve:Recognizer",),
    "agent": ("dashboard/agent.py", "ray::DashboardAgent"),
    "raylet": ("raylet/raylet",),
    "control store": ("gcs/gcs_server",),
}
"""Kinds of processes, by what their command lines hold."""

_CLIP_S = 3.0
_READY_S = 180.0
_STOP_LIMIT_S = 60.0
_BEFORE_S = 5.0
_AFTER_S = 20.0
_MAX_ATTEMPTS = 30
_RESTARTS = 3
_DEFAULT_RETRIES = 2
"""Of OpenAI's clients, version 3.57 for Python."""
_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Sent:
    """A request with all its attempts.

    Attributes:
        began_s: when the first attempt did, on the clock of the attempts.
        attempts: at least one.
    """

    began_s: float
    attempts: tuple[Attempt, ...]

    @property
    def is_right(self) -> bool:
        return self.attempts[-1].fate is Fate.RIGHT


@dataclass(frozen=True, slots=True)
class Outage:
    """What the loss of one process cost.

    Attributes:
        num_sent: requests.
        num_right: that were answered right in the end.
        num_repeated: attempts beyond the first.
        num_beyond_default: requests that two retries would not have got answered.
        longest_s: from the beginning of a request to its right answer.
        refused_s: from the first to the last attempt that was not answered right.
        restarts: times that the service ended and had to be started again.
        slowest: the request that took longest.
    """

    victim: str
    num_sent: int
    num_right: int
    num_repeated: int
    num_beyond_default: int
    longest_s: float
    refused_s: float
    restarts: int
    slowest: Sent

    def text(self) -> str:
        """Returns how the slowest request fared, attempt by attempt."""
        tries = "; ".join(
            f"{each.ended_s - self.slowest.began_s:.1f} s {each.fate} {each.detail}"
            + (f" (Retry-After {each.retry_after_s:.0f})" if each.retry_after_s else "")
            for each in self.slowest.attempts
        )
        return f"{self.victim}: {self.num_right} of {self.num_sent} right; slowest: {tries}"


class SupervisedService:
    """`paraserve serve`, started again whenever it ends.

    Args:
        log: for the output of all starts.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
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
            try:
                line = " ".join(process.cmdline())
                if kind == "haproxy":
                    matches = process.name() == "haproxy"
                else:
                    matches = any(part in line for part in VICTIMS[kind])
                if matches:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def stop(self) -> None:
        self._service.stop(_STOP_LIMIT_S)

    def _start(self, port: int | None) -> ServingProcess:
        with self._log.open("ab") as log:
            return start_serving(port=port, output=log, restarts=_RESTARTS)


@contextmanager
def supervised(log: Path) -> Iterator[SupervisedService]:
    """Runs the service for the length of the block, once it is ready."""
    service = SupervisedService(log)
    try:
        wait_until_ready(service.url, _READY_S)
        yield service
    finally:
        service.stop()


def main(given: list[str] | None = None) -> int:
    options = _parser().parse_args(given)
    outages: list[Outage] = []
    with tempfile.TemporaryDirectory() as directory:
        library = ClipLibrary(Path(directory))
        for victim in options.only:
            log = Path(directory) / "serve.log"
            with supervised(log) as service:
                outages.append(asyncio.run(_outage(service, victim, library, options.rate)))
            print(outages[-1].text(), flush=True)
    table = outage_table(outages)
    print(f"\n{table.text()}")
    return 0 if all(one.num_right == one.num_sent for one in outages) else 1


def outage_table(outages: list[Outage]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            one.victim,
            one.num_sent,
            one.num_right,
            one.num_repeated,
            one.num_beyond_default,
            f"{one.refused_s:.1f}",
            f"{one.longest_s:.1f}",
            one.restarts,
        )
        for one in outages
    ]
    columns = (
        "killed",
        "sent",
        "right",
        "repeated",
        "failed with two retries",
        "refused s",
        "longest s",
        "restarts",
    )
    return Table("Loss of one process of each kind", columns, tuple(rows), (machine(),))


async def _outage(
    service: SupervisedService, victim: str, library: ClipLibrary, rate: float
) -> Outage:
    content = library.path(library.clip(_CLIP_S)).read_bytes()
    bounds = Bounds(timeout_s=60.0)
    async with open_client(service.url, bounds) as client:
        answer = await client.post(
            "/v1/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("clip.flac", content)},
        )
        answer.raise_for_status()
        text = answer.json()["text"]
        watching = asyncio.create_task(_supervise(service))
        try:
            return await _send_through(client, service, victim, Request(content, text), rate)
        finally:
            watching.cancel()


async def _send_through(
    client: httpx.AsyncClient,
    service: SupervisedService,
    victim: str,
    request: Request,
    rate: float,
) -> Outage:
    clock = asyncio.get_running_loop().time
    began_s = clock()
    tasks: list[asyncio.Task[Sent]] = []
    killed = False
    while clock() - began_s < _BEFORE_S + _AFTER_S:
        if not killed and clock() - began_s > _BEFORE_S:
            found = service.victims(victim)
            if not found:
                raise LookupError(f"there is no {victim} to kill")
            found[0].send_signal(signal.SIGKILL)
            killed = True
        one = Request(request.content, request.text)
        tasks.append(asyncio.create_task(_until_answered(client, one)))
        await asyncio.sleep(1 / rate)
    return outage(victim, await asyncio.gather(*tasks), service.restarts)


def outage(victim: str, sent: Sequence[Sent], restarts: int) -> Outage:
    """Returns what a loss cost, by the requests that were sent meanwhile."""
    failed = [each for one in sent for each in one.attempts if each.fate is not Fate.RIGHT]
    right = [one for one in sent if one.is_right]
    first_s = min((each.ended_s for each in failed), default=0.0)
    last_s = max((each.ended_s for each in failed), default=0.0)
    return Outage(
        victim,
        len(sent),
        len(right),
        sum(len(one.attempts) - 1 for one in sent),
        sum(not one.is_right or len(one.attempts) > 1 + _DEFAULT_RETRIES for one in sent),
        max((one.attempts[-1].ended_s - one.began_s for one in right), default=0.0),
        last_s - first_s,
        restarts,
        max(sent, key=lambda one: one.attempts[-1].ended_s - one.began_s),
    )


async def _until_answered(client: httpx.AsyncClient, request: Request) -> Sent:
    clock = asyncio.get_running_loop().time
    began_s = clock()
    retries = Retries(refusals=True, breaks=True, max_attempts=_MAX_ATTEMPTS)
    attempts: list[Attempt] = []
    while True:
        tried, _ = await attempt(client, request, clock)
        attempts.append(tried)
        pause_s = retries.pause_s(tried, len(attempts))
        if pause_s is None and tried.fate is Fate.FAILED and len(attempts) < _MAX_ATTEMPTS:
            pause_s = 1.0  # OpenAI's clients try 5xx again
        if pause_s is None:
            return Sent(began_s, tuple(attempts))
        await asyncio.sleep(pause_s)


async def _supervise(service: SupervisedService) -> None:
    while True:
        await asyncio.to_thread(service.watch)
        await asyncio.sleep(_POLL_S)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests outages", description=__doc__)
    add = parser.add_argument
    names = tuple(VICTIMS)
    add("--only", nargs="+", choices=names, default=names, metavar="KIND", help=", ".join(names))
    add("--rate", type=float, default=1.0, help="requests per second")
    return parser


if __name__ == "__main__":
    sys.exit(main())
