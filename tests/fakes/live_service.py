"""A WebSocket server that tells a script of segments as the audio arrives, without models."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

_TRANSCRIPTION = "conversation.item.input_audio_transcription"


@dataclass(frozen=True, slots=True)
class ScriptedSegment:
    """A segment, told once its audio has arrived: half of its text before its end, then all.

    `error` makes it fail in place of having a text.
    """

    start_ms: int
    end_ms: int
    text: str
    error: str | None = None


@dataclass(slots=True)
class ScriptedLiveService:
    """What the server does, and what it has seen.

    Attributes:
        segments: told in each session.
        key: that is demanded, None for none.
        status: of HTTP that every upgrade is refused with, None to accept.
        going_away_ms: audio at which a session is ended with the close code 1001.
        breaking_ms: audio at which the connection is cut.
        update_error: error that refuses `session.update`.
        url: of the server.
        updates: the sessions that were asked for.
        audio: bytes of each session.
        keys: headers `Authorization` of the upgrades.
        num_commits: of all sessions.
    """

    segments: Sequence[ScriptedSegment] = ()
    key: str | None = None
    status: int | None = None
    going_away_ms: int | None = None
    breaking_ms: int | None = None
    update_error: Mapping[str, object] | None = None
    url: str = ""
    updates: list[dict[str, Any]] = field(default_factory=list)
    audio: list[bytearray] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    num_commits: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ScriptedLiveService]:
        async with serve(self._talk, "127.0.0.1", 0, process_request=self._admit) as server:
            host, port = next(iter(server.sockets)).getsockname()
            self.url = f"http://{host}:{port}"
            yield self

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        self.keys.append(request.headers.get("Authorization"))
        status = self.status
        if self.key is not None and self.keys[-1] != f"Bearer {self.key}":
            status = HTTPStatus.UNAUTHORIZED
        if status is None:
            return None
        error = {"message": "no valid API key", "code": "invalid_api_key"}
        response = connection.respond(HTTPStatus(status), json.dumps({"error": error}))
        response.headers["Retry-After"] = "0"
        return response

    async def _talk(self, connection: ServerConnection) -> None:
        talk = ScriptedTalk(self, connection, connection.transport.abort)
        with suppress(ConnectionClosed):
            await talk.begin()
            async for message in connection:
                await talk.take(message)


class Wire(Protocol):
    """A WebSocket, of whichever server."""

    async def send(self, message: str, /) -> None: ...

    async def close(self, code: int = 1000, reason: str = "", /) -> None: ...


class ScriptedTalk:
    """One session.

    Args:
        script: of it, which notes what is seen.
        wire: to the client.
        abort: cuts the connection.
    """

    def __init__(
        self, script: ScriptedLiveService, wire: Wire, abort: Callable[[], None] = lambda: None
    ) -> None:
        self._script = script
        self._wire = wire
        self._abort = abort
        self._audio = bytearray()
        script.audio.append(self._audio)
        self._bytes_per_ms = 48.0
        self._told: list[int] = [0] * len(script.segments)

    async def begin(self) -> None:
        await self._tell("session.created", session={"type": "transcription"})

    async def take(self, message: str | bytes) -> None:
        event = json.loads(message)
        kind = event["type"]
        if kind == "session.update":
            await self._update(event)
        elif kind == "input_audio_buffer.append":
            self._audio += base64.b64decode(event["audio"])
            await self._advance(len(self._audio) / self._bytes_per_ms)
        elif kind == "input_audio_buffer.commit":
            self._script.num_commits += 1
        elif kind == "session.finish":
            await self._advance(float("inf"))
            await self._wire.close(1000)

    async def _update(self, event: Mapping[str, Any]) -> None:
        if self._script.update_error is not None:
            error = {**self._script.update_error, "event_id": event.get("event_id")}
            await self._tell("error", error=error)
            return
        self._script.updates.append(event["session"])
        rate_hz = event["session"]["audio"]["input"]["format"]["rate"]
        self._bytes_per_ms = 2 * rate_hz / 1000
        await self._tell("session.updated", session=event["session"])

    async def _advance(self, position_ms: float) -> None:
        reached_ms = min(position_ms, self._script.going_away_ms or position_ms)
        for number, segment in enumerate(self._script.segments):
            await self._tell_segment(number, segment, reached_ms)
        if position_ms == float("inf"):
            return
        if self._script.breaking_ms is not None and position_ms >= self._script.breaking_ms:
            self._abort()
        if self._script.going_away_ms is not None and position_ms >= self._script.going_away_ms:
            error = {"type": "server_error", "code": "shutting_down", "message": "going away"}
            await self._tell("error", error={**error, "position_ms": self._script.going_away_ms})
            await self._wire.close(1001, "open a new session")

    async def _tell_segment(self, number: int, segment: ScriptedSegment, at_ms: float) -> None:
        item = {"item_id": f"item_{number}"}
        half = len(segment.text) // 2
        if self._told[number] == 0 and at_ms >= segment.start_ms:
            self._told[number] = 1
            await self._tell(
                "input_audio_buffer.speech_started", **item, audio_start_ms=segment.start_ms
            )
        middle_ms = (segment.start_ms + segment.end_ms) / 2
        if self._told[number] == 1 and at_ms >= middle_ms:
            self._told[number] = 2
            await self._tell(f"{_TRANSCRIPTION}.delta", **item, delta=segment.text[:half])
        if self._told[number] == 2 and at_ms >= segment.end_ms:
            self._told[number] = 3
            await self._tell(
                "input_audio_buffer.speech_stopped", **item, audio_end_ms=segment.end_ms
            )
            await self._tell("input_audio_buffer.committed", **item)
            await self._end(item, segment, segment.text[half:])

    async def _end(self, item: dict[str, str], segment: ScriptedSegment, rest: str) -> None:
        if segment.error is not None:
            error = {"type": "server_error", "code": segment.error, "message": "it failed"}
            await self._tell(f"{_TRANSCRIPTION}.failed", **item, content_index=0, error=error)
            return
        await self._tell(f"{_TRANSCRIPTION}.delta", **item, delta=rest)
        start_s, end_s = segment.start_ms / 1000, segment.end_ms / 1000
        await self._tell(
            f"{_TRANSCRIPTION}.completed",
            **item,
            transcript=segment.text,
            start=start_s,
            end=end_s,
            words=[{"word": segment.text, "start": start_s, "end": end_s, "confidence": 0.9}],
            languages=[{"code": "zh"}],
        )

    async def _tell(self, kind: str, **content: object) -> None:
        await self._wire.send(json.dumps({"type": kind, "event_id": "event_1", **content}))
