"""The most sessions that the service can take at once, with and without batches across them."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable

from loadtests.harness.report import Report
from loadtests.live.results import MAX_FINAL_S, add_result, add_table
from loadtests.live.service import live_service, measure, warm_up

# An item that is larger than a batch may be runs alone.
_BATCHINGS = {"on": (), "off": ("recognizer.max_batch_frames=1",)}
_AS_IT_IS = "as it is"


def run(options: argparse.Namespace, report: Report) -> None:
    add_table(report, "Sessions at once", "batching")
    chosen = {name: _BATCHINGS[name] for name in options.batching}
    batchings = {_AS_IT_IS: ()} if options.url is not None else chosen
    found: dict[str, int] = {}
    for batching, assignments in batchings.items():
        with live_service(options, *assignments) as url:
            warm_up(url)
            found[batching] = most_sessions(
                _measuring(url, batching, options, report), options.most
            )
    rule = f"final p95 at most {MAX_FINAL_S:g} s, lag at most {options.max_lag:g} s"
    report.table(f"Capacity: {rule}", ("batching", "sessions"))
    for batching, number in found.items():
        report.row(batching, number)
        report.promise(f"one session fits, batching {batching}", f"{number} do", number >= 1)


def most_sessions(has_capacity: Callable[[int], bool], limit: int) -> int:
    """Returns the largest number with capacity: doubled until one fails, then bisected.

    Args:
        has_capacity: measures a number of sessions.
        limit: largest number to try.

    Returns:
        0 if a single session fails.
    """
    good, bad = 0, limit + 1
    while good + 1 < bad:
        # None has failed so far: double.
        tried = min(max(1, 2 * good), limit) if bad > limit else (good + bad) // 2
        if has_capacity(tried):
            good = tried
        else:
            bad = tried
    return good


def _measuring(
    url: str, batching: str, options: argparse.Namespace, report: Report
) -> Callable[[int], bool]:
    def has_capacity(number: int) -> bool:
        report.say(f"batching {batching}: {number} sessions for {options.seconds:g} s")
        result = asyncio.run(measure(url, number, options.seconds))
        add_result(report, result, batching)
        return result.has_capacity(options.max_lag)

    return has_capacity
