"""Streams from the first header to the last event, and callers who leave on the way."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from serve_app.api import event_stream, transcription
from serve_app.api.limits import ApiLimits
from serve_app.api.routes import build_api
from serve_app.core.records import HotwordCheck, RecognitionOptions, RequestContext
from serve_app.scheduling.admission import Limits
from tests.api.conftest import MAX_UPLOAD_BYTES
from tests.fakes.asgi import Exchange
from tests.fakes.observer import EndedRequests
from tests.fakes.service import FakeService


def request(**fields: str) -> httpx.Request:
    return httpx.Request(
        "POST",
        "http://test/v1/audio/transcriptions",
        data={"model": "whisper-1", **fields},
        files={"file": ("a.wav", b"RIFF" * 100)},
    )


@pytest.fixture
def app(service: FakeService, ended: EndedRequests, tmp_path: Path) -> FastAPI:
    limits = ApiLimits(
        MAX_UPLOAD_BYTES, request_timeout_s=60, spool_dir=tmp_path, in_flight=Limits(1, 5)
    )
    return build_api(service, limits, logging.getLogger("tests.api"), observer=ended)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcription, "_STATUS_PATIENCE_S", 0.01)
    monkeypatch.setattr(event_stream, "_HEARTBEAT_S", 0.01)


@pytest.mark.usefixtures("impatient")
async def test_headers_and_heartbeats_come_before_the_first_text(
    app: FastAPI, service: FakeService
) -> None:
    service.events, service.until = [], asyncio.Event()
    exchange = Exchange(app, request(stream="true"))
    await exchange.until(lambda: exchange.text.count(event_stream.HEARTBEAT) >= 2)
    assert exchange.status == 200
    headers = dict(exchange.sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"x-accel-buffering"] == b"no"
    service.until.set()
    await exchange.ended()
    assert [event["type"] for event in exchange.events] == ["transcript.text.done"]


async def test_stream_that_is_not_silent_has_no_heartbeat(app: FastAPI) -> None:
    exchange = Exchange(app, request(stream="true"))
    await exchange.ended()
    assert event_stream.HEARTBEAT not in exchange.text


async def test_usage_of_a_stream_is_in_tokens(app: FastAPI) -> None:
    exchange = Exchange(app, request(stream="true"))
    await exchange.ended()
    assert exchange.events[-1]["duration"] == 2.0
    assert exchange.events[-1]["usage"] == {
        "type": "tokens",
        "input_tokens": 20,
        "input_token_details": {"audio_tokens": 20, "text_tokens": 0},
        "output_tokens": 4,
        "total_tokens": 24,
    }


@pytest.mark.usefixtures("impatient")
async def test_error_that_comes_late_is_an_event(app: FastAPI, service: FakeService) -> None:
    service.events = []
    service.until = asyncio.Event()
    service.error_at_end = RuntimeError("secret")
    exchange = Exchange(app, request(stream="true"))
    await exchange.until(lambda: bool(exchange.sent))
    service.until.set()
    await exchange.ended()
    assert exchange.status == 200
    assert exchange.events[-1]["error"]["type"] == "server_error"
    assert "secret" not in exchange.text


async def test_work_that_is_given_up_inside_ends_the_stream_with_an_error(
    app: FastAPI, service: FakeService, ended: EndedRequests
) -> None:
    service.error_at_end = asyncio.CancelledError()
    exchange = Exchange(app, request(stream="true"))
    await exchange.ended()
    assert exchange.events[-1]["error"]["code"] == "recognition_failed"
    assert ended.logs[0].code == "recognition_failed"


def departed(ended: EndedRequests) -> bool:
    (log,) = ended.logs
    return (log.code, log.status) == ("client_disconnected", 499)


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_caller_who_leaves_before_the_end_is_not_counted_as_done(
    app: FastAPI, service: FakeService, ended: EndedRequests, stream: str
) -> None:
    service.hang = True
    exchange = Exchange(app, request(stream=stream))
    if stream == "true":
        await exchange.until(lambda: len(exchange.events) == 2)
    exchange.leave()
    await exchange.ended()
    assert departed(ended)
    assert service.canceled


@pytest.mark.usefixtures("impatient")
async def test_caller_who_leaves_before_the_first_text_cancels_the_work(
    app: FastAPI, service: FakeService, ended: EndedRequests
) -> None:
    service.events, service.hang = [], True
    exchange = Exchange(app, request(stream="true"))
    await exchange.until(lambda: bool(exchange.sent))
    exchange.leave()
    await exchange.ended()
    assert departed(ended)
    assert service.canceled


async def test_request_that_is_cancelled_while_it_streams_counts_as_left(
    app: FastAPI, service: FakeService, ended: EndedRequests
) -> None:
    service.hang = True
    exchange = Exchange(app, request(stream="true"))
    await exchange.until(lambda: len(exchange.events) == 2)
    exchange.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange.ended()
    assert departed(ended)
    assert service.canceled


async def test_caller_who_disconnects_after_the_last_event_counts_as_done(
    app: FastAPI, ended: EndedRequests
) -> None:
    exchange = Exchange(app, request(stream="true"))
    exchange.blocked_at = b"transcript.text.done"
    await exchange.until(lambda: "transcript.text.done" in exchange.text)
    exchange.leave()
    await exchange.ended()
    assert [(log.status, log.code) for log in ended.logs] == [(200, None)]


async def test_caller_who_leaves_during_the_upload_is_logged_as_disconnected(
    app: FastAPI, service: FakeService, ended: EndedRequests
) -> None:
    exchange = Exchange(app, request(), num_parts=4, num_sent=2)
    exchange.leave()
    await exchange.ended()
    assert departed(ended)
    assert service.uploads == []


async def test_caller_who_leaves_the_queue_is_logged_as_disconnected(
    app: FastAPI, service: FakeService, ended: EndedRequests
) -> None:
    service.hang = True
    running = Exchange(app, request(stream="true"))
    await running.until(lambda: bool(running.sent))
    waiting = Exchange(app, request(stream="true"))
    waiting.leave()
    await waiting.ended()
    assert departed(ended)
    running.leave()
    await running.ended()
    assert len(service.uploads) == 1


class SlowToCheck(FakeService):
    """Never gets round to the hotwords."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def check_hotwords(
        self, recognition_options: RecognitionOptions, context: RequestContext
    ) -> HotwordCheck:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody waits for this")


async def test_caller_who_leaves_during_the_hotword_check_is_logged_as_disconnected(
    ended: EndedRequests, tmp_path: Path
) -> None:
    service = SlowToCheck()
    limits = ApiLimits(MAX_UPLOAD_BYTES, request_timeout_s=60, spool_dir=tmp_path)
    app = build_api(service, limits, logging.getLogger("tests.api"), observer=ended)
    exchange = Exchange(app, request(hotwords="你好"))
    await service.asked.wait()
    exchange.leave()
    await exchange.ended()
    assert departed(ended)
