"""`/docs` is served whole by the service itself."""

from __future__ import annotations

import re

import httpx
import pytest

pytest.importorskip("fastapi_offline", reason="a dependency of the project: pip install -e .")


async def test_page_loads_only_what_the_service_has(client: httpx.AsyncClient) -> None:
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
