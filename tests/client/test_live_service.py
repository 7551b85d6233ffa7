"""The client against the service's own live API, with the demo models, without Ray."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp

from loadtests.live.alignment import Differences, differences
from loadtests.live.results import LiveResult
from loadtests.live.speakers import run_speakers
from loadtests.live.talks import TalkLibrary
from loadtests.ports import free_port
from serve_app.api.live_routes import build_live_api
from serve_app.client import (
    AsyncParaserve,
    LiveFinal,
    LivePartial,
    LiveRequest,
    LiveSession,
    ServiceRefusal,
)
from serve_app.core.records import RequestContext
from serve_app.live.records import AudioFormat, SessionOptions
from serve_app.live.session import Session, SessionModels
from serve_app.settings import Settings
from serve_app.transcript.cer import spoken_characters
from tests.live.models import demo_models, new_session

pytestmark = pytest.mark.slow

RATE_HZ = 16_000
PREFIX = "/v1/realtime"


class Sessions:
    """Opens sessions in this process."""

    def __init__(self, models: SessionModels) -> None:
        self._models = models

    async def open(
        self, context: RequestContext, audio: AudioFormat, options: SessionOptions
    ) -> Session:
        return new_session(self._models, options, audio, clock=time.monotonic)


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[str]:
    """Serves the live API below its prefix, as Serve does."""

    async def prefixed(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await app({**scope, "root_path": PREFIX}, receive, send)

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(prefixed, port=port, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110, it has no event for that
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


@pytest.fixture
async def url() -> AsyncIterator[str]:
    settings = Settings.model_validate({"auth": {"mode": "off"}, "live": {"enabled": True}})
    async with demo_models() as models:
        api = build_live_api(Sessions(models), settings, logging.getLogger(__name__))
        async with running(api) as address:
            yield address


async def finals_of(session: LiveSession) -> list[LiveFinal]:
    told: dict[str, str] = {}
    finals = []
    async for event in session:
        if isinstance(event, LivePartial):
            told[event.item_id] = event.text
        elif isinstance(event, LiveFinal):
            assert event.text == told.get(event.item_id, "")
            finals.append(event)
    return finals


def check_text(spoken: str, text: str) -> None:
    check(differences(spoken, text))


def check(found: Differences) -> None:
    """What was told is never changed, so that a few first guesses may stay."""
    assert (found.num_lost, found.num_doubled, found.num_added) == (0, 0, 0)
    assert found.num_changed <= 0.1 * found.num_spoken


async def test_talk_is_told_whole_with_the_times_of_its_words(url: str) -> None:
    talk = TalkLibrary().talk(0, 12.0)
    request = LiveRequest("whisper-1", "zh", rate_hz=RATE_HZ)
    async with AsyncParaserve(url, "") as client, client.live(request) as session:
        await session.send(talk.pcm)
        await session.finish()
        finals = await finals_of(session)
    text = "".join(final.text for final in finals)
    check_text(talk.text, text)
    words = [word for final in finals for word in final.words]
    assert "".join(word.text for word in words) == spoken_characters(text)
    starts_s = [word.start_s for word in words]
    assert starts_s == sorted(starts_s)
    assert 0 < starts_s[0] < 1.0
    assert words[-1].end_s <= talk.audio_s
    assert all(final.languages == ("zh",) for final in finals if final.text)


async def test_commit_alone_ends_segments_without_detection(url: str) -> None:
    talk = TalkLibrary().talk(0, 6.0)
    request = LiveRequest(rate_hz=RATE_HZ, detect_speech=False)
    async with AsyncParaserve(url, "") as client, client.live(request) as session:
        await session.send(talk.pcm)
        await session.commit()
        await session.finish()
        finals = [final for final in await finals_of(session) if final.text]
    assert len(finals) == 1
    check_text(talk.text, finals[0].text)


async def test_invalid_request_is_refused_before_the_audio(url: str) -> None:
    async with AsyncParaserve(url, "") as client:
        with pytest.raises(ServiceRefusal, match="nonsense") as refused:
            async with client.live(LiveRequest("nonsense")):
                pass
    assert refused.value.code == "model_not_found"


async def test_speakers_of_the_load_test_lose_nothing(url: str) -> None:
    talks = TalkLibrary().talks(2, 5.5)
    result = LiveResult(await run_speakers(url, talks))
    assert result.text.num_spoken == sum(len(spoken_characters(talk.text)) for talk in talks)
    check(result.text)
    assert (result.problems, result.num_failed, result.num_retracted) == ([], 0, 0)
    assert result.lags_s
