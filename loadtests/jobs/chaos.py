"""What becomes of jobs while every kind of process is killed, and the whole service twice.

    python -m loadtests jobs chaos [--jobs 500] [--database sqlite postgresql]

Runs `paraserve serve --restart 3` with jobs, and starts it again whenever it ends. Jobs of 3 s
to an hour are created; some recordings are broken, some jobs are cancelled. Meanwhile one random
process of the service is killed with SIGKILL every few seconds, HAProxy, the head's processes and
the runner among them, and twice all of them at once. Every final state and text is compared with
what the idle service answers to the same recording, and every webhook is verified with OpenAI's
SDK.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from openai import InvalidWebhookSignatureError, OpenAI

from loadtests.harness.clips import ClipLibrary
from loadtests.harness.report import Report
from loadtests.harness.requests import WHISPER, Caller
from loadtests.jobs.receiver import Received, receiver
from loadtests.jobs.setup import database, job_client, job_settings, new_secret
from loadtests.outages import VICTIMS, SupervisedService, supervised
from serve_app.client import AsyncParaserve

_KINDS = tuple(VICTIMS)
_SHORT_S = (3, 5, 8, 12, 20, 30)
_LONG_SHARE = 0.04
_BROKEN_SHARE = 0.05
_CANCELLED_SHARE = 0.1
_ENDED_LIMIT_S = 1800.0
_WEBHOOK_LIMIT_S = 600.0
_FAIL_SHARE = 0.2
_MOST_KILLS = 1000


@dataclass(slots=True)
class Case:
    """A job and what must become of it.

    Attributes:
        name: its idempotency key.
        content: the recording.
        audio_s: its length.
        text: what the idle service says of it; None if it refuses it.
        is_cancelled: whether it is cancelled.
        job_id: once it is created.
        states: final states that were seen.
    """

    name: str
    content: bytes
    audio_s: float
    text: str | None
    is_cancelled: bool
    job_id: str = ""
    states: set[str] = field(default_factory=set)
    result: str | None = None
    num_attempts: int = 0

    @property
    def is_right(self) -> bool:
        if self.is_cancelled and self.states == {"cancelled"}:
            return True
        if self.text is None:
            return self.states == {"failed"}
        return self.states == {"completed"} and self.result == self.text


def run(options: argparse.Namespace, report: Report) -> None:
    columns = (
        *("database", "jobs", "completed", "failed", "cancelled", "kills"),
        *("taken over", "webhooks", "twice", "minutes"),
    )
    report.table("Jobs while processes are killed", columns)
    for kind in options.database:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(_Run(kind, Path(directory), options, report).run())


class _Run:
    """One database's run.

    Args:
        kind: of the database.
        directory: for all files.
        options: of the command line.
        report: gets a row and the promises.
    """

    def __init__(
        self, kind: str, directory: Path, options: argparse.Namespace, report: Report
    ) -> None:
        self._kind = kind
        self._directory = directory
        self._options = options
        self._report = report
        self._dice = random.Random(options.seed)  # noqa: S311, no secret
        self._secret = new_secret()
        self._kills: Counter[str] = Counter()

    async def run(self) -> None:
        began_s = time.monotonic()
        with (
            database(self._kind, self._directory) as found,
            receiver(_FAIL_SHARE, self._dice) as received,
            supervised(
                self._options.out / f"jobs-chaos-{self._kind}-serve.log",
                *found.settings,
                *job_settings(self._directory, self._secret),
            ) as service,
        ):
            async with job_client(service.url) as client:
                cases = await self._cases(service.url)
                supervising = asyncio.create_task(_supervise(service))
                killing = asyncio.create_task(self._kill(service))
                try:
                    await self._create(cases, client, received.url)
                    await _until_ended(cases, client, self._report)
                finally:
                    killing.cancel()
                for case in cases:
                    await _read(case, client)
                await _until_told(cases, received)
                supervising.cancel()
                self._judge(cases, received, time.monotonic() - began_s)

    async def _cases(self, url: str) -> list[Case]:
        """Returns the jobs to create, with what the idle service says of each."""
        library = ClipLibrary(self._directory)
        lengths_s = [self._length_s(i) for i in range(self._options.jobs)]
        clips = [library.clip(length_s) for length_s in lengths_s]
        async with Caller(url) as caller:
            texts = await library.texts(clips, caller.text)
        cases = []
        for i, clip in enumerate(clips):
            content, text = library.path(clip).read_bytes(), texts[clip]
            is_broken = self._dice.random() < _BROKEN_SHARE
            case = Case(f"{self._kind}-{i}", content, clip.audio_s, text, False)
            if is_broken:
                # The beginning of a FLAC file, so that it is accepted, and no audio.
                case.content, case.text = content[:42] + bytes(2000), None
            else:
                case.is_cancelled = self._dice.random() < _CANCELLED_SHARE
            cases.append(case)
        return cases

    def _length_s(self, number: int) -> float:
        if number == 0:
            return float(self._options.longest)
        if self._dice.random() < _LONG_SHARE:
            return self._dice.uniform(60.0, min(600.0, self._options.longest))
        return min(float(self._dice.choice(_SHORT_S)), float(self._options.longest))

    async def _create(self, cases: list[Case], client: AsyncParaserve, webhook_url: str) -> None:
        async def create(number: int, case: Case) -> None:
            await asyncio.sleep(number * self._options.every)
            job = await client.jobs.create(
                case.content, WHISPER, webhook_url=webhook_url, idempotency_key=case.name
            )
            case.job_id = job.id
            if case.is_cancelled:
                await asyncio.sleep(self._dice.uniform(0.0, 20.0))
                await client.jobs.cancel(case.job_id)

        await asyncio.gather(*(create(number, case) for number, case in enumerate(cases)))

    async def _kill(self, service: SupervisedService) -> None:
        """Kills a process each few seconds, and everything after a third and two thirds."""
        began_s = time.monotonic()
        length_s = self._options.jobs * self._options.every
        outages_s = [length_s / 3, 2 * length_s / 3]
        for number in range(1, _MOST_KILLS):
            await asyncio.sleep(self._dice.uniform(0.5, 1.5) * self._options.kill_every)
            if outages_s and time.monotonic() - began_s >= outages_s[0]:
                del outages_s[0]
                self._report.say(f"kill {number}: everything")
                self._kills["everything"] += 1
                await asyncio.to_thread(service.kill)
                continue
            kind = self._dice.choice(_KINDS)
            victims = await asyncio.to_thread(service.victims, kind)
            with suppress(psutil.Error):
                if victims:
                    self._dice.choice(victims).send_signal(signal.SIGKILL)
                    self._kills[kind] += 1
                    self._report.say(f"kill {number}: {kind}")

    def _judge(self, cases: list[Case], received: Received, took_s: float) -> None:
        states = Counter(state for case in cases for state in case.states)
        told, num_forged = _verified(received, self._secret)
        by_job = {case.job_id: case for case in cases}
        untold = [case for case in cases if not told.get(case.job_id)]
        false = [
            job_id
            for job_id, types in told.items()
            if types != {f"transcription.{state}" for state in by_job[job_id].states}
        ]
        num_told = sum(1 for _ in received.messages)
        self._report.row(
            self._kind,
            len(cases),
            states["completed"],
            states["failed"],
            states["cancelled"],
            sum(self._kills.values()),
            sum(max(0, case.num_attempts - 1) for case in cases),
            num_told,
            num_told - len(told),
            f"{took_s / 60:.1f}",
        )
        self._report.note(
            f"{self._kind}: "
            + ", ".join(f"{number}x {kind}" for kind, number in sorted(self._kills.items()))
        )
        wrong = [case for case in cases if not case.is_right]
        for case in wrong[:5]:
            self._report.note(f"{case.name}, {case.job_id}: {sorted(case.states)}")
        promise = self._report.promise
        ended = sum(len(case.states) == 1 for case in cases)
        name = self._kind
        promise(f"{name}: every job in exactly one final state", f"{ended}", ended == len(cases))
        promise(f"{name}: as the idle service answers", f"{len(wrong)} others", not wrong)
        promise(f"{name}: a webhook for each job", f"{len(untold)} without", not untold)
        promise(f"{name}: every signature verified", f"{num_forged} not", not num_forged)
        promise(f"{name}: no webhook of another state", f"{len(false)}", not false)


async def _until_ended(cases: list[Case], client: AsyncParaserve, report: Report) -> None:
    give_up_s = time.monotonic() + _ENDED_LIMIT_S
    left = list(cases)
    while left and time.monotonic() < give_up_s:
        for case in left:
            job = await client.jobs.get(case.job_id)
            if job.is_final:
                case.states.add(job.status)
        left = [case for case in left if not case.states]
        report.say(f"{len(cases) - len(left)} of {len(cases)} jobs have ended")
        await asyncio.sleep(5.0)


async def _read(case: Case, client: AsyncParaserve) -> None:
    """Asks again: a final state stays as it was, and the result is there."""
    job = await client.jobs.get(case.job_id)
    case.states.add(job.status)
    case.num_attempts = job.num_attempts
    if job.status == "completed":
        case.result = (await client.jobs.result(job)).text


async def _until_told(cases: list[Case], received: Received) -> None:
    give_up_s = time.monotonic() + _WEBHOOK_LIMIT_S
    wanted = {case.job_id for case in cases}
    while time.monotonic() < give_up_s:
        if {json.loads(one.body)["data"]["id"] for one in list(received.messages)} >= wanted:
            return
        await asyncio.sleep(1.0)


def _verified(received: Received, secret: str) -> tuple[dict[str, set[str]], int]:
    """Returns the types of the messages by job, and how many had a wrong signature."""
    webhooks = OpenAI(api_key="none", webhook_secret=secret).webhooks
    told: dict[str, set[str]] = {}
    num_forged = 0
    for message in received.messages:
        try:
            # What was delivered long ago is past the tolerance by now.
            webhooks.verify_signature(message.body, message.headers, tolerance=10**6)
        except InvalidWebhookSignatureError:
            num_forged += 1
            continue
        content = json.loads(message.body)
        told.setdefault(content["data"]["id"], set()).add(content["type"])
    return told, num_forged


async def _supervise(service: SupervisedService) -> None:
    while True:
        await asyncio.to_thread(service.watch)
        await asyncio.sleep(0.25)
