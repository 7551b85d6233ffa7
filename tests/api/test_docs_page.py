"""`/docs` is served whole by the service itself."""

from __future__ import annotations

import re

import httpx
import pytest
from fastapi import FastAPI

from serve_app.api.docs_page import add_document, add_page_redirect

pytest.importorskip("fastapi_offline", reason="a dependency of the project: pip install -e .")


async def test_page_loads_only_files_of_the_service(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    loaded = re.findall(r'(?:src|href)="(/docs/[^"]+)"', page.text)
    assert len(loaded) == 3
    for address in loaded:
        answer = await client.get(address)
        assert answer.status_code == 200, address
        assert answer.headers["content-type"].startswith(("text/css", "text/javascript"))
        assert len(answer.content) > 100


async def test_page_allows_no_scripts_but_the_services_own(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/docs")).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "<script>" not in (await client.get("/docs")).text


async def test_nothing_else_of_the_package_is_served(client: httpx.AsyncClient) -> None:
    for name in ("redoc.standalone.js", "docs.html", "..%2fcore.py", "favicon.png"):
        answer = await client.get(f"/docs/{name}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
    assert (await client.get("/redoc")).status_code == 404


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/docs/start.js"])
async def test_documents_may_be_cached_by_the_proxy(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.headers["cache-control"].startswith("public, max-age=")
    assert "vary" not in answer.headers


async def test_document_is_not_sent_again_to_a_client_that_has_it(
    client: httpx.AsyncClient,
) -> None:
    first = await client.get("/openapi.json")
    assert first.headers["content-type"] == "application/json"
    known = {"If-None-Match": first.headers["etag"]}
    again = await client.get("/openapi.json", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    other = await client.get("/openapi.json", headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)


async def test_document_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI(openapi_url=None)
    num_written = 0

    def write() -> dict[str, str]:
        nonlocal num_written
        num_written += 1
        return {"openapi": "3.1.0"}

    monkeypatch.setattr(app, "openapi", write)
    add_document(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for _ in range(5):
            assert (await client.get("/openapi.json")).json() == {"openapi": "3.1.0"}
    assert num_written == 1
    prefixed = httpx.ASGITransport(app, root_path="/stt")
    async with httpx.AsyncClient(transport=prefixed, base_url="http://x") as client:
        servers = (await client.get("/stt/openapi.json")).json()["servers"]
    assert servers == [{"url": "/stt"}]


@pytest.mark.parametrize(
    ("root_path", "expected"), [(None, "/ui/"), ("/speech/page", "/speech/page/")]
)
async def test_root_leads_to_the_web_page(root_path: str | None, expected: str) -> None:
    app = FastAPI()
    add_page_redirect(app, "/ui", root_path)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, expected)


async def test_root_is_not_found_without_the_web_page(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).status_code == 404
