"""One live WebSocket: messages in, events out, and the limits of both.

What the client may cost is bounded: messages that it sends wait until they are used, events that
it does not read end the connection, and time without audio and the whole time have limits.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from serve_app.api.message_boxes import (
    DISCONNECTED,
    FAILURE,
    GOING_AWAY,
    NORMAL,
    POLICY_VIOLATION,
    ConnectionEnd,
    Inbox,
    MessageRate,
    Outbox,
)
from serve_app.core.errors import ParaserveError, RequestError, ShuttingDown
from serve_app.core.live_errors import (
    SessionIdle,
    SessionTooLong,
)
from serve_app.core.records import RequestContext
from serve_app.live.ports import LiveSession, LiveSessions
from serve_app.live.records import AudioFormat, LiveEvent, SessionOptions, SessionStatistics

_MAX_PUSHED_S = 1.0
_CLOSE_PATIENCE_S = 5.0
_MAX_REASON_BYTES = 120


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Times of one connection.

    Attributes:
        idle_timeout_s: longest time without audio.
        max_session_s: longest connection.
    """

    idle_timeout_s: float
    max_session_s: float


class LiveProtocol(Protocol):
    """What clients and sessions say to each other, in one protocol's words."""

    def start(self) -> None:
        """Greets the client, if that is customary."""
        ...

    async def handle(self, message: str | bytes) -> None:
        """Handles a message of the client.

        Raises:
            ConnectionEnd: it was the last one.
        """
        ...

    def tell(self, event: LiveEvent) -> None:
        """Passes an event of the session on."""
        ...

    def tell_end(self, error: ParaserveError, position_ms: int) -> None:
        """Says why the connection ends, and up to where all texts were told."""
        ...


class LiveConnection:
    """Runs one accepted WebSocket.

    Args:
        websocket: was accepted.
        sessions: opens sessions.
        session: that is open, for the audio and options that the client starts with.
        context: of the request.
        limits: of the connection.
        logger: gets a line at the end.
        protocol: makes what speaks on the connection.
        protocol_name: for that line.
    """

    def __init__(
        self,
        websocket: WebSocket,
        sessions: LiveSessions,
        session: LiveSession,
        audio: AudioFormat,
        context: RequestContext,
        limits: ConnectionLimits,
        logger: logging.Logger,
        protocol: Callable[[LiveConnection], LiveProtocol],
        protocol_name: str,
    ) -> None:
        self._websocket = websocket
        self._sessions = sessions
        self._session = session
        self._audio = audio
        self._context = context
        self._limits = limits
        self._logger = logger
        self._protocol_name = protocol_name
        self._began = self._heard = time.monotonic()
        self._has_audio = False
        self._finished = False
        self._inbox = Inbox(websocket)
        self._outbox = Outbox(websocket)
        self._tasks = asyncio.TaskGroup()
        self._telling: asyncio.Task[None] | None = None
        self._num_errors = 0
        self._earlier_ms = 0
        self._protocol = protocol(self)

    @property
    def audio(self) -> AudioFormat:
        return self._audio

    @property
    def has_audio(self) -> bool:
        """Whether the open session has received any."""
        return self._has_audio

    @property
    def session(self) -> LiveSession:
        return self._session

    def send(self, event: Mapping[str, object]) -> None:
        """Queues an event.

        Raises:
            ConnectionEnd: the client reads too little.
        """
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        # What the client sent, such as an id, may not be writable.
        self._outbox.put(text.encode("utf-8", "replace").decode())

    def count_error(self) -> None:
        """Counts an error that the client was told of, for the log."""
        self._num_errors += 1

    async def reopen(self, audio: AudioFormat, options: SessionOptions) -> None:
        """Replaces the session; what was not told is lost.

        Raises:
            ConnectionEnd: another one cannot be opened.
        """
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
        self._earlier_ms += self._session.statistics().received_ms
        await self._session.close()
        try:
            self._session = await self._sessions.open(self._context, audio, options)
        except ParaserveError as error:
            raise ConnectionEnd(_code_of(error), error) from None
        self._audio, self._has_audio, self._finished = audio, False, False
        self._tell_events()

    async def push(self, data: bytes) -> None:
        """Passes audio on, as fast as it is processed."""
        sample_bytes = 2 if self._audio.encoding == "pcm16" else 1
        size = int(self._audio.rate_hz * _MAX_PUSHED_S) * sample_bytes
        self._has_audio = self._has_audio or bool(data)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            # Meanwhile the client's next messages wait, and so does the client.
            await self._session.wait_for_room()
            self._session.push(piece)
            self._heard = time.monotonic()

    async def finish(self) -> None:
        """Ends the audio, and waits until everything is told."""
        self._finished = True
        self._session.finish()
        if self._telling is not None:
            await asyncio.wait([self._telling])

    async def run(self) -> None:
        """Runs the connection to its end."""
        end = ConnectionEnd(DISCONNECTED)
        try:
            end = await self._run()
            await self._close(end)
        except asyncio.CancelledError:
            # Ray Serve cancels a request whose caller has disconnected.
            end = ConnectionEnd(DISCONNECTED)
            raise
        finally:
            statistics = self._session.statistics()
            try:
                await self._session.close()
            finally:
                self._log(end, statistics)

    async def _run(self) -> ConnectionEnd:
        try:
            async with self._tasks:
                self._tasks.create_task(self._inbox.read())
                self._tasks.create_task(self._outbox.write())
                self._tasks.create_task(self._watch_time())
                self._tasks.create_task(self._handle())
        except BaseExceptionGroup as group:
            ends = group.subgroup(ConnectionEnd)
            if (others := group.subgroup(lambda one: not _is_end(one))) is not None:
                return self._failed(others)
            if ends is not None:
                return _first(ends)
        return ConnectionEnd(NORMAL)

    def _failed(self, group: BaseExceptionGroup[BaseException]) -> ConnectionEnd:
        self._logger.error(
            "live session failed unexpectedly",
            extra={"paraserve_request_id": self._context.request_id},
            exc_info=group,
        )
        return ConnectionEnd(FAILURE, ParaserveError("the service failed"))

    async def _handle(self) -> None:
        self._tell_events()
        self._protocol.start()
        rate = MessageRate()
        while True:
            message = await self._inbox.get()
            await rate.wait()
            data = message.get("text")
            await self._protocol.handle(message.get("bytes") or b"" if data is None else data)
            self._inbox.used(message)

    def _tell_events(self) -> None:
        self._telling = self._tasks.create_task(self._tell(self._session))

    async def _tell(self, session: LiveSession) -> None:
        try:
            async for event in session.events():
                self._protocol.tell(event)
        except ParaserveError as error:
            raise ConnectionEnd(_code_of(error), error) from None
        if not self._finished:
            # Its owner has closed it.
            raise ConnectionEnd(GOING_AWAY, ShuttingDown())

    async def _watch_time(self) -> None:
        limits = self._limits
        ends_at = self._began + limits.max_session_s
        while True:
            now = time.monotonic()
            if now >= ends_at:
                error = SessionTooLong(limits.max_session_s, self._position_ms)
                raise ConnectionEnd(GOING_AWAY, error)
            idle_at = self._heard + limits.idle_timeout_s
            if now >= idle_at:
                raise ConnectionEnd(POLICY_VIOLATION, SessionIdle(limits.idle_timeout_s))
            await asyncio.sleep(min(ends_at, idle_at) - now)

    @property
    def _position_ms(self) -> int:
        return self._session.statistics().finished_ms

    async def _close(self, end: ConnectionEnd) -> None:
        """Tells the client why, gives it a moment to read the rest, and closes."""
        if end.code == DISCONNECTED:
            return
        reason = ""
        if end.error is not None:
            reason = end.error.code
            with suppress(ConnectionEnd):
                self._protocol.tell_end(end.error, self._position_ms)
        with suppress(ConnectionEnd, TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
            async with asyncio.timeout(_CLOSE_PATIENCE_S):
                await self._outbox.flush()
                await self._websocket.close(end.code, reason[:_MAX_REASON_BYTES])

    def _log(self, end: ConnectionEnd, statistics: SessionStatistics) -> None:
        self._logger.info(
            "live session",
            extra={
                "paraserve_request_id": self._context.request_id,
                "key": self._context.key,
                "protocol": self._protocol_name,
                "close_code": end.code,
                "code": None if end.error is None else end.error.code,
                "duration_s": round(time.monotonic() - self._began, 3),
                "audio_s": (self._earlier_ms + statistics.received_ms) / 1000,
                "finished_s": (self._earlier_ms + statistics.finished_ms) / 1000,
                "num_segments": statistics.num_segments,
                "num_partials": statistics.num_partials,
                "num_thinned": statistics.num_thinned,
                "num_failed_segments": statistics.num_failed_segments,
                "num_errors": self._num_errors,
                "first_partial_s": statistics.first_partial_s,
                "final_s": statistics.final_s,
            },
        )


def _code_of(error: ParaserveError) -> int:
    if isinstance(error, ShuttingDown | SessionTooLong):
        return GOING_AWAY
    return POLICY_VIOLATION if isinstance(error, RequestError) else FAILURE


def _is_end(error: BaseException) -> bool:
    return isinstance(error, ConnectionEnd | BaseExceptionGroup)


def _first(group: BaseExceptionGroup[ConnectionEnd]) -> ConnectionEnd:
    """Returns why the connection ended; that the client left comes last."""
    ends: list[ConnectionEnd] = []
    rest: list[BaseException] = [group]
    while rest:
        one = rest.pop(0)
        if isinstance(one, BaseExceptionGroup):
            rest = [*one.exceptions, *rest]
        elif isinstance(one, ConnectionEnd):
            ends.append(one)
    return next((end for end in ends if end.code != DISCONNECTED), ends[0])
