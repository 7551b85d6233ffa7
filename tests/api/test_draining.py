"""While the service is being stopped, new requests are refused and old ones counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from serve_app.api.draining import DrainMiddleware
from serve_app.core.in_flight import InFlightCounter, begin_draining, num_in_flight

PATHS = ["/v1/models", "/fast/v1/models", "/ui/", "/docs"]


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[InFlightCounter]:
    counter = InFlightCounter(tmp_path)
    yield counter
    counter.close()


class Service:
    """Answers every path, once it is let."""

    def __init__(self, counter: InFlightCounter | None) -> None:
        self.entered = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()
        app = Starlette(routes=[Route("/{path:path}", self._answer)])
        transport = httpx.ASGITransport(app=DrainMiddleware(app, counter))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://x")

    async def _answer(self, request: Request) -> PlainTextResponse:
        self.entered.set()
        await self.let.wait()
        return PlainTextResponse("answered")


@pytest.mark.parametrize("path", PATHS)
async def test_new_request_is_refused_in_the_shape_of_the_api(
    counter: InFlightCounter, tmp_path: Path, path: str
) -> None:
    service = Service(counter)
    assert (await service.client.get(path)).text == "answered"
    begin_draining(tmp_path)
    response = await service.client.get(path)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["error"]["code"] == "shutting_down"
    assert num_in_flight(tmp_path) == 0


async def test_running_request_is_counted_and_gets_its_answer(
    counter: InFlightCounter, tmp_path: Path
) -> None:
    service = Service(counter)
    service.let.clear()
    answer = asyncio.create_task(service.client.get("/v1/audio/transcriptions"))
    await service.entered.wait()
    begin_draining(tmp_path)
    assert (await service.client.get("/v1/models")).status_code == 503
    assert num_in_flight(tmp_path) == 1
    service.let.set()
    assert (await answer).text == "answered"
    assert num_in_flight(tmp_path) == 0


async def test_open_pages_are_not_waited_for(counter: InFlightCounter, tmp_path: Path) -> None:
    service = Service(counter)
    service.let.clear()
    page = asyncio.create_task(service.client.get("/ui/gradio_api/queue/data"))
    await service.entered.wait()
    assert num_in_flight(tmp_path) == 0
    service.let.set()
    await page


@pytest.mark.parametrize("path", ["/-/healthz", "/healthz"])
async def test_process_answers_liveness_probes_while_draining(
    counter: InFlightCounter, tmp_path: Path, path: str
) -> None:
    begin_draining(tmp_path)
    assert (await Service(counter).client.get(path)).text == "answered"


async def test_requests_are_not_counted_without_a_counter() -> None:
    assert (await Service(None).client.get("/v1/models")).text == "answered"
