"""The body of a request, read only as far as it is needed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

from serve_app.api.flow_control import flow_control_of
from serve_app.core.errors import ParaserveError, RecognitionFailed, UploadTooSlow

_MAX_AHEAD_BYTES = 64 * 1024
_DISCARD_BYTES = 1 << 20
_DISCARD_S = 1.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class UploadRate:
    """The minimum rate of an upload.

    Attributes:
        min_bytes_per_s: on average over `grace_s`.
        grace_s: how long a sender may send nothing at all.
    """

    min_bytes_per_s: float
    grace_s: float


@dataclass(slots=True)
class _WaitBudget:
    """Bounds the wait for a sender with a token bucket.

    Waiting spends time; each byte earns the time that it takes at the minimum rate, up to the
    grace period. Pauses within the grace period and the size of the pieces do not matter; a
    sender below the minimum rate always runs out of time.
    """

    rate: UploadRate
    left_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.left_s = self.rate.grace_s

    def spend(self, waited_s: float, num_bytes: int) -> None:
        earned_s = num_bytes / self.rate.min_bytes_per_s
        self.left_s = min(self.left_s - waited_s + earned_s, self.rate.grace_s)


class RequestBody:
    """Yields the body, or watches for a disconnect of its sender, one at a time.

    Close it when the request ends: a read may still be pending then.

    Args:
        request: the request; nothing else may read its body.
        rate: minimum rate of the sender; None for any.
        clock: monotonic time in s.
    """

    def __init__(
        self,
        request: Request,
        rate: UploadRate | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receive = request.receive
        self._wait_budget = None if rate is None else _WaitBudget(rate)
        self._clock = clock
        self._flow = flow_control_of(request.scope)
        self._ahead: deque[bytes] = deque()
        self._pending: asyncio.Future[Message] | None = None
        self._ended = False
        # The sender waits for 100 Continue, which reading triggers.
        self._held_back = request.headers.get("expect", "").lower() == "100-continue"

    async def stream(self) -> AsyncIterator[bytes]:
        """Yields the unread rest.

        Raises:
            ClientDisconnect: the sender disconnected before the end.
            UploadTooSlow: the sender is below the minimum rate.
        """
        while self._ahead or not self._ended:
            if not self._ahead:
                await self._read_in_time()
            while self._ahead:
                yield self._take()

    async def departure(self) -> None:
        """Returns when the sender has disconnected.

        A little of an unread body is read ahead. If the sender has more to send, its disconnect
        is noticed only when the rest is read.
        """
        with suppress(ClientDisconnect):
            while self._ended or self._may_read_ahead():
                await self._read()
            await asyncio.Event().wait()

    async def discard(self) -> None:
        """Reads the rest for a moment after a request was rejected.

        Closing a connection with unread data resets it, and most clients then report the reset
        instead of the response.
        """
        num_bytes = 0
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(_DISCARD_S):
                while not self._held_back and not self._ended and num_bytes < _DISCARD_BYTES:
                    await self._read()
                    while self._ahead:
                        num_bytes += len(self._take())

    async def discard_after(self, error: ParaserveError) -> None:
        """Discards the rest of a body that was refused, unless its sender is too slow."""
        if not isinstance(error, UploadTooSlow):
            await self.discard()

    async def unless_departed(self, work: Awaitable[_T]) -> _T:
        """Waits for work on a body that has been read; cancels it if the sender disconnects.

        Raises:
            ClientDisconnect: the sender disconnected.
        """
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self.departure())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if working.cancelled():
                # A stage behind the ingress canceled the work, not the caller.
                raise RecognitionFailed("the service canceled the work")
            if working.done():
                return working.result()
            raise ClientDisconnect
        finally:
            leaving.cancel()
            working.cancel()
            await asyncio.wait({working, leaving})

    def close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()

    def _may_read_ahead(self) -> bool:
        return not self._held_back and sum(map(len, self._ahead)) < _MAX_AHEAD_BYTES

    def _take(self) -> bytes:
        data = self._ahead.popleft()
        if self._flow is not None:
            self._flow.used(len(data))
        return data

    async def _read_in_time(self) -> None:
        """Reads the next piece; counts only the time that the sender takes."""
        budget = self._wait_budget
        if budget is None:
            await self._read()
            return
        if budget.left_s <= 0:
            raise UploadTooSlow(budget.rate.min_bytes_per_s)
        began = self._clock()
        try:
            async with asyncio.timeout(budget.left_s) as timeout:
                await self._read()
        except TimeoutError:
            if not timeout.expired():
                raise
            raise UploadTooSlow(budget.rate.min_bytes_per_s) from None
        budget.spend(self._clock() - began, sum(map(len, self._ahead)))

    async def _read(self) -> None:
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive())
        # The reader may be canceled; the next reader then gets the message.
        message = await asyncio.shield(self._pending)
        self._pending = None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if data := message.get("body", b""):
            self._ahead.append(data)
        self._ended = not message.get("more_body", False)
