"""Keeps Ray Serve from reading bodies that are not needed yet.

A replica that HAProxy talks to reads every body to its end into a queue without a
bound, to notice when the caller leaves (Ray 2.60, `ASGIDIReceiveProxy`). The body of
a queued request would then be in memory as a whole. This middleware passes on a bounded
number of bytes, and more as they are used; the rest stays with the sender. It is active only
after `enable`.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SCOPE_KEY = "paraserve.flow_control"
_FLOW_CONTROL_BYTES = 256 * 1024


class _Switch:
    """Whether this process reads bodies through `FlowControl`."""

    on = False


def enable() -> None:
    """Has this process's requests limited; their bodies must be read with the window."""
    _Switch.on = True


class FlowControl:
    """How much of one body may be read ahead of its use.

    Args:
        loop: that of the server; the body may be used in another one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._num_ahead = 0
        self._room = asyncio.Event()
        self._room.set()

    async def wait_for_room(self) -> None:
        await self._room.wait()

    def taken(self, num_bytes: int) -> None:
        """Counts what was read. In the server's loop only."""
        self._num_ahead += num_bytes
        if self._num_ahead >= _FLOW_CONTROL_BYTES:
            self._room.clear()

    def used(self, num_bytes: int) -> None:
        """Makes room for as much more. From any thread."""
        self._loop.call_soon_threadsafe(self._free, num_bytes)

    def _free(self, num_bytes: int) -> None:
        self._num_ahead -= num_bytes
        if self._num_ahead < _FLOW_CONTROL_BYTES:
            self._room.set()


class FlowControlMiddleware:
    """Reads a body only as far as its window goes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _Switch.on or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        window = scope[_SCOPE_KEY] = FlowControl(asyncio.get_running_loop())

        async def receive_with_flow_control() -> Message:
            await window.wait_for_room()
            message = await receive()
            window.taken(len(message.get("body", b"")))
            return message

        await self._app(scope, receive_with_flow_control, send)


def flow_control_of(scope: Scope) -> FlowControl | None:
    """Returns the window of a request, None where none is kept."""
    window: FlowControl | None = scope.get(_SCOPE_KEY)
    return window
