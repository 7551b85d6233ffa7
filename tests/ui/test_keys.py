"""The page before an API that demands keys."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, expect

from serve_app.ui.texts import TEXTS
from serve_app.ui.uploads import UploadStore
from tests.ui.conftest import SAMPLES, OpenPage, open_page
from tests.ui.scripted_api import ScriptedApi

pytestmark = pytest.mark.browser

CLIP = SAMPLES / "clip.flac"
KEY = "psk_right"


@pytest.fixture
def api() -> ScriptedApi:
    return ScriptedApi(key=KEY)


def test_key_is_requested_and_opens_the_form(opened: OpenPage, api: ScriptedApi) -> None:
    expect(opened.page.locator("#ps-key")).to_be_visible()
    expect(opened.page.locator("#ps-model")).to_be_hidden()
    opened.page.locator("#ps-key input").fill(KEY)
    opened.page.locator("#ps-key input").press("Enter")
    expect(opened.page.locator("#ps-model")).to_be_visible()
    opened.transcribe(CLIP)
    opened.wait_for("done")
    assert len(api.orders) == 1


def test_wrong_key_is_reported(opened: OpenPage) -> None:
    opened.page.locator("#ps-key input").fill("psk_wrong")
    opened.page.locator("#ps-key input").press("Enter")
    expect(opened.page.locator(".ps-alert")).to_contain_text(TEXTS["key_refused"]["zh"])


def test_nothing_is_stored_of_somebody_without_a_key(
    opened: OpenPage, uploads: UploadStore
) -> None:
    opened.transcribe(CLIP)
    opened.wait_for("failed")
    expect(opened.page.locator(".ps-alert")).to_contain_text(TEXTS["key_missing"]["zh"])
    assert uploads.num_bytes == 0


def test_key_is_deleted_with_the_page(context: BrowserContext, page_url: str) -> None:
    opened = open_page(context, page_url)
    opened.page.locator("#ps-key input").fill(KEY)
    opened.page.locator("#ps-key input").press("Enter")
    expect(opened.page.locator("#ps-model")).to_be_visible()
    stored = opened.page.evaluate(
        "() => JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage})"
        " + document.cookie"
    )
    assert "paraserve_visitor" not in stored
    assert KEY not in stored
    assert not any(KEY in url for url in opened.requests)
    opened.page.reload()
    opened.page.wait_for_selector("#ps-key:visible")
    assert opened.page.locator("#ps-key input").input_value() == ""


def test_old_error_goes_and_the_language_stays_with_the_right_key(opened: OpenPage) -> None:
    opened.page.locator("#ps-key input").fill("psk_wrong")
    opened.page.locator("#ps-key input").press("Enter")
    expect(opened.page.locator(".ps-alert")).to_contain_text(TEXTS["key_refused"]["zh"])
    opened.page.locator("#ps-key input").fill(KEY)
    opened.page.get_by_role("button", name=TEXTS["use_key"]["zh"]).click()
    expect(opened.page.locator("#ps-model")).to_be_visible()
    expect(opened.page.locator(".ps-alert")).to_be_hidden()
    expect(opened.page.locator("#ps-model")).to_contain_text(TEXTS["model"]["zh"])
    expect(opened.page.locator("#ps-key")).to_contain_text(TEXTS["key"]["zh"])
    expect(opened.page.locator("h1")).to_have_text(TEXTS["title"]["zh"])


def test_recording_refused_without_a_key_can_be_sent_with_one(opened: OpenPage) -> None:
    opened.transcribe(CLIP)
    opened.wait_for("failed")
    opened.page.locator("#ps-key input").fill(KEY)
    opened.page.locator("#ps-key input").press("Enter")
    expect(opened.page.locator(".ps-alert")).to_be_hidden()
    opened.page.click(".ps-go")
    opened.wait_for("done")
