"""Live sessions whose events a test scripts, without audio or models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from serve_app.core.records import RequestContext, Token
from serve_app.live.records import (
    AudioFormat,
    FinalText,
    LiveEvent,
    PartialText,
    SessionOptions,
    SessionStatistics,
    SpeechStarted,
    SpeechStopped,
)
from serve_app.transcript.transcript import MarkedToken, Sentence


class ScriptedSession:
    """Implements `LiveSession`: notes what it is told, and tells what the test wants.

    Attributes:
        context, audio, options: that it was opened with; `options` follows `configure`.
        received: all bytes that were pushed.
        calls: the names of the other calls, in order.
        push_error, commit_error: raised by the next `push` or `commit`, if set.
        after_finish: told when `finish` is called, before the events end.
        after_commit: told when `commit` is called.
        told: statistics that `statistics` returns.
        room: set while `wait_for_room` returns at once.
    """

    def __init__(
        self,
        context: RequestContext,
        audio: AudioFormat,
        options: SessionOptions,
        script: SessionScript,
    ) -> None:
        self.context = context
        self.audio = audio
        self.options = options
        self.configured: list[SessionOptions] = []
        self.received = bytearray()
        self.calls: list[str] = []
        self.push_error: Exception | None = None
        self.commit_error: Exception | None = None
        self.after_finish = list(script.after_finish)
        self.after_commit = list(script.after_commit)
        self.told = SessionStatistics()
        self.room = asyncio.Event()
        self.room.set()
        self._at_bytes = sorted(script.at_bytes, key=lambda one: one[0])
        self._events: asyncio.Queue[LiveEvent | Exception | None] = asyncio.Queue()
        self.tell(*script.at_once)

    def tell(self, *events: LiveEvent) -> None:
        """Queues events for the protocol."""
        for event in events:
            self._events.put_nowait(event)

    def fail(self, error: Exception) -> None:
        """Ends the session with an error."""
        self._events.put_nowait(error)

    def end(self) -> None:
        """Ends the events, as after `finish`."""
        self._events.put_nowait(None)

    def push(self, data: bytes) -> None:
        if self.push_error is not None:
            error, self.push_error = self.push_error, None
            raise error
        self.received += data
        while self._at_bytes and len(self.received) >= self._at_bytes[0][0]:
            self.tell(*self._at_bytes.pop(0)[1])

    async def wait_for_room(self) -> None:
        await self.room.wait()

    def configure(self, options: SessionOptions) -> None:
        self.calls.append("configure")
        self.options = options
        self.configured.append(options)

    def commit(self) -> None:
        self.calls.append("commit")
        if self.commit_error is not None:
            error, self.commit_error = self.commit_error, None
            raise error
        self.tell(*self.after_commit)

    def clear(self) -> None:
        self.calls.append("clear")

    def finish(self) -> None:
        self.calls.append("finish")
        self.tell(*self.after_finish)
        self.end()

    async def events(self) -> AsyncIterator[LiveEvent]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    def statistics(self) -> SessionStatistics:
        return self.told

    async def close(self) -> None:
        self.calls.append("close")
        self.end()


@dataclass(slots=True)
class SessionScript:
    """What each session tells by itself.

    Attributes:
        at_once: events that are told when it opens.
        at_bytes: events that are told once so many bytes have arrived.
        after_commit: events that are told after each `commit`.
        after_finish: events that are told after `finish`.
    """

    at_once: Sequence[LiveEvent] = ()
    at_bytes: Sequence[tuple[int, Sequence[LiveEvent]]] = ()
    after_commit: Sequence[LiveEvent] = ()
    after_finish: Sequence[LiveEvent] = ()


@dataclass(slots=True)
class ScriptedSessions:
    """Implements `LiveSessions`.

    Attributes:
        script: of every session.
        refusal: raised by `open`, if set.
        opened: all sessions, in order.
    """

    script: SessionScript = field(default_factory=SessionScript)
    refusal: Exception | None = None
    opened: list[ScriptedSession] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(
        self, context: RequestContext, audio: AudioFormat, options: SessionOptions
    ) -> ScriptedSession:
        if self.refusal is not None:
            raise self.refusal
        session = ScriptedSession(context, audio, options, self.script)
        self.opened.append(session)
        self._news.set()
        return session

    async def next_opened(self, number: int = 0) -> ScriptedSession:
        """Waits until session `number`, from 0, is open."""
        while len(self.opened) <= number:
            self._news.clear()
            await self._news.wait()
        return self.opened[number]


def spoken_segment(
    segment: int, deltas: Sequence[str], start_ms: int = 0, end_ms: int = 1_000
) -> list[LiveEvent]:
    """Returns all events of one segment: each character a word, and one sentence."""
    text = "".join(deltas)
    step_ms = (end_ms - start_ms) // max(1, len(text))
    words = tuple(
        MarkedToken(Token(word, start_ms + i * step_ms, start_ms + (i + 1) * step_ms, 0.9))
        for i, word in enumerate(text)
    )
    sentences = (Sentence(words),) if words else ()
    partials = [PartialText(segment, delta) for delta in deltas]
    return [
        SpeechStarted(segment, start_ms),
        *partials[:-1],
        SpeechStopped(segment, end_ms),
        *partials[-1:],
        FinalText(segment, start_ms, end_ms, sentences, text),
    ]
