from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from fastapi.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from serve_app.ui.client import ApiClient
from serve_app.ui.gate import PageGate
from serve_app.ui.uploads import UploadStore
from serve_app.ui.visits import Visits
from tests.ui.scripted_api import ScriptedApi

KEY = "psk_x"
UPLOAD = "/ui/gradio_api/upload"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("gradio")(scope, receive, send)


@pytest.fixture
def visits() -> Visits:
    return Visits()


@pytest.fixture
def browser(tmp_path: Path, visits: Visits) -> httpx.AsyncClient:
    api = ApiClient("http://api", 10, httpx.ASGITransport(ScriptedApi(key=KEY).app()))
    gate = PageGate(answer, UploadStore(tmp_path, 50_000), api, visits, 40_000)
    transport = httpx.ASGITransport(gate, root_path="/ui")
    return httpx.AsyncClient(transport=transport, base_url="http://page")


@pytest.mark.parametrize(
    "path",
    [
        "/ui/gradio_api/file=/etc/passwd",
        "/ui/gradio_api/proxy=http://elsewhere/",
        "/ui/gradio_api/info",
        "/ui/gradio_api/openapi.json",
        "/ui/gradio_api/run-history/records",
        "/ui/monitoring",
        "/ui/login",
    ],
)
async def test_what_the_page_does_not_need_is_not_there(
    browser: httpx.AsyncClient, path: str
) -> None:
    assert (await browser.get(path)).status_code == 404
    assert (await browser.post(path, content=b"{}")).status_code == 404


@pytest.mark.parametrize("path", ["/ui/", "/ui", "/ui/config", "/ui/assets/index.js"])
async def test_page_and_its_parts_pass_with_a_policy(browser: httpx.AsyncClient, path: str) -> None:
    response = await browser.get(path)
    assert response.text == "gradio"
    assert "default-src 'self'" in response.headers["content-security-policy"]


async def test_large_or_endless_bodies_are_refused(browser: httpx.AsyncClient) -> None:
    key = {"Authorization": f"Bearer {KEY}"}

    async def endless() -> AsyncGenerator[bytes]:
        yield b"x"

    for body in (bytes(80_000), endless()):
        response = await browser.post(UPLOAD, content=body, headers=key)
        assert (response.status_code, response.json()["problem"]) == (413, "too_large")
    response = await browser.post("/ui/gradio_api/queue/join", content=bytes(5 * 2**20))
    assert response.status_code == 413


async def test_upload_needs_the_key_that_the_api_demands(browser: httpx.AsyncClient) -> None:
    refused = await browser.post(UPLOAD, content=b"x")
    assert (refused.status_code, refused.json()["problem"]) == (401, "key_missing")
    accepted = await browser.post(UPLOAD, content=b"x", headers={"Authorization": f"Bearer {KEY}"})
    assert accepted.text == "gradio"


async def test_upload_needs_room(browser: httpx.AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(bytes(30_000))
    headers = {"Authorization": f"Bearer {KEY}"}
    refused = await browser.post(UPLOAD, content=bytes(30_000), headers=headers)
    assert (refused.status_code, refused.json()["problem"]) == (503, "page_busy")


async def test_end_of_a_heartbeat_ends_what_runs_for_that_page(
    browser: httpx.AsyncClient, visits: Visits
) -> None:
    with visits.run("abc") as left, visits.run("other") as stays:
        await browser.get("/ui/gradio_api/heartbeat/abc")
        assert left.is_set()
        assert not stays.is_set()
