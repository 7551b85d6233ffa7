from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from pathlib import Path

import gradio as gr
import httpx
import pytest
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from serve_app.settings.subtitles import SubtitleSettings
from serve_app.ui import events
from serve_app.ui.client import ApiClient
from serve_app.ui.gate import PageGate, Visits
from serve_app.ui.job_routes import JobRoutes
from serve_app.ui.receiving import KeyCheck, SubtitleRoute, UploadRoute
from serve_app.ui.sessions import SessionLimits, Sessions
from serve_app.ui.uploads import UploadLimits, UploadStore
from serve_app.ui.visitors import Visitor, visitor_of
from tests.ui.scripted_api import ScriptedApi

KEY = {"Authorization": "Bearer psk_x"}
OCTETS = {"Content-Type": "application/octet-stream"}
UPLOAD = "/ui/upload"
JOIN = "/ui/gradio_api/queue/join"
COOKIE = {"Cookie": f"paraserve_visitor={'0' * 64}"}
FUNCTIONS = {0: (events.api_key,), 5: (events.submission,)}


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Gradio: tells what reached it."""
    request = Request(scope, receive)
    seen = {
        "path": request.url.path,
        "query": request.url.query,
        "headers": sorted(request.headers),
        "body": (await request.body()).decode(),
    }
    await JSONResponse(seen)(scope, receive, send)


@pytest.fixture
def visits() -> Visits:
    return Visits()


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(SessionLimits(wait_s=0.01), lambda session: None)


@pytest.fixture
def uploads(tmp_path: Path) -> UploadStore:
    return UploadStore(tmp_path, UploadLimits(50_000, 50_000, keep_s=3600))


@pytest.fixture
def gate(visits: Visits, sessions: Sessions, uploads: UploadStore) -> PageGate:
    api = ApiClient("http://api", 10, httpx.ASGITransport(ScriptedApi(key="psk_x").app()))
    keys = KeyCheck(api)
    upload_route = UploadRoute(uploads, keys, 40_000)
    subtitle_route = SubtitleRoute(keys, SubtitleSettings())
    job_routes = JobRoutes(api, uploads)
    return PageGate(
        answer,
        FUNCTIONS,
        uploads,
        upload_route,
        subtitle_route,
        job_routes,
        b"sounds",
        b"script",
        None,
        sessions,
        visits,
    )


@pytest.fixture
def browser(gate: PageGate) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(gate, root_path="/ui")
    return httpx.AsyncClient(transport=transport, base_url="http://page", headers=COOKIE)


@pytest.fixture
def visitor() -> Visitor:
    visitor = visitor_of(Headers(COOKIE))
    assert visitor is not None
    return visitor


PASSED = re.compile(
    r"GET /(config|favicon\.ico|manifest\.json|theme\.css|(svelte|static|assets)/x)?"
    r"|HEAD /"
    r"|GET /gradio_api/(theme\.css|startup-events)"
)
GUARDED = {
    "GET /gradio_api/heartbeat/x",
    "GET /gradio_api/queue/data",
    "POST /gradio_api/queue/join",
    "POST /gradio_api/cancel",
    "POST /gradio_api/reset",
}


async def test_no_other_route_of_gradio_exists(browser: httpx.AsyncClient) -> None:
    with gr.Blocks() as blocks:
        gr.State(None)
    app = gr.routes.App.create_app(blocks)
    requests = {
        (method.upper(), re.sub(r"\{[^}]*\}", "x", path))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    assert len(requests) > 50
    for method, path in sorted(requests):
        if PASSED.fullmatch(f"{method} {path}") or f"{method} {path}" in GUARDED:
            continue
        response = await browser.request(method, f"/ui{path}")
        assert response.status_code == 404, (method, path)


@pytest.mark.parametrize(
    "path",
    [
        "/ui/assets/../secret",
        "/ui/assets/%2e%2e/%2e%2e/secret",
        "/ui/assets//etc/passwd",
        "/ui/static/.env",
        "/ui/static/a%00b",
        "/ui/static/a%0ab",
        "/ui/static/a\\..\\b",
        "/ui/gradio_api/file=/etc/passwd",
        "/ui/gradio_api/proxy=http://elsewhere/",
        "/ui/gradio_api/stream/abc/close",
        "/ui/gradio_api/heartbeat/../info",
        "/ui/gradio_api/custom_component/a/client/b/c",
        "/ui/GRADIO_API/info",
        "/ui/gradio_api/info/",
    ],
)
async def test_no_path_leads_elsewhere(browser: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT"):
        response = await browser.request(method, path)
        assert response.status_code in (400, 404), method


@pytest.mark.parametrize("path", ["/ui/", "/ui", "/ui/config", "/ui/assets/index-D_x.js"])
async def test_page_and_its_parts_pass_with_a_policy(browser: httpx.AsyncClient, path: str) -> None:
    response = await browser.get(path)
    assert response.json()["path"].rstrip("/") == path.rstrip("/")
    assert "default-src 'self'" in response.headers["content-security-policy"]


async def test_only_what_gradio_needs_of_a_request_reaches_it(browser: httpx.AsyncClient) -> None:
    headers = KEY | {"Range": "bytes=0-1,2-3", "X-Direct-Url": "http://elsewhere"}
    response = await browser.get("/ui/?deep_link=../../secret&page=x", headers=headers)
    seen = response.json()
    assert seen["query"] == ""
    assert set(seen["headers"]) <= {"host", "accept", "accept-encoding"}


async def test_session_is_gradios_by_another_name(
    browser: httpx.AsyncClient, sessions: Sessions, visitor: Visitor
) -> None:
    mine = visitor.session("abc")
    seen = (await browser.get("/ui/gradio_api/heartbeat/abc")).json()
    assert seen["path"] == f"/ui/gradio_api/heartbeat/{mine}"
    seen = (await browser.get("/ui/gradio_api/queue/data?session_hash=abc")).json()
    assert seen["query"] == f"session_hash={mine}"
    event = {"fn_index": 0, "data": ["k"], "session_hash": "abc", "event_data": {"a": 1}}
    seen = (await browser.post(JOIN, json=event)).json()
    assert json.loads(seen["body"]) == {
        "fn_index": 0,
        "data": ["k"],
        "session_hash": mine,
        "event_data": None,
        "trigger_id": None,
    }
    assert mine != Visitor("another").session("abc")


async def test_large_or_endless_bodies_are_refused(browser: httpx.AsyncClient) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        yield b"x"

    await browser.get("/ui/gradio_api/heartbeat/abc")
    for body, status in ((bytes(80_000), 413), (endless(), 411)):
        response = await browser.post(UPLOAD, content=body, headers=KEY | OCTETS)
        assert response.status_code == status
    response = await browser.post(
        JOIN, content=bytes(80_000), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413


async def test_upload_needs_the_key_that_the_api_demands(
    browser: httpx.AsyncClient, uploads: UploadStore
) -> None:
    await browser.get("/ui/gradio_api/heartbeat/abc")
    refused = await browser.post(UPLOAD, content=b"x", headers=OCTETS)
    assert (refused.status_code, refused.json()["problem"]) == (401, "key_missing")
    assert uploads.num_bytes == 0
    accepted = await browser.post(UPLOAD, content=b"x", headers=KEY | OCTETS)
    assert accepted.status_code == 200
    assert uploads.num_ready == 1


SUBTITLES = "/ui/subtitles"
JSON = {"Content-Type": "application/json"}
TRANSCRIPT = {
    "format": "srt",
    "max_chars": None,
    "duration_ms": 2000,
    "sentences": [
        {"start": 0, "end": 1200, "text": "你好。", "words": [["你", 0, 500], ["好", 500, 1200]]}
    ],
}


async def test_edited_transcript_becomes_a_subtitle_file(browser: httpx.AsyncClient) -> None:
    await browser.get("/ui/gradio_api/heartbeat/abc")
    response = await browser.post(SUBTITLES, json=TRANSCRIPT, headers=KEY)
    assert response.status_code == 200
    assert response.text == "1\n00:00:00,000 --> 00:00:01,200\n你好。\n\n"


async def test_subtitles_need_the_key_that_the_api_demands(browser: httpx.AsyncClient) -> None:
    await browser.get("/ui/gradio_api/heartbeat/abc")
    response = await browser.post(SUBTITLES, json=TRANSCRIPT)
    assert (response.status_code, response.json()["problem"]) == (401, "key_missing")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"format": "srt"}',
        json.dumps(TRANSCRIPT | {"format": "exe"}).encode(),
        json.dumps(TRANSCRIPT | {"path": "/etc/passwd"}).encode(),
        json.dumps(TRANSCRIPT | {"max_chars": 10**9}).encode(),
        json.dumps(TRANSCRIPT | {"duration_ms": -1}).encode(),
        json.dumps(
            TRANSCRIPT | {"sentences": [{"start": 0, "end": 1, "text": "x", "words": [["", 0, 1]]}]}
        ).encode(),
        b'{"format": "srt", "sentences": [{"start": NaN, "end": 1, "text": "x"}]}',
        b"\xff\xfe",
    ],
    ids=lambda body: body[:40],
)
async def test_what_is_no_transcript_gets_one_clear_answer(
    browser: httpx.AsyncClient, body: bytes
) -> None:
    await browser.get("/ui/gradio_api/heartbeat/abc")
    response = await browser.post(SUBTITLES, content=body, headers=KEY | JSON)
    assert (response.status_code, response.json()["problem"]) == (400, "render_failed")


async def test_transcript_is_bounded_and_has_a_length(browser: httpx.AsyncClient) -> None:
    async def endless() -> AsyncGenerator[bytes]:
        yield b"x"

    await browser.get("/ui/gradio_api/heartbeat/abc")
    for body, headers, status in (
        (bytes(9 * 2**20), JSON, 413),
        (endless(), JSON, 411),
        (b"x", OCTETS, 415),
    ):
        response = await browser.post(SUBTITLES, content=body, headers=KEY | headers)
        assert response.status_code == status


async def test_sample_is_served_whole(browser: httpx.AsyncClient) -> None:
    response = await browser.get("/ui/sample", headers={"Range": "bytes=0-1"})
    assert (response.status_code, response.content) == (200, b"sounds")
    assert response.headers["content-type"] == "audio/flac"
    assert (await browser.post("/ui/sample", content=b"x")).status_code == 404


async def test_upload_needs_room(browser: httpx.AsyncClient) -> None:
    await browser.get("/ui/gradio_api/heartbeat/abc")
    statuses = [
        (await browser.post(UPLOAD, content=bytes(30_000), headers=KEY | OCTETS)).status_code
        for _ in range(2)
    ]
    assert statuses == [200, 503]


@pytest.mark.parametrize("sent", [b"x", b"xxxxxxxx"])
async def test_body_shorter_than_its_declared_length_is_refused(
    gate: PageGate, browser: httpx.AsyncClient, uploads: UploadStore, sent: bytes
) -> None:
    await browser.get("/ui/gradio_api/heartbeat/abc")
    headers = COOKIE | KEY | OCTETS | {"Content-Length": "5"}
    assert await status_of_raw(gate, UPLOAD, headers, sent) == 400
    assert uploads.num_bytes == 0
    headers |= {"Content-Type": "application/json"}
    assert await status_of_raw(gate, JOIN, headers, sent) == 400


async def status_of_raw(gate: PageGate, path: str, headers: dict[str, str], body: bytes) -> int:
    """Returns the status of a request whose headers and body need not agree."""
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        answers.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "root_path": "/ui", "headers": raw}
    await gate(scope, receive, send)
    return int(answers[0]["status"])


async def test_slow_bodies_are_not_waited_for(
    gate: PageGate, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.ui.receiving._IDLE_S", 0.01)
    await browser.get("/ui/gradio_api/heartbeat/abc")

    async def slow() -> AsyncGenerator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    length = {"Content-Length": "100"}
    for path, headers in ((UPLOAD, KEY | OCTETS), (JOIN, {"Content-Type": "application/json"})):
        response = await browser.post(path, content=slow(), headers=headers | length)
        assert response.status_code == 408


async def test_websockets_are_closed(gate: PageGate) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await gate({"type": "websocket", "path": "/ui/", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_missing_heartbeats_cancel_the_page_requests(
    browser: httpx.AsyncClient, visits: Visits, visitor: Visitor
) -> None:
    with ExitStack() as stack:
        left = stack.enter_context(visits.run(visitor.session("abc")))
        stays = stack.enter_context(visits.run(visitor.session("other")))
        await browser.get("/ui/gradio_api/heartbeat/abc")
        assert left.is_set()
        assert not stays.is_set()
