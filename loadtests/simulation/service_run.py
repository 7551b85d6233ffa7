"""The real service under a trace, its recognizers on cores of their own."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import psutil

from loadtests.simulation.calibration import Spent
from loadtests.simulation.keeping import RealRun
from loadtests.simulation.machine import MachineWatch
from loadtests.simulation.measuring import segmenter_s
from loadtests.simulation.placement import Placement, kept_on, place_service, placement_for
from loadtests.simulation.recordings import Clip
from loadtests.simulation.sending import Answer, send_closed, send_trace
from loadtests.simulation.stopwatch import build_observed, read_records
from loadtests.simulation.traffic import LENGTHS_S, SHARES, Traffic, make_traffic
from serve_app.core.errors import ParaserveError
from serve_app.launch import prepare_environment, running
from serve_app.planning.trace import Trace
from serve_app.settings import Settings

_PROBE_REQUESTS = 24
_PROBE_CLIENTS = 8
_REPEATS = 5
_IDLE_S = 10.0


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What to send.

    Attributes:
        traffic: its shape.
        seconds: length of the trace.
        seed: of the trace.
    """

    traffic: Traffic
    seconds: float
    seed: int


def run_service(settings: Settings, clips: Mapping[float, Clip], plan: RunPlan) -> RealRun:
    """Starts the service and sends it a trace.

    Raises:
        ParaserveError: the machine is too small, the service does not start, or it
            refuses requests.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        _service(settings, clips, Path(folder) / "batches.jsonl") as service,
    ):
        service.warm_up()
        idle = service.idle()
        capacity = service.probe(plan.seed)
        decoding_s = segmenter_s(settings, _REPEATS)
        trace = make_traffic(plan.traffic, capacity, plan.seconds, plan.seed)
        _tell(
            f"{capacity:.1f} s of audio a second are possible; {len(trace)} requests, "
            f"{trace.audio_hours:.2f} h, in {trace.span_s:.0f} s"
        )
        start_s, answers, spent = service.send(trace)
        return RealRun(trace, start_s, answers, spent, idle, decoding_s, service.num_shared)


class _Service:
    def __init__(
        self,
        url: str,
        clips: Mapping[float, Clip],
        path: Path,
        processes: Mapping[str, Sequence[psutil.Process]],
        placement: Placement,
    ) -> None:
        self._url = url
        self._clips = clips
        self._path = path
        self._processes = processes
        self._placement = placement

    @property
    def num_shared(self) -> int:
        return len(self._placement.shared)

    def warm_up(self) -> None:
        _check(asyncio.run(send_closed(self._url, list(LENGTHS_S), self._clips, 2)))

    def idle(self) -> dict[str, float]:
        """Returns the CPU seconds a second of the replicas while nothing is asked."""
        with MachineWatch(self._processes, self._placement) as watch:
            time.sleep(_IDLE_S)
        return {name: used_s / watch.elapsed_s for name, used_s in watch.used_s().items()}

    def probe(self, seed: int) -> float:
        """Returns the audio seconds that the recognizers do in a second of work."""
        random = np.random.default_rng(seed + 3000)
        lengths_s: list[float] = random.choice(LENGTHS_S, _PROBE_REQUESTS, p=SHARES).tolist()
        self._path.unlink(missing_ok=True)
        _check(asyncio.run(send_closed(self._url, lengths_s, self._clips, _PROBE_CLIENTS)))
        records = read_records(self._path)
        num_replicas = len({record.replica for record in records})
        busy_s = sum(record.ended_s - record.began_s for record in records)
        return sum(lengths_s) / busy_s * num_replicas

    def send(self, trace: Trace) -> tuple[float, tuple[Answer, ...], Spent]:
        """Returns when the trace began, the answers, and what they cost."""
        self._path.unlink(missing_ok=True)
        with MachineWatch(self._processes, self._placement) as watch:
            start_s = time.monotonic()
            answers = tuple(asyncio.run(send_trace(self._url, trace, self._clips)))
        _check(answers)
        spent = Spent(
            watch.elapsed_s,
            watch.used_s(),
            watch.others_s(),
            watch.intruded(),
            tuple(trace.audio_s.tolist()),
            tuple(read_records(self._path)),
        )
        return start_s, answers, spent


@contextmanager
def _service(settings: Settings, clips: Mapping[float, Clip], path: Path) -> Iterator[_Service]:
    placement = placement_for(settings.recognizer.deployment.num_replicas)
    # Ray runs its workers at a low priority, so that anything else would starve them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    prepare_environment(settings)
    with (
        kept_on(placement.shared),
        # The one difference to the service as it is: its recognizer has a stopwatch.
        mock.patch("serve_app.app.build", lambda values: build_observed(values, path)),
        running(settings, _tell) as application,
    ):
        yield _Service(application.url, clips, path, place_service(placement), placement)


def _check(answers: Sequence[Answer]) -> None:
    failed = [answer for answer in answers if answer.status != 200]
    if failed:
        raise ParaserveError(f"{len(failed)} requests failed with {failed[0].status}")


def _tell(message: str) -> None:
    print(message, flush=True)
