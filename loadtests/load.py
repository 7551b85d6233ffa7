"""Open-loop traffic of mixed lengths: requests are sent when due, whatever the answers do.

    python -m loadtests load --profile mixed --rate 2 --duration 60 [--url http://127.0.0.1:8000]

Exit code 0 if nothing that was accepted got lost, 2 if nothing was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.harness import arrivals
from loadtests.harness.arrivals import MIXES, Arrival, class_name, in_order
from loadtests.harness.clips import ClipLibrary
from loadtests.harness.loops import send_arrivals
from loadtests.harness.report import Cell, Report, Table, parse, parser
from loadtests.harness.requests import (
    Caller,
    Fate,
    Outcome,
    attempts_of,
    audio_s_per_s,
    bad_refusals,
    count,
    percentiles,
)
from loadtests.serving import (
    RemoteRefused,
    add_service_options,
    own_settings,
    service,
)
from serve_app.client import ClientError
from serve_app.core.errors import ParaserveError
from serve_app.scheduling.admission import MAX_RETRY_AFTER_S

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = ("p50", "p95", "p99")
COLUMNS = (
    *("length", "sent", "right", "partial", "429", "4xx", "lost"),
    *(f"first byte {name}" for name in _SHOWN),
    *(f"complete {name}" for name in _SHOWN),
)
TITLE = "Latencies in s from the time a request was due"
_NUM_ERRORS = 12
_EVERY_S = 2.0
_BIN_S = 5.0


def main(given: Sequence[str] | None = None) -> int:
    options = _options(given)
    try:
        planned = _arrivals(options)
        with (
            tempfile.TemporaryDirectory() as directory,
            service(options.url, own_settings(options.set), options.allow_remote) as url,
            Report("load", options) as report,
        ):
            asyncio.run(_run(options, planned, ClipLibrary(Path(directory)), url, report))
    except (OSError, ValueError, RemoteRefused, ClientError, ParaserveError) as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return report.exit_code


async def _run(
    options: argparse.Namespace,
    planned: list[Arrival],
    library: ClipLibrary,
    url: str,
    report: Report,
) -> None:
    async with Caller(url, options.api_key) as caller:
        report.say("asking for the right texts")
        clips = (library.clip(each.audio_s) for each in planned)
        texts = await library.texts(clips, caller.text)
        report.say(f"sending {len(planned)} requests")
        table = report.table(TITLE, COLUMNS)
        ended: list[Outcome] = []
        shown_s = time.monotonic()

        def show(outcome: Outcome) -> None:
            nonlocal shown_s
            ended.append(outcome)
            if time.monotonic() > shown_s + _EVERY_S:
                shown_s = time.monotonic()
                fill(report, table, ended)

        outcomes = await send_arrivals(
            caller,
            library,
            planned,
            texts,
            stream=options.stream,
            grace_s=options.grace,
            on_outcome=show,
        )
    fill(report, table, outcomes)
    lost = sum(outcome.lost for outcome in outcomes)
    report.promise("accepted, then lost: 0", f"{lost} of {len(outcomes)}", lost == 0)
    report.draw(partial(draw, outcomes))


def fill(report: Report, table: Table, outcomes: Sequence[Outcome]) -> None:
    """Fills a table of `COLUMNS` with a row for all requests and one for each length class.

    Raises:
        ValueError: there are no outcomes.
    """
    if not outcomes:
        raise ValueError("no requests were due")
    by_class: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_class.setdefault(class_name(outcome.audio_s), []).append(outcome)
    refusals = attempts_of(outcomes, Fate.REFUSED)
    due_s = [outcome.due_s for outcome in outcomes]
    offered = sum(o.audio_s for o in outcomes) / max(max(due_s) - min(due_s), 1e-9)
    late = percentiles([outcome.sent_late_s for outcome in outcomes])
    errors = Counter(
        f"{attempt.fate}: {attempt.detail}"
        for outcome in outcomes
        for attempt in outcome.attempts
        if attempt.fate is not Fate.RIGHT
    )
    table.notes = [
        f"audio answered right: {audio_s_per_s(outcomes):.1f} s per s (offered {offered:.1f})",
        f"429s: {len(refusals)}, without a usable Retry-After: "
        f"{len(bad_refusals(refusals, MAX_RETRY_AFTER_S))}; "
        f"broken connections: {len(attempts_of(outcomes, Fate.BROKEN))}",
        f"the generator sent p50 {late.p50 or 0.0:.3f}, p99 {late.p99 or 0.0:.3f} s late",
        *(f"{number} x {error}" for error, number in errors.most_common(_NUM_ERRORS)),
    ]
    classes = [("all", list(outcomes)), *((name, by_class[name]) for name in in_order(by_class))]
    report.rows([_row(name, within) for name, within in classes], table)


def _row(name: str, outcomes: Sequence[Outcome]) -> tuple[Cell, ...]:
    right = [outcome for outcome in outcomes if outcome.fate is Fate.RIGHT]
    latencies = (
        percentiles([o.first_byte_s for o in right if o.first_byte_s is not None]),
        percentiles([outcome.complete_s for outcome in right]),
    )
    return (
        name,
        len(outcomes),
        len(right),
        *(count(outcomes, fate) for fate in (Fate.PARTIAL, Fate.REFUSED, Fate.REJECTED)),
        sum(outcome.lost for outcome in outcomes),
        *(
            None if value is None else f"{value:.3f}"
            for each in latencies
            for value in (each.p50, each.p95, each.p99)
        ),
    )


def draw(outcomes: Sequence[Outcome], figure: Figure) -> None:
    """Draws latencies and throughput over time."""
    latencies, throughput = figure.subplots(2, 1, sharex=True)
    began_s = min(outcome.due_s for outcome in outcomes)
    for name in in_order(class_name(outcome.audio_s) for outcome in outcomes):
        right = [o for o in outcomes if o.fate is Fate.RIGHT and class_name(o.audio_s) == name]
        times_s = [o.due_s - began_s for o in right]
        latencies.plot(times_s, [o.complete_s for o in right], ".", label=name)
    if lost := [outcome for outcome in outcomes if outcome.lost]:
        times_s = [o.due_s - began_s for o in lost]
        latencies.plot(times_s, [o.complete_s for o in lost], "rx", label="lost")
    latencies.set(yscale="log", ylabel="s until complete")
    bins: dict[str, Counter[int]] = {"offered": Counter(), "answered right": Counter()}
    for outcome in outcomes:
        due_s = outcome.due_s - began_s
        bins["offered"][int(due_s // _BIN_S)] += round(outcome.audio_s)
        if outcome.fate is Fate.RIGHT:
            done = int((due_s + outcome.complete_s) // _BIN_S)
            bins["answered right"][done] += round(outcome.audio_s)
        elif outcome.fate is Fate.REFUSED:
            bins.setdefault("429", Counter())[int(due_s // _BIN_S)] += round(outcome.audio_s)
    for label, sums in bins.items():
        numbers = range(max(sums, default=0) + 1)
        rates = [sums[number] / _BIN_S for number in numbers]
        throughput.step([n * _BIN_S for n in numbers], rates, where="post", label=label)
    throughput.set(xlabel="s since the start", ylabel="audio s per s")
    for axes in (latencies, throughput):
        axes.legend(loc="upper left")


def _arrivals(options: argparse.Namespace) -> list[Arrival]:
    dice = random.Random(options.seed)  # noqa: S311, nothing secret
    rate = arrivals.steady(options.rate)
    if options.arrivals == "bursts":
        rate = arrivals.bursts(options.rate, options.duration, dice)
    planned = arrivals.draw(rate, MIXES[options.profile], options.duration, dice)
    if not planned:
        raise ValueError("no request is due within the duration")
    if len(planned) > options.max_requests:
        raise ValueError(f"{len(planned)} requests are more than --max-requests allows")
    return planned


def _options(given: Sequence[str] | None) -> argparse.Namespace:
    made = parser("load", __doc__)
    add_service_options(made)
    add = made.add_argument
    add("--allow-remote", action="store_true", help="let --url be another machine")
    add("--api-key", default="", help="of the service")
    add("--profile", choices=sorted(MIXES), default="mixed", help="mix of lengths")
    add("--arrivals", choices=("poisson", "bursts"), default="poisson", help="arrival process")
    add("--rate", type=float, default=1.0, help="requests per second on average")
    add("--duration", type=float, default=60.0, help="s during which requests are due")
    add("--seed", type=int, default=1)
    add("--stream", action="store_true", help="ask for server-sent events")
    add("--max-requests", type=int, default=100_000)
    add("--grace", type=float, default=120.0, help="s to wait for answers after the last arrival")
    return parse(made, given)


if __name__ == "__main__":
    sys.exit(main())
