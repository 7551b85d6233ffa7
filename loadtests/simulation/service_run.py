"""The real service under a trace, its recognizers on cores of their own."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from pydantic import TypeAdapter

from loadtests.harness.clips import repeated
from loadtests.harness.loops import closed_loop, open_loop
from loadtests.harness.requests import WHISPER
from loadtests.serving import service
from loadtests.simulation.calibration import Spent
from loadtests.simulation.cores import CoresWatch, placed_service
from loadtests.simulation.measuring import segmenter_s
from loadtests.simulation.stopwatch import build_observed, read_records
from loadtests.simulation.traffic import LENGTHS_S, SHARES, Traffic, make_traffic
from serve_app.client import AsyncParaserve
from serve_app.planning.trace import Trace, make_trace
from serve_app.settings import Settings

_TIMEOUT_S = 600.0
_PROBE_REQUESTS = 24
_PROBE_CLIENTS = 8
_REPEATS = 5
_IDLE_S = 10.0


@dataclass(frozen=True, slots=True)
class RealRun:
    """What the real service did with a trace.

    Attributes:
        arrival_s: of the requests, since the start.
        start_s: of the trace, on the monotonic clock.
        latencies_s: of the requests, in their order.
        spent: on the trace.
        idle: CPU seconds a second of the replicas, by deployment, while nothing is asked.
        decoding_s: CPU time of decoding and cutting a second of audio.
        num_shared: cores of all but the recognizers.
    """

    arrival_s: tuple[float, ...]
    start_s: float
    latencies_s: tuple[float, ...]
    spent: Spent
    idle: dict[str, float]
    decoding_s: float
    num_shared: int

    @property
    def trace(self) -> Trace:
        return make_trace(np.array(self.arrival_s), np.array(self.spent.lengths_s))

    def keep(self, path: Path) -> None:
        """Writes the run into a file, so that it can be simulated again."""
        path.write_bytes(TypeAdapter(RealRun).dump_json(self))

    @classmethod
    def kept(cls, path: Path) -> RealRun:
        return TypeAdapter(RealRun).validate_json(path.read_bytes())


def run_service(settings: Settings, traffic: Traffic, seconds: float, seed: int) -> RealRun:
    """Starts the service and sends it a trace.

    Raises:
        ParaserveError: the machine is too small, or the service does not start.
        ClientError: it refuses requests.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        _observed(settings, Path(folder) / "batches.jsonl") as run,
    ):
        asyncio.run(run.send_closed(LENGTHS_S, 2))  # warms up
        with run.watch as idle:
            time.sleep(_IDLE_S)
        capacity = run.capacity(seed)
        decoding_s = segmenter_s(settings, _REPEATS)
        trace = make_traffic(traffic, capacity, seconds, seed)
        print(
            f"{capacity:.1f} s of audio a second are possible; {len(trace)} requests, "
            f"{trace.audio_hours:.2f} h, in {trace.span_s:.0f} s",
            flush=True,
        )
        idle_s = {name: used_s / idle.elapsed_s for name, used_s in idle.used_s.items()}
        start_s, latencies_s, spent = run.send(trace)
        arrival_s = tuple(trace.arrival_s.tolist())
        shared = len(run.watch.placement.shared)
        return RealRun(arrival_s, start_s, latencies_s, spent, idle_s, decoding_s, shared)


class _ObservedService:
    def __init__(self, url: str, records: Path, watch: CoresWatch) -> None:
        self._url = url
        self._records = records
        self._clips = {length_s: repeated(length_s) for length_s in LENGTHS_S}
        self.watch = watch

    async def send_closed(self, lengths_s: Sequence[float], num_clients: int) -> None:
        async with self._client() as client:
            await closed_loop(lengths_s, lambda s: self._send(client, s), num_clients)

    def capacity(self, seed: int) -> float:
        """Returns the audio seconds that the recognizers do in a second of work."""
        random = np.random.default_rng(seed + 3000)
        lengths_s: list[float] = random.choice(LENGTHS_S, _PROBE_REQUESTS, p=SHARES).tolist()
        self._records.unlink(missing_ok=True)
        asyncio.run(self.send_closed(lengths_s, _PROBE_CLIENTS))
        records = read_records(self._records)
        num_replicas = len({record.replica for record in records})
        return sum(lengths_s) / sum(record.took_s for record in records) * num_replicas

    def send(self, trace: Trace) -> tuple[float, tuple[float, ...], Spent]:
        """Returns when the trace began, the latencies, and what it cost."""
        self._records.unlink(missing_ok=True)
        with self.watch as watch:
            start_s = time.monotonic()
            latencies_s = asyncio.run(self._send_open(trace))
        lengths_s = tuple(trace.audio_s.tolist())
        spent = Spent(
            watch.elapsed_s,
            watch.used_s,
            watch.others_s,
            watch.intruded,
            lengths_s,
            read_records(self._records),
        )
        return start_s, latencies_s, spent

    async def _send_open(self, trace: Trace) -> tuple[float, ...]:
        lengths_s: list[float] = trace.audio_s.tolist()
        async with self._client() as client:
            found = await open_loop(
                trace.arrival_s.tolist(), lambda i, due_s: self._send(client, lengths_s[i])
            )
        return tuple(latency_s for latency_s in found if latency_s is not None)

    async def _send(self, client: AsyncParaserve, length_s: float) -> float:
        began_s = time.monotonic()
        await client.transcribe_as(self._clips[length_s], "json", WHISPER)
        return time.monotonic() - began_s

    def _client(self) -> AsyncParaserve:
        return AsyncParaserve(self._url, "", timeout_s=_TIMEOUT_S, max_retries=0)


@contextmanager
def _observed(settings: Settings, records: Path) -> Iterator[_ObservedService]:
    # Ray runs its workers at a low priority, so that anything else would starve them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # The one difference to the service as it is: its recognizer has a stopwatch.
    with (
        mock.patch("serve_app.app.build", lambda values: build_observed(values, records)),
        placed_service(settings.recognizer.deployment.num_replicas) as place,
        service(None, settings) as url,
    ):
        yield _ObservedService(url, records, place())
