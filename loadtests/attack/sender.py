"""The attacker: a process of its own, which gives way to the service on shared cores.

A remote attacker brings its own processors. One on this machine takes processor time from
the service, and would be measured instead of it: Ray runs replicas and HAProxy at nice 15
(`RAY_worker_niceness`), so that a sender at nice 0 gets about 28 times a replica's share of
a busy core. The sender runs at nice 19 and sends as fast as it can there; the number of
answers that it got and the processor time that it took are in the table.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import ClassVar

from loadtests.attack import files, wire
from loadtests.attack.wire import Attack, Target
from loadtests.uploads.bodies import FORM_TYPE, form

NICENESS = 19

_MEGABYTE = 2**20
_OVERTIME_S = 90


@dataclass(frozen=True, slots=True)
class Sent:
    """What an attack came to.

    Attributes:
        statuses: what the attacker got, by HTTP status; 0 for no answer.
        cpu_s: processor time of the sender.
    """

    statuses: dict[int, int]
    cpu_s: float


def attacks() -> dict[str, Callable[[], Attack]]:
    """Returns the attacks by name; what they send is made when one begins."""

    def sending(made: Callable[[], list[tuple[str, bytes]]]) -> Callable[[], Attack]:
        return lambda: partial(wire.bodies, made=made())

    return {
        "slow-bodies": lambda: wire.slow_bodies,
        "slow-headers": lambda: wire.slow_headers,
        "slow-readers": lambda: wire.slow_readers,
        "half-open": lambda: wire.half_open,
        "header-bombs": lambda: wire.header_bombs,
        "wav-chunks": sending(
            lambda: [(FORM_TYPE, form(files.wav_of_empty_chunks(40 * _MEGABYTE)))]
        ),
        "mkv-blocks": sending(lambda: [(FORM_TYPE, form(files.mkv_of_single_samples(100_000)))]),
        "flac-zeros": sending(lambda: [(FORM_TYPE, form(files.flac_of_zeros(3600.0)))]),
        "multipart": sending(lambda: list(files.odd_forms())),
        "json": sending(lambda: list(files.odd_json())),
        "urls": sending(
            lambda: [
                ("application/json", json.dumps({"model": "whisper-1", "audio_url": url}).encode())
                for url in files.tricky_urls()
            ]
        ),
        "page-events": lambda: wire.page_events,
    }


class Sender:
    """Attacks from another process, one attack after another; made by `sender`."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    async def prepare(self, name: str) -> int:
        """Has the process make what an attack sends, before its time begins; returns its id."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, _Prepared.prepare, name)

    async def attack(self, target: Target, seconds: float) -> Sent:
        """Runs the attack that was prepared last.

        Raises:
            TimeoutError: it does not end.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, _Prepared.run, target, seconds)


@contextmanager
def sender() -> Iterator[Sender]:
    """Yields a sender, whose process ends with the block."""
    # A fork would inherit the threads' locks of Ray and of the event loop.
    with ProcessPoolExecutor(
        1,
        mp_context=get_context("spawn"),
        initializer=os.setpriority,
        initargs=(os.PRIO_PROCESS, 0, NICENESS),
    ) as pool:
        yield Sender(pool)


class _Prepared:
    """What the sender's process holds between its two calls."""

    attacks: ClassVar[list[Attack]] = []

    @classmethod
    def prepare(cls, name: str) -> int:
        cls.attacks = [attacks()[name]()]
        return os.getpid()

    @classmethod
    def run(cls, target: Target, seconds: float) -> Sent:
        target.statuses = {}
        began_s = time.process_time()

        async def bounded() -> None:
            async with asyncio.timeout(seconds + _OVERTIME_S):
                await cls.attacks[0](target, seconds)

        asyncio.run(bounded())
        return Sent(dict(target.statuses), time.process_time() - began_s)
