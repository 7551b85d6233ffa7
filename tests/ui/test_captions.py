"""What the page's server relays of live captions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.fakes.live_service import ScriptedLiveService, ScriptedSegment
from tests.ui.scripted_api import ScriptedApi
from tests.ui.visiting import ORDER, Visit

SEGMENTS = (
    ScriptedSegment(300, 1500, "各位同事下午好。"),
    ScriptedSegment(1800, 10**6, "今天杭州的天气怎么样？"),
)
FIRST: dict[str, Any] = {"key": "psk_x", "order": ORDER, "rate": 16_000}
ONE_SECOND = bytes(32_000)


@pytest.fixture
def live(api: ScriptedApi) -> ScriptedLiveService:
    api.live = ScriptedLiveService(SEGMENTS)
    return api.live


class Captions:
    """Opens caption sockets as one browser, whose page is open."""

    def __init__(self, visit: Visit) -> None:
        self.cookie = visit.cookie
        parts = urlsplit(visit.url)
        self.url = f"ws://{parts.netloc}{parts.path}captions"

    async def open(self, *, cookie: str | None = None) -> ClientConnection:
        headers = {"Cookie": self.cookie if cookie is None else cookie}
        return await connect(self.url, additional_headers=headers, proxy=None)

    async def become(self, *, is_refused: bool) -> None:
        """Waits until the server refuses sockets, or accepts them again."""
        async with asyncio.timeout(20):
            while await self._is_refused() != is_refused:  # noqa: ASYNC110, of another thread
                await asyncio.sleep(0.05)

    async def _is_refused(self) -> bool:
        try:
            async with await self.open():
                return False
        except InvalidStatus as refused:
            return refused.response.status_code == 403

    async def talk(self, first: object, audio: bytes = ONE_SECOND) -> list[dict[str, Any]]:
        """Returns all messages of a session."""
        async with await self.open() as socket:
            await socket.send(first if isinstance(first, bytes) else json.dumps(first))
            for start in range(0, len(audio), 3200):
                await socket.send(audio[start : start + 3200])
            await socket.send("end")
            return [json.loads(message) async for message in socket]


@pytest.fixture
def captions(page_url: str) -> Iterator[Captions]:
    with Visit(page_url) as visit:
        yield Captions(visit)


async def test_audio_and_texts_are_relayed(captions: Captions, live: ScriptedLiveService) -> None:
    order = {**ORDER, "hotwords": "云梯 杭州", "language": "zh"}
    told = await captions.talk({**FIRST, "order": order})
    assert [message["text"] for message in told if message["final"]] == [
        "各位同事下午好。",
        "今天杭州的天气怎么样？",
    ]
    assert told[0] == {"id": "item_0", "text": "各位同事", "final": False}
    assert live.audio == [bytearray(ONE_SECOND)]
    assert live.updates[0]["audio"]["input"]["transcription"] == {
        "model": "paraformer-demo",
        "language": "zh",
        "keywords": ["云梯", "杭州"],
    }


async def test_key_of_the_visitor_is_used(
    captions: Captions, live: ScriptedLiveService, api: ScriptedApi
) -> None:
    api.key = "psk_x"
    assert (await captions.talk(FIRST))[-1]["final"]
    assert (await captions.talk({**FIRST, "key": "psk_y"}))[-1]["problem"] == "key_refused"


@pytest.mark.parametrize(
    "first",
    [
        {**FIRST, "rate": 4000},
        {**FIRST, "rate": "16000"},
        {**FIRST, "key": 1},
        {**FIRST, "order": {}},
        {**FIRST, "more": 1},
        [],
        b"\x00\x01",
    ],
    ids=str,
)
async def test_other_first_messages_are_refused(
    captions: Captions, live: ScriptedLiveService, first: object
) -> None:
    with_none = await captions.talk(first, b"")
    assert with_none == [{"problem": "refused"}]
    assert live.audio == []


@pytest.mark.parametrize("cookie", ["", "paraserve_visitor=x"])
async def test_stranger_is_refused_before_the_upgrade(captions: Captions, cookie: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await captions.open(cookie=cookie)
    assert refused.value.response.status_code == 403


async def test_browser_without_an_open_page_is_refused(page_url: str) -> None:
    with Visit(page_url) as visit:
        captions = Captions(visit)
    # The server notices a moment later that it is closed.
    await captions.become(is_refused=True)


async def test_visitor_has_a_limited_number_of_sockets(
    captions: Captions, live: ScriptedLiveService
) -> None:
    first, second = [await captions.open() for _ in range(2)]
    with pytest.raises(InvalidStatus):
        await captions.open()
    await first.close()
    await second.close()
    # The server notices it a moment later.
    await captions.become(is_refused=False)


async def test_large_message_ends_the_audio(captions: Captions, live: ScriptedLiveService) -> None:
    async with await captions.open() as socket:
        await socket.send(json.dumps(FIRST))
        await socket.send(bytes(70_000))
        told = [json.loads(message) async for message in socket]
    assert told[-1]["final"]
    assert live.audio == [bytearray()]


async def test_end_of_the_session_is_told(captions: Captions, live: ScriptedLiveService) -> None:
    live.going_away_ms = 500
    async with await captions.open() as socket:
        await socket.send(json.dumps(FIRST))
        await socket.send(ONE_SECOND)
        told = [json.loads(message) async for message in socket]
    assert told[-1] == {"problem": "refused"}
    with pytest.raises(ConnectionClosed):
        await socket.recv()
