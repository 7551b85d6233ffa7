"""One trace through a real service and through the simulator."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt

from loadtests.ports import free_port
from loadtests.simulation.calibration import Spent, calibrate
from loadtests.simulation.keeping import RealRun, keep, kept
from loadtests.simulation.local_run import LocalService
from loadtests.simulation.machine import MachineWatch
from loadtests.simulation.measuring import segmenter_s
from loadtests.simulation.recordings import Clip, cut, make_clip
from loadtests.simulation.sending import Answer, send_closed, send_trace
from loadtests.simulation.stopwatch import build_observed, read_records
from serve_app.cluster import prepare_environment, running
from serve_app.core.errors import ParaserveError
from serve_app.pipeline.loading import load_vad
from serve_app.planning.costs import Costs
from serve_app.planning.results import Percentiles, RunResult
from serve_app.planning.shape import ServiceShape, shape_of
from serve_app.planning.simulation import MachineShape, RunOptions, simulate
from serve_app.planning.speech import MeasuredSpeech, Recording
from serve_app.planning.trace import Trace, make_trace
from serve_app.settings import Settings

LENGTHS_S = (3.0, 6.0, 12.0, 30.0, 60.0, 120.0, 300.0, 600.0)
# As often as keeps every length's audio within a factor of a few of the others'.
_SHARES = (0.25, 0.2, 0.15, 0.15, 0.1, 0.07, 0.05, 0.03)
_WORDS_PER_S = 291 / 74.8
_WARM_UP_S = 5.0
_CALIBRATION_REQUESTS = 80
_REPEATS = 5
_STRETCH_S = 3.0
_START_S = 6.0
_OWN_THREADS = 1.5
"""Threads of the service that are at work while a batch is: its own and half another."""


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """How to compare.

    Attributes:
        seconds: length of the trace.
        calibration_s: time for measuring costs before it.
        load: part of what the service can do, that the trace asks for.
        num_replicas: recognisers.
        bursts: every so often the rate doubles for a few seconds.
        in_process: without Ray and HTTP.
        seed: of the arrivals.
        keep_in: write what the service did into this file.
        kept_in: do not run it, but read from this file what it did.
    """

    seconds: float = 150.0
    calibration_s: float = 40.0
    load: float = 0.7
    num_replicas: int = 1
    bursts: bool = True
    in_process: bool = False
    seed: int = 1
    keep_in: Path | None = None
    kept_in: Path | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both runs.

    Attributes:
        real: percentiles by name.
        simulated: likewise.
        num_real_waits: chunks of the real run.
        costs: that the simulator was given.
        load: part of the recogniser's time that it was at work in the real run.
        cores_left: that others left on average.
        result: of the simulation.
    """

    real: Mapping[str, Percentiles]
    simulated: Mapping[str, Percentiles]
    costs: Costs
    load: float
    cores_left: float
    result: RunResult


def compare(options: CompareOptions) -> Comparison:
    """Runs the service on this machine, then simulates the same.

    Raises:
        ParaserveError: the service does not start, or refuses requests.
    """
    settings = _settings(options)
    clips = {length_s: make_clip(length_s) for length_s in LENGTHS_S}
    vad = load_vad(settings).engine
    recordings = {length_s: cut(clip, vad, settings) for length_s, clip in clips.items()}
    if options.kept_in is not None:
        real = kept(options.kept_in)
    elif options.in_process:
        real = asyncio.run(_local(settings, clips, options))
    else:
        real = _real(settings, clips, options)
    if options.keep_in is not None:
        keep(real, options.keep_in)
    return _compared(real, recordings, settings, options)


def _real(settings: Settings, clips: Mapping[float, Clip], options: CompareOptions) -> RealRun:
    # Ray runs its workers at a low priority, so that anything else would starve them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    prepare_environment(settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batches.jsonl"
        # The one difference to the service as it is: its recogniser has a stopwatch.
        with (
            mock.patch("serve_app.app.build", lambda values: build_observed(values, path)),
            running(settings, lambda message: print(message, flush=True)) as application,
        ):
            calibration = _calibrate(application.url, clips, path, options)
            trace = _trace(calibration, options)
            print(
                f"{len(trace)} requests, {trace.audio_hours:.2f} h over {trace.span_s:.0f} s",
                flush=True,
            )
            decoding_s = segmenter_s(settings, _REPEATS)
            return _run(application.url, trace, clips, path, calibration, decoding_s)


async def _local(
    settings: Settings, clips: Mapping[float, Clip], options: CompareOptions
) -> RealRun:
    random = np.random.default_rng(options.seed + 1000)
    with tempfile.TemporaryDirectory() as folder:
        async with LocalService(settings, Path(folder) / "batches.jsonl") as service:
            await service.send_closed(LENGTHS_S, clips, 2)
            lengths_s = random.choice(LENGTHS_S, _CALIBRATION_REQUESTS, p=_SHARES).tolist()
            before_s = service.decoded_s
            calibration = await service.send_closed(lengths_s, clips, 4)
            decoding_s = (service.decoded_s - before_s) / sum(lengths_s)
            trace = _trace(calibration, options)
            print(f"{len(trace)} requests, {trace.audio_hours:.2f} h", flush=True)
            return await service.send_trace(trace, clips, calibration, decoding_s)


def _shape(settings: Settings, options: CompareOptions) -> ServiceShape:
    shape = shape_of(settings)
    if not options.in_process or shape.punctuator is None:
        return shape
    # In one process there are neither calls to batch nor callers to be kind to.
    recognizer = replace(shape.recognizer, limits=replace(shape.recognizer.limits, max_s=None))
    punctuator = replace(shape.punctuator, limits=replace(shape.punctuator.limits, max_items=1))
    return replace(shape, recognizer=recognizer, punctuator=punctuator)


def _settings(options: CompareOptions) -> Settings:
    return Settings.model_validate(
        {
            "profile": "demo",
            "http": {"port": free_port()},
            "cluster": {"num_cpus": 8},
            "admission": {"max_running": 64, "max_waiting": 150, "max_bytes": 2**30},
            "recognizer": {
                "deployment": {
                    "num_replicas": options.num_replicas,
                    "num_cpus": 0.5,
                    "max_ongoing_requests": 256,
                }
            },
            "segmenter": {"deployment": {"max_ongoing_requests": 64}},
        }
    )


def _calibrate(url: str, clips: Mapping[float, Clip], path: Path, options: CompareOptions) -> Spent:
    random = np.random.default_rng(options.seed + 1000)
    asyncio.run(send_closed(url, list(LENGTHS_S), clips, 2))
    lengths_s: list[float] = []
    path.unlink(missing_ok=True)
    end_s = time.monotonic() + options.calibration_s
    with MachineWatch() as watch:
        while time.monotonic() < end_s:
            some = random.choice(LENGTHS_S, 24, p=_SHARES).tolist()
            answers = asyncio.run(send_closed(url, some, clips, 4))
            _check(answers)
            lengths_s.extend(some)
    return Spent(watch.used_s(), lengths_s, read_records(path))


def _trace(spent: Spent, options: CompareOptions) -> Trace:
    """Returns arrivals that keep the scarcer of recogniser and cores as busy as wanted."""
    audio_s = sum(spent.lengths_s)
    model_s = sum(record.ended_s - record.began_s for record in spent.records)
    began_s, ended_s = spent.records[0].began_s, spent.records[-1].ended_s
    fastest = audio_s / (ended_s - began_s)
    possible = min(audio_s / model_s * options.num_replicas, fastest * 1.1)
    mean_s = float(np.dot(LENGTHS_S, _SHARES))
    rate = options.load * possible / mean_s
    random = np.random.default_rng(options.seed)
    gaps_s = random.exponential(1.0 / rate, int(rate * options.seconds * 2) + 10)
    arrivals_s = np.cumsum(gaps_s)
    if options.bursts:
        arrivals_s = _with_bursts(arrivals_s)
    arrivals_s = arrivals_s[arrivals_s < options.seconds]
    lengths_s = random.choice(LENGTHS_S, len(arrivals_s), p=_SHARES)
    return make_trace(arrivals_s, lengths_s)


def _with_bursts(
    times_s: npt.NDArray[np.float64], every_s: float = 30.0, length_s: float = 5.0
) -> npt.NDArray[np.float64]:
    """Has time run twice as fast for a while, and a little slower for the rest."""
    real_s = np.arange(0.0, times_s[-1] + every_s, 0.1)
    slow = (every_s - 2 * length_s) / (every_s - length_s)
    rate = np.where(real_s % every_s < length_s, 2.0, slow)
    passed_s = np.concatenate([[0.0], np.cumsum(rate[:-1]) * 0.1])
    warped: npt.NDArray[np.float64] = np.interp(times_s, passed_s, real_s)
    return warped


def _run(
    url: str,
    trace: Trace,
    clips: Mapping[float, Clip],
    path: Path,
    calibration: Spent,
    decoding_s: float,
) -> RealRun:
    path.unlink(missing_ok=True)
    start_s = time.monotonic()
    with MachineWatch() as watch:
        answers = asyncio.run(send_trace(url, trace, clips))
    _check(answers)
    records = read_records(path)
    spent = Spent(watch.used_s(), trace.audio_s.tolist(), records)
    return RealRun(
        trace,
        start_s,
        tuple(answers),
        tuple(records),
        tuple(watch.cores_left(start_s)),
        spent,
        calibration,
        decoding_s,
    )


def _check(answers: Sequence[Answer]) -> None:
    failed = [answer for answer in answers if answer.status != 200]
    if failed:
        raise ParaserveError(f"{len(failed)} requests failed with {failed[0].status}")


def _others(real: RealRun, num_cores: float) -> tuple[tuple[float, float], ...]:
    """Returns how many threads of others shared the cores, from stretch to stretch.

    A batch's CPU time over its time by the clock is the share of a core that it got;
    with k threads of the service's own and m of others on n cores that is n / (k + m).
    """
    others: list[tuple[float, float]] = []
    end_s = max(record.ended_s for record in real.records)
    for since_s in np.arange(real.start_s, end_s, _STRETCH_S).tolist():
        inside = [
            record
            for record in real.records
            if record.ended_s > since_s and record.began_s < since_s + _STRETCH_S
        ]
        took_s = sum(record.ended_s - record.began_s for record in inside)
        if took_s > 0:
            share = sum(record.cpu_s for record in inside) / took_s
            num = max(0.0, num_cores / share - _OWN_THREADS)
            others.append((max(0.0, since_s - real.start_s), num if share < 0.95 else 0.0))
    return tuple(others)


def _compared(
    real: RealRun,
    recordings: Mapping[float, Recording],
    settings: Settings,
    options: CompareOptions,
) -> Comparison:
    costs = calibrate(
        real.calibration,
        recordings,
        real.segmenter_s,
        _WORDS_PER_S,
        _START_S,
        "the demo service on this machine; `python -m loadtests.simulation compare`",
    )
    num_cores = float(os.cpu_count() or 1)
    cores = np.array([left for _, left in real.cores_left])
    result = simulate(
        real.trace,
        _shape(settings, options),
        costs,
        MeasuredSpeech(recordings),
        RunOptions(
            seed=options.seed,
            machine=MachineShape(num_cores, _others(real, num_cores)),
            warm_up_s=_WARM_UP_S,
        ),
    )
    start_s = real.start_s
    waits_s = np.array(
        [
            record.began_s - arrived_s
            for record in real.records
            for arrived_s in record.arrived_s
            if arrived_s - start_s >= _WARM_UP_S
        ]
    )
    latencies_s = np.array([a.latency_s for a in real.answers if a.sent_s - start_s >= _WARM_UP_S])
    busy_s = sum(record.ended_s - record.began_s for record in real.records)
    return Comparison(
        {"queue delay of a chunk": Percentiles.of(waits_s), "latency": Percentiles.of(latencies_s)},
        {"queue delay of a chunk": result.item_delay, "latency": result.latency},
        costs,
        busy_s / real.trace.span_s / options.num_replicas,
        float(cores.mean()),
        result,
    )
