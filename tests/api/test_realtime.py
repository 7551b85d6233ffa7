"""OpenAI's Realtime protocol: what a session sends for what it is sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from serve_app.core.errors import Overloaded, RecognitionFailed, ShuttingDown
from serve_app.core.live_errors import NothingToCommit
from serve_app.core.records import SpeechDetection
from serve_app.live.records import (
    AudioFormat,
    FinalText,
    PartialText,
    SegmentFailed,
    SessionStatistics,
    SpeechStarted,
    SpeechStopped,
)
from tests.api.live import (
    LiveService,
    append,
    events_until,
    live_service,
    next_event,
    realtime_socket,
    send_event,
    until,
)
from tests.fakes.live_sessions import spoken_segment

COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"
FAILED = "conversation.item.input_audio_transcription.failed"


@pytest.fixture
async def service() -> AsyncIterator[LiveService]:
    async with live_service() as running:
        yield running


def session_of(**audio_input: Any) -> dict[str, Any]:
    return {"type": "transcription", "audio": {"input": audio_input}}


async def update(socket: Any, **audio_input: Any) -> dict[str, Any]:
    """Sends an update and returns the effective input."""
    await send_event(socket, "session.update", session=session_of(**audio_input))
    event = await next_event(socket)
    assert event["type"] == "session.updated", event
    described: dict[str, Any] = event["session"]["audio"]["input"]
    return described


async def test_session_begins_with_its_whole_configuration(service: LiveService) -> None:
    async with realtime_socket(service):
        session = await service.session()
    assert session.audio == AudioFormat("pcm16", 24_000)
    assert session.options.detection == SpeechDetection()


async def test_created_session_is_described(service: LiveService) -> None:
    from websockets.asyncio.client import connect

    async with connect(service.socket_url()) as socket:
        created = (await next_event(socket))["session"]
    assert created["type"] == "transcription"
    assert created["id"].startswith("sess_")
    assert created["audio"]["input"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "transcription": {"model": "paraformer-demo", "language": "zh"},
        "turn_detection": {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 800},
        "noise_reduction": None,
    }


async def test_segment_is_told_in_openais_order(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        session.tell(*spoken_segment(0, ["你", "好", "。"], 120, 1320))
        events = await events_until(socket, COMPLETED)
    assert [event["type"] for event in events] == [
        "input_audio_buffer.speech_started",
        DELTA,
        DELTA,
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        DELTA,
        COMPLETED,
    ]
    assert events[0]["audio_start_ms"] == 120
    assert events[3]["audio_end_ms"] == 1320
    assert len({event.get("item_id") or event["item"]["id"] for event in events}) == 1
    assert len({event["event_id"] for event in events}) == len(events)
    done = events[-1]
    assert done["transcript"] == "你好。" == "".join(e["delta"] for e in events if "delta" in e)
    assert done["usage"] == {"type": "duration", "seconds": 1.2}
    assert (done["start"], done["end"]) == (0.12, 1.32)
    assert done["languages"] == [{"code": "zh"}]
    assert [word["word"] for word in done["words"]] == ["你", "好", "。"]


async def test_items_follow_each_other(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        ids, previous = [], []
        for number in range(3):
            session.tell(*spoken_segment(number, ["好"]))
            events = await events_until(socket, COMPLETED)
            committed = next(e for e in events if e["type"] == "input_audio_buffer.committed")
            ids.append(committed["item_id"])
            previous.append(committed["previous_item_id"])
    assert previous == [None, *ids[:2]]
    assert len(set(ids)) == 3


async def test_text_without_partials_comes_as_one_delta(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        session.tell(SpeechStarted(0, 0), SpeechStopped(0, 900), FinalText(0, 0, 900, (), "再见"))
        events = await events_until(socket, COMPLETED)
    assert [event["delta"] for event in events if event["type"] == DELTA] == ["再见"]


async def test_later_segment_may_begin_before_the_last_one_is_final(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        session.tell(
            SpeechStarted(0, 0),
            SpeechStopped(0, 900),
            SpeechStarted(1, 1000),
            PartialText(1, "再"),
            FinalText(0, 0, 900, (), "好"),
            SpeechStopped(1, 1900),
            FinalText(1, 1000, 1900, (), "再见"),
        )
        first = await events_until(socket, COMPLETED)
        second = await events_until(socket, COMPLETED)
    texts: dict[str, str] = {}
    for event in first + second:
        if event["type"] == DELTA:
            texts[event["item_id"]] = texts.get(event["item_id"], "") + event["delta"]
    assert texts == {first[-1]["item_id"]: "好", second[-1]["item_id"]: "再见"}


async def test_failed_segment_does_not_end_the_session(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        session.tell(SpeechStarted(0, 0), SpeechStopped(0, 900))
        session.tell(SegmentFailed(0, 0, 900, "recognition_failed", "the recognizer failed"))
        failed = (await events_until(socket, FAILED))[-1]
        session.tell(*spoken_segment(1, ["好"]))
        assert (await events_until(socket, COMPLETED))[-1]["transcript"] == "好"
    assert failed["error"]["code"] == "recognition_failed"
    assert failed["error"]["message"] == "the recognizer failed"


async def test_appended_audio_arrives_as_it_is(service: LiveService) -> None:
    audio = bytes(range(256)) * 1000
    async with realtime_socket(service) as socket:
        session = await service.session()
        for start in range(0, len(audio), 4801):
            await append(socket, audio[start : start + 4801])
        await until(lambda: len(session.received) == len(audio))
    assert bytes(session.received) == audio


async def test_sender_waits_while_too_much_audio_waits(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        session.room.clear()
        await append(socket, b"\1\2" * 100)
        # Another event is handled after it, and events of the session are told meanwhile.
        await send_event(socket, "input_audio_buffer.clear")
        session.tell(*spoken_segment(0, ["好"]))
        kinds = [event["type"] for event in await events_until(socket, COMPLETED)]
        assert "input_audio_buffer.cleared" not in kinds
        assert not session.received
        session.room.set()
        assert (await next_event(socket))["type"] == "input_audio_buffer.cleared"
        assert len(session.received) == 200


async def test_commit_and_clear_are_passed_on(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        assert await update(socket, turn_detection=None)
        assert session.options.detection is None
        session.after_commit = spoken_segment(0, ["好"])
        await send_event(socket, "input_audio_buffer.commit")
        events = await events_until(socket, COMPLETED)
        await send_event(socket, "input_audio_buffer.clear")
        cleared = await next_event(socket)
    # Where the client commits, it is not told when speech begins and ends.
    assert [event["type"] for event in events] == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        DELTA,
        COMPLETED,
    ]
    assert cleared["type"] == "input_audio_buffer.cleared"
    assert session.calls[:3] == ["configure", "commit", "clear"]


async def test_commit_of_nothing_is_an_error_with_the_clients_event_id(
    service: LiveService,
) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        session.commit_error = NothingToCommit(40)
        await send_event(socket, "input_audio_buffer.commit", event_id="mine")
        error = (await next_event(socket))["error"]
    assert error["code"] == "input_audio_buffer_commit_empty"
    assert error["event_id"] == "mine"
    assert error["type"] == "invalid_request_error"


async def test_finish_tells_the_rest_and_closes(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        session.after_finish = spoken_segment(0, ["好"])
        await send_event(socket, "session.finish")
        assert (await events_until(socket, COMPLETED))[-1]["transcript"] == "好"
        with pytest.raises(ConnectionClosed):
            await next_event(socket)
        assert socket.close_code == 1000
    await until(lambda: "close" in session.calls)


async def test_update_changes_only_what_is_sent(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        first = await update(
            socket,
            transcription={"model": "whisper-1", "keywords": ["魔搭", "阿里巴巴"]},
            turn_detection={"type": "server_vad", "threshold": 0.7, "silence_duration_ms": 300},
        )
        second = await update(socket, transcription={"language": "zh"})
    assert first["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.7,
        "silence_duration_ms": 300,
    }
    assert second == {
        **first,
        "transcription": {
            "model": "whisper-1",
            "language": "zh",
            "keywords": ["魔搭", "阿里巴巴"],
        },
    }
    assert session.options.detection == SpeechDetection(300, threshold=0.7)
    hotwords = session.options.recognition_options.hotwords
    assert [word.text for word in hotwords] == ["魔搭", "阿里巴巴"]


async def test_semantic_vad_is_served_as_server_vad(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        told = await update(socket, turn_detection={"type": "semantic_vad", "eagerness": "low"})
    assert told["turn_detection"]["type"] == "server_vad"


async def test_noise_reduction_is_accepted_and_not_claimed(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        told = await update(socket, noise_reduction={"type": "near_field"})
    assert told["noise_reduction"] is None


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"type": "audio/pcmu"}, AudioFormat("mulaw", 8000)),
        ({"type": "audio/pcma"}, AudioFormat("alaw", 8000)),
        ({"type": "audio/pcm", "rate": 16000}, AudioFormat("pcm16", 16000)),
    ],
)
async def test_format_before_the_first_audio_opens_another_session(
    service: LiveService, sent: dict[str, Any], expected: AudioFormat
) -> None:
    async with realtime_socket(service) as socket:
        told = await update(socket, format=sent)
        first, second = await service.session(0), await service.session(1)
        await append(socket, b"\1" * 50)
        await until(lambda: len(second.received) == 50)
        second.tell(*spoken_segment(0, ["好"]))
        await events_until(socket, COMPLETED)
    assert told["format"] == sent
    assert second.audio == expected
    assert first.calls == ["close"]


async def test_format_cannot_change_after_audio(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        await append(socket, bytes(100))
        await send_event(
            socket, "session.update", session=session_of(format={"type": "audio/pcmu"})
        )
        error = (await next_event(socket))["error"]
    assert error["param"] == "session.audio.input.format"
    assert len(service.sessions.opened) == 1


async def test_older_update_is_answered_in_its_shape(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        await send_event(
            socket,
            "transcription_session.update",
            session={
                "input_audio_format": "g711_ulaw",
                "input_audio_transcription": {"model": "gpt-4o-transcribe", "prompt": ""},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                "input_audio_noise_reduction": {"type": "near_field"},
                "include": ["item.input_audio_transcription.logprobs"],
            },
        )
        updated = await next_event(socket)
        session = await service.session(1)
        session.tell(*spoken_segment(0, ["好"]))
        kinds = [event["type"] for event in await events_until(socket, COMPLETED)]
    assert updated["type"] == "transcription_session.updated"
    assert updated["session"]["input_audio_format"] == "g711_ulaw"
    assert updated["session"]["turn_detection"]["silence_duration_ms"] == 500
    assert updated["session"]["input_audio_transcription"] == {
        "model": "gpt-4o-transcribe",
        "language": "zh",
    }
    assert "conversation.item.created" in kinds
    assert "conversation.item.added" not in kinds


async def test_older_client_is_greeted_in_its_shape_too(service: LiveService) -> None:
    headers = {"OpenAI-Beta": "realtime=v1"}
    async with realtime_socket(service, additional_headers=headers) as socket:
        assert (await next_event(socket))["type"] == "transcription_session.created"


async def test_logprobs_are_included_on_request(service: LiveService) -> None:
    include = ["item.input_audio_transcription.logprobs"]
    async with realtime_socket(service) as socket:
        session = await service.session()
        session.tell(*spoken_segment(0, ["你好"]))
        assert "logprobs" not in (await events_until(socket, COMPLETED))[-1]
        await send_event(socket, "session.update", session={"include": include})
        assert (await next_event(socket))["session"]["include"] == include
        session.tell(*spoken_segment(1, ["你好"]))
        logprobs = (await events_until(socket, COMPLETED))[-1]["logprobs"]
    assert "".join(one["token"] for one in logprobs) == "你好"
    assert all(one["logprob"] < 0 for one in logprobs)


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"type": "realtime"}, "session.type"),
        ({"type": "translation"}, "session.type"),
        ([], "session"),
        (None, "session"),
        ({"audio": 1}, "session.audio"),
        ({"audio": {"output": {"voice": "alloy"}}}, "session.audio.output"),
        ({"audio": {"input": []}}, "session.audio.input"),
        ({"audio": {"input": {"formatt": {}}}}, "session.audio.input.formatt"),
        ({"include": ["everything"]}, "session.include"),
        (session_of(format={"type": "audio/opus"}), "session.audio.input.format"),
        (session_of(format={"type": "audio/pcm", "rate": 1}), "session.audio.input.format.rate"),
        (session_of(format={"rate": "24000"}), "session.audio.input.format.rate"),
        (session_of(format=7), "session.audio.input.format"),
        (session_of(transcription=[]), "session.audio.input.transcription"),
        (session_of(transcription={"model": 1}), "session.audio.input.transcription.model"),
        (session_of(transcription={"model": "gpt-9"}), "model"),
        (session_of(transcription={"langage": "zh"}), "session.audio.input.transcription.langage"),
        (
            session_of(transcription={"language": "fr"}),
            "session.audio.input.transcription.language",
        ),
        (
            session_of(transcription={"keywords": "魔搭"}),
            "session.audio.input.transcription.keywords",
        ),
        (
            session_of(transcription={"keywords": ["/etc/passwd"]}),
            "session.audio.input.transcription.keywords",
        ),
        (session_of(turn_detection=5), "session.audio.input.turn_detection"),
        (session_of(turn_detection={"type": "magic"}), "session.audio.input.turn_detection.type"),
        (
            session_of(turn_detection={"threshold": 2}),
            "session.audio.input.turn_detection.threshold",
        ),
        (
            session_of(turn_detection={"silence_duration": 2}),
            "session.audio.input.turn_detection.silence_duration",
        ),
        (
            session_of(turn_detection={"silence_duration_ms": []}),
            "session.audio.input.turn_detection.silence_duration_ms",
        ),
    ],
)
async def test_bad_session_is_one_error_and_changes_nothing(
    service: LiveService, session: Any, param: str
) -> None:
    async with realtime_socket(service) as socket:
        await send_event(socket, "session.update", session=session, event_id="e1")
        event = await next_event(socket)
        assert event["type"] == "error"
        assert event["error"]["param"] == param
        assert event["error"]["event_id"] == "e1"
        await send_event(socket, "input_audio_buffer.clear")
        assert (await next_event(socket))["type"] == "input_audio_buffer.cleared"
    assert (await service.session()).configured == []


@pytest.mark.parametrize(
    "message",
    [
        "",
        "hello",
        "[]",
        "{}",
        "null",
        '{"type": 5}',
        '{"type": "response.create"}',
        '{"type": "conversation.item.create", "item": {}}',
        '{"type": "input_audio_buffer.append"}',
        '{"type": "input_audio_buffer.append", "audio": 5}',
        '{"type": "input_audio_buffer.append", "audio": "a"}',
        '{"type": "input_audio_buffer.append", "audio": "?!"}',
        '{"type": "session.update"}',
        '{"type": "\ud800"}'.encode("utf-8", "replace").decode(),
        '{"type": "\\ud800", "event_id": "\\ud800"}',
        "[" * 100_000,
        '{"type": "session.update", "session": ' + "[" * 50_000 + "]" * 50_000 + "}",
        '{"type": "session.update", "session": {' + '"a":1,' * 200_000 + '"b":2}}',
        "9" * 10_000,
        b"\x00\x01" * 1000,
    ],
    ids=range(20),
)
async def test_bad_event_is_one_error_and_the_session_goes_on(
    service: LiveService, message: str | bytes
) -> None:
    async with realtime_socket(service) as socket:
        await socket.send(message)
        event = await next_event(socket)
        assert event["type"] == "error"
        assert event["error"]["type"] == "invalid_request_error"
        assert event["error"]["message"]
        await append(socket, b"\1\2")
        session = await service.session()
        await until(lambda: len(session.received) == 2)


async def test_append_of_15_mib_is_taken_and_of_more_is_an_error(service: LiveService) -> None:
    head = '{"type": "input_audio_buffer.append", "audio": "'
    audio = "AAAA" * ((15 * 2**20 - len(head) - 2) // 4)
    async with realtime_socket(service, max_size=None) as socket:
        session = await service.session()
        await socket.send(f'{head}{audio}"}}')
        await until(lambda: len(session.received) == len(audio) // 4 * 3)
        await socket.send(f'{head}{audio}AAAAAAAA"}}')
        assert (await next_event(socket))["error"]["code"] == "invalid_event"
    assert len(session.received) == len(audio) // 4 * 3


async def test_message_over_16_mib_closes_the_connection(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        with suppress(ConnectionClosed):
            await socket.send("x" * (17 * 2**20))
        await socket.wait_closed()
        assert socket.close_code == 1009
    await until(lambda: "close" in session.calls)


@pytest.mark.parametrize(
    ("error", "close_code", "code"),
    [
        (ShuttingDown(), 1001, "shutting_down"),
        (RecognitionFailed("it broke"), 1011, "recognition_failed"),
        (RuntimeError("a bug"), 1011, "internal_error"),
    ],
)
async def test_end_of_the_session_is_told_with_the_position(
    service: LiveService, error: Exception, close_code: int, code: str
) -> None:
    async with realtime_socket(service) as socket:
        session = await service.session()
        session.told = SessionStatistics(received_ms=9000, finished_ms=7500)
        session.fail(error)
        told = (await next_event(socket))["error"]
        with pytest.raises(ConnectionClosed):
            await next_event(socket)
        assert (told["code"], told["position_ms"]) == (code, 7500)
        assert "a bug" not in told["message"]
        assert socket.close_code == close_code
    await until(lambda: "close" in session.calls)


async def test_longest_session_ends_with_its_position() -> None:
    async with (
        live_service(live={"max_session_s": 0.3}) as service,
        realtime_socket(service) as socket,
    ):
        (await service.session()).told = SessionStatistics(finished_ms=100)
        error = (await next_event(socket))["error"]
        with pytest.raises(ConnectionClosed):
            await next_event(socket)
        assert (error["code"], error["position_ms"]) == ("session_expired", 100)
        assert socket.close_code == 1001


async def test_session_without_audio_ends() -> None:
    async with (
        live_service(live={"idle_timeout_s": 0.3}) as service,
        realtime_socket(service) as socket,
    ):
        assert (await next_event(socket))["error"]["code"] == "session_idle"
        with pytest.raises(ConnectionClosed):
            await next_event(socket)
        assert socket.close_code == 1008


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("?intent=conversation", 400, "invalid_parameter"),
        ("?intent=transcription&model=gpt-9", 404, "model_not_found"),
    ],
)
async def test_other_intents_and_models_are_refused_before_the_upgrade(
    service: LiveService, query: str, status: int, code: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with realtime_socket(service, query):
            pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"")["error"]["code"] == code


@pytest.mark.parametrize("query", ["", "?model=whisper-1", "?model=gpt-realtime-mini"])
async def test_models_of_clients_are_understood(service: LiveService, query: str) -> None:
    async with realtime_socket(service, query):
        pass


@pytest.mark.parametrize(
    ("error", "status"), [(Overloaded(3.2), 429), (ShuttingDown(), 503)], ids=["full", "ending"]
)
async def test_no_room_is_told_before_the_upgrade(
    service: LiveService, error: Exception, status: int
) -> None:
    service.sessions.refusal = error
    with pytest.raises(InvalidStatus) as refused:
        async with realtime_socket(service):
            pass
    assert refused.value.response.status_code == status
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    assert [log.status for log in service.ended.logs] == [status]
