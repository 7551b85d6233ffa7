"""What the Serve graph costs on top of the same stages in one process."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import astuple
from statistics import median
from typing import Any

import psutil
import torch

from loadtests.bench.measuring import Cost, Meter, hold, machine, report, run_child
from loadtests.bench.options import Options, as_flac, short
from loadtests.bench.tables import Bar, Comparison, Table
from loadtests.ports import free_port
from serve_app.client import Paraserve
from serve_app.core.records import STAGES, FileBytes
from serve_app.inference.local import LocalTranscriber
from serve_app.launch import prepare_environment, running
from serve_app.settings import Settings
from serve_app.transcript.transcript import collect

_WARM_UP_S = 30.0
_IDLE_S = 10.0


def compare(options: Options, command: str) -> Comparison:
    """Measures the service and one process in turns; the service idles meanwhile."""
    where = machine()
    settings = _with_port(options.settings())
    prepare_environment(settings)
    audio = as_flac(options.samples())
    served: list[Cost] = []
    alone: list[Cost] = []
    with (
        running(settings) as application,
        Paraserve(application.url, "", max_retries=0) as client,
    ):
        _post(client, as_flac(options.samples(_WARM_UP_S)))
        idle_share = _idle_share()
        for _ in range(options.repeats):
            child: Any = run_child("loadtests.bench.overhead", [options.to_json()])
            alone.append(Cost(*child[0]))
            expected = child[1]
            cost, text = _served(client, audio)
            served.append(cost)
            if text != expected:
                raise RuntimeError("the service and one process disagree on the text")
    return _comparison(options, command, where, alone, served, idle_share)


def _comparison(
    options: Options,
    command: str,
    where: str,
    alone: list[Cost],
    served: list[Cost],
    idle_share: float,
) -> Comparison:
    alone_cpu_s = median(cost.cpu_s for cost in alone)
    served_cpu_s = median(cost.cpu_s for cost in served)
    served_wall_s = median(cost.wall_s for cost in served)
    net_cpu_s = served_cpu_s - idle_share * served_wall_s
    rows = (
        ("one process", median(cost.wall_s for cost in alone), alone_cpu_s, 1.0),
        ("Serve graph, all processes", served_wall_s, served_cpu_s, served_cpu_s / alone_cpu_s),
        ("Serve graph, less its idle load", served_wall_s, net_cpu_s, net_cpu_s / alone_cpu_s),
    )
    table = Table(
        f"{options.seconds:.0f} s of audio from bytes to text, {short(options.pack)} and "
        f"{short(options.punctuation_pack)}, one compute thread a stage, same text, "
        f"median of {options.repeats}",
        ("", "wall s", "CPU s", "CPU against one process"),
        rows,
        (f"The idle cluster takes {idle_share:.3f} CPU seconds a second.",),
    )
    chart = Bar("CPU s", tuple(row[0] for row in rows), tuple(row[2] for row in rows))
    return Comparison("overhead", command, where, (table,), (chart,))


def _with_port(settings: Settings) -> Settings:
    http = settings.http.model_copy(update={"port": free_port()})
    audio = settings.audio.model_copy(update={"max_upload_bytes": 2**30})
    return settings.model_copy(update={"http": http, "audio": audio})


def _idle_share() -> float:
    """CPU seconds per second of a cluster that has nothing to do."""
    before_s = _cluster_cpu_s()
    time.sleep(_IDLE_S)
    return (_cluster_cpu_s() - before_s) / _IDLE_S


def _served(client: Paraserve, audio: FileBytes) -> tuple[Cost, str]:
    before_s, started = _cluster_cpu_s(), time.perf_counter()
    text = _post(client, audio)
    return Cost(time.perf_counter() - started, _cluster_cpu_s() - before_s), text


def _post(client: Paraserve, audio: FileBytes) -> str:
    return client.transcribe(audio.tobytes()).text


def _cluster_cpu_s() -> float:
    """CPU time of all processes of the cluster, which are children of this one."""
    spent_s = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent_s += times.user + times.system
    return spent_s


async def _measure_alone(options: Options) -> tuple[Cost, str]:
    torch.set_num_threads(1)
    async with LocalTranscriber(options.settings()) as transcriber:

        async def text(audio: FileBytes) -> str:
            return (await collect(transcriber.transcribe(audio, frozenset(STAGES)))).text

        await text(as_flac(options.samples(_WARM_UP_S)))
        audio = as_flac(options.samples())
        with Meter() as meter:
            transcript = await text(audio)
        return meter.cost, transcript


if __name__ == "__main__":
    cost, transcript = asyncio.run(_measure_alone(Options.from_json(sys.argv[1])))
    report([astuple(cost), transcript])
    hold()
