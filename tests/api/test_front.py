"""What no request gets past, and what no failure gets out as."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api import flow
from serve_app.api.auth import AuthenticationMiddleware, KeyDefaults, KeyFile
from serve_app.api.front import FrontMiddleware
from serve_app.api.limits import ApiLimits
from serve_app.api.routes import AccessRules, build_api
from serve_app.settings.keys import KeyEntry, add_key, hash_of, new_key
from tests.api.sockets import PATIENCE_S, answer_of, served
from tests.fakes.observer import EndedRequests
from tests.fakes.service import FakeService

LOGGER = logging.getLogger("tests.api")
URL = "/v1/audio/transcriptions"
Headers = Sequence[tuple[bytes, bytes]]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def app(service: FakeService, ended: EndedRequests, tmp_path: Path) -> ASGIApp:
    limits = ApiLimits(100_000, request_timeout_s=30, spool_dir=tmp_path)
    return build_api(service, limits, LOGGER, observer=ended)


def http_scope(**changes: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/models",
        "raw_path": b"/v1/models",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **changes,
    }


async def sent_by(app: ASGIApp, scope: dict[str, Any], body: bytes = b"") -> list[Message]:
    """Returns what the application sends, called as a server would."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    async with asyncio.timeout(20):
        await app(scope, receive, send)
    return sent


def status_and_error(sent: list[Message]) -> tuple[int, dict[str, Any]]:
    body = b"".join(message.get("body", b"") for message in sent[1:])
    parsed = json.loads(body)
    assert set(parsed) == {"error"}
    assert set(parsed["error"]) == {"message", "type", "param", "code"}
    assert dict(sent[0]["headers"])[b"content-type"] == b"application/json"
    return sent[0]["status"], parsed["error"]


@pytest.mark.parametrize("method", ["BREW", "get", "PROPFIND", "A" * 1000, "GET\r\nX: y", "", "ÄÖ"])
async def test_method_that_http_does_not_know_is_a_405(
    app: ASGIApp, ended: EndedRequests, method: str
) -> None:
    status, error = status_and_error(await sent_by(app, http_scope(method=method)))
    assert (status, error["code"]) == (405, "method_not_allowed")
    # Nothing of it becomes a label or a line of the log.
    (log,) = ended.logs
    assert (log.status, log.code) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"headers": [(b"x-%d" % n, b"1") for n in range(500)]}, 431, "headers_too_large"),
        ({"headers": [(b"x", b"a" * 20_000)]}, 431, "headers_too_large"),
        ({"headers": [(b"a" * 20_000, b"")]}, 431, "headers_too_large"),
        ({"headers": [(b"x", b"a\r\nSet-Cookie: b")]}, 400, "invalid_request_head"),
        ({"headers": [(b"x\xff", b"a")]}, 400, "invalid_request_head"),
        ({"headers": [(b"authorization", b"a"), (b"Authorization", b"b")]}, 400, None),
        ({"headers": [(b"host", b"a"), (b"host", b"b")]}, 400, "invalid_request_head"),
        ({"query_string": b"a=\r\nSet-Cookie: b"}, 400, "invalid_request_head"),
        ({"query_string": b"a=\x00"}, 400, "invalid_request_head"),
        ({"query_string": b"a=\xff"}, 400, "invalid_request_head"),
        ({"path": "/v1/models/a\r\nb"}, 400, "invalid_request_head"),
        ({"query_string": b"a" * 20_000}, 414, "uri_too_long"),
        ({"path": "/" + "a" * 20_000, "raw_path": b"/" + b"a" * 20_000}, 414, "uri_too_long"),
    ],
)
async def test_head_that_breaks_a_bound_is_refused(
    app: ASGIApp, ended: EndedRequests, changes: dict[str, Any], status: int, code: str | None
) -> None:
    found, error = status_and_error(await sent_by(app, http_scope(**changes)))
    assert found == status
    assert code is None or error["code"] == code
    assert [log.status for log in ended.logs] == [status]


@pytest.mark.parametrize(
    "given",
    [b"a\xff", b"a b", b"a" * 129, b"", b"<script>", b"a%0d%0aSet-Cookie:x", b"\xe2\x80\xa8"],
)
async def test_malformed_request_id_is_replaced(app: ASGIApp, given: bytes) -> None:
    sent = await sent_by(app, http_scope(headers=[(b"X-Request-ID", given)]))
    ids = [value for name, value in sent[0]["headers"] if name.lower() == b"x-request-id"]
    assert len(ids) == 1
    assert ids[0] != given
    assert len(ids[0]) == 32


async def test_request_id_is_the_same_in_answer_and_log(
    app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    scope = http_scope(method="POST", path=URL, headers=[(b"x-request-id", b"a\xff")])
    with caplog.at_level(logging.INFO, "tests.api"):
        sent = await sent_by(app, scope, b"{}")
    (shown,) = [value for name, value in sent[0]["headers"] if name.lower() == b"x-request-id"]
    logged = {record.__dict__["paraserve_request_id"] for record in caplog.records}
    assert logged == {shown.decode()}


class Failing:
    """An application that fails, before its answer or in the middle of it."""

    def __init__(self, error: Exception, *, begun: bool = False) -> None:
        self._error = error
        self._begun = begun

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise self._error


@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "x"), KeyError()]
)
async def test_any_exception_is_a_500_in_json_logged_and_counted(
    ended: EndedRequests, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    front = FrontMiddleware(Failing(error), LOGGER, ended)
    status, told = status_and_error(await sent_by(front, http_scope()))
    assert (status, told["code"], told["type"]) == (500, "internal_error", "server_error")
    assert "secret" not in told["message"]
    assert [(log.status, log.code) for log in ended.logs] == [(500, "internal_error")]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_failure_in_the_middle_of_an_answer_breaks_it_off(
    ended: EndedRequests, caplog: pytest.LogCaptureFixture
) -> None:
    front = FrontMiddleware(Failing(RuntimeError(), begun=True), LOGGER, ended)
    with pytest.raises(RuntimeError):
        await sent_by(front, http_scope())
    assert [log.code for log in ended.logs] == ["internal_error"]
    assert caplog.records


async def test_failure_of_any_route_is_a_500_in_json(
    app: ASGIApp, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError

    monkeypatch.setattr(FakeService, "offer", property(lambda self: fail()))
    monkeypatch.setattr(service, "readiness", fail)
    for path in ("/v1/models", "/v1/models/a", "/readyz"):
        status, _ = status_and_error(await sent_by(app, http_scope(path=path)))
        assert status == 500


async def test_ray_runs_the_same_checks_before_it_labels_its_metrics() -> None:
    seen: list[Scope] = []

    async def ray(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app: ASGIApp = ray
    for middleware in flow.http_middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    status, _ = status_and_error(await sent_by(app, http_scope(method="INVENTED")))
    assert (status, seen) == (405, [])
    headers = [
        (b"X-Request-Disconnect-Disabled", b"?1"),
        (b"serve_multiplexed_model_id", b"a"),
        (b"x-request-id", b"\xff"),
        (b"x-kept", b"1"),
    ]
    await sent_by(app, http_scope(headers=headers))
    (scope,) = seen
    assert [name for name, _ in scope["headers"]] == [b"x-kept", b"x-request-id"]


@pytest.mark.parametrize("kind", ["websocket", "webtransport", "http3.datagram"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/realtime", "/healthz", "/anything"])
async def test_connections_other_than_http_do_not_get_in(
    ended: EndedRequests, tmp_path: Path, kind: str, path: str
) -> None:
    keys = tmp_path / "keys.yaml"
    key = new_key()
    add_key(keys, KeyEntry(name="team-a", sha256=hash_of(key)))

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("it got in")

    ring = KeyFile(keys, KeyDefaults(), LOGGER)
    protected = AuthenticationMiddleware(behind, ring, LOGGER, ended)
    for app in (protected, FrontMiddleware(protected, LOGGER, ended)):
        # Also with a good key: nothing here speaks such a protocol.
        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope = {"type": kind, "path": path, "headers": headers, "root_path": ""}
        sent = await sent_by(app, scope)
        if kind == "websocket":
            assert [message["type"] for message in sent] == ["websocket.close"]
            assert sent[0]["code"] == 1008
        else:
            assert sent == []
    assert [log.code for log in ended.logs] == ["protocol_not_allowed"] * 2


def client_of(service: FakeService, doors: AccessRules) -> httpx.AsyncClient:
    limits = ApiLimits(100_000, request_timeout_s=30, spool_dir=None)
    app = build_api(service, limits, LOGGER, access=doors)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("asr.example.com", True),
        ("ASR.example.com.:8443", True),
        ("a.b.internal", True),
        ("internal", False),
        ("xinternal", False),
        ("evil.example", False),
        ("asr.example.com.evil.example", False),
        ("127.0.0.1:8000", True),
        ("localhost:8000", True),
        ("[::1]:8000", True),
        ("127.0.0.1.evil.example", False),
        ("192.0.2.1", False),
        ("", False),
    ],
)
async def test_host_must_be_one_of_those_that_are_set(
    service: FakeService, host: str, passes: bool
) -> None:
    doors = AccessRules(allowed_hosts=("asr.example.com", "*.internal"))
    async with client_of(service, doors) as client:
        answer = await client.get("/v1/models", headers={"Host": host})
    if passes:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 421
        assert answer.json()["error"]["code"] == "host_not_allowed"


async def test_any_host_passes_unless_some_are_set(service: FakeService) -> None:
    async with client_of(service, AccessRules()) as client:
        assert (await client.get("/healthz", headers={"Host": "any"})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/healthz", "/health", "/v1/models", "/openapi.json"])
async def test_head_is_served_where_get_is(service: FakeService, path: str) -> None:
    async with client_of(service, AccessRules()) as client:
        got, head = await client.get(path), await client.head(path)
    assert head.status_code == got.status_code
    assert head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"]


async def test_connection_goes_on_after_head(app: ASGIApp) -> None:
    async with served(app) as port:
        request = "%s /v1/models HTTP/1.1\r\nHost: x\r\n%s\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((request % ("HEAD", "")).encode())
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        writer.write((request % ("GET", "Connection: close\r\n")).encode())
        assert (await answer_of(reader)).status == 200
        writer.close()


async def test_trailing_slash_is_accepted_without_a_redirect(service: FakeService) -> None:
    async with client_of(service, AccessRules()) as client:
        answer = await client.post(f"{URL}/", data={"model": "whisper-1"}, files={"file": b"RIFF"})
        assert answer.status_code == 200
        assert answer.json()["text"] == "你好。再见。"
        for path in ("/v1/models", "/v1/models/whisper-1", "/healthz", "/readyz", "/docs"):
            plain, slash = await client.get(path), await client.get(f"{path}/")
            assert (slash.status_code, slash.content) == (200, plain.content)


async def test_name_of_a_model_may_have_slashes(service: FakeService) -> None:
    service.other_models = ("ms:iic/some_model", "dir:/models/own")
    async with client_of(service, AccessRules()) as client:
        for name in service.other_models:
            for path in (name, name.replace("/", "%2F"), f"{name}/"):
                answer = await client.get(f"/v1/models/{path}")
                assert answer.status_code == 200, path
                assert answer.json()["id"] == name
        missing = await client.get("/v1/models/no/such/model")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/v1/nothing/", 404),
        ("DELETE", "/v1/models", 405),
        ("PUT", URL, 405),
        ("OPTIONS", URL, 405),
        ("TRACE", "/healthz", 405),
    ],
)
async def test_unknown_paths_and_methods_get_json_errors(
    app: ASGIApp, method: str, path: str, status: int
) -> None:
    scope = http_scope(method=method, path=path, raw_path=path.encode())
    found, error = status_and_error(await sent_by(app, scope))
    assert found == status
    assert error["type"] == "invalid_request_error"
