"""What a live WebSocket may cost, and what is left of it at its end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from serve_app.core.errors import Overloaded
from serve_app.live.records import PartialText, SessionStatistics, SpeechStarted
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
from tests.api.sockets import PATIENCE_S
from tests.fakes.live_sessions import spoken_segment

COMPLETED = "conversation.item.input_audio_transcription.completed"


@pytest.fixture
async def service() -> AsyncIterator[LiveService]:
    async with live_service() as running:
        yield running


def live_tasks() -> list[str]:
    """Returns the tasks of connections that are not done."""
    return [
        task.get_coro().__qualname__  # type: ignore[union-attr]
        for task in asyncio.all_tasks()
        if "serve_app" in str(getattr(task.get_coro(), "cr_code", ""))
    ]


async def all_ended(service: LiveService) -> None:
    await until(lambda: all("close" in session.calls for session in service.sessions.opened))
    await until(lambda: not live_tasks())


async def test_thousand_connections_without_a_word_leave_nothing(service: LiveService) -> None:
    for _ in range(10):
        sockets = await asyncio.gather(*(connect(service.socket_url()) for _ in range(100)))
        for number, socket in enumerate(sockets):
            if number % 2:
                socket.transport.abort()
        await asyncio.gather(*(socket.close() for socket in sockets))
    assert len(service.sessions.opened) == 1000
    await all_ended(service)


async def test_connections_beyond_the_limit_are_refused_one_by_one(service: LiveService) -> None:
    service.sessions.refusal = Overloaded(1)
    results = await asyncio.gather(
        *(connect(service.socket_url()).__aenter__() for _ in range(100)), return_exceptions=True
    )
    assert all(isinstance(result, InvalidStatus) for result in results)
    assert {log.status for log in service.ended.logs} == {429}


async def leave(socket: ClientConnection, how: str) -> None:
    if how == "close":
        await socket.close()
    else:
        socket.transport.abort()


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize(
    "state", ["greeted", "sending", "speaking", "waiting", "finishing", "unread"]
)
async def test_departure_in_any_state_leaves_nothing(
    service: LiveService, state: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(service.socket_url()) as socket:
        session = await service.session()
        monkeypatch.setattr(session, "end", lambda: None)
        if state == "sending":
            await append(socket, bytes(1000))
            await until(lambda: bool(session.received))
        elif state == "speaking":
            session.tell(SpeechStarted(0, 0), PartialText(0, "好"))
            await events_until(socket, "input_audio_buffer.speech_started")
        elif state == "waiting":
            session.room.clear()
            await append(socket, bytes(1000))
        elif state == "finishing":
            await send_event(socket, "session.finish")
            await until(lambda: "finish" in session.calls)
        elif state == "unread":
            session.tell(*(spoken_segment(number, ["好"])[-1] for number in range(500)))
        await leave(socket, how)
    await all_ended(service)


async def test_handshake_that_is_broken_off_leaves_nothing(service: LiveService) -> None:
    head = (
        b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    for length in (10, len(head) - 2, len(head)):
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(head[:length])
            await writer.drain()
            writer.transport.abort()
    await until(lambda: len(service.sessions.opened) >= 1)
    await all_ended(service)


async def test_client_that_does_not_read_is_ended_before_memory_grows(
    service: LiveService,
) -> None:
    async with connect(service.socket_url(), max_queue=1) as socket:
        session = await service.session()
        socket.transport.pause_reading()
        text = "好" * 1000
        for number in range(20_000):
            session.tell(PartialText(number, text))
        await until(lambda: "close" in session.calls)
    await all_ended(service)


async def test_flood_of_bad_events_from_a_client_that_does_not_read_ends_it(
    service: LiveService,
) -> None:
    async with connect(service.socket_url(), max_queue=1) as socket:
        session = await service.session()
        socket.transport.pause_reading()
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await socket.send('{"type": "x"}')
                    await asyncio.sleep(0)
                    if "close" in session.calls:
                        await socket.close()
    await all_ended(service)


async def test_flood_of_bad_events_is_answered_while_it_is_read(service: LiveService) -> None:
    async with realtime_socket(service) as socket:

        async def flood() -> None:
            for _ in range(3000):
                await socket.send("{")

        flooding = asyncio.create_task(flood())
        for _ in range(3000):
            assert (await next_event(socket))["type"] == "error"
        await flooding


async def test_flood_of_pings_does_not_stop_the_session(service: LiveService) -> None:
    async with realtime_socket(service) as socket:
        for _ in range(2000):
            await socket.ping()
        session = await service.session()
        await append(socket, bytes(100))
        await until(lambda: len(session.received) == 100)


async def test_compressed_bomb_is_not_unpacked(service: LiveService) -> None:
    async with realtime_socket(service, compression="deflate") as socket:
        session = await service.session()
        with pytest.raises(ConnectionClosed):
            await socket.send("0" * (200 * 2**20))
            await next_event(socket)
        assert socket.close_code == 1009
    await until(lambda: "close" in session.calls)


@pytest.mark.parametrize("path", ["", "/funasr"])
async def test_broken_frames_end_the_connection(service: LiveService, path: str) -> None:
    for frame in (b"\xff" * 64, b"\x81\x05hello", b"\x81\xfe", b"\x83\x80\0\0\0\0"):
        async with connect(service.socket_url(path)) as socket:
            socket.transport.write(frame)
            if frame != b"\x81\xfe":
                async with asyncio.timeout(PATIENCE_S):
                    await socket.wait_closed()
    await all_ended(service)


async def test_log_has_one_line_a_session_and_nothing_that_was_said(
    service: LiveService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    headers = {"X-Request-ID": "abc", "Authorization": "Bearer secret-of-mine"}
    async with realtime_socket(service, additional_headers=headers) as socket:
        session = await service.session()
        session.told = SessionStatistics(received_ms=3000, finished_ms=2000, num_segments=1)
        await socket.send("{")
        await next_event(socket)
        session.tell(*spoken_segment(0, ["机密"]))
        await events_until(socket, COMPLETED)
    await all_ended(service)
    lines = [record for record in caplog.records if record.message == "live session"]
    assert len(lines) == 1
    told: dict[str, Any] = lines[0].__dict__
    assert told["paraserve_request_id"] == "abc"
    assert (told["protocol"], told["close_code"], told["code"]) == ("realtime", 1006, None)
    assert (told["audio_s"], told["finished_s"], told["num_segments"]) == (3, 2, 1)
    assert told["num_errors"] == 1
    everything = json.dumps([record.__dict__ for record in caplog.records], default=str)
    assert "机密" not in everything
    assert "secret-of-mine" not in everything
