"""The official OpenAI client on the Realtime protocol, unmodified, and its types."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args

import pydantic
import pytest
from openai import AsyncOpenAI, AuthenticationError, OpenAI
from openai.types.beta.realtime.transcription_session_updated_event import (
    TranscriptionSessionUpdatedEvent,
)
from openai.types.realtime import RealtimeServerEvent
from openai.types.realtime.realtime_transcription_session_create_response import (
    RealtimeTranscriptionSessionCreateResponse,
)
from websockets.asyncio.client import connect

from serve_app.core.errors import ShuttingDown
from serve_app.live.records import SegmentFailed, SpeechStarted, SpeechStopped
from tests.api.live import (
    LiveService,
    append,
    events_until,
    live_service,
    next_event,
    send_event,
    until,
)
from tests.fakes.live_sessions import SessionScript, spoken_segment

AUDIO = b"\1\2" * 2400
SPOKEN = SessionScript(
    at_bytes=[
        (len(AUDIO), spoken_segment(0, ["你", "好", "。"])),
        (2 * len(AUDIO), spoken_segment(1, ["再", "见", "。"], 1200, 2400)),
    ]
)
COMPLETED = "conversation.item.input_audio_transcription.completed"
LOGPROBS = "item.input_audio_transcription.logprobs"


@pytest.fixture
async def service() -> AsyncIterator[LiveService]:
    async with live_service(SPOKEN) as running:
        yield running


def encoded(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


async def test_async_client_transcribes(service: LiveService) -> None:
    client = AsyncOpenAI(base_url=service.base_url, api_key="unused")
    texts: list[str] = []
    deltas = ""
    event: Any
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        created = await connection.recv()
        assert created.type == "session.created"
        await connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "transcription": {"model": "gpt-live-transcribe", "language": "zh"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                    }
                },
                "include": ["item.input_audio_transcription.logprobs"],
            }
        )
        for _ in range(2):
            await connection.input_audio_buffer.append(audio=encoded(AUDIO))
        async for event in connection:
            if event.type == "conversation.item.input_audio_transcription.delta":
                deltas += event.delta or ""
            elif event.type == COMPLETED:
                assert event.logprobs is not None
                assert "".join(one.token for one in event.logprobs) == event.transcript
                texts.append(event.transcript)
                if len(texts) == 2:
                    break
            else:
                assert event.type != "error"
    assert texts == ["你好。", "再见。"]
    assert deltas == "你好。再见。"
    session = await service.session()
    await until(lambda: "close" in session.calls)


def transcribe_synchronously(base_url: str) -> list[str]:
    client = OpenAI(base_url=base_url, api_key="unused")
    texts: list[str] = []
    event: Any
    with client.realtime.connect(model="gpt-realtime") as connection:
        connection.session.update(
            session={"type": "transcription", "audio": {"input": {"turn_detection": None}}}
        )
        for _ in range(2):
            connection.input_audio_buffer.append(audio=encoded(AUDIO))
        connection.input_audio_buffer.commit()
        for event in connection:
            if event.type == COMPLETED:
                texts.append(event.transcript)
            if len(texts) == 2:
                return texts
    return texts


# It opens the connection in a way that its own dependency deprecates.
@pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")
async def test_sync_client_transcribes(service: LiveService) -> None:
    texts = await asyncio.to_thread(transcribe_synchronously, service.base_url)
    assert texts == ["你好。", "再见。"]


async def test_client_secret_opens_a_session(service: LiveService) -> None:
    client = AsyncOpenAI(base_url=service.base_url, api_key="unused")
    session: Any = {
        "type": "transcription",
        "audio": {"input": {"format": {"type": "audio/pcmu"}, "turn_detection": None}},
        "include": [LOGPROBS],
    }
    made = await client.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60}, session=session
    )
    assert isinstance(made.session, RealtimeTranscriptionSessionCreateResponse)
    assert made.value.startswith("ek_")
    browser = AsyncOpenAI(base_url=service.base_url, api_key=made.value)
    async with browser.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        created = await connection.recv()
    assert created.type == "session.created"
    described = json.loads(created.session.to_json())
    assert described["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert described["audio"]["input"]["turn_detection"] is None
    assert described["include"] == [LOGPROBS]
    opened = await service.session()
    assert opened.audio.encoding == "mulaw"
    assert opened.options.detection is None


def make_secret_synchronously(base_url: str) -> str:
    client = OpenAI(base_url=base_url, api_key="unused")
    return client.realtime.client_secrets.create(session={"type": "transcription"}).value


async def test_sync_client_makes_a_secret(service: LiveService) -> None:
    value = await asyncio.to_thread(make_secret_synchronously, service.base_url)
    assert value.startswith("ek_")


async def test_older_session_over_http_holds_a_secret(service: LiveService) -> None:
    client = AsyncOpenAI(base_url=service.base_url, api_key="unused")
    made = await client.beta.realtime.transcription_sessions.create(
        input_audio_format="pcm16",
        input_audio_transcription={"model": "gpt-4o-transcribe", "language": "zh"},
    )
    assert made.client_secret.value.startswith("ek_")
    assert made.input_audio_format == "pcm16"
    strictly(type(made)).validate_json(made.to_json(), strict=True)


async def test_bad_session_is_openais_error(service: LiveService) -> None:
    client = AsyncOpenAI(base_url=service.base_url, api_key="unused", max_retries=0)
    bad: Any = {"type": "realtime"}
    with pytest.raises(Exception, match="voice agents") as refused:
        await client.realtime.client_secrets.create(session=bad)
    assert not isinstance(refused.value, AuthenticationError)


def strictly(type_: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(type_)


def models_of(union: Any) -> Iterator[type[pydantic.BaseModel]]:
    if isinstance(union, type) and issubclass(union, pydantic.BaseModel):
        yield union
    for part in get_args(union):
        yield from models_of(part)


MODEL_OF_EVENT = {
    get_args(model.model_fields["type"].annotation)[0]: model
    for model in models_of(RealtimeServerEvent)
    if "type" in model.model_fields
}
EXTENSIONS = {
    COMPLETED: {"start", "end", "words"},
    "error": {"position_ms"},
    "session.created": {"id", "object", "expires_at"},
    "session.updated": {"id", "object", "expires_at"},
}


def extras_of(value: Any) -> Iterator[str]:
    """Yields the names of fields that the types do not have."""
    if isinstance(value, pydantic.BaseModel):
        yield from value.model_extra or ()
        for name in type(value).model_fields:
            yield from extras_of(getattr(value, name))
    elif isinstance(value, list):
        for one in value:
            yield from extras_of(one)


def check(event: dict[str, Any]) -> None:
    """Checks an event against the type that the client has for it."""
    text = json.dumps(event)
    if event["type"].startswith("transcription_session."):
        # Only a session that is made over HTTP has a secret, the reference says.
        event = {**event, "type": "transcription_session.updated"}
        event["session"]["client_secret"] = {"expires_at": 1, "value": ""}
        adapter = strictly(TranscriptionSessionUpdatedEvent)
        adapter.validate_json(json.dumps(event), strict=True)
        return
    model = MODEL_OF_EVENT[event["type"]]
    parsed = strictly(model).validate_json(text, strict=True)
    assert set(extras_of(parsed)) <= EXTENSIONS.get(event["type"], set())


async def test_every_event_is_of_the_clients_types(service: LiveService) -> None:
    events: list[dict[str, Any]] = []
    headers = {"OpenAI-Beta": "realtime=v1"}
    model = "?intent=transcription&model=whisper-1"
    for additional in (None, headers):
        url = service.socket_url("", model)
        async with connect(url, additional_headers=additional) as socket:
            await send_event(
                socket,
                "session.update",
                session={
                    "type": "transcription",
                    "include": [LOGPROBS],
                    "audio": {
                        "input": {
                            "format": {"type": "audio/pcm", "rate": 24000},
                            "transcription": {"model": "whisper-1", "language": "zh"},
                            "turn_detection": {
                                "type": "server_vad",
                                "threshold": 1,
                                "prefix_padding_ms": 300,
                                "silence_duration_ms": 500,
                            },
                        }
                    },
                },
            )
            await append(socket, AUDIO)
            events += await events_until(socket, COMPLETED)
            await send_event(socket, "input_audio_buffer.clear")
            await send_event(socket, "response.create", event_id="e")
            events += await events_until(socket, "error")
            session = service.sessions.opened[-1]
            session.tell(
                SpeechStarted(1, 0), SpeechStopped(1, 10), SegmentFailed(1, 0, 10, "c", "m")
            )
            events += await events_until(
                socket, "conversation.item.input_audio_transcription.failed"
            )
            await send_event(
                socket,
                "transcription_session.update",
                session={
                    "input_audio_format": "pcm16",
                    "input_audio_transcription": {"model": "gpt-4o-transcribe"},
                    "turn_detection": None,
                },
            )
            events.append(await next_event(socket))
            session.fail(ShuttingDown())
            events.append(await next_event(socket))
    for event in events:
        check(event)
    assert {event["type"] for event in events} == {
        "session.created",
        "session.updated",
        "transcription_session.created",
        "transcription_session.updated",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "input_audio_buffer.cleared",
        "conversation.item.created",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        COMPLETED,
        "conversation.item.input_audio_transcription.failed",
        "error",
    }
