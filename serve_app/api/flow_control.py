"""Keeps Ray Serve from reading bodies that are not needed yet.

A replica behind HAProxy reads every body to its end into an unbounded queue, to notice when the
caller disconnects (Ray 2.60, `ASGIDIReceiveProxy`). So the whole body of a queued request would
be in memory. This middleware passes on a limited number of bytes, and more as they are used; the
sender keeps the rest. It is active only after `enable`.
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


class FlowControlMiddleware:
    """Reads each body only as far as its `FlowControl` allows."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _Switch.on or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        flow = scope[_SCOPE_KEY] = FlowControl(asyncio.get_running_loop())

        async def receive_with_flow_control() -> Message:
            await flow.wait_for_room()
            message = await receive()
            flow.taken(len(message.get("body", b"")))
            return message

        await self._app(scope, receive_with_flow_control, send)


def flow_control_of(scope: Scope) -> FlowControl | None:
    """Returns the flow control of a request, None if it is not enabled."""
    flow: FlowControl | None = scope.get(_SCOPE_KEY)
    return flow
