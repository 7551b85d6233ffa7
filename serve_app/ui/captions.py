"""Live text of a visitor who speaks: audio in and texts out, over one WebSocket."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from serve_app.api.flow_control import flow_control_of, message_bytes
from serve_app.client import (
    ClientError,
    LiveEvent,
    LiveFailure,
    LiveFinal,
    LivePartial,
    LiveSession,
)
from serve_app.ui.client import ApiClient, Problem, problem_of
from serve_app.ui.events import MAX_EVENT_BYTES, CaptionRequest, EventRefused, parse_captions
from serve_app.ui.visitors import Visitor

_MAX_OPEN = 64
_MAX_OPEN_PER_VISITOR = 2
_MAX_AUDIO_BYTES = 64 * 1024
_FIRST_MESSAGE_S = 10.0
_TRY_AGAIN_LATER = 1013


class CaptionRoute:
    """Relays between browsers and the API, with the key that the visitor has entered.

    The first message of a browser is JSON: key, options and sample rate; further ones are
    samples. It gets a message for each change of a segment's text, or the problem that ended it.

    Args:
        client: of the API.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._num_open: Counter[str] = Counter()

    async def answer(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> None:
        browser = _Browser(WebSocket(scope, receive, send), scope)
        is_full = self._num_open.total() >= _MAX_OPEN
        if is_full or self._num_open[visitor.id] >= _MAX_OPEN_PER_VISITOR:
            await browser.end(_TRY_AGAIN_LATER)
            return
        self._num_open[visitor.id] += 1
        try:
            # A browser that has left is told nothing.
            with suppress(WebSocketDisconnect, RuntimeError):
                await browser.websocket.accept()
                problem = await self._caption(browser)
                if problem is not None:
                    await browser.websocket.send_json({"problem": problem})
                await browser.end()
        finally:
            self._num_open[visitor.id] -= 1
            self._num_open += Counter()  # drops those of nobody

    async def _caption(self, browser: _Browser) -> Problem | None:
        """Returns what ended the captions; None if the browser did."""
        key = ""
        try:
            async with asyncio.timeout(_FIRST_MESSAGE_S):
                asked = await browser.first()
            key = asked.key.strip()
            async with self._client.live(asked.order, asked.rate_hz, key) as session:
                await _relay(browser, session)
        except (EventRefused, TimeoutError):
            return "refused"
        except ClientError as refusal:
            return problem_of(refusal, with_key=bool(key))
        return None


class _Browser:
    """The messages of one browser."""

    def __init__(self, websocket: WebSocket, scope: Scope) -> None:
        self.websocket = websocket
        self._flow = flow_control_of(scope)

    async def first(self) -> CaptionRequest:
        """Raises:
        EventRefused: it is not what the page sends first.
        WebSocketDisconnect: the browser has left.
        """
        text = (await self._next()).get("text") or ""
        if len(text) > MAX_EVENT_BYTES:
            raise EventRefused("the first message is too long")
        return parse_captions(text.encode("utf-8", "replace"))

    async def audio(self) -> bytes | None:
        """Returns the next samples; None at the end.

        Raises:
            WebSocketDisconnect: the browser has left.
        """
        content: bytes | None = (await self._next()).get("bytes")
        return content if content and len(content) <= _MAX_AUDIO_BYTES else None

    async def end(self, code: int = 1000) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):
            await self.websocket.close(code)

    async def _next(self) -> Any:
        message = await self.websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        if self._flow is not None:
            self._flow.used(message_bytes(message))
        return message


async def _relay(browser: _Browser, session: LiveSession) -> None:
    """Passes audio and texts on until either side ends.

    Raises:
        ClientError: the session has ended early.
        WebSocketDisconnect: the browser has left.
    """
    hearing = asyncio.create_task(_hear(browser, session))
    try:
        async for event in session:
            shown = _shown(event)
            if shown is not None:
                await browser.websocket.send_json(shown)
    finally:
        hearing.cancel()
        await asyncio.wait((hearing,))


async def _hear(browser: _Browser, session: LiveSession) -> None:
    with suppress(ClientError):  # the other direction tells it
        try:
            while (pcm := await browser.audio()) is not None:
                await session.send(pcm)
        except (WebSocketDisconnect, RuntimeError):
            await session.close()
            return
        await session.finish()


def _shown(event: LiveEvent) -> dict[str, object] | None:
    """Returns what the page's script reads."""
    match event:
        case LivePartial(item_id, _, text):
            return {"id": item_id, "text": text, "final": False}
        case LiveFinal(item_id, text):
            return {"id": item_id, "text": text, "final": True}
        case LiveFailure(item_id):
            return {"id": item_id, "text": "", "final": True}
    return None
