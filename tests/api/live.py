"""Live transcription over scripted sessions, on a port of its own."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect

from serve_app.api.auth import AllowAll, Authenticator
from serve_app.api.live_routes import build_live_api
from serve_app.settings import Settings
from tests.api.sockets import PATIENCE_S, served
from tests.fakes.live_sessions import ScriptedSession, ScriptedSessions, SessionScript
from tests.fakes.observer import EndedRequests

PREFIX = "/v1/realtime"
LOGGER = logging.getLogger("tests.api.live")


class Prefixed:
    """Gives an application its path as Serve does: the whole path, and the prefix as the root."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "root_path": PREFIX}, receive, send)


@dataclass(slots=True)
class LiveService:
    """A service that listens.

    Attributes:
        port: that it listens on.
        sessions: that it opens.
        ended: requests and handshakes that it refused.
    """

    port: int
    sessions: ScriptedSessions
    ended: EndedRequests = field(default_factory=EndedRequests)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def socket_url(self, path: str = "", query: str = "?intent=transcription") -> str:
        return f"ws://127.0.0.1:{self.port}{PREFIX}{path}{query}"

    async def session(self, number: int = 0) -> ScriptedSession:
        async with asyncio.timeout(PATIENCE_S):
            return await self.sessions.next_opened(number)


@asynccontextmanager
async def live_service(
    script: SessionScript | None = None,
    authenticator: Authenticator | None = None,
    **settings: Any,
) -> AsyncIterator[LiveService]:
    """Serves live transcription; `settings` as of `Settings`."""
    sessions = ScriptedSessions(script or SessionScript())
    ended = EndedRequests()
    app = build_live_api(
        sessions,
        Settings(**{"auth": {"mode": "off"}, **settings}),
        LOGGER,
        ended,
        authenticator or AllowAll(),
    )
    async with served(Prefixed(app)) as port:
        yield LiveService(port, sessions, ended)


@asynccontextmanager
async def realtime_socket(
    service: LiveService, query: str = "?intent=transcription", **options: Any
) -> AsyncIterator[ClientConnection]:
    """Yields a connection on which `session.created` was read."""
    async with connect(service.socket_url("", query), **options) as socket:
        assert (await next_event(socket))["type"] == "session.created"
        yield socket


async def next_event(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        event: dict[str, Any] = json.loads(await socket.recv())
    return event


async def events_until(socket: ClientConnection, kind: str) -> list[dict[str, Any]]:
    """Returns events up to one of this type."""
    events = []
    while True:
        events.append(await next_event(socket))
        if events[-1]["type"] == kind:
            return events


async def send_event(socket: ClientConnection, kind: str, **fields: Any) -> None:
    await socket.send(json.dumps({"type": kind, **fields}))


async def append(socket: ClientConnection, audio: bytes) -> None:
    await send_event(socket, "input_audio_buffer.append", audio=base64.b64encode(audio).decode())


async def until(holds: Callable[[], bool]) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
