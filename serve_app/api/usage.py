"""The audio that each API key uses in a calendar month, and its quota.

Jobs add their usage to the store themselves. What requests use is counted in memory and added
every few seconds, so that no request waits for the database; a crash loses those seconds.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from serve_app.api import response_models
from serve_app.api.auth import Caller, caller_of
from serve_app.api.endpoints import EndpointLog
from serve_app.core.errors import InvalidParameter
from serve_app.core.job_errors import QuotaExceeded, StoreUnavailable
from serve_app.jobs.ports import Clock, JobStore
from serve_app.jobs.records import Usage, UsageKind

_FLUSH_S = 3.0
# Every ingress replica adds what it counted at least that often.
_FRESH_S = 5.0
_PATIENCE_S = 1.0
_CLOSING_S = 5.0
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)

_Slot: TypeAlias = tuple[str, str, UsageKind]


class Meter(Protocol):
    """Counts what keys use, and stops those that have used up their quota."""

    async def check(self, caller: Caller) -> None:
        """Checks that the caller has audio left in this month.

        Raises:
            QuotaExceeded: the quota is used up.
        """
        ...

    def count(self, key: str, kind: UsageKind, audio_s: float, num_requests: int = 1) -> None:
        """Counts audio that was transcribed; never waits and never fails."""
        ...


class NoMeter:
    """Counts nothing."""

    async def check(self, caller: Caller) -> None:
        pass

    def count(self, key: str, kind: UsageKind, audio_s: float, num_requests: int = 1) -> None:
        pass


@dataclass(slots=True)
class _Amount:
    audio_s: float = 0.0
    num_requests: int = 0


class UsageMeter:
    """A `Meter` on the store of jobs. Belongs to one event loop.

    While the store does not answer, counts are kept, one number per key, month and kind, and
    quotas go by what is known.

    Args:
        store: has the usage of all processes.
        logger: told when the store stops answering, and when it answers again.
        clock: the present time in UTC.
        monotonic: time in s.
    """

    def __init__(
        self,
        store: JobStore,
        logger: logging.Logger,
        clock: Clock = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._logger = logger
        self._clock = clock
        self._monotonic = monotonic
        self._pending: defaultdict[_Slot, _Amount] = defaultdict(_Amount)
        self._month = ""
        self._stored_s: dict[str, float] = {}
        self._asked_at = -float("inf")
        self._answers = True
        self._lock = asyncio.Lock()
        self._counted = asyncio.Event()
        self._flushing: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None

    def count(self, key: str, kind: UsageKind, audio_s: float, num_requests: int = 1) -> None:
        amount = self._pending[key, month_of(self._clock()), kind]
        amount.audio_s += audio_s
        amount.num_requests += num_requests
        self._counted.set()
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_often())

    async def check(self, caller: Caller) -> None:
        if caller.max_audio_s_per_month is not None:
            await self._refresh()
            self._compare(caller, self.used_s(caller.name))

    async def check_job(self, caller: Caller) -> None:
        """Checks as `check`, with the audio of the caller's open jobs counted as used.

        Raises:
            QuotaExceeded: the quota is used up.
            StoreUnavailable: the store does not answer.
        """
        if caller.max_audio_s_per_month is not None:
            await self._refresh()
            open_s = await self._store.open_audio_s(caller.name)
            self._compare(caller, self.used_s(caller.name) + open_s)

    def used_s(self, key: str) -> float:
        """Returns the audio that a key has used in this month, as far as this process knows."""
        month = month_of(self._clock())
        stored_s = self._stored_s.get(key, 0.0) if month == self._month else 0.0
        return stored_s + sum(
            amount.audio_s
            for (counted_key, counted_month, _), amount in self._pending.items()
            if (counted_key, counted_month) == (key, month)
        )

    async def usage(self, month: str, key: str) -> Sequence[Usage]:
        """Returns what a key has used in a month.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        await self.flush()
        return await self._store.usage(month, key)

    async def flush(self) -> None:
        """Adds what was counted to the store, in one call.

        Raises:
            StoreUnavailable: it does not answer; the counts are kept.
        """
        async with self._lock:
            taken = {
                slot: _Amount(one.audio_s, one.num_requests) for slot, one in self._pending.items()
            }
            if not taken:
                return
            await self._store.add_usage(
                [
                    Usage(key, month, kind, amount.audio_s, amount.num_requests)
                    for (key, month, kind), amount in taken.items()
                ]
            )
            for slot, amount in taken.items():
                self._settle(slot, amount)

    async def close(self) -> None:
        """Stops, and adds what was counted if the store answers soon."""
        tasks = {task for task in (self._flushing, self._reading) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        try:
            async with asyncio.timeout(_CLOSING_S):
                await self.flush()
        except (TimeoutError, StoreUnavailable):
            seconds = sum(amount.audio_s for amount in self._pending.values())
            self._logger.error("usage is lost", extra={"audio_s": round(seconds, 3)})

    def _settle(self, slot: _Slot, stored: _Amount) -> None:
        """Moves what the store has from the counts to the known usage."""
        key, month, _ = slot
        left = self._pending[slot]
        left.audio_s -= stored.audio_s
        left.num_requests -= stored.num_requests
        if not left.num_requests:
            # Differences of floats drift; what no request has used is nothing.
            del self._pending[slot]
        if month == self._month:
            self._stored_s[key] = self._stored_s.get(key, 0.0) + stored.audio_s

    async def _flush_often(self) -> None:
        while True:
            await self._counted.wait()
            await asyncio.sleep(_FLUSH_S)
            self._counted.clear()
            if not await self._answered(self.flush):
                self._counted.set()

    async def _refresh(self) -> None:
        """Reads the usage if it is old. A store that did not answer last time is not waited for."""
        is_fresh = self._monotonic() - self._asked_at < _FRESH_S
        if is_fresh and self._month == month_of(self._clock()):
            return
        if self._reading is None or self._reading.done():
            self._asked_at = self._monotonic()
            self._reading = asyncio.create_task(self._read())
        if self._answers:
            await asyncio.wait({self._reading}, timeout=_PATIENCE_S)

    async def _read(self) -> None:
        async def read() -> None:
            await self.flush()
            month = month_of(self._clock())
            async with self._lock:
                found: defaultdict[str, float] = defaultdict(float)
                for usage in await self._store.usage(month):
                    found[usage.key] += usage.audio_s
                self._month, self._stored_s = month, dict(found)

        await self._answered(read)

    async def _answered(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Does something with the store; returns whether it answered."""
        try:
            await work()
        except StoreUnavailable:
            if self._answers:
                self._logger.error("usage cannot be stored now; it is kept in memory")
            self._answers = False
        except Exception:
            self._logger.exception("usage cannot be stored")
            self._answers = False
        else:
            if not self._answers:
                self._logger.info("usage is stored again")
            self._answers = True
        return self._answers

    def _compare(self, caller: Caller, used_s: float) -> None:
        quota_s = caller.max_audio_s_per_month
        if quota_s is not None and used_s >= quota_s:
            raise QuotaExceeded(quota_s, day_after(month_of(self._clock())))


class UsageHandler:
    """Answers `GET /v1/usage`: what the caller's own key has used.

    Args:
        meter: has the usage.
        clock: the present time in UTC.
    """

    def __init__(self, meter: UsageMeter, clock: Clock = lambda: datetime.now(UTC)) -> None:
        self._meter = meter
        self._clock = clock

    async def get(self, request: Request, log: EndpointLog) -> Response:
        caller = caller_of(request)
        month = _month_in(request) or month_of(self._clock())
        found = await self._meter.usage(month, caller.name)
        answer: response_models.Usage = {
            "object": "usage",
            "month": month,
            "key": caller.name,
            "audio_s": round(sum(usage.audio_s for usage in found), 3),
            "num_requests": sum(usage.num_requests for usage in found),
            "data": [
                {
                    "kind": usage.kind,
                    "audio_s": round(usage.audio_s, 3),
                    "num_requests": usage.num_requests,
                }
                for usage in found
            ],
            "max_audio_s": caller.max_audio_s_per_month,
            "until": day_after(month),
        }
        return JSONResponse(answer)


def month_of(time: datetime) -> str:
    """Returns a calendar month as "2026-11"."""
    return f"{time:%Y-%m}"


def day_after(month: str) -> str:
    """Returns the day after the last one of a month, as "2026-12-01"."""
    year, number = map(int, month.split("-"))
    return f"{year + number // 12:04}-{number % 12 + 1:02}-01"


def _month_in(request: Request) -> str | None:
    months = request.query_params.getlist("month")
    if not months:
        return None
    if len(months) > 1 or not _MONTH.fullmatch(months[0]):
        raise InvalidParameter("month", "must be given once, as in 2026-11")
    return months[0]
