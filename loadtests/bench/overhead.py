"""What the Serve graph costs on top of the same stages in one process."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import torch

from loadtests.bench.options import Options, as_flac, short, text_of
from loadtests.harness.child import Cost, Meter, median_cost, run_child, send
from loadtests.harness.report import Report
from loadtests.harness.watch import cluster_cpu_s
from loadtests.ports import free_port
from loadtests.serving import service
from serve_app.client import Paraserve
from serve_app.inference.local import LocalTranscriber
from serve_app.settings import Settings

_WARM_UP_S = 30.0
_IDLE_S = 10.0


def compare(options: Options, report: Report) -> None:
    """Measures the service and one process in turns; the service idles meanwhile."""
    content = as_flac(options.samples()).tobytes()
    report.table(
        f"{options.seconds:.0f} s of audio from bytes to text, {short(options.pack)} and "
        f"{short(options.punctuation_pack)}, one compute thread a stage, same text, "
        f"median of {options.repeats}",
        ("", "wall s", "CPU s", "CPU against one process"),
    )
    served: list[Cost] = []
    alone: list[Cost] = []
    with (
        service(None, _with_port(options.settings())) as url,
        Paraserve(url, "", max_retries=0) as client,
    ):
        client.transcribe(as_flac(options.samples(_WARM_UP_S)).tobytes())
        before_s = cluster_cpu_s()
        time.sleep(_IDLE_S)
        idle_share = (cluster_cpu_s() - before_s) / _IDLE_S
        report.note(f"The idle cluster takes {idle_share:.3f} CPU seconds a second.")
        for _ in range(options.repeats):
            child: Any = run_child("loadtests.bench.overhead", options.to_json())
            alone.append(Cost(*child[0]))
            before_s, began_s = cluster_cpu_s(), time.perf_counter()
            text = client.transcribe(content).text
            served.append(Cost(time.perf_counter() - began_s, cluster_cpu_s() - before_s))
            show(report, alone, served, idle_share)
            report.promise("the service and one process agree on the text", "", text == child[1])


def show(report: Report, alone: Sequence[Cost], served: Sequence[Cost], idle_share: float) -> None:
    """Fills the table from what was measured so far."""
    one, graph = median_cost(alone), median_cost(served)
    net_cpu_s = graph.cpu_s - idle_share * graph.wall_s
    rows = [
        (name, wall_s, cpu_s, cpu_s / one.cpu_s)
        for name, wall_s, cpu_s in (
            ("one process", one.wall_s, one.cpu_s),
            ("Serve graph, all processes", graph.wall_s, graph.cpu_s),
            ("Serve graph, less its idle load", graph.wall_s, net_cpu_s),
        )
    ]
    report.rows(rows)
    report.bars(("CPU s", [row[0] for row in rows], [row[2] for row in rows]))


def _with_port(settings: Settings) -> Settings:
    http = settings.http.model_copy(update={"port": free_port()})
    audio = settings.audio.model_copy(update={"max_upload_bytes": 2**30})
    return settings.model_copy(update={"http": http, "audio": audio})


async def _measure_alone(options: Options) -> tuple[Cost, str]:
    torch.set_num_threads(1)
    async with LocalTranscriber(options.settings()) as transcriber:
        await text_of(transcriber, as_flac(options.samples(_WARM_UP_S)))
        audio = as_flac(options.samples())
        with Meter() as meter:
            transcript = await text_of(transcriber, audio)
        return meter.cost, transcript


if __name__ == "__main__":
    cost, transcript = asyncio.run(_measure_alone(Options.from_json(sys.argv[1])))
    send([astuple(cost), transcript])
