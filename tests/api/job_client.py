"""The API with jobs in memory, and two keys whose callers must not see each other."""

from __future__ import annotations

import io
import logging
import wave
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from serve_app.api.auth import Caller
from serve_app.api.fetching import Fetcher
from serve_app.api.job_creation import JobBackend
from serve_app.api.limits import ApiLimits
from serve_app.api.routes import AccessRules, build_api
from serve_app.api.usage import UsageMeter
from serve_app.api.webhook_urls import WebhookPolicy, WebhookSecretNames
from serve_app.core.errors import Unauthenticated
from serve_app.jobs.records import JobLimits, Lease
from serve_app.settings.jobs import JobSettings
from serve_app.settings.webhook_secrets import add_webhook_secret
from serve_app.transcript.transcript import Transcript
from serve_app.transcript.transcript_json import transcript_to_json
from tests.fakes.job_files import MemoryFiles
from tests.fakes.job_store import MemoryStore
from tests.fakes.service import SPANS, FakeService, sentence

LOGGER = logging.getLogger("tests.api")
MAX_UPLOAD_BYTES = 100_000
MAX_RESUMABLE_BYTES = 1_000_000


def wav(seconds: float = 1.0) -> bytes:
    """Returns a silent recording."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(int(seconds * 32_000)))
    return target.getvalue()


class NamedKeys:
    """Takes the name of the key as the key; "a" and "b" are known."""

    def __init__(self) -> None:
        self.callers = {name: Caller(name) for name in ("a", "b")}

    def caller_of(self, authorization: str | None) -> Caller:
        name = (authorization or "").removeprefix("Bearer ")
        if name not in self.callers:
            raise Unauthenticated("the API key is not valid")
        return self.caller_named(name)

    def caller_named(self, name: str) -> Caller:
        return self.callers[name]

    def signing_secrets(self, name: str) -> tuple[bytes, ...]:
        return (name.encode(),)

    def stale_s(self) -> float:
        return 0.0


@dataclass
class JobApi:
    """Everything that a test of the jobs' routes touches.

    Attributes:
        app: the application.
        client: sends as key "a", unless a header says otherwise.
        service: which the jobs are for.
        store: of the jobs.
        files: of the jobs.
        keys: the callers.
        meter: of usage.
    """

    app: FastAPI
    client: httpx.AsyncClient
    service: FakeService
    store: MemoryStore
    files: MemoryFiles
    keys: NamedKeys
    meter: UsageMeter
    as_b: Mapping[str, str] = field(default_factory=lambda: {"Authorization": "Bearer b"})

    async def create(
        self, content: bytes | None = None, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        return await self.client.post(
            "/v1/jobs",
            data={"model": "whisper-1", **fields},
            files={"file": ("a.wav", wav() if content is None else content)},
            headers=headers,
        )

    async def created(self, **fields: Any) -> str:
        """Creates a job; returns its id."""
        response = await self.create(**fields)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    async def lease(self) -> Lease:
        lease = await self.store.lease("runner", 30.0)
        assert lease is not None
        return lease

    async def complete(self, transcript: Transcript | None = None) -> str:
        """Completes the next job; returns its id."""
        lease = await self.lease()
        name = f"{lease.job.id}/result-{lease.fence}.json"
        await self.files.put_bytes(name, transcript_to_json(transcript or TRANSCRIPT))
        assert await self.store.complete(lease, name, 2.0)
        return lease.job.id

    def limit_a(self, max_audio_s_per_month: float) -> None:
        caller = self.keys.callers["a"]
        self.keys.callers["a"] = replace(caller, max_audio_s_per_month=max_audio_s_per_month)


TRANSCRIPT = Transcript(2000, (sentence("你好", 0), sentence("再见", 1000)), utterances=SPANS)


@asynccontextmanager
async def job_api(
    directory: Path,
    *,
    limits: ApiLimits | None = None,
    job_limits: JobLimits | None = None,
    origins: tuple[str, ...] = (),
    fetcher: Fetcher | None = None,
) -> AsyncIterator[JobApi]:
    """Serves jobs in memory."""
    service, store, files = FakeService(), MemoryStore(job_limits), MemoryFiles()
    meter = UsageMeter(store, LOGGER)
    secrets = directory / "webhook-secrets.yaml"
    add_webhook_secret(secrets, "a")
    backend = JobBackend(
        store,
        files,
        meter,
        WebhookPolicy(JobSettings()),
        WebhookSecretNames(secrets, LOGGER),
        MAX_RESUMABLE_BYTES,
        watch_period_s=0.002,
    )
    keys = NamedKeys()
    app = build_api(
        service,
        limits or ApiLimits(MAX_UPLOAD_BYTES, request_timeout_s=30, spool_dir=directory),
        LOGGER,
        authenticator=keys,
        fetcher=fetcher,
        access=AccessRules(cors_origins=origins),
        jobs=backend,
    )
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://test",
            headers={"Authorization": "Bearer a"},
        ) as client,
    ):
        yield JobApi(app, client, service, store, files, keys, meter)
