"""The application behind a real server on loopback, where bytes on a socket matter."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from serve_app.api import websocket_server

PATIENCE_S = 30.0


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """Serves the application as Ray Serve does; yields the port."""
    websocket_server.install()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            server.force_exit = True
            await serving


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sent back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        body = json.loads(self.body)
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        error: dict[str, Any] = body["error"]
        return error


async def answer_of(reader: asyncio.StreamReader) -> Answer:
    """Reads one answer of a declared length, or up to the end of the connection."""
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in head[1:-2]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = headers.get("content-length")
        body = await (reader.read() if length is None else reader.readexactly(int(length)))
    return Answer(int(head[0].split(" ")[1]), headers, body)


async def raw_request(port: int, request: bytes) -> Answer:
    """Sends bytes as they are and returns the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await answer_of(reader)
    finally:
        writer.close()
