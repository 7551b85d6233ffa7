"""Bodies stay with their senders until somebody uses them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from serve_app.api import flow_control
from serve_app.api.flow_control import FlowControl, FlowControlMiddleware, flow_control_of

PIECE = bytes(64 * 1024)


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_control._Switch, "on", True)


class EagerApp:
    """Reads bodies into a queue as Ray Serve does, and uses what the test says."""

    def __init__(self) -> None:
        self.num_read = 0
        self.window: FlowControl | None = None
        self.done = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.window = flow_control_of(scope)
        while (message := await receive())["type"] != "http.disconnect":
            self.num_read += len(message["body"])
        self.done.set()


async def endless() -> Message:
    await asyncio.sleep(0)
    return {"type": "http.request", "body": PIECE, "more_body": True}


async def unused(message: Any) -> None:
    raise NotImplementedError


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("enabled")
async def test_no_more_than_a_window_is_read_ahead() -> None:
    app = EagerApp()
    reading = asyncio.create_task(FlowControlMiddleware(app)({"type": "http"}, endless, unused))
    await settle()
    first = app.num_read
    assert first <= 256 * 1024 + len(PIECE)
    assert app.window is not None
    app.window.used(2 * len(PIECE))
    await settle()
    assert app.num_read == first + 2 * len(PIECE)
    reading.cancel()


@pytest.mark.usefixtures("enabled")
async def test_departure_is_passed_on_when_all_is_used() -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": PIECE},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    app = EagerApp()
    await FlowControlMiddleware(app)({"type": "http"}, receive, unused)
    assert app.done.is_set()


async def test_nothing_is_limited_where_it_was_not_enabled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Another test of this process may have built an application, which enables it.
    monkeypatch.setattr(flow_control._Switch, "on", False)
    app = EagerApp()
    reading = asyncio.create_task(FlowControlMiddleware(app)({"type": "http"}, endless, unused))
    await settle()
    assert app.window is None
    assert app.num_read > 512 * 1024
    reading.cancel()
