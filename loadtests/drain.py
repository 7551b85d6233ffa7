"""Many requests under way when the service is told to stop: `python -m loadtests drain`.

Starts `paraserve serve`, sends clips and long recordings all at once, sends SIGTERM when
all of them are under way, and compares each answer with what a quiet service gave. Exit code 0
if every request under way was answered right, every later one got a 503 with Retry-After, and
the service ended with code 0.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report, parse, parser
from loadtests.harness.requests import Attempt, Caller, Fate, Request
from loadtests.serving import ServingProcess, serving
from serve_app.client import ClientError
from serve_app.core.in_flight import num_in_flight

_LENGTHS_S = (3.0, 15.0, 60.0)
"""Of the shorter recordings, in turn with the longest."""
_UNDER_WAY_LIMIT_S = 60


def main(given: Sequence[str] | None = None) -> int:
    made = parser("drain", __doc__)
    made.add_argument("--requests", type=int, default=50)
    made.add_argument("--longest", type=float, default=600.0, help="s of the longest recording")
    made.add_argument("--limit", type=float, default=600.0, help="s for the slowest answer")
    options = parse(made, given)
    with (
        serving(
            # All of them are queued, and some more can be refused.
            f"admission.max_waiting={options.requests}",
            f"ingress.deployment.max_ongoing_requests={2 * options.requests + 64}",
        ) as service,
        Report("drain", options) as report,
    ):
        asyncio.run(_run(service, options, report))
    return report.exit_code


async def _run(service: ServingProcess, options: argparse.Namespace, report: Report) -> None:
    lengths_s = (*_LENGTHS_S, options.longest)
    with tempfile.TemporaryDirectory() as folder:
        library = ClipLibrary(Path(folder))
        contents = [library.content(length_s) for length_s in lengths_s]
    async with Caller(service.url, timeout_s=options.limit) as caller:
        texts = [await caller.text(content) for content in contents]
        kinds = [number % len(contents) for number in range(options.requests)]
        answers = [
            asyncio.create_task(caller.attempt(Request(contents[kind], texts[kind])))
            for kind in kinds
        ]
        async with asyncio.timeout(_UNDER_WAY_LIMIT_S):
            while num_in_flight(service.directory) < len(answers):  # noqa: ASYNC110, another process's
                await asyncio.sleep(0.02)
        service.process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        later = await _ask_meanwhile(caller, answers)
        found = await asyncio.gather(*answers)
        exit_code = await asyncio.to_thread(service.process.wait)
        took_s = time.monotonic() - began_s
    judge(report, [(lengths_s[kind], one) for kind, one in zip(kinds, found, strict=True)], later)
    report.promise("the service ends with code 0", f"{exit_code}, {took_s:.1f} s", exit_code == 0)


async def _ask_meanwhile(caller: Caller, answers: Sequence[asyncio.Task[Attempt]]) -> list[bool]:
    """Sends requests while the others end; returns of each whether it was told to come back."""
    told: list[bool] = []
    await asyncio.sleep(1.0)
    while not all(answer.done() for answer in answers):
        try:
            await caller.client.served()
            told.append(False)
        except ClientError as error:
            told.append(error.status == 503 and error.retry_after_s is not None)
        await asyncio.sleep(0.5)
    return told


def judge(report: Report, found: Sequence[tuple[float, Attempt]], later: Sequence[bool]) -> None:
    """Adds what became of the requests under way, and of the later ones."""
    report.table("Requests under way at SIGTERM", ("length", "sent", "right", "otherwise"))
    for length_s in dict.fromkeys(length_s for length_s, _ in found):
        tried = [one for of_s, one in found if of_s == length_s]
        wrong = [f"{one.fate} {one.detail}" for one in tried if one.fate is not Fate.RIGHT]
        right = len(tried) - len(wrong)
        report.row(f"{length_s:.0f} s", len(tried), right, "; ".join(wrong) or None)
    num_right = sum(one.fate is Fate.RIGHT for _, one in found)
    report.promise(
        "every request under way is answered right",
        f"{num_right} of {len(found)}",
        num_right == len(found),
    )
    report.promise(
        "later ones get a 503 with Retry-After", f"{sum(later)} of {len(later)}", all(later)
    )


if __name__ == "__main__":
    sys.exit(main())
