"""Web pages of other origins: refused unless they are set, then answered in full."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from serve_app.api.auth import KeyDefaults, KeyFile
from serve_app.api.limits import ApiLimits
from serve_app.api.routes import AccessRules, build_api
from serve_app.settings import HttpSettings
from serve_app.settings.keys import KeyEntry, add_key, hash_of, new_key
from tests.fakes.service import FAILED_RANGE, FakeService, sentence

URL = "/v1/audio/transcriptions"
ORIGIN = "https://app.example.com"
KEY = new_key()
ASKED = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, x-paraserve-timeout-s",
}


def client_of(tmp_path: Path, *origins: str) -> TestClient:
    keys = tmp_path / "keys.yaml"
    add_key(keys, KeyEntry(name="team-a", sha256=hash_of(KEY)))
    logger = logging.getLogger("tests.api")
    service = FakeService()
    service.events = [sentence("你好", 0), FAILED_RANGE]
    app = build_api(
        service,
        ApiLimits(100_000, request_timeout_s=30, spool_dir=tmp_path),
        logger,
        authenticator=KeyFile(keys, KeyDefaults(), logger),
        access=AccessRules(cors_origins=origins),
    )
    return TestClient(app)


@pytest.mark.parametrize("origins", [(ORIGIN,), ("https://other.example.com", ORIGIN), ("*",)])
def test_preflight_is_answered_without_a_key(tmp_path: Path, origins: tuple[str, ...]) -> None:
    answer = client_of(tmp_path, *origins).options(URL, headers=ASKED)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] in {ORIGIN, "*"}
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    for name in ("authorization", "content-type", "x-paraserve-timeout-s"):
        assert name in allowed


def test_answer_and_its_headers_can_be_read(tmp_path: Path) -> None:
    answer = client_of(tmp_path, ORIGIN).post(
        URL,
        data={"model": "whisper-1"},
        files={"file": b"RIFF"},
        headers={"Origin": ORIGIN, "Authorization": f"Bearer {KEY}"},
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
    for name in ("x-request-id", "x-paraserve-partial", "x-paraserve-warning"):
        assert name in answer.headers
        assert name in exposed


def test_refusal_for_the_key_can_be_read(tmp_path: Path) -> None:
    answer = client_of(tmp_path, ORIGIN).get("/v1/models", headers={"Origin": ORIGIN})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://app.example.com"])
def test_other_origins_get_no_cors_headers(tmp_path: Path, origin: str) -> None:
    client = client_of(tmp_path, ORIGIN)
    preflight = client.options(URL, headers=ASKED | {"Origin": origin})
    assert preflight.status_code == 400
    headers = {"Origin": origin, "Authorization": f"Bearer {KEY}"}
    answer = client.get("/v1/models", headers=headers)
    assert "access-control-allow-origin" not in answer.headers


def test_it_is_off_unless_set(tmp_path: Path) -> None:
    client = client_of(tmp_path)
    assert client.options(URL, headers=ASKED).status_code == 401
    answer = client.get("/healthz", headers={"Origin": ORIGIN})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origin", ["app.example.com", "https://a/b", "https://a,https://b", ""])
def test_invalid_origin_in_a_setting_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError):
        HttpSettings(cors_origins=(origin,))


@pytest.mark.parametrize("host", ["https://a", "a/b", "*", "a b", "*.", ""])
def test_invalid_host_in_a_setting_is_refused(host: str) -> None:
    with pytest.raises(ValidationError):
        HttpSettings(allowed_hosts=(host,))
