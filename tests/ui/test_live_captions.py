"""Live captions on the page while a visitor records."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, expect

from serve_app.ui.texts import TEXTS
from tests.fakes.live_service import ScriptedLiveService, ScriptedSegment
from tests.ui.conftest import OpenPage, open_page
from tests.ui.scripted_api import ScriptedApi

pytestmark = pytest.mark.browser

SEGMENTS = (
    ScriptedSegment(300, 1500, "各位同事下午好。"),
    ScriptedSegment(1800, 4000, "今天杭州的天气怎么样？"),
)


@pytest.fixture
def live(api: ScriptedApi) -> ScriptedLiveService:
    api.live = ScriptedLiveService(SEGMENTS)
    return api.live


@pytest.fixture
def opened(context: BrowserContext, page_url: str) -> OpenPage:
    context.grant_permissions(["microphone"])
    return open_page(context, page_url)


def test_text_grows_while_somebody_speaks(
    opened: OpenPage, live: ScriptedLiveService, api: ScriptedApi
) -> None:
    captions = opened.page.get_by_role("log", name=TEXTS["captions"]["zh"])
    opened.page.click(".ps-record")
    expect(captions).to_have_text(TEXTS["captions_hint"]["zh"])
    expect(captions.locator(".ps-caption-open")).to_have_text("各位同事", timeout=20_000)
    expect(captions.locator(".ps-caption-hint")).to_be_hidden()
    expect(captions.locator(".ps-caption-open")).to_have_text("今天杭州的", timeout=20_000)
    assert captions.inner_text().startswith("各位同事下午好。")
    expect(captions).to_contain_text("今天杭州的天气怎么样？", timeout=20_000)
    opened.page.click(".ps-recording")
    opened.wait_for("chosen")
    expect(captions).to_be_hidden()
    opened.page.click(".ps-go")
    opened.wait_for("done")
    assert opened.complaints == []
    asked = live.updates[0]["audio"]["input"]
    assert asked["transcription"] == {"model": "paraformer-demo"}
    assert 8000 <= asked["format"]["rate"] <= 48_000


def test_microphone_is_heard(opened: OpenPage, live: ScriptedLiveService) -> None:
    opened.page.click(".ps-record")
    wait_until(lambda: bool(live.audio) and len(live.audio[0]) > 100_000)
    opened.page.click(".ps-recording")
    opened.wait_for("chosen")
    assert any(live.audio[0]), "all is silence"


def test_pause_sends_nothing(opened: OpenPage, live: ScriptedLiveService) -> None:
    opened.page.click(".ps-record")
    wait_until(lambda: bool(live.audio) and len(live.audio[0]) > 10_000)
    opened.page.click(".ps-pause-recording")
    opened.page.wait_for_timeout(500)
    before = len(live.audio[0])
    opened.page.wait_for_timeout(500)
    assert len(live.audio[0]) == before
    opened.page.click(".ps-pause-recording")
    wait_until(lambda: len(live.audio[0]) > before)
    opened.page.click(".ps-recording")
    opened.wait_for("chosen")


def test_service_without_captions_does_not_disturb_the_recording(opened: OpenPage) -> None:
    opened.page.click(".ps-record")
    hint = opened.page.locator(".ps-caption-hint")
    told = TEXTS["captions_failed"]["zh"].format(problem=TEXTS["refused"]["zh"])
    expect(hint).to_have_text(told, timeout=20_000)
    opened.page.click(".ps-recording")
    opened.wait_for("chosen")


def test_second_recording_begins_with_empty_captions(
    opened: OpenPage, live: ScriptedLiveService
) -> None:
    for _ in range(2):
        opened.page.click(".ps-record")
        expect(opened.page.locator(".ps-caption-hint")).to_be_visible()
        expect(opened.page.locator(".ps-captions")).to_contain_text("各位", timeout=20_000)
        opened.page.click(".ps-recording")
        opened.wait_for("chosen")
    assert len(live.updates) == 2


def wait_until(holds: Callable[[], bool], limit_s: float = 20.0) -> None:
    ends_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < ends_s
        time.sleep(0.02)
