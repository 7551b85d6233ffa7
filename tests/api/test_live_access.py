"""Who may open live sessions, and what everyone else is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from serve_app.api.auth import Caller, KeyDefaults, KeyFile
from serve_app.api.client_secrets import MAX_CHARS, ClientSecrets
from serve_app.core.errors import InvalidParameter, Overloaded, Unauthenticated
from serve_app.settings.keys import KeyEntry, add_key, hash_of, new_key
from tests.api.live import LOGGER, LiveService, live_service, next_event
from tests.api.sockets import PATIENCE_S

KEY, OTHER, DISABLED, EXPIRED = (new_key() for _ in range(4))
PAGE = "https://app.example.com"
PATHS = ["", "/funasr"]


def key_file(directory: Path, **times: Any) -> KeyFile:
    path = directory / "keys.yaml"
    if not path.exists():
        add_key(path, KeyEntry(name="team-a", sha256=hash_of(KEY), weight=2.0))
        add_key(path, KeyEntry(name="team-b", sha256=hash_of(OTHER)))
        add_key(path, KeyEntry(name="team-c", sha256=hash_of(DISABLED), disabled=True))
        add_key(
            path,
            KeyEntry(
                name="team-d", sha256=hash_of(EXPIRED), expires=datetime(2020, 1, 1, tzinfo=UTC)
            ),
        )
    return KeyFile(path, KeyDefaults(), LOGGER, **times)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[LiveService]:
    async with live_service(
        authenticator=key_file(tmp_path),
        http={"cors_origins": (PAGE,), "allowed_hosts": ("stt.example.com",)},
    ) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def refusal(service: LiveService, path: str = "", **options: Any) -> tuple[int, str]:
    """Returns status and code of a refused handshake."""
    with pytest.raises(InvalidStatus) as refused:
        async with connect(service.socket_url(path), **options):
            pass
    response = refused.value.response
    return response.status_code, json.loads(response.body or b"{}")["error"]["code"]


async def close_of(service: LiveService, path: str = "", **options: Any) -> tuple[int, str]:
    """Returns the close frame of a connection that a page is refused."""
    async with connect(service.socket_url(path), **options) as socket:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ConnectionClosed):
                await socket.recv()
        return socket.close_code or 0, socket.close_reason or ""


async def client_secret(service: LiveService, key: str = KEY, **body: Any) -> str:
    async with httpx.AsyncClient(base_url=service.base_url) as http:
        response = await http.post("/realtime/client_secrets", json=body, headers=bearer(key))
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    value: str = response.json()["value"]
    return value


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (401, "invalid_api_key")),
        (bearer("psk_unknown"), (401, "invalid_api_key")),
        (bearer("sk-proj-abc"), (401, "invalid_api_key")),
        (bearer("ek_forged.AA.AA"), (401, "invalid_api_key")),
        (bearer("ek_"), (401, "invalid_api_key")),
        ({"Authorization": f"Basic {KEY}"}, (401, "invalid_api_key")),
        (bearer(DISABLED), (403, "key_not_allowed")),
        (bearer(EXPIRED), (403, "key_not_allowed")),
    ],
)
async def test_handshake_without_a_valid_key_is_refused(
    service: LiveService, path: str, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    assert await refusal(service, path, additional_headers=headers) == expected
    assert service.sessions.opened == []
    assert [log.status for log in service.ended.logs] == [expected[0]]


@pytest.mark.parametrize("path", PATHS)
async def test_key_opens_a_session_under_its_name(service: LiveService, path: str) -> None:
    headers = bearer(KEY) | {"X-Request-ID": "abc"}
    async with connect(service.socket_url(path), additional_headers=headers) as socket:
        context = (await service.session()).context
        assert socket.response is not None
        assert socket.response.headers["X-Request-ID"] == "abc"
    assert (context.key, context.weight, context.request_id) == ("team-a", 2.0, "abc")


async def test_key_in_the_query_is_none(service: LiveService) -> None:
    with pytest.raises(InvalidStatus):
        async with connect(service.socket_url("", f"?intent=transcription&api_key={KEY}")):
            pass


@pytest.mark.parametrize("path", PATHS)
async def test_page_connects_with_a_client_secret(service: LiveService, path: str) -> None:
    value = await client_secret(service)
    name = "realtime" if not path else "binary"
    async with connect(
        service.socket_url(path),
        origin=PAGE,  # type: ignore[arg-type]
        subprotocols=[Subprotocol(name), Subprotocol(f"openai-insecure-api-key.{value}")],
    ) as socket:
        assert socket.subprotocol == name
        assert (await service.session()).context.key == "team-a"


async def test_secret_brings_its_session(service: LiveService) -> None:
    keywords = [f"热词{number}" for number in range(60)]
    value = await client_secret(
        service,
        session={
            "type": "transcription",
            "audio": {"input": {"transcription": {"keywords": keywords}}},
        },
    )
    async with connect(service.socket_url(), additional_headers=bearer(value)):
        options = (await service.session()).options
    assert [word.text for word in options.recognition_options.hotwords] == keywords


async def test_secret_opens_sessions_and_nothing_else(service: LiveService) -> None:
    value = await client_secret(service)
    async with httpx.AsyncClient(base_url=service.base_url) as http:
        for path in ("client_secrets", "transcription_sessions"):
            response = await http.post(f"/realtime/{path}", json={}, headers=bearer(value))
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "key", [None, "psk_unknown", DISABLED], ids=["none", "unknown", "disabled"]
)
async def test_secret_needs_a_key(service: LiveService, key: str | None) -> None:
    headers = {} if key is None else bearer(key)
    async with httpx.AsyncClient(base_url=service.base_url) as http:
        response = await http.post("/realtime/client_secrets", json={}, headers=headers)
    assert response.status_code in (401, 403)
    assert "value" not in response.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"expires_after": {"seconds": 5}}, "expires_after.seconds"),
        ({"expires_after": {"seconds": 10**9}}, "expires_after.seconds"),
        ({"expires_after": {"seconds": "60"}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "now"}}, "expires_after"),
        ({"expires_after": 60}, "expires_after"),
        ({"session": {"type": "realtime"}}, "session.type"),
        ({"session": []}, "session"),
    ],
)
async def test_bad_request_for_a_secret_is_one_error(
    service: LiveService, body: dict[str, Any], param: str
) -> None:
    async with httpx.AsyncClient(base_url=service.base_url) as http:
        response = await http.post("/realtime/client_secrets", json=body, headers=bearer(KEY))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b"[" * 50_000, b" " * 70_000 + b"{}"])
async def test_body_that_is_no_object_is_one_error(service: LiveService, content: bytes) -> None:
    async with httpx.AsyncClient(base_url=service.base_url) as http:
        response = await http.post("/realtime/client_secrets", content=content, headers=bearer(KEY))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "malformed_body"


async def test_foreign_page_is_refused(service: LiveService) -> None:
    options: dict[str, Any] = {"origin": "https://evil.example", "additional_headers": bearer(KEY)}
    assert await refusal(service, **options) == (403, "origin_not_allowed")
    assert await refusal(service, **options | {"origin": "null"}) == (403, "origin_not_allowed")


async def test_page_of_the_service_itself_connects(service: LiveService) -> None:
    origin: Any = f"http://127.0.0.1:{service.port}"
    async with connect(service.socket_url(), origin=origin, additional_headers=bearer(KEY)):
        pass
    other: Any = f"http://127.0.0.1:{service.port + 1}"
    assert await refusal(service, origin=other, additional_headers=bearer(KEY)) == (
        403,
        "origin_not_allowed",
    )


async def test_page_is_told_by_a_close_code(service: LiveService) -> None:
    page: dict[str, Any] = {"origin": PAGE}
    forged = [Subprotocol("realtime"), Subprotocol("openai-insecure-api-key.ek_a.b.c")]
    assert await close_of(service, **page) == (4401, "invalid_api_key")
    assert await close_of(service, subprotocols=forged, **page) == (4401, "invalid_api_key")
    disabled = bearer(DISABLED)
    assert await close_of(service, additional_headers=disabled, **page) == (
        4403,
        "key_not_allowed",
    )
    service.sessions.refusal = Overloaded(2)
    assert await close_of(service, additional_headers=bearer(KEY), **page) == (4429, "overloaded")


async def test_host_is_checked(service: LiveService) -> None:
    headers = bearer(KEY)
    async with httpx.AsyncClient(base_url=service.base_url) as http:
        response = await http.get(
            "/realtime",
            headers={
                **headers,
                "Host": "evil.example",
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            },
        )
    assert response.status_code == 421
    assert response.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize("path", ["/", "/nothing", "/client_secrets"])
async def test_other_paths_are_no_websockets(service: LiveService, path: str) -> None:
    if path == "/":
        async with connect(service.socket_url(path), additional_headers=bearer(KEY)) as socket:
            assert (await next_event(socket))["type"] == "session.created"
        return
    with pytest.raises(InvalidStatus) as refused:
        async with connect(service.socket_url(path), additional_headers=bearer(KEY)):
            pass
    assert refused.value.response.status_code in (403, 404)


async def test_plain_request_for_a_websocket_is_an_error(service: LiveService) -> None:
    async with httpx.AsyncClient(base_url=service.base_url) as http:
        response = await http.get("/realtime", headers=bearer(KEY))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_secret_expires(tmp_path: Path) -> None:
    clock = Clock()
    secrets = ClientSecrets(key_file(tmp_path), 600, clock)
    secret = secrets.make(Caller("team-a"), {}, 60)
    assert secret.expires_unix_s == 1_000_060
    clock.now += 59
    assert secrets.open(secret.value).caller.weight == 2.0
    clock.now += 1
    with pytest.raises(Unauthenticated, match="expired"):
        secrets.open(secret.value)


def test_any_process_with_the_keys_verifies_a_secret(tmp_path: Path) -> None:
    value = ClientSecrets(key_file(tmp_path), 600).make(Caller("team-b"), {"a": 1}, None).value
    opened = ClientSecrets(key_file(tmp_path), 600).open(value)
    assert (opened.caller.name, opened.session) == ("team-b", {"a": 1})


def test_secret_ends_with_its_key(tmp_path: Path) -> None:
    keys = key_file(tmp_path)
    value = ClientSecrets(keys, 600).make(Caller("team-a"), {}, None).value
    path = tmp_path / "keys.yaml"
    path.write_text(path.read_text().replace(hash_of(KEY), hash_of(new_key())))
    with pytest.raises(Unauthenticated):
        ClientSecrets(keys, 600).open(value)


def test_secret_of_one_key_is_not_signed_for_another(tmp_path: Path) -> None:
    secrets = ClientSecrets(key_file(tmp_path), 600)
    one = secrets.make(Caller("team-a"), {}, None).value.split(".")
    two = secrets.make(Caller("team-b"), {}, None).value.split(".")
    for forged in (
        [two[0], one[1], one[2]],
        [one[0], two[1], one[2]],
        [one[0], one[1], two[2]],
        [one[0], one[1], ""],
        [one[0], one[1], one[2][:-2]],
    ):
        with pytest.raises(Unauthenticated):
            secrets.open(".".join(forged))


@pytest.mark.parametrize(
    "value", ["", "ek_", "ek_..", "ek_é.b.c", "ek_a.b", "ek_" + "a" * MAX_CHARS, "ek_\ud800.a.b"]
)
def test_what_is_no_secret_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(Unauthenticated):
        ClientSecrets(key_file(tmp_path), 600).open(value)


def test_session_that_no_header_could_carry_is_refused(tmp_path: Path) -> None:
    secrets = ClientSecrets(key_file(tmp_path), 600)
    session = {"words": [new_key() for _ in range(300)]}
    with pytest.raises(InvalidParameter, match="keywords"):
        secrets.make(Caller("team-a"), session, None)
