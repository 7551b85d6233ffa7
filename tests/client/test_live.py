"""Live sessions of the client, against a server with a script."""

from __future__ import annotations

import pickle
import sys
from collections.abc import AsyncIterator

import pytest

from serve_app.client import (
    AsyncParaserve,
    ClientError,
    LiveEnded,
    LiveError,
    LiveEvent,
    LiveFailure,
    LiveFinal,
    LivePartial,
    LiveRequest,
    LiveSession,
    LiveSpeechStarted,
    LiveSpeechStopped,
    ServiceRefusal,
    ServiceUnreachable,
    Word,
)
from tests.fakes.live_service import ScriptedLiveService, ScriptedSegment

SEGMENTS = (ScriptedSegment(100, 900, "你好。"), ScriptedSegment(1100, 1900, "再见。"))
TWO_SECONDS = bytes(2 * 2 * 24_000)


@pytest.fixture
async def service() -> AsyncIterator[ScriptedLiveService]:
    async with ScriptedLiveService(SEGMENTS).running() as running:
        yield running


async def events_of(session: LiveSession) -> list[LiveEvent]:
    return [event async for event in session]


async def collect(session: LiveSession, events: list[LiveEvent]) -> None:
    async for event in session:
        events.append(event)  # noqa: PERF401, what came before the end is wanted


async def talk(service: ScriptedLiveService, request: LiveRequest | None = None) -> list[LiveEvent]:
    """Sends two seconds of audio and returns all events."""
    async with (
        AsyncParaserve(service.url, "", max_retries=0) as client,
        client.live(request or LiveRequest()) as session,
    ):
        await session.send(TWO_SECONDS)
        await session.finish()
        return await events_of(session)


async def test_deltas_of_a_segment_are_its_final_text(service: ScriptedLiveService) -> None:
    events = await talk(service)
    assert events[:5] == [
        LiveSpeechStarted("item_0", 0.1),
        LivePartial("item_0", "你", "你"),
        LiveSpeechStopped("item_0", 0.9),
        LivePartial("item_0", "好。", "你好。"),
        LiveFinal("item_0", "你好。", 0.1, 0.9, (Word(0.1, 0.9, "你好。", 0.9),), ("zh",)),
    ]
    assert [one.text for one in events if isinstance(one, LiveFinal)] == ["你好。", "再见。"]


async def test_all_audio_arrives_in_order(service: ScriptedLiveService) -> None:
    pcm = bytes(range(256)) * 4000
    async with AsyncParaserve(service.url, "") as client, client.live() as session:
        await session.send(pcm[:500_001])
        await session.send(pcm[500_001:])
        await session.commit()
        await session.finish()
        await events_of(session)
    assert service.audio == [bytearray(pcm)]
    assert service.num_commits == 1


async def test_request_is_sent_as_openais_session(service: ScriptedLiveService) -> None:
    await talk(service, LiveRequest("m", "zh", ("云梯",), 16_000, silence_s=0.6))
    await talk(service, LiveRequest(detect_speech=False))
    first, second = (update["audio"]["input"] for update in service.updates)
    assert first == {
        "format": {"type": "audio/pcm", "rate": 16_000},
        "transcription": {"model": "m", "language": "zh", "keywords": ["云梯"]},
        "turn_detection": {"type": "server_vad", "silence_duration_ms": 600},
    }
    assert second["turn_detection"] is None
    assert set(service.paths) == {"/v1/realtime?intent=transcription"}


async def test_key_is_sent_and_its_refusal_is_told(service: ScriptedLiveService) -> None:
    service.key = "psk_right"
    async with AsyncParaserve(service.url, "psk_right") as client, client.live():
        pass
    async with AsyncParaserve(service.url, "psk_wrong") as client:
        with pytest.raises(ServiceRefusal, match="no valid API key") as refused:
            async with client.live():
                pass
    assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
    assert service.keys == ["Bearer psk_right", "Bearer psk_wrong"]


async def test_opening_is_tried_again_while_the_service_is_busy(
    service: ScriptedLiveService,
) -> None:
    service.status = 503
    async with AsyncParaserve(service.url, "", max_retries=2) as client:
        with pytest.raises(ServiceRefusal):
            async with client.live():
                pass
    assert len(service.paths) == 3


async def test_service_without_live_transcription_is_told(service: ScriptedLiveService) -> None:
    service.status = 404
    async with AsyncParaserve(service.url, "") as client:
        with pytest.raises(ServiceRefusal, match="no live transcription") as refused:
            async with client.live():
                pass
    assert refused.value.code == "live_not_served"


async def test_refused_configuration_is_told(service: ScriptedLiveService) -> None:
    service.update_error = {"type": "invalid_request_error", "code": "model_not_found"}
    async with AsyncParaserve(service.url, "") as client:
        with pytest.raises(ServiceRefusal) as refused:
            async with client.live(LiveRequest("nonsense")):
                pass
    assert (refused.value.status, refused.value.code) == (400, "model_not_found")


async def test_position_of_a_service_that_goes_away_is_told(service: ScriptedLiveService) -> None:
    service.going_away_ms = 1500
    with pytest.raises(LiveEnded, match="going away") as ended:
        await talk(service)
    assert (ended.value.code, ended.value.position_s) == ("shutting_down", 1.5)
    assert ended.value.may_succeed_later


async def test_error_comes_as_an_event_before_the_end(service: ScriptedLiveService) -> None:
    service.going_away_ms = 1500
    seen: list[LiveEvent] = []
    async with AsyncParaserve(service.url, "") as client, client.live() as session:
        await session.send(TWO_SECONDS)
        with pytest.raises(LiveEnded):
            await collect(session, seen)
    assert seen[-1] == LiveError("shutting_down", "going away", 1.5)


async def test_lost_connection_tells_the_end_of_the_last_text(
    service: ScriptedLiveService,
) -> None:
    service.segments = (SEGMENTS[0],)
    service.breaking_ms = 1900
    async with AsyncParaserve(service.url, "") as client, client.live() as session:
        await session.send(TWO_SECONDS)
        with pytest.raises(LiveEnded, match="was lost") as ended:
            await events_of(session)
    assert (ended.value.code, ended.value.position_s) == ("unreachable", 0.9)


async def test_failed_segment_does_not_end_the_session(service: ScriptedLiveService) -> None:
    service.segments = (ScriptedSegment(100, 900, "你好。", "timeout"), SEGMENTS[1])
    events = await talk(service)
    assert LiveFailure("item_0", "timeout", "it failed") in events
    assert [one.text for one in events if isinstance(one, LiveFinal)] == ["再见。"]


async def test_nobody_at_the_address_is_told() -> None:
    async with AsyncParaserve("http://127.0.0.1:9", "", max_retries=0) as client:
        with pytest.raises(ServiceUnreachable, match="no service answers"):
            async with client.live():
                pass


async def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.asyncio.client", None)
    async with AsyncParaserve("http://127.0.0.1:9", "", max_retries=0) as client:
        with pytest.raises(ClientError, match=r"paraserve\[live\]"):
            async with client.live():
                pass


def test_end_of_a_session_survives_pickling() -> None:
    ended = pickle.loads(pickle.dumps(LiveEnded("shutting_down", "going away", 1.5)))
    assert (ended.code, ended.position_s, str(ended)) == ("shutting_down", 1.5, "going away")
