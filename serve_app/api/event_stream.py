"""A transcript as server-sent events, with heartbeats while nothing is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass

from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from serve_app.api.body import RequestBody
from serve_app.core.errors import RecognitionFailed

HEARTBEAT = ": keep-alive\n\n"
"""A comment, which clients skip.

Source: WHATWG HTML, "Server-sent events", authoring notes.
"""

# Gateways cut connections that are silent for 30 to 100 s.
_HEARTBEAT_S = 10.0
_HEADERS = {
    "Cache-Control": "no-store",
    # nginx collects an answer before it passes it on unless it is told not to.
    "X-Accel-Buffering": "no",
}


@dataclass(frozen=True, slots=True)
class _End:
    error: Exception | None


class EventFeed:
    """Runs a source of events in a task of its own, so that waiting for one can be given up.

    The source is never more than an event ahead of its reader. Close the feed in the end.

    Args:
        events: the source; the feed closes it.
    """

    def __init__(self, events: AsyncGenerator[str]) -> None:
        self._events = events
        self._queue: asyncio.Queue[str | _End] = asyncio.Queue(maxsize=1)
        self._closing = False
        self._num_unread = 0
        self._over = False
        self._task = asyncio.create_task(self._run())
        self.ended = False
        """Whether everything has been read."""

    @property
    def delivered(self) -> bool:
        """Whether there was nothing left to read, noticed by the reader or not."""
        return self._over and not self._num_unread

    async def read(self, patience_s: float) -> str | None:
        """Returns the next event; None if none came in time, or if there is none any more.

        Raises:
            Exception: what the source raised; it has ended then.
        """
        if self.ended:
            return None
        try:
            async with asyncio.timeout(patience_s):
                item = await self._queue.get()
        except TimeoutError:
            return None
        if not isinstance(item, _End):
            self._num_unread -= 1
            return item
        self.ended = True
        if item.error is not None:
            raise item.error
        return None

    async def close(self) -> None:
        """Cancels what still runs, and returns when it has stopped."""
        self._closing = True
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        error: Exception | None = None
        try:
            async with aclosing(self._events) as events:
                async for event in events:
                    self._num_unread += 1
                    await self._queue.put(event)
        except asyncio.CancelledError:
            if self._closing:
                raise
            # Not by the reader: the stages behind the ingress gave the work up.
            error = RecognitionFailed("the service canceled the work")
        except Exception as raised:
            error = raised
        self._over = True
        await self._queue.put(_End(error))


class EventStream(StreamingResponse):
    """Sends what a feed yields, and a comment whenever it has been silent for long.

    However the sending ends, it closes the feed and frees what the request held.

    Args:
        feed: its events are sent.
        first: the event that has been read from the feed, if any.
        body: tells whether the caller is still there.
        held: is closed at the end.
        last_event: makes of an error in the feed the event that ends the stream.
        departed: is called when the caller has left before the end.
        at_end: is called last.
    """

    def __init__(
        self,
        feed: EventFeed,
        first: str | None,
        body: RequestBody,
        held: ExitStack,
        *,
        last_event: Callable[[Exception], str],
        departed: Callable[[], None],
        at_end: Callable[[], None],
    ) -> None:
        super().__init__(self._sent(first), media_type="text/event-stream", headers=_HEADERS)
        self._feed = feed
        self._body = body
        self._held = held
        self._last_event = last_event
        self._departed = departed
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._body.unless_departed(self.stream_response(send))
        except (ClientDisconnect, OSError):
            # A server says by an OSError that there is nobody to send to any more.
            self._note_departure()
        except asyncio.CancelledError:
            # Ray Serve cancels a request whose caller has left.
            self._note_departure()
            raise
        finally:
            try:
                await self._feed.close()
            finally:
                self._held.close()
                self._at_end()

    def _note_departure(self) -> None:
        # Many hang up as soon as they have read the last event.
        if not self._feed.delivered:
            self._departed()

    async def _sent(self, first: str | None) -> AsyncIterator[str]:
        if first is not None:
            yield first
        while not self._feed.ended:
            try:
                event = await self._feed.read(_HEARTBEAT_S)
            except Exception as error:
                yield self._last_event(error)
                return
            if event is not None:
                yield event
            elif not self._feed.ended:
                yield HEARTBEAT
