"""Live sessions: audio goes out while it is spoken, text comes back."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from serve_app.client.errors import (
    UNREACHABLE,
    ClientError,
    ServiceRefusal,
    ServiceUnreachable,
    not_the_api,
    refusal_of,
)
from serve_app.client.live_events import LiveEnded, LiveError, LiveEvent, LiveTranscript

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed

_PATH = "/v1/realtime?intent=transcription"
_OPEN_S = 10.0
_CLOSE_S = 5.0
_MAX_EVENT_BYTES = 2**24
_MAX_APPEND_BYTES = 2**18
_CONFIGURE = "configure"
_NORMAL = 1000
_CLOSE_CODES = {1001: "going_away", 1008: "policy_violation", 1011: "internal_error"}
LIVE_NOT_SERVED = "live_not_served"
_NOT_SERVED = "this service has no live transcription; its setting is live.enabled"
_NEEDS_WEBSOCKETS = "live transcription needs websockets: pip install 'paraserve[live]'"


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """What is asked of a session.

    Attributes:
        model: None for the service's default.
        language: as zh; None for the service's default.
        hotwords: words to prefer.
        rate_hz: of the audio, 16-bit mono PCM, little-endian; from 8000 to 48000.
        detect_speech: whether the service finds where segments end; else only `commit` ends one.
        silence_s: of silence that end a segment; None for the service's default.
    """

    model: str | None = None
    language: str | None = None
    hotwords: Sequence[str] = ()
    rate_hz: int = 24_000
    detect_speech: bool = True
    silence_s: float | None = None

    def session(self) -> dict[str, object]:
        """Returns the object `session` of OpenAI's event `session.update`."""
        transcription: dict[str, object] = {}
        if self.model:
            transcription["model"] = self.model
        if self.language:
            transcription["language"] = self.language
        if self.hotwords:
            transcription["keywords"] = list(self.hotwords)
        detection: dict[str, object] = {"type": "server_vad"}
        if self.silence_s is not None:
            detection["silence_duration_ms"] = round(self.silence_s * 1000)
        return {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": self.rate_hz},
                    "transcription": transcription,
                    "turn_detection": detection if self.detect_speech else None,
                }
            },
        }


class LiveSession:
    """One stream of audio and the events of its text, over one WebSocket.

    Send from one task and iterate over the session in another. The iteration ends once `finish`
    was called and every text has come.

    Args:
        connection: that is open.
        url: of the service, for messages.
    """

    def __init__(self, connection: ClientConnection, url: str) -> None:
        self._connection = connection
        self._url = url
        self._transcript = LiveTranscript()
        self._is_finishing = False
        self._last_error: LiveError | None = None

    @property
    def position_s(self) -> float:
        """Audio up to which all texts were told."""
        return self._transcript.position_s

    async def send(self, pcm: bytes) -> None:
        """Sends the next samples; waits while the connection takes no more.

        Raises:
            LiveEnded: the session has ended; the iteration says why.
        """
        for start in range(0, len(pcm), _MAX_APPEND_BYTES):
            audio = base64.b64encode(pcm[start : start + _MAX_APPEND_BYTES]).decode()
            await self._send({"type": "input_audio_buffer.append", "audio": audio})

    async def commit(self) -> None:
        """Ends the open segment here.

        Raises:
            LiveEnded: the session has ended.
        """
        await self._send({"type": "input_audio_buffer.commit"})

    async def finish(self) -> None:
        """Says that no audio follows; the iteration ends with the last text.

        Raises:
            LiveEnded: the session has ended.
        """
        self._is_finishing = True
        await self._send({"type": "session.finish"})

    async def __aiter__(self) -> AsyncIterator[LiveEvent]:
        """Yields what the service tells.

        Raises:
            LiveEnded: the session ended before it was finished.
            ServiceUnreachable: what came is not of the protocol.
        """
        while (event := await self._receive()) is not None:
            told = self._take(event)
            if told is not None:
                yield told

    async def close(self) -> None:
        """Ends the session at once; what was not told is lost."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def configure(self, request: LiveRequest) -> None:
        """Asks for what a session is to do; called before the first audio.

        Raises:
            ServiceRefusal: the service does not take it.
            LiveEnded: the session has ended.
            ServiceUnreachable: what came is not of the protocol.
        """
        update = {"type": "session.update", "event_id": _CONFIGURE, "session": request.session()}
        await self._send(update)
        while (event := await self._receive()) is not None:
            if event.get("type") == "session.updated":
                return
            told = self._take(event)
            if isinstance(told, LiveError):
                raise ServiceRefusal(httpx.codes.BAD_REQUEST, told.code, told.message)

    async def _send(self, event: Mapping[str, object]) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(json.dumps(event))
        except ConnectionClosed as closed:
            raise self._ended(closed) from None

    async def _receive(self) -> Mapping[str, Any] | None:
        """Returns the next event; None once a session that was finished has ended."""
        from websockets.exceptions import ConnectionClosed

        try:
            body = json.loads(await self._connection.recv())
        except ConnectionClosed as closed:
            if self._is_finishing and closed.rcvd is not None and closed.rcvd.code == _NORMAL:
                return None
            raise self._ended(closed) from None
        except ValueError:
            raise not_the_api(self._url) from None
        if not isinstance(body, dict):
            raise not_the_api(self._url)
        return body

    def _take(self, body: Mapping[str, Any]) -> LiveEvent | None:
        try:
            event = self._transcript.take(body)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise not_the_api(self._url) from None
        if isinstance(event, LiveError):
            self._last_error = event
        return event

    def _ended(self, closed: ConnectionClosed) -> LiveEnded:
        if self._last_error is not None:
            code, message = self._last_error.code, self._last_error.message
        elif closed.rcvd is None:
            code, message = UNREACHABLE, f"the connection to {self._url} was lost"
        else:
            code = _CLOSE_CODES.get(closed.rcvd.code, f"websocket_{closed.rcvd.code}")
            message = closed.rcvd.reason or f"{self._url} ended the session"
        return LiveEnded(code, message, self.position_s)


async def open_session(url: str, headers: Mapping[str, str], request: LiveRequest) -> LiveSession:
    """Opens a session and configures it.

    Args:
        url: of the service.
        headers: of the upgrade, with the key.
        request: what the session is to do.

    Raises:
        ClientError: the service refuses it, cannot be reached, or serves no live transcription.
    """
    connection = await _connected(url, headers)
    session = LiveSession(connection, url)
    try:
        await session.configure(request)
    except BaseException:
        await session.close()
        raise
    return session


async def _connected(url: str, headers: Mapping[str, str]) -> ClientConnection:
    try:
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidStatus, WebSocketException
    except ModuleNotFoundError:
        raise ClientError(0, "not_installed", _NEEDS_WEBSOCKETS) from None
    try:
        return await connect(
            f"ws{url.removeprefix('http')}{_PATH}",
            additional_headers=headers,
            compression=None,
            proxy=None,
            open_timeout=_OPEN_S,
            close_timeout=_CLOSE_S,
            max_size=_MAX_EVENT_BYTES,
        )
    except InvalidStatus as error:
        raise _refusal(
            error.response.status_code,
            bytes(error.response.body),
            dict(error.response.headers.raw_items()),
        ) from None
    except TimeoutError:
        raise ServiceUnreachable(0, UNREACHABLE, f"{url} did not answer in time") from None
    except (OSError, WebSocketException) as error:
        if isinstance(error, OSError):
            raise ServiceUnreachable(0, UNREACHABLE, f"no service answers at {url}") from None
        raise not_the_api(url) from None


def _refusal(status: int, body: bytes, headers: Mapping[str, str]) -> ServiceRefusal:
    refusal = refusal_of(httpx.Response(status, headers=headers, content=body))
    if status == httpx.codes.NOT_FOUND:
        return ServiceRefusal(status, LIVE_NOT_SERVED, _NOT_SERVED)
    return refusal
