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

# Gateways close connections that are idle for 30 to 100 s.
_HEARTBEAT_S = 10.0
_HEADERS = {
    "Cache-Control": "no-store",
    # By default nginx buffers a response before it passes it on.
    "X-Accel-Buffering": "no",
}


@dataclass(frozen=True, slots=True)
class _End:
    error: Exception | None


class EventFeed:
    """Runs a source of events in a separate task, so that a wait for an event can time out.

    The source is at most one event ahead of the reader. Close the feed at the end.

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
        """Whether all events have been read, even if the reader does not know yet."""
        return self._over and not self._num_unread

    async def read(self, patience_s: float) -> str | None:
        """Returns the next event; None after the timeout or at the end.

        Raises:
            Exception: raised by the source, which has ended then.
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

    async def first(self, body: RequestBody, patience_s: float) -> str | None:
        """Returns the first event as `read` does; closes the feed if there will be no stream.

        Raises:
            Exception: raised by the source.
            ClientDisconnect: the caller of `body` disconnected.
        """
        try:
            return await body.unless_departed(self.read(patience_s))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Cancels the source, and returns when it has stopped."""
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
            # The stages behind the ingress canceled the work, not the reader.
            error = RecognitionFailed("the service canceled the work")
        except Exception as raised:
            error = raised
        self._over = True
        await self._queue.put(_End(error))


class EventStream(StreamingResponse):
    """Sends the events of a feed, and a comment after every long pause.

    In any case it closes the feed and releases the request's resources at the end.

    Args:
        feed: source of the events.
        first: an event that was read from the feed already, if any.
        body: detects that the caller has disconnected.
        held: resources to close at the end.
        last_event: returns the event that reports an error of the feed.
        departed: called if the caller disconnects before the end.
        at_end: called last.
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
            # A server raises OSError if the caller has disconnected.
            self._note_departure()
        except asyncio.CancelledError:
            # Ray Serve cancels a request whose caller has disconnected.
            self._note_departure()
            raise
        finally:
            try:
                await self._feed.close()
            finally:
                self._held.close()
                self._at_end()

    def _note_departure(self) -> None:
        # Many clients disconnect right after the last event.
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
