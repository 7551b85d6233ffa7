"""Pictures of the page for the documentation: `python -m tests.ui.screenshots`.

Starts the demo service with the page, and takes them in Chromium; needs Chinese fonts
(Debian: fonts-noto-cjk).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize

from loadtests.ports import free_port
from loadtests.recordings import recording
from serve_app.launch import prepare_environment, running
from serve_app.packs import PackStore
from serve_app.settings import Settings
from tests.ui.chromium import HOW_TO_GET_IT, chromium, executable
from tests.ui.conftest import SAMPLES, OpenPage, open_page

TARGET = Path(__file__).parents[2] / "docs" / "images"
_SIZE: ViewportSize = {"width": 1180, "height": 700}
_SETTLED_MS = 700


def take(browser: Browser, url: str) -> None:
    """Writes the pictures, each of a page of its own."""
    for name, language, act in (
        ("idle", "zh-CN", _idle),
        ("running", "zh-CN", _run_halfway),
        ("done", "en-US", _run_and_hear),
        ("error", "zh-CN", _fail),
    ):
        with browser.new_context(locale=language, viewport=_SIZE, device_scale_factor=1) as context:
            opened = open_page(context, url)
            act(opened)
            opened.page.wait_for_timeout(_SETTLED_MS)
            _save(opened.page, name)


def _save(page: Page, name: str) -> None:
    TARGET.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=TARGET / f"page-{name}.png")


def _idle(opened: OpenPage) -> None:
    opened.page.wait_for_selector("#ps-stages:visible")


def _run_halfway(opened: OpenPage) -> None:
    # The demo is done in half a second: the page is shown as it was after the fifth sentence.
    opened.page.evaluate(
        "() => { const receive = paraserve.receive; paraserve.receive = function (value) {"
        " if (value?.run) value = {...value, state: 'running', downloads: {},"
        " sentences: value.sentences.slice(0, 5)};"
        " receive.call(this, value); }; }"
    )
    opened.choose(SAMPLES / "demo.flac")
    opened.page.wait_for_function("paraserve.result.peaks")
    opened.page.click(".ps-go")
    opened.page.wait_for_function("paraserve.state.sentences.length === 5")


def _run_and_hear(opened: OpenPage) -> None:
    opened.choose(SAMPLES / "demo.flac")
    opened.page.wait_for_function("paraserve.result.peaks")
    opened.page.click(".ps-go")
    opened.wait_for("done")
    opened.page.locator(".ps-sentences button").nth(2).click()
    opened.page.evaluate("document.querySelector('.ps-text').scrollTop = 0")
    opened.page.mouse.move(0, 0)
    opened.page.wait_for_timeout(1500)


def _fail(opened: OpenPage) -> None:
    with tempfile.TemporaryDirectory() as directory:
        notes = Path(directory) / "会议记录.mp3"
        notes.write_text("this is no sound " * 100)
        opened.transcribe(notes)
        opened.wait_for("failed")


def main() -> int:
    path = executable()
    if path is None:
        print(f"Chromium is missing: {HOW_TO_GET_IT}", file=sys.stderr)
        return 1
    settings = Settings.model_validate(
        {
            "profile": "demo",
            "http": {"port": free_port()},
            "cluster": {"num_cpus": 4},
            "ui": {"enabled": True},
        }
    )
    prepare_environment(settings)
    heard = recording("vad_example.wav", PackStore())
    with running(settings) as application, chromium(path, microphone=heard) as browser:
        take(browser, application.page_url or "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
