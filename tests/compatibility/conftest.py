"""The API with a made-up service behind it, on a port."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from serve_app.api.limits import ApiLimits
from serve_app.api.routes import build_api
from serve_app.api.service import TranscriptionJob
from serve_app.core.errors import UnknownAudioFormat
from serve_app.transcript.transcript import TranscriptEvent
from tests.fakes.service import FakeService
from tests.ui.serving import serving

SAMPLES = Path(__file__).parents[2] / "serve_app" / "packs" / "builtin" / "samples"
TEXT = "你好。再见。"


class ListeningService(FakeService):
    """Says the same of every recording, and refuses what is plainly none."""

    async def transcribe(self, job: TranscriptionJob) -> AsyncGenerator[TranscriptEvent]:
        if job.audio.tobytes().startswith(b"not audio"):
            raise UnknownAudioFormat("text")
        async for event in super().transcribe(job):
            yield event


@pytest.fixture
def service() -> FakeService:
    return ListeningService()


@pytest.fixture
def api_url(service: FakeService, tmp_path: Path) -> Iterator[str]:
    limits = ApiLimits(8 * 2**20, request_timeout_s=60, spool_dir=tmp_path)
    with serving(build_api(service, limits, logging.getLogger("tests.compatibility"))) as url:
        yield url


@pytest.fixture(scope="session")
def recording() -> bytes:
    return (SAMPLES / "demo.flac").read_bytes()
