"""How a run ends that does not go its way: canceled, left, refused by the page itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from serve_app.ui.page import PageLimits
from serve_app.ui.texts import TEXTS
from serve_app.ui.uploads import UploadStore
from tests.ui.conftest import SAMPLES, OpenPage, open_page
from tests.ui.scripted_api import SAID, ScriptedApi
from tests.ui.serving import MAX_UPLOAD_BYTES, serving, serving_page, stored_in
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

CLIP = SAMPLES / "clip.flac"


def test_cancelling_closes_the_request(
    opened: OpenPage, api: ScriptedApi, uploads: UploadStore
) -> None:
    api.hold_after = 1
    opened.transcribe(CLIP)
    opened.wait_for("running")
    opened.page.click(".ps-cancel")
    assert opened.page.locator(".ps-status").inner_text() == TEXTS["cancelled_partial"]["zh"]
    wait_until(lambda: api.num_left == 1, "the API to stop work on it")
    wait_until(lambda: uploads.num_bytes == 0)
    api.release()
    opened.page.click(".ps-go")
    opened.wait_for("done")
    assert opened.sentences() == [text for _, _, text in SAID]


def test_leaving_the_page_closes_the_request(
    opened: OpenPage, api: ScriptedApi, uploads: UploadStore
) -> None:
    api.hold_after = 1
    opened.transcribe(CLIP)
    opened.wait_for("running")
    opened.page.close()
    wait_until(lambda: api.num_left == 1, "the API to stop work on it")
    wait_until(lambda: uploads.num_bytes == 0)


def test_upload_has_no_name_and_is_deleted_with_its_request(
    opened: OpenPage, api: ScriptedApi, uploads: UploadStore
) -> None:
    api.hold_after = 1
    opened.transcribe(CLIP)
    opened.wait_for("running")
    assert uploads.num_bytes == CLIP.stat().st_size
    assert [path for path in uploads.directory.rglob("*") if path.is_file()] == []
    api.release()
    opened.wait_for("done")
    wait_until(lambda: uploads.num_bytes == 0)


def test_stopped_page_leaves_no_directory(api: ScriptedApi, tmp_path: Path) -> None:
    with serving(api.app()) as api_url, serving_page(api_url, tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_too_large_file_is_refused_before_it_is_sent(opened: OpenPage, tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(MAX_UPLOAD_BYTES + 1))
    opened.transcribe(large)
    opened.wait_for("failed")
    expect(opened.page.locator(".ps-alert")).to_contain_text(
        TEXTS["too_large"]["zh"].format(size="8.0 MB", limit="8.0 MB")
    )
    assert not any(url.endswith("/upload") for url in opened.requests)


def test_full_disk_of_the_page_is_told(
    context: BrowserContext, api: ScriptedApi, tmp_path: Path
) -> None:
    with (
        serving(api.app()) as api_url,
        serving_page(api_url, tmp_path, max_stored_bytes=1000) as url,
    ):
        opened = open_page(context, url)
        opened.transcribe(CLIP)
        opened.wait_for("failed")
        expect(opened.page.locator(".ps-alert")).to_contain_text(TEXTS["page_busy"]["zh"])


def test_full_queue_of_the_page_is_told(browser: Browser, api: ScriptedApi, tmp_path: Path) -> None:
    api.hold_after = 1
    limits = PageLimits(1, 1, MAX_UPLOAD_BYTES)
    uploads = stored_in(tmp_path)
    with (
        serving(api.app()) as api_url,
        serving_page(api_url, tmp_path, limits, uploads=uploads) as url,
        browser.new_context(locale="zh-CN") as context,
    ):
        runs, waits, refused = (open_page(context, url) for _ in range(3))
        runs.transcribe(CLIP)
        runs.wait_for("running")
        waits.transcribe(CLIP)
        waits.wait_for("waiting")
        wait_until(lambda: uploads.num_ready == 1)
        refused.transcribe(CLIP)
        refused.wait_for("failed")
        expect(refused.page.locator(".ps-alert")).to_contain_text(TEXTS["page_busy"]["zh"])
        api.release()
        runs.wait_for("done")
        waits.wait_for("done")


def test_api_that_is_down_is_told(context: BrowserContext, tmp_path: Path) -> None:
    with serving_page("http://127.0.0.1:9", tmp_path) as url:
        opened = open_page(context, url)
        expect(opened.page.locator(".ps-alert")).to_contain_text(TEXTS["unreachable"]["zh"])


@pytest.mark.parametrize("gradio_notices", [True, False])
def test_page_whose_server_is_gone_says_so(
    context: BrowserContext, api: ScriptedApi, tmp_path: Path, gradio_notices: bool
) -> None:
    api.hold_after = 1
    with serving(api.app()) as api_url:
        with serving_page(api_url, tmp_path) as url:
            opened = open_page(context, url)
            if not gradio_notices:
                opened.page.evaluate("paraserve.failed = () => {}")
            opened.transcribe(CLIP)
            opened.wait_for("running")
        opened.wait_for("failed")
        expect(opened.page.locator(".ps-alert")).to_contain_text(TEXTS["interrupted"]["zh"])
        assert opened.sentences() == [SAID[0][2]]
