"""FunASR's WebSocket protocol: what its clients send, and what they read."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from serve_app.core.errors import ShuttingDown
from serve_app.core.records import Hotword
from serve_app.live.records import (
    AudioFormat,
    FinalText,
    PartialText,
    SegmentFailed,
    SessionStatistics,
    SpeechStarted,
    SpeechStopped,
)
from tests.api.live import LiveService, live_service, next_event, until
from tests.api.sockets import PATIENCE_S
from tests.fakes.live_sessions import SessionScript, spoken_segment
from tests.fakes.service import sentence

FIRST = {
    "mode": "2pass",
    "wav_name": "microphone",
    "wav_format": "pcm",
    "is_speaking": True,
    "chunk_size": [5, 10, 5],
    "chunk_interval": 10,
    "itn": True,
}
END = {"is_speaking": False}
SCRIPT = SessionScript(after_finish=spoken_segment(0, ["你", "好"], 100, 500))


@pytest.fixture
async def service() -> AsyncIterator[LiveService]:
    async with live_service(SCRIPT) as running:
        yield running


@asynccontextmanager
async def funasr_socket(service: LiveService, **options: Any) -> AsyncIterator[ClientConnection]:
    url = service.socket_url("/funasr", "")
    async with connect(url, subprotocols=[Subprotocol("binary")], **options) as socket:
        assert socket.subprotocol == "binary"
        yield socket


async def say(socket: ClientConnection, *messages: dict[str, Any] | bytes) -> None:
    for message in messages:
        await socket.send(message if isinstance(message, bytes) else json.dumps(message))


async def messages_until_final(socket: ClientConnection) -> list[dict[str, Any]]:
    messages = []
    while True:
        messages.append(await next_event(socket))
        if messages[-1]["is_final"]:
            return messages


def texts_of(messages: list[dict[str, Any]], mode: str) -> list[str]:
    return [message["text"] for message in messages if message["mode"] == mode]


async def test_2pass_tells_the_text_twice(service: LiveService) -> None:
    async with funasr_socket(service) as socket:
        await say(socket, FIRST, b"\1\2" * 800, END)
        messages = await messages_until_final(socket)
    assert texts_of(messages, "2pass-online") == ["你", "好"]
    assert texts_of(messages, "2pass-offline") == ["你好"]
    assert [message["is_final"] for message in messages] == [False, False, True]
    assert {message["wav_name"] for message in messages} == {"microphone"}
    last = messages[-1]
    assert json.loads(last["timestamp"]) == [[100, 300], [300, 500]]
    assert last["stamp_sents"] == [
        {
            "text_seg": "你 好",
            "punc": "",
            "start": 100,
            "end": 500,
            "ts_list": [[100, 300], [300, 500]],
        }
    ]
    session = await service.session()
    assert bytes(session.received) == b"\1\2" * 800
    assert session.audio == AudioFormat("pcm16", 16_000)
    assert session.options.partials


async def test_segments_are_told_while_it_is_spoken(service: LiveService) -> None:
    async with funasr_socket(service) as socket:
        await say(socket, FIRST, bytes(320))
        session = await service.session()
        session.tell(*spoken_segment(0, ["早", "上"]))
        messages = [await next_event(socket) for _ in range(3)]
        await say(socket, END)
        rest = await messages_until_final(socket)
    assert texts_of(messages, "2pass-offline") == ["早上"]
    assert not any(message["is_final"] for message in messages)
    assert texts_of(rest, "2pass-offline") == ["你好"]


async def test_online_tells_the_text_once(service: LiveService) -> None:
    async with funasr_socket(service) as socket:
        await say(socket, FIRST | {"mode": "online"}, bytes(320), END)
        messages = await messages_until_final(socket)
    assert {message["mode"] for message in messages} == {"online"}
    assert "".join(message["text"] for message in messages) == "你好"


async def test_offline_tells_one_text_at_the_end(service: LiveService) -> None:
    async with funasr_socket(service) as socket:
        await say(socket, FIRST | {"mode": "offline"}, bytes(320))
        session = await service.session()
        await until(lambda: bool(session.received))
        session.tell(
            SpeechStarted(0, 0),
            SpeechStopped(0, 800),
            FinalText(0, 0, 800, (sentence("早上", 0),), "早上。"),
        )
        session.after_finish = spoken_segment(1, ["你", "好"], 1000, 1400)
        await say(socket, END)
        messages = await messages_until_final(socket)
    assert [message["text"] for message in messages] == ["早上。你好"]
    assert messages[0]["mode"] == "offline"
    assert [clause["punc"] for clause in messages[0]["stamp_sents"]] == ["。", ""]
    assert not session.options.partials


async def test_silence_has_a_final_message(service: LiveService) -> None:
    async with live_service() as quiet:
        for mode in ("2pass", "online", "offline"):
            async with funasr_socket(quiet) as socket:
                await say(socket, FIRST | {"mode": mode}, bytes(320), END)
                messages = await messages_until_final(socket)
            assert [message["text"] for message in messages] == [""]


async def test_several_utterances_on_one_connection(service: LiveService) -> None:
    async with funasr_socket(service) as socket:
        for number, rate_hz in enumerate((16_000, 8_000, 8_000)):
            name = f"take-{number}"
            await say(socket, FIRST | {"wav_name": name, "audio_fs": rate_hz}, bytes(320), END)
            messages = await messages_until_final(socket)
            assert {message["wav_name"] for message in messages} == {name}
            # Some clients say it twice.
            await say(socket, END)
        # Without another description the last one holds.
        await say(socket, bytes(640), END)
        assert texts_of(await messages_until_final(socket), "2pass-offline") == ["你好"]
    audio = [session.audio.rate_hz for session in service.sessions.opened]
    assert audio == [16_000, 8_000, 8_000, 8_000]
    assert [len(session.received) for session in service.sessions.opened] == [320, 320, 320, 640]
    await until(lambda: all("close" in session.calls for session in service.sessions.opened))


async def test_8_khz_opens_another_session_before_audio(service: LiveService) -> None:
    async with funasr_socket(service) as socket:
        await say(socket, FIRST | {"audio_fs": 8000}, bytes(160), END)
        await messages_until_final(socket)
    assert service.sessions.opened[0].calls == ["close"]
    assert service.sessions.opened[1].audio == AudioFormat("pcm16", 8000)


@pytest.mark.parametrize(
    ("hotwords", "expected"),
    [
        ('{"阿里巴巴": 20, "魔搭": 10}', {Hotword("阿里巴巴", 20.0), Hotword("魔搭", 10.0)}),
        ("阿里巴巴 20\n魔搭 10", {Hotword("阿里巴巴", 20.0), Hotword("魔搭", 10.0)}),
        ("阿里巴巴 魔搭", {Hotword("阿里巴巴"), Hotword("魔搭")}),
        ({"阿里巴巴": 20}, {Hotword("阿里巴巴", 20.0)}),
        ("", set()),
        ("{}", set()),
        (None, set()),
    ],
)
async def test_hotwords_are_read_in_their_forms(
    service: LiveService, hotwords: Any, expected: set[Hotword]
) -> None:
    async with funasr_socket(service) as socket:
        await say(socket, FIRST | {"hotwords": hotwords}, bytes(320), END)
        await messages_until_final(socket)
    options = (await service.session()).options
    assert set(options.recognition_options.hotwords) == expected


@pytest.mark.parametrize(("itn", "text"), [({}, "3月5日。"), ({"itn": False}, "三月五日。")])
async def test_numbers_are_written_in_final_texts(itn: dict[str, bool], text: str) -> None:
    said = sentence("三月五日", 0)
    script = SessionScript(
        after_finish=[
            SpeechStarted(0, 0),
            PartialText(0, "三月"),
            SpeechStopped(0, 900),
            PartialText(0, "五日。"),
            FinalText(0, 0, 900, (said,), "三月五日。"),
        ]
    )
    first = {name: value for name, value in FIRST.items() if name != "itn"}
    async with live_service(script) as service, funasr_socket(service) as socket:
        await say(socket, first | itn, bytes(320), END)
        messages = await messages_until_final(socket)
    assert "".join(texts_of(messages, "2pass-online")) == "三月五日。"
    assert texts_of(messages, "2pass-offline") == [text]


def wave(samples: bytes, rate_hz: int = 16_000, channels: int = 1, bits: int = 16) -> bytes:
    """Returns a WAVE file with a remark before and after its samples."""
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * 2, 2, bits)
    chunks = b"".join(
        name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
        for name, body in (
            (b"LIST", b"abc"),
            (b"fmt ", form),
            (b"data", samples),
            (b"LIST", b"remark"),
        )
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize("piece_bytes", [1, 7, 44, 10_000])
@pytest.mark.parametrize("rate_hz", [16_000, 8_000])
async def test_header_of_a_wave_file_is_no_audio(
    service: LiveService, piece_bytes: int, rate_hz: int
) -> None:
    samples = bytes(range(250)) * 2
    content = wave(samples, rate_hz)
    pieces = [content[at : at + piece_bytes] for at in range(0, len(content), piece_bytes)]
    async with funasr_socket(service) as socket:
        await say(socket, FIRST | {"mode": "offline"}, *pieces, END)
        await messages_until_final(socket)
    session = service.sessions.opened[-1]
    assert bytes(session.received) == samples
    assert session.audio.rate_hz == rate_hz


@pytest.mark.parametrize("content", [b"", b"R", b"RIFF", b"RIFFxxxxWAVX1234", b"\1\2RIFF"])
async def test_samples_that_look_like_a_header_are_audio(
    service: LiveService, content: bytes
) -> None:
    async with funasr_socket(service) as socket:
        await say(socket, FIRST, content, END)
        await messages_until_final(socket)
    assert bytes((await service.session()).received) == content


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (["{"], "invalid_event"),
        (["[]"], "invalid_event"),
        (["[" * 100_000], "invalid_event"),
        (["x" * 300_000], "invalid_event"),
        ([FIRST | {"mode": "3pass"}], "invalid_parameter"),
        ([FIRST | {"mode": []}], "invalid_parameter"),
        ([FIRST | {"wav_format": "mp3"}], "invalid_parameter"),
        ([FIRST | {"wav_name": 5}], "invalid_parameter"),
        ([FIRST | {"audio_fs": "16k"}], "invalid_parameter"),
        ([FIRST | {"audio_fs": 1}], "invalid_parameter"),
        ([FIRST | {"itn": "maybe"}], "invalid_parameter"),
        ([FIRST | {"hotwords": 5}], "invalid_parameter"),
        ([FIRST | {"hotwords": "{bad"}], "invalid_parameter"),
        ([FIRST | {"hotwords": " ".join(f"词{n}" for n in range(200))}], "invalid_parameter"),
        ([FIRST, wave(b"ab", channels=2)], "unsupported_audio_layout"),
        ([FIRST, wave(b"ab", bits=8)], "unsupported_audio_layout"),
        (
            [FIRST, b"RIFF\0\0\0\0WAVE" + b"junk\xff\xff\xff\x7f" + bytes(9)],
            "unsupported_audio_layout",
        ),
    ],
    ids=range(17),
)
async def test_bad_input_is_one_error_that_any_client_can_read(
    service: LiveService, messages: list[Any], code: str
) -> None:
    async with funasr_socket(service) as socket:
        for message in messages:
            await socket.send(json.dumps(message) if isinstance(message, dict) else message)
        told = await next_event(socket)
        assert told["error"]["code"] == code
        assert (told["text"], told["is_final"]) == ("", True)
        with pytest.raises(ConnectionClosed):
            await next_event(socket)
        assert socket.close_code == 1008
        assert socket.close_reason == code


async def test_failed_segment_does_not_end_the_utterance(service: LiveService) -> None:
    async with funasr_socket(service) as socket:
        await say(socket, FIRST, bytes(320))
        session = await service.session()
        session.tell(SpeechStarted(0, 0), SpeechStopped(0, 9), SegmentFailed(0, 0, 9, "c", "m"))
        failed = await next_event(socket)
        await say(socket, END)
        assert texts_of(await messages_until_final(socket), "2pass-offline") == ["你好"]
    assert failed["error"]["code"] == "recognition_failed"
    assert (failed["text"], failed["is_final"]) == ("", False)


async def test_end_of_the_service_is_told_with_the_position(service: LiveService) -> None:
    async with funasr_socket(service) as socket:
        await say(socket, FIRST, bytes(320))
        session = await service.session()
        session.told = SessionStatistics(finished_ms=1200)
        session.fail(ShuttingDown())
        told = await next_event(socket)
        async with asyncio.timeout(PATIENCE_S):
            await socket.wait_closed()
    assert (told["error"]["code"], told["position_ms"]) == ("shutting_down", 1200)
    assert socket.close_code == 1001


async def test_client_that_leaves_while_texts_are_awaited_leaves_nothing_behind(
    service: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with funasr_socket(service) as socket:
        await say(socket, FIRST, bytes(320))
        session = await service.session()
        monkeypatch.setattr(session, "end", lambda: None)
        await say(socket, END)
        await until(lambda: "finish" in session.calls)
        socket.transport.abort()
    await until(lambda: "close" in session.calls)
