"""What has come from a live WebSocket and what is to go to it, within bounds."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from serve_app.api.flow_control import flow_control_of, message_bytes, send_window_of
from serve_app.core.errors import ParaserveError
from serve_app.core.live_errors import EventsNotRead

# Source: RFC 6455, section 7.4.1.
NORMAL, GOING_AWAY, DISCONNECTED, POLICY_VIOLATION, FAILURE = 1000, 1001, 1006, 1008, 1011

_MAX_WAITING_BYTES = 256 * 1024
_MAX_UNREAD_BYTES = 1024 * 1024
# Twenty times what a microphone needs; a file that is sent faster is slowed down.
_MESSAGES_PER_S = 2000.0
_BURST_MESSAGES = 4000.0


class ConnectionEnd(Exception):
    """Ends a connection.

    Args:
        code: of the WebSocket's close frame.
        error: what the client is told before; None if nothing is wrong.
    """

    def __init__(self, code: int, error: ParaserveError | None = None) -> None:
        super().__init__(code, error)
        self.code = code
        self.error = error


class Inbox:
    """The client's messages that were not handled yet.

    They are read ahead only so far that the end of the connection is noticed while one of them
    is handled.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._flow = flow_control_of(websocket.scope)
        self._messages: deque[Message] = deque()
        self._num_bytes = 0
        self._changed = asyncio.Event()

    async def read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise ConnectionEnd(DISCONNECTED)
            self._messages.append(message)
            self._num_bytes += message_bytes(message)
            self._changed.set()
            await self._until(lambda: self._num_bytes < _MAX_WAITING_BYTES)

    async def get(self) -> Message:
        await self._until(lambda: bool(self._messages))
        return self._messages.popleft()

    def used(self, message: Message) -> None:
        self._num_bytes -= message_bytes(message)
        self._changed.set()
        if self._flow is not None:
            self._flow.used(message_bytes(message))

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()


class Outbox:
    """Events that the client has not been sent yet."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._window = send_window_of(websocket.scope)
        self._texts: deque[str] = deque()
        self._num_bytes = 0
        self._changed = asyncio.Event()

    def put(self, text: str) -> None:
        self._texts.append(text)
        self._num_bytes += len(text)
        held = self._num_bytes + (0 if self._window is None else self._window.num_held)
        if held > _MAX_UNREAD_BYTES:
            raise ConnectionEnd(POLICY_VIOLATION, EventsNotRead())
        self._changed.set()

    async def write(self) -> None:
        while True:
            await self.flush()
            self._changed.clear()
            await self._changed.wait()

    async def flush(self) -> None:
        while self._texts:
            message = {"type": "websocket.send", "text": self._texts[0]}
            try:
                await self._websocket.send(message)
            except (RuntimeError, OSError, WebSocketDisconnect):
                raise ConnectionEnd(DISCONNECTED) from None
            if self._window is not None:
                self._window.sent(message_bytes(message))
            self._num_bytes -= len(self._texts.popleft())


class MessageRate:
    """Slows down a client that sends more messages than any microphone makes."""

    def __init__(self) -> None:
        self._credit = _BURST_MESSAGES
        self._at = time.monotonic()

    async def wait(self) -> None:
        now = time.monotonic()
        earned = (now - self._at) * _MESSAGES_PER_S
        self._credit = min(_BURST_MESSAGES, self._credit + earned) - 1
        self._at = now
        if self._credit < 0:
            await asyncio.sleep(-self._credit / _MESSAGES_PER_S)
