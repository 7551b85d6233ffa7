"""Recognizers that are killed while people speak."""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from loadtests.harness.report import Report
from loadtests.live.results import LiveResult, add_result, add_table, promise_text
from loadtests.live.service import SETTINGS, measure, warm_up
from loadtests.outages import SupervisedService, supervised

# Reservations for both, and for the sessions, on a machine of two cores.
_REPLICAS = ("recognizer.deployment.num_replicas=2", "cluster.num_cpus=8")


def run(options: argparse.Namespace, report: Report) -> None:
    add_table(report, "Sessions while recognizers are killed", "killed")
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "serve.log"
        with supervised(log, *SETTINGS, *_REPLICAS, *options.set) as service:
            warm_up(service.url)
            num_killed, result = asyncio.run(speak_through_kills(service, options))
    add_result(report, result, num_killed)
    report.promise("recognizers were killed", f"{num_killed} times", num_killed > 0)
    promise_text(report, result)


async def speak_through_kills(
    service: SupervisedService, options: argparse.Namespace
) -> tuple[int, LiveResult]:
    """Returns how many were killed, and what the sessions were told."""
    num_killed = 0

    async def kill() -> None:
        nonlocal num_killed
        while True:
            await asyncio.sleep(options.every)
            for victim in await asyncio.to_thread(service.victims, "recognizer"):
                with suppress(psutil.NoSuchProcess):
                    victim.send_signal(signal.SIGKILL)
                    num_killed += 1
                    break

    killing = asyncio.create_task(kill())
    try:
        result = await measure(service.url, options.sessions, options.seconds)
    finally:
        killing.cancel()
    return num_killed, result
