"""A request to an ASGI application whose sender can leave at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from typing import Any

import httpx
from starlette.types import ASGIApp


class Exchange:
    """One request, run in a task of its own.

    Args:
        app: is asked.
        request: what is sent.
        num_parts: in how many messages the body comes.
        num_sent: how many of them come by themselves; the others never do.
    """

    def __init__(
        self, app: ASGIApp, request: httpx.Request, num_parts: int = 1, num_sent: int | None = None
    ) -> None:
        content = request.read()
        size = -(-len(content) // num_parts) or 1
        parts = [content[start : start + size] for start in range(0, len(content), size)] or [b""]
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for number, part in enumerate(parts[:num_sent]):
            message = {"body": part, "more_body": number + 1 < len(parts)}
            self._incoming.put_nowait({"type": "http.request", **message})
        self._changed = asyncio.Event()
        self._left = False
        self.sent: list[dict[str, Any]] = []
        self.blocked_at: bytes | None = None
        """Sending what contains this takes for ever."""
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": b"",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }
        self.task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: MutableMapping[str, Any]) -> None:
        await app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self._left:
            return {"type": "http.disconnect"}
        message = await self._incoming.get()
        self._left = message["type"] == "http.disconnect"
        return message

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(dict(message))
        self._changed.set()
        if self.blocked_at is not None and self.blocked_at in message.get("body", b""):
            await asyncio.Event().wait()

    def leave(self) -> None:
        """Has the sender go away."""
        self._incoming.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int | None:
        return int(self.sent[0]["status"]) if self.sent else None

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = [line for line in self.text.split("\n") if line.startswith("data: ")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    async def until(self, seen: Callable[[], bool]) -> None:
        """Waits for something to be seen in what was sent."""
        async with asyncio.timeout(30):
            while not seen():
                self._changed.clear()
                await self._changed.wait()

    async def ended(self) -> None:
        """Waits for the application to be through with the request."""
        async with asyncio.timeout(30):
            await self.task
