"""Admission and deadlines of HTTP requests.

`AdmissionGate` puts the queue of `serve_app.scheduling.admission` on an event loop: requests
wait in it until their body may be read, and again until they may be processed. `Deadline` ends
a request that takes too long.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serve_app.api.auth import Caller
from serve_app.api.body import RequestBody
from serve_app.core.errors import DeadlineExceeded, InvalidParameter
from serve_app.scheduling.admission import (
    AdmissionLine,
    AdmissionStatistics,
    AdmissionTicket,
    Limits,
    TicketState,
)


@dataclass(eq=False, slots=True)
class Admission:
    """One request's admission; call `leave` at the end, once or more often."""

    ticket: AdmissionTicket
    _gate: AdmissionGate
    processed_audio_s: float = 0.0

    @property
    def num_bytes(self) -> int:
        return self.ticket.num_bytes

    @property
    def max_audio_s(self) -> float:
        """The longest recording that can ever be admitted; infinite without a limit."""
        return self._gate.max_audio_s(self.ticket)

    @property
    def waited_s(self) -> float:
        """Time in the queue, without the upload."""
        return self.ticket.waited_s

    def resize(self, num_bytes: int) -> None:
        """Corrects the bytes that are reserved.

        Raises:
            Overloaded: there is no room for that many now.
            UploadTooLarge: there never will be.
        """
        self._gate.resize(self.ticket, num_bytes)

    async def begin(self, audio_s: float, body: RequestBody) -> None:
        """Waits, once the upload is complete, until the request may be worked on.

        Args:
            audio_s: expected length of the recording, 0 if that is not known.
            body: has been read; tells whether the caller is still there.

        Raises:
            AudioTooLong: it is more than could ever be worked on.
            ClientDisconnect: the caller went away.
        """
        await self._gate.begin(self.ticket, audio_s, body)

    def leave(self) -> None:
        self._gate.leave(self.ticket, self.processed_audio_s)


class AdmissionGate:
    """Admits requests as an `AdmissionLine` decides. Belongs to one event loop.

    Args:
        limits: of all callers together.
        max_retry_after_s: longest Retry-After of a rejected request.
        clock: monotonic time in s.
    """

    def __init__(
        self,
        limits: Limits,
        max_retry_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._line = AdmissionLine(limits, max_retry_after_s)
        self._clock = clock
        self._waiting: dict[AdmissionTicket, asyncio.Event] = {}

    async def enter(
        self, caller: Caller, num_bytes: int, deadline: Deadline, body: RequestBody
    ) -> Admission:
        """Waits until the caller's body may be read.

        Args:
            caller: whose request it is.
            num_bytes: of the body as declared, or a guess.
            deadline: of the request.
            body: is hardly read; tells whether the caller is still there.

        Raises:
            Overloaded: the line is full.
            UploadTooLarge: the body is more than can be in flight.
            DeadlineExceeded: the deadline passed in line.
            ClientDisconnect: the caller went away.
        """
        ticket = self._line.arrive(
            caller.name, caller.limits, num_bytes, deadline.at, self._clock(), caller.weight
        )
        try:
            async with deadline.enforced():
                await self._wait_while("waiting", ticket, body)
        except BaseException:
            self.leave(ticket, 0.0)
            raise
        return Admission(ticket, self)

    def store(self, caller: Caller, num_bytes: int) -> Admission:
        """Reserves bytes for an upload that is only stored; see `AdmissionLine.store`.

        Raises:
            Overloaded: there is no room for it now.
            UploadTooLarge: the body is more than can be in flight.
        """
        ticket = self._line.store(
            caller.name, caller.limits, num_bytes, self._clock(), caller.weight
        )
        return Admission(ticket, self)

    async def begin(self, ticket: AdmissionTicket, audio_s: float, body: RequestBody) -> None:
        """Waits until the request may be worked on; it has to be left also if this fails."""
        self._wake(self._line.received(ticket, audio_s, self._clock()))
        await self._wait_while("ready", ticket, body)

    def statistics(self) -> AdmissionStatistics:
        return self._line.statistics(self._clock())

    def max_audio_s(self, ticket: AdmissionTicket) -> float:
        bounds = (self._limits.max_audio_s, ticket.key_limits.max_audio_s)
        return min((bound for bound in bounds if bound is not None), default=math.inf)

    def resize(self, ticket: AdmissionTicket, num_bytes: int) -> None:
        self._wake(self._line.resize(ticket, num_bytes, self._clock()))

    def leave(self, ticket: AdmissionTicket, processed_audio_s: float) -> None:
        self._wake(self._line.leave(ticket, self._clock(), processed_audio_s))

    async def _wait_while(
        self, state: TicketState, ticket: AdmissionTicket, body: RequestBody
    ) -> None:
        if ticket.state != state:
            return
        turn = self._waiting[ticket] = asyncio.Event()
        try:
            await body.unless_departed(turn.wait())
        finally:
            del self._waiting[ticket]

    def _wake(self, tickets: Iterable[AdmissionTicket]) -> None:
        for ticket in tickets:
            if (turn := self._waiting.get(ticket)) is not None:
                turn.set()


TIMEOUT_HEADER = "X-Paraserve-Timeout-S"


@dataclass(frozen=True, slots=True)
class Deadline:
    """The deadline of a request, counted from its arrival; upload and queueing count.

    Attributes:
        timeout_s: how long the request may take.
        at: monotonic time at which the request is canceled.
        unix: the same as Unix time, for other machines.
    """

    timeout_s: float
    at: float = field(init=False)
    unix: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", time.monotonic() + self.timeout_s)
        object.__setattr__(self, "unix", time.time() + self.timeout_s)

    def remaining_s(self) -> float:
        return max(self.at - time.monotonic(), 0.0)

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Cancels what the block awaits when the deadline passes.

        Raises:
            DeadlineExceeded: the deadline has passed.
        """
        try:
            async with asyncio.timeout(self.remaining_s()) as timeout:
                yield
        except DeadlineExceeded:
            # A stage raised it first and does not know the limit.
            raise DeadlineExceeded(self.timeout_s) from None
        except TimeoutError:
            if not timeout.expired():
                raise
            raise DeadlineExceeded(self.timeout_s) from None


def deadline_of(header: str | None, default_s: float, max_s: float) -> Deadline:
    """Returns the deadline of a request that has just arrived.

    Args:
        header: value of the header, if sent.
        default_s: timeout without the header.
        max_s: longest timeout that callers may request.

    Raises:
        InvalidParameter: the header is not a number of seconds in range.
    """
    if header is None:
        return Deadline(default_s)
    try:
        timeout_s = float(header)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s <= max_s:
        raise InvalidParameter(
            TIMEOUT_HEADER, f"must be a number of seconds above 0 and at most {max_s:g}"
        )
    return Deadline(timeout_s)
