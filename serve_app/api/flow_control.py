"""Keeps Ray Serve from reading bodies and messages that are not needed yet.

A replica behind HAProxy reads every body to its end into an unbounded queue, to notice when the
caller disconnects (Ray 2.60, `ASGIDIReceiveProxy`). So the whole body of a queued request would
be in memory. This middleware passes on a limited number of bytes, and more as they are used; the
sender keeps the rest. It is active only after `enable`.

The messages of a WebSocket are read in the same way, and what is sent to it goes through an
unbounded queue as well (`call_http_entrypoint`): `SendWindow` counts what has not left yet.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SCOPE_KEY = "paraserve.flow_control"
_SEND_SCOPE_KEY = "paraserve.send_window"
# Empty messages count too: what Ray's queue holds of one, roughly.
_MESSAGE_BYTES = 256
_FLOW_CONTROL_BYTES = 256 * 1024


class _Switch:
    """Whether this process reads bodies through `FlowControl`."""

    on = False


def enable() -> None:
    """Enables flow control in this process; bodies must then be read with `FlowControl`."""
    _Switch.on = True


class FlowControl:
    """Limits how much of one body is read ahead of its use.

    Args:
        loop: of the server; the body may be used in another one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._num_ahead = 0
        self._room = asyncio.Event()
        self._room.set()

    async def wait_for_room(self) -> None:
        await self._room.wait()

    def taken(self, num_bytes: int) -> None:
        """Counts bytes that were read. Call it in the server's loop only."""
        self._num_ahead += num_bytes
        if self._num_ahead >= _FLOW_CONTROL_BYTES:
            self._room.clear()

    def used(self, num_bytes: int) -> None:
        """Makes room for as many bytes. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._free, num_bytes)

    def _free(self, num_bytes: int) -> None:
        self._num_ahead -= num_bytes
        if self._num_ahead < _FLOW_CONTROL_BYTES:
            self._room.set()


class SendWindow:
    """Counts what was sent to a WebSocket and has not been given to its server.

    Only bytes that the server's loop has taken, which it does as the client reads, count as left.
    """

    def __init__(self) -> None:
        self._num_sent = 0
        self._num_left = 0

    @property
    def num_held(self) -> int:
        """Bytes on their way. May be read in any thread."""
        return self._num_sent - self._num_left

    def sent(self, num_bytes: int) -> None:
        """Counts bytes; call it in the application's loop only."""
        self._num_sent += num_bytes

    def left(self, num_bytes: int) -> None:
        """Counts bytes; call it in the server's loop only."""
        self._num_left += num_bytes


class FlowControlMiddleware:
    """Reads each body only as far as its `FlowControl` allows."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _Switch.on or scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        flow = scope[_SCOPE_KEY] = FlowControl(asyncio.get_running_loop())

        async def receive_with_flow_control() -> Message:
            await flow.wait_for_room()
            message = await receive()
            flow.taken(message_bytes(message))
            return message

        if scope["type"] == "http":
            await self._app(scope, receive_with_flow_control, send)
            return
        window = scope[_SEND_SCOPE_KEY] = SendWindow()

        async def send_and_count(message: Message) -> None:
            await send(message)
            window.left(message_bytes(message))

        await self._app(scope, receive_with_flow_control, send_and_count)


def message_bytes(message: Message) -> int:
    """Returns how much a message counts."""
    if message["type"].startswith("websocket."):
        data = message.get("bytes") or message.get("text") or b""
        return len(data) + _MESSAGE_BYTES
    return len(message.get("body", b""))


def flow_control_of(scope: Scope) -> FlowControl | None:
    """Returns the flow control of a request, None if it is not enabled."""
    flow: FlowControl | None = scope.get(_SCOPE_KEY)
    return flow


def send_window_of(scope: Scope) -> SendWindow | None:
    """Returns the send window of a WebSocket, None if flow control is not enabled."""
    window: SendWindow | None = scope.get(_SEND_SCOPE_KEY)
    return window
