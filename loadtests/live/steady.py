"""A number of sessions for a while: what is lost, and whether memory grows."""

from __future__ import annotations

import argparse
import asyncio
import time

from loadtests.harness.report import Report, mib
from loadtests.harness.watch import Watch, max_growth_bytes
from loadtests.live.results import add_result, add_table, promise_text
from loadtests.live.service import live_service, measure, warm_up

_REPLICA = "Live"
_MAX_GROWTH_BYTES = 20 * 2**20


def run(options: argparse.Namespace, report: Report) -> None:
    add_table(report, "Sessions at once")
    with live_service(options) as url:
        warm_up(url)
        with Watch() as watch:
            began_s = time.monotonic()
            result = asyncio.run(measure(url, options.sessions, options.seconds))
            ended_s = time.monotonic()
    add_result(report, result)
    promise_text(report, result)
    replicas = [each for each in watch.histories.values() if _REPLICA in each.name]
    if not replicas:
        report.note("memory: the service is not one of this run's own processes")
        return
    grown_bytes = max_growth_bytes(replicas, began_s, ended_s)
    found = f"{mib(grown_bytes)} MiB from the second third to the last"
    report.promise("memory of the sessions is flat", found, grown_bytes <= _MAX_GROWTH_BYTES)
