"""Live transcription through the running service: nothing is lost, whatever is killed."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest
import soxr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from serve_app.settings import Settings
from tests.service.requests import audio_file, read_audio, transcribe
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

_DELTA = "conversation.item.input_audio_transcription.delta"
_COMPLETED = "conversation.item.input_audio_transcription.completed"
_PUSH_S = 0.1
_PACE = 6
"""Times as fast as it is spoken."""


@pytest.fixture(scope="module")
def live_url(service_url: str, settings: Settings) -> Iterator[str]:
    from ray import serve

    from serve_app.app import build_live

    name = f"{settings.app_name}-live"
    limited = settings.model_copy(
        update={"live": settings.live.model_copy(update={"max_sessions": 2})}
    )
    serve.run(build_live(limited), name=name, route_prefix="/v1/realtime")
    url = f"{service_url.replace('http', 'ws', 1)}/v1/realtime"
    asyncio.run(_wait_until_routed(url))
    yield url
    serve.delete(name)


async def _wait_until_routed(url: str) -> None:
    """The proxy learns of the application a moment after it runs."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with connect(f"{url}?intent=transcription", proxy=None) as socket:
                    await socket.recv()
                    return
            except (OSError, Exception):
                await asyncio.sleep(0.2)


@dataclass
class Heard:
    """What a session was told, by item."""

    deltas: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    other: list[dict[str, Any]] = field(default_factory=list)
    close_code: int | None = None

    def take(self, event: dict[str, Any]) -> None:
        if event["type"] == _DELTA:
            item = event["item_id"]
            self.deltas[item] = self.deltas.get(item, "") + event["delta"]
        elif event["type"] == _COMPLETED:
            self.texts[event["item_id"]] = event["transcript"]
        else:
            self.other.append(event)

    @property
    def text(self) -> str:
        return "".join(self.texts.values())

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [event["error"] for event in self.other if event["type"] == "error"]


async def _read(socket: ClientConnection, heard: Heard, first_text: asyncio.Event) -> None:
    try:
        async for message in socket:
            heard.take(json.loads(message))
            if heard.deltas:
                first_text.set()
    except ConnectionClosed:
        pass
    heard.close_code = socket.close_code


async def _spoken(url: str, pcm: np.ndarray, at_third: Any = None) -> Heard:
    """Speaks a recording of 24 kHz; calls `at_third` when a third of it was spoken."""
    heard, first_text = Heard(), asyncio.Event()
    async with connect(f"{url}?intent=transcription", proxy=None) as socket:
        reading = asyncio.create_task(_read(socket, heard, first_text))
        step = int(24_000 * _PUSH_S)
        for start in range(0, len(pcm), step):
            if at_third is not None and start >= len(pcm) // 3:
                await asyncio.wait_for(first_text.wait(), 60)
                await asyncio.to_thread(at_third)
                at_third = None
            data = base64.b64encode(pcm[start : start + step].astype("<i2").tobytes()).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": data}))
            await asyncio.sleep(_PUSH_S / _PACE)
        await socket.send(json.dumps({"type": "session.finish"}))
        await asyncio.wait_for(reading, 200)
    return heard


@pytest.fixture(scope="module")
def recording(demo_flac: bytes) -> np.ndarray:
    return np.asarray(soxr.resample(read_audio(demo_flac), 16_000, 24_000), np.int16)


def _without_marks(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


def test_the_demo_recording_is_transcribed_while_it_is_spoken(
    client: httpx.Client, live_url: str, recording: np.ndarray, demo_flac: bytes
) -> None:
    offline = transcribe(client, audio_file(read_audio(demo_flac)))["text"]
    heard = asyncio.run(_spoken(live_url, recording))
    assert heard.close_code == 1000
    assert heard.errors == []
    assert heard.texts == heard.deltas
    assert _without_marks(heard.text) == _without_marks(str(offline))


def test_no_word_is_lost_when_the_recognizer_is_killed(
    client: httpx.Client,
    live_url: str,
    recording: np.ndarray,
    demo_flac: bytes,
    settings: Settings,
) -> None:
    offline = transcribe(client, audio_file(read_audio(demo_flac)))["text"]
    heard = asyncio.run(_spoken(live_url, recording, lambda: _kill_recognizers(settings)))
    assert heard.close_code == 1000
    assert heard.errors == []
    assert heard.texts == heard.deltas
    assert _without_marks(heard.text) == _without_marks(str(offline))


def _kill_recognizers(settings: Settings) -> None:
    import ray

    named = ray.util.list_named_actors(all_namespaces=True)
    victims = [one for one in named if f"{settings.app_name}#Recognizer#" in str(one["name"])]
    assert victims
    for victim in victims:
        ray.kill(ray.get_actor(victim["name"], namespace=victim["namespace"]), no_restart=False)


def test_sessions_over_the_limit_are_refused_and_freed_places_are_taken(live_url: str) -> None:
    async def run() -> None:
        url = f"{live_url}?intent=transcription"
        async with connect(url, proxy=None) as first, connect(url, proxy=None) as second:
            await first.recv()
            await second.recv()
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, proxy=None)
            assert refused.value.response.status_code == 429
            assert b"overloaded" in refused.value.response.body
        async with asyncio.timeout(30):
            while True:
                with suppress(InvalidStatus):
                    async with connect(url, proxy=None) as again:
                        await again.recv()
                        return
                await asyncio.sleep(0.1)

    asyncio.run(run())


def test_a_stopped_replica_ends_its_sessions_with_their_position(
    live_url: str, settings: Settings, recording: np.ndarray
) -> None:
    """Serve is told to stop the only replica; the session ends before the grace period does."""
    from ray import serve

    from serve_app.app import build_live

    name = f"{settings.app_name}-leaving"
    update = {
        "deployment": settings.live.deployment.model_copy(
            update={"graceful_shutdown_timeout_s": 20.0}
        )
    }
    leaving = settings.model_copy(update={"live": settings.live.model_copy(update=update)})
    serve.run(build_live(leaving), name=name, route_prefix="/leaving")
    url = live_url.replace("/v1/realtime", "/leaving")
    asyncio.run(_wait_until_routed(url))

    async def run() -> Heard:
        heard, first_text = Heard(), asyncio.Event()
        async with connect(f"{url}?intent=transcription", proxy=None) as socket:
            reading = asyncio.create_task(_read(socket, heard, first_text))
            pushing = asyncio.create_task(_push_for_ever(socket, recording))
            await asyncio.wait_for(first_text.wait(), 60)
            await asyncio.to_thread(serve.delete, name, _blocking=False)
            await asyncio.wait_for(reading, 200)
            pushing.cancel()
        return heard

    heard = asyncio.run(run())
    assert heard.close_code == 1001
    (error,) = heard.errors
    assert error["code"] == "shutting_down"
    assert error["position_ms"] > 1000
    assert heard.texts == heard.deltas
    wait_until(lambda: name not in serve.status().applications)


async def _push_for_ever(socket: ClientConnection, pcm: np.ndarray) -> None:
    step = int(24_000 * _PUSH_S)
    while True:
        for start in range(0, len(pcm), step):
            data = base64.b64encode(pcm[start : start + step].astype("<i2").tobytes()).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": data}))
            await asyncio.sleep(_PUSH_S)
