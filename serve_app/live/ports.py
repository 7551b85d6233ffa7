"""What protocols need of live sessions, and what sessions need of the models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

from serve_app.core.records import Chunk, ChunkFailure, Recognition, RequestContext
from serve_app.live.records import AudioFormat, LiveEvent, SessionOptions, SessionStatistics

Recognize: TypeAlias = Callable[[list[Chunk]], Awaitable[Sequence[Recognition | ChunkFailure]]]
"""Recognizes chunks of one session; batches are made across sessions by the recognizer."""

Label: TypeAlias = Callable[[RequestContext, Sequence[str]], Awaitable[list[str]]]
"""Returns the mark after each word of a text ("" for none)."""


class LiveSession(Protocol):
    """One stream of audio and its events. Not thread-safe; one event loop."""

    def push(self, data: bytes) -> None:
        """Takes the next bytes; a sample may be divided between two calls.

        Raises:
            TooMuchAudio: it is far ahead of what could be processed; nothing was taken.
        """
        ...

    async def wait_for_room(self) -> None:
        """Returns once `push` takes bytes, so that a fast sender can be held back.

        A protocol that waits before each `push` never meets `TooMuchAudio`.
        """
        ...

    def configure(self, options: SessionOptions) -> None:
        """Changes the options from the next segment on."""
        ...

    def commit(self) -> None:
        """Ends the open segment here: all audio since the last segment's end.

        If the VAD ends that segment at the same time, nothing else is ended.

        Raises:
            NothingToCommit: there is less than 100 ms of audio.
        """
        ...

    def clear(self) -> None:
        """Forgets the audio since the last segment's end; its partial texts stay told.

        An open segment ends with `SpeechStopped` and a `FinalText` of what was told.
        """
        ...

    def finish(self) -> None:
        """No audio follows; the events end with the last segment's text."""
        ...

    def events(self) -> AsyncIterator[LiveEvent]:
        """Yields the events once; ends after `finish`, or raises what ended the session."""
        ...

    def statistics(self) -> SessionStatistics: ...

    async def close(self) -> None:
        """Ends it at once; what was not told is lost."""
        ...


class LiveSessions(Protocol):
    """Opens sessions; implemented over the models' handles by the live deployment."""

    async def open(
        self, context: RequestContext, audio: AudioFormat, options: SessionOptions
    ) -> LiveSession:
        """Raises:
        Overloaded: as many sessions are open as may be, of all keys or of this one.
        ShuttingDown: the replica is draining.
        """
        ...
