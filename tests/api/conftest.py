from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from serve_app.api.limits import ApiLimits
from serve_app.api.routes import build_api
from tests.api.job_client import JobApi, job_api
from tests.fakes.observer import EndedRequests
from tests.fakes.service import FakeService

MAX_UPLOAD_BYTES = 100_000


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def ended() -> EndedRequests:
    return EndedRequests()


@pytest.fixture
async def client(service: FakeService, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    limits = ApiLimits(MAX_UPLOAD_BYTES, request_timeout_s=30, spool_dir=tmp_path)
    app = build_api(service, limits, logging.getLogger("tests.api"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[JobApi]:
    async with job_api(tmp_path) as api:
        yield api
