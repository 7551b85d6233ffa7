"""What a live WebSocket may cost, and what is left of it at its end."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from serve_app.api import websocket_server
from serve_app.api.flow_control import FlowControlMiddleware
from serve_app.api.live_routes import build_live_api
from serve_app.api.websocket_server import BoundedWebSocket
from serve_app.core.errors import Overloaded
from serve_app.live.records import PartialText, SessionStatistics, SpeechStarted
from serve_app.settings import Settings
from tests.api.live import (
    LOGGER,
    LiveService,
    Prefixed,
    append,
    events_until,
    live_service,
    next_event,
    realtime_socket,
    send_event,
    until,
)
from tests.api.sockets import PATIENCE_S, served
from tests.fakes.live_sessions import ScriptedSessions, spoken_segment

# With a mask of zero, as of a client.
PONG = bytes((0x8A, 0x80, 0, 0, 0, 0))
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
        for number, client in enumerate(sockets):
            if number % 2:
                client.transport.abort()
        await asyncio.gather(*(client.close() for client in sockets))
    assert len(service.sessions.opened) == 1000
    await all_ended(service)


async def test_connections_beyond_the_limit_are_refused_one_by_one(service: LiveService) -> None:
    service.sessions.refusal = Overloaded(1)
    results = await asyncio.gather(
        *(connect(service.socket_url()).__aenter__() for _ in range(100)), return_exceptions=True
    )
    assert all(isinstance(result, InvalidStatus) for result in results)
    assert {log.status for log in service.ended.logs} == {429}


async def leave(client: ClientConnection, how: str) -> None:
    if how == "close":
        await client.close()
    else:
        client.transport.abort()


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize(
    "state", ["greeted", "sending", "speaking", "waiting", "finishing", "unread"]
)
async def test_departure_in_any_state_leaves_nothing(
    service: LiveService, state: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(service.socket_url()) as client:
        session = await service.session()
        monkeypatch.setattr(session, "end", lambda: None)
        if state == "sending":
            await append(client, bytes(1000))
            await until(lambda: bool(session.received))
        elif state == "speaking":
            session.tell(SpeechStarted(0, 0), PartialText(0, "好"))
            await events_until(client, "input_audio_buffer.speech_started")
        elif state == "waiting":
            session.room.clear()
            await append(client, bytes(1000))
        elif state == "finishing":
            await send_event(client, "session.finish")
            await until(lambda: "finish" in session.calls)
        elif state == "unread":
            session.tell(*(spoken_segment(number, ["好"])[-1] for number in range(500)))
        await leave(client, how)
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


@asynccontextmanager
async def idle_reader(service: LiveService) -> AsyncIterator[ClientConnection]:
    """Yields a connection whose client does not read, and whose system buffers little."""
    with socket.create_connection(("127.0.0.1", service.port)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        raw.setblocking(False)
        async with connect(
            service.socket_url(), sock=raw, compression=None, close_timeout=1
        ) as connection:
            connection.transport.pause_reading()
            yield connection


async def test_client_that_does_not_read_is_ended_before_memory_grows(
    service: LiveService,
) -> None:
    async with idle_reader(service):
        session = await service.session()
        text = "好" * 1000
        for number in range(20_000):
            session.tell(PartialText(number, text))
        await until(lambda: "close" in session.calls)
    await all_ended(service)


async def test_flood_of_bad_events_from_a_client_that_does_not_read_ends_it(
    service: LiveService,
) -> None:
    async with idle_reader(service) as connection:
        session = await service.session()

        async def flood() -> None:
            while True:
                await send_event(connection, "x", event_id="好" * 500)

        flooding = asyncio.create_task(flood())
        await until(lambda: "close" in session.calls)
        flooding.cancel()
        connection.transport.abort()
    await all_ended(service)


async def test_connection_of_a_client_that_does_not_read_does_not_linger(
    service: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_server, "_LINGER_S", 0.1)
    async with idle_reader(service) as connection:
        session = await service.session()
        for number in range(20_000):
            session.tell(PartialText(number, "好" * 1000))
        await until(lambda: "close" in session.calls)
        async with asyncio.timeout(PATIENCE_S):
            # A write to a connection that was reset ends it on this side.
            while not connection.transport.is_closing():
                connection.transport.write(PONG)
                await asyncio.sleep(0.02)


async def test_flood_of_bad_events_is_answered_while_it_is_read(service: LiveService) -> None:
    async with realtime_socket(service) as client:

        async def flood() -> None:
            for _ in range(3000):
                await client.send("{")

        flooding = asyncio.create_task(flood())
        for _ in range(3000):
            assert (await next_event(client))["type"] == "error"
        await flooding


async def test_flood_of_pings_does_not_stop_the_session(service: LiveService) -> None:
    async with realtime_socket(service) as client:
        for _ in range(2000):
            await client.ping()
        session = await service.session()
        await append(client, bytes(100))
        await until(lambda: len(session.received) == 100)


async def test_flood_of_pings_whose_pongs_are_not_read_ends_the_connection(
    service: LiveService,
) -> None:
    # A ping of a client, whose mask is zero.
    ping = bytes((0x89, 0x80 | 125)) + bytes(4) + bytes(125)
    async with idle_reader(service) as connection:
        session = await service.session()
        async with asyncio.timeout(PATIENCE_S):
            while "close" not in session.calls:
                connection.transport.write(ping * 1000)
                await asyncio.sleep(0.001)
        connection.transport.abort()
    await all_ended(service)


async def test_sender_that_is_held_back_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = BoundedWebSocket.__init__

    def with_short_pings(self: BoundedWebSocket, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        self.ping_interval = self.ping_timeout = 0.05

    monkeypatch.setattr(BoundedWebSocket, "__init__", with_short_pings)
    async with (
        live_service() as service,
        realtime_socket(service, compression=None, ping_interval=None) as client,
    ):
        session = await service.session()
        session.room.clear()

        async def flood() -> None:
            for _ in range(100):
                await append(client, bytes(48_000))

        flooding = asyncio.create_task(flood())
        # Many times the limit of a pong.
        await asyncio.sleep(1)
        assert "close" not in session.calls
        session.room.set()
        await flooding
        await until(lambda: len(session.received) == 100 * 48_000)


async def test_compressed_bomb_is_not_unpacked(service: LiveService) -> None:
    async with realtime_socket(service, compression="deflate") as client:
        session = await service.session()
        with suppress(ConnectionClosed):
            await client.send("0" * (200 * 2**20))
        await client.wait_closed()
        assert client.close_code == 1009
    await until(lambda: "close" in session.calls)


@pytest.mark.parametrize("path", ["", "/funasr"])
async def test_broken_frames_end_the_connection(service: LiveService, path: str) -> None:
    for frame in (b"\xff" * 64, b"\x81\x05hello", b"\x81\xfe", b"\x83\x80\0\0\0\0"):
        async with connect(service.socket_url(path)) as client:
            client.transport.write(frame)
            if frame == b"\x81\xfe":
                client.transport.abort()
            async with asyncio.timeout(PATIENCE_S):
                await client.wait_closed()
    await all_ended(service)


class EagerServer:
    """Stands between server and application as Ray Serve does, without bounds.

    Attributes:
        num_bytes: of the messages that it has read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.num_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming: asyncio.Queue[Message] = asyncio.Queue()
        outgoing: asyncio.Queue[Message] = asyncio.Queue()

        async def read() -> None:
            while True:
                message = await receive()
                incoming.put_nowait(message)
                self.num_bytes += len(message.get("text") or "")
                if message["type"] == "websocket.disconnect":
                    return

        async def write() -> None:
            while True:
                await send(await outgoing.get())

        async def put(message: Message) -> None:
            outgoing.put_nowait(message)

        helpers = [asyncio.create_task(read()), asyncio.create_task(write())]
        try:
            await self._app(scope, incoming.get, put)
            await until(outgoing.empty)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.wait(helpers)


@pytest.fixture
async def eager() -> AsyncIterator[tuple[LiveService, EagerServer]]:
    sessions = ScriptedSessions()
    settings = Settings(auth={"mode": "off"})
    server = EagerServer(Prefixed(build_live_api(sessions, settings, LOGGER)))
    async with served(FlowControlMiddleware(server)) as port:
        yield LiveService(port, sessions), server


async def test_ray_reads_no_further_than_the_session_uses(
    eager: tuple[LiveService, EagerServer],
) -> None:
    service, server = eager
    async with realtime_socket(service, compression=None) as client:
        session = await service.session()
        session.room.clear()

        async def flood() -> None:
            for _ in range(2000):
                await append(client, bytes(48_000))

        flooding = asyncio.create_task(flood())
        await until(lambda: server.num_bytes > 200_000)
        # What the sender could not hold would have come by now.
        await asyncio.sleep(0.5)
        assert server.num_bytes < 1_000_000
        assert not flooding.done()
        session.room.set()
        await flooding
        await until(lambda: len(session.received) == 2000 * 48_000)


async def test_ray_holds_few_events_for_a_client_that_does_not_read(
    eager: tuple[LiveService, EagerServer],
) -> None:
    service, _ = eager
    async with idle_reader(service) as connection:
        session = await service.session()
        for number in range(20_000):
            session.tell(PartialText(number, "好" * 1000))
        await until(lambda: "close" in session.calls)
        connection.transport.abort()
    await all_ended(service)


async def test_log_has_one_line_a_session_and_nothing_that_was_said(
    service: LiveService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    headers = {"X-Request-ID": "abc", "Authorization": "Bearer secret-of-mine"}
    async with realtime_socket(service, additional_headers=headers) as client:
        session = await service.session()
        session.told = SessionStatistics(received_ms=3000, finished_ms=2000, num_segments=1)
        await client.send("{")
        await next_event(client)
        session.tell(*spoken_segment(0, ["机密"]))
        await events_until(client, COMPLETED)
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
