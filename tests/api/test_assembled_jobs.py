"""The application as the settings make it: with jobs on a real store, or without any trace."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from serve_app.api.resumable import PART_TYPE
from serve_app.api.routes import assemble_api
from serve_app.settings import Settings
from serve_app.settings.admission import AuthSettings
from serve_app.settings.jobs import JobSettings
from tests.api.job_client import wav
from tests.api.test_resumable import RECORDING, TUS
from tests.fakes.service import FakeService

pytest.importorskip("aiosqlite", reason="needs the extra `jobs`")


def assembled(storage: Path) -> FastAPI:
    settings = Settings(
        auth=AuthSettings(mode="off"), jobs=JobSettings(enabled=True, storage=str(storage))
    )
    return assemble_api(FakeService(), settings, logging.getLogger("tests.api"))


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_jobs_and_usage_outlive_the_application(tmp_path: Path) -> None:
    app = assembled(tmp_path / "jobs")
    async with app.router.lifespan_context(app), client_of(app) as client:
        made = await client.post(
            "/v1/jobs", data={"model": "whisper-1"}, files={"file": ("a.wav", wav())}
        )
        assert made.status_code == 202, made.text
        answer = await client.post(
            "/v1/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("a.wav", b"RIFF")},
        )
        assert answer.status_code == 200
    app = assembled(tmp_path / "jobs")
    async with app.router.lifespan_context(app), client_of(app) as client:
        shown = await client.get(made.headers["location"])
        assert shown.json() == made.json()
        usage = (await client.get("/v1/usage")).json()
        assert (usage["audio_s"], usage["num_requests"]) == (2.0, 1)
        assert (await client.delete(made.headers["location"])).status_code == 200
        assert (await client.get("/v1/jobs")).json()["data"] == []
    assert not list((tmp_path / "jobs").rglob("audio"))


async def test_upload_in_parts_becomes_a_job_on_the_real_store(tmp_path: Path) -> None:
    app = assembled(tmp_path / "jobs")
    async with app.router.lifespan_context(app), client_of(app) as client:
        headers = {**TUS, "Upload-Length": str(len(RECORDING))}
        path = (await client.post("/v1/uploads", headers=headers)).headers["location"]
        for start in range(0, len(RECORDING), 100_000):
            part = {**TUS, "Content-Type": PART_TYPE, "Upload-Offset": str(start)}
            piece = RECORDING[start : start + 100_000]
            assert (await client.patch(path, content=piece, headers=part)).status_code == 204
        fields = {"model": "whisper-1", "upload_id": path.rpartition("/")[2]}
        made = await client.post("/v1/jobs", json=fields, headers={"Idempotency-Key": "k"})
        again = await client.post("/v1/jobs", json=fields, headers={"Idempotency-Key": "k"})
        assert made.status_code == again.status_code == 202, made.text
        assert made.json()["id"] == again.json()["id"]
        assert made.json()["progress"]["total_audio_s"] == pytest.approx(10.0)
        assert (await client.delete(path, headers=TUS)).status_code == 404
        await client.delete(made.headers["location"])
    assert not list((tmp_path / "jobs").rglob("part-*"))


def test_without_jobs_no_database_is_imported() -> None:
    code = (
        "import logging, sys\n"
        "from serve_app.api.routes import assemble_api\n"
        "from serve_app.settings import Settings\n"
        "from serve_app.settings.admission import AuthSettings\n"
        "from tests.fakes.service import FakeService\n"
        "settings = Settings(auth=AuthSettings(mode='off'))\n"
        "assemble_api(FakeService(), settings, logging.getLogger())\n"
        "loaded = {'sqlalchemy', 'alembic', 'fsspec', 'serve_app.jobs.store'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
