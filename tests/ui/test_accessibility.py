"""The page for everybody: screen readers, keyboards, light and dark, large and small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, expect

from serve_app.ui.texts import TEXTS
from tests.fakes.live_service import ScriptedLiveService, ScriptedSegment
from tests.ui.conftest import SAMPLES, OpenPage, open_page
from tests.ui.scripted_api import SAID, Refusal, ScriptedApi

pytestmark = pytest.mark.browser

CLIP = SAMPLES / "clip.flac"
PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1200, "height": 820}
Scheme = Literal["light", "dark"]
_CANVAS_BLUE = """() => {
  const canvas = document.querySelector('.ps-canvas');
  const row = canvas.getContext('2d').getImageData(0, canvas.height / 2, canvas.width, 1).data;
  let [sum, count] = [0, 0];
  for (let i = 0; i < row.length; i += 4) if (row[i + 3] > 200) { sum += row[i + 2]; count += 1; }
  return sum / count;
}"""


def violations(page: Page) -> list[str]:
    """Returns what axe-core finds, its best practices included."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for one in found
        for node in one["nodes"]
    ]


def idle(opened: OpenPage, api: ScriptedApi) -> None:
    pass


def running(opened: OpenPage, api: ScriptedApi) -> None:
    api.hold_after = 2
    opened.transcribe(CLIP)
    opened.wait_for("running")


def done_and_edited(opened: OpenPage, api: ScriptedApi) -> None:
    opened.choose(CLIP, SAMPLES / "demo.flac")
    opened.page.click(".ps-go")
    opened.wait_for("done")
    opened.page.locator(".ps-uncertain input").check()
    opened.page.locator(".ps-edit").first.click()
    opened.page.locator(".ps-editor").fill("改过的句子")
    opened.page.locator(".ps-editor").press("Enter")
    opened.page.get_by_role("searchbox").fill("天")
    opened.page.evaluate("paraserve.player.seek(0.9)")
    opened.page.locator(".ps-edit").nth(2).click()


def failed(opened: OpenPage, api: ScriptedApi) -> None:
    api.refusal = Refusal(413, "upload_too_large")
    opened.transcribe(CLIP)
    opened.wait_for("failed")


def recording(opened: OpenPage, api: ScriptedApi) -> None:
    said = (ScriptedSegment(100, 300, SAID[0][2] * 20), ScriptedSegment(400, 10**6, SAID[1][2]))
    api.live = ScriptedLiveService(said)
    opened.page.click(".ps-record")
    opened.page.wait_for_selector(".ps-recorder:visible")
    # Enough of it to scroll.
    opened.page.wait_for_function("paraserve.source.captions.finished.textContent.length > 50")


def with_speakers(opened: OpenPage, api: ScriptedApi) -> None:
    opened.page.locator("#ps-check-speakers").check()
    opened.transcribe(CLIP)
    opened.wait_for("done")
    opened.page.evaluate("paraserve.player.seek(0.9)")
    opened.page.locator(".ps-speaker").nth(8).click()


def with_jobs(opened: OpenPage, api: ScriptedApi) -> None:
    opened.page.evaluate("() => { window.isLong = () => true; }")
    for number, status in enumerate(("completed", "failed", "running", "queued")):
        opened.choose(CLIP)
        opened.page.click(".ps-as-job")
        opened.wait_for("job")
        error = {"code": "corrupt_audio", "message": "it is damaged", "param": "file"}
        api.end_job(f"job_{number:024}", status, error=error if status == "failed" else None)
    expect(opened.page.locator(".ps-open-job:visible")).to_have_count(1)
    opened.choose(CLIP)


@pytest.mark.parametrize(
    "act", [idle, running, done_and_edited, failed, recording, with_speakers, with_jobs]
)
@pytest.mark.parametrize(
    ("locale", "looks"),
    [
        ("zh-CN", (("light", DESKTOP), ("dark", PHONE))),
        ("en-US", (("dark", DESKTOP), ("light", PHONE))),
    ],
    ids=["Chinese", "English"],
)
def test_axe_finds_no_violation(
    browser: Browser,
    page_url: str,
    api: ScriptedApi,
    act: Callable[[OpenPage, ScriptedApi], None],
    locale: str,
    looks: tuple[tuple[Scheme, ViewportSize], ...],
) -> None:
    api.hotwords = True
    api.jobs = {}
    api.languages = ("zh", "en", "auto")
    api.models = ("seaco-demo", "paraformer-demo")
    api.stages = ("vad", "asr", "punctuation", "speakers")
    api.said = tuple((number * 0.25, number * 0.25 + 0.2, SAID[0][2]) for number in range(9))
    api.speakers = (*"ABCDEFGH", "unknown")
    scheme, size = looks[0]
    with browser.new_context(
        color_scheme=scheme, viewport=size, locale=locale, permissions=["microphone"]
    ) as context:
        context.set_default_timeout(20_000)
        opened = open_page(context, page_url)
        act(opened, api)
        for scheme, size in looks:
            opened.page.emulate_media(color_scheme=scheme)
            opened.page.set_viewport_size(size)
            # A color on its way to another has no contrast to measure yet.
            opened.page.wait_for_function(
                "document.getAnimations().every(one => one.playState !== 'running' ||"
                " one.effect.getTiming().iterations === Infinity)"
            )
            assert violations(opened.page) == [], (scheme, size)
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        api.release()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_whole_background_follows_the_scheme(
    browser: Browser, page_url: str, scheme: Scheme
) -> None:
    with browser.new_context(color_scheme=scheme, viewport=DESKTOP) as context:
        opened = open_page(context, page_url)
        colors = opened.page.evaluate(
            "['html', 'body', 'gradio-app'].map(name => document.querySelector(name))"
            ".filter(one => one).map(one => getComputedStyle(one).backgroundColor)"
        )
        expected = "rgb(246, 248, 250)" if scheme == "light" else "rgb(15, 23, 42)"
        assert set(colors) == {expected}


def test_waveform_changes_with_the_scheme(opened: OpenPage) -> None:
    opened.choose(CLIP)
    opened.page.wait_for_function("paraserve.player.peaks")
    light = opened.page.evaluate(_CANVAS_BLUE)
    opened.page.emulate_media(color_scheme="dark")
    opened.page.wait_for_function(f"({_CANVAS_BLUE})() > {light} + 50")


def test_everything_can_be_done_with_the_keyboard(opened: OpenPage) -> None:
    page = opened.page
    page.get_by_role("button", name=TEXTS["sample"]["zh"]).focus()
    page.keyboard.press("Enter")
    opened.wait_for("done")
    page.wait_for_function("paraserve.player.durationS > 0")
    page.get_by_role("button", name="播放 00:01 的一句").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("paraserve.player.positionS > 1.8")
    page.get_by_role("button", name="修改 00:01 的一句").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("改过的句子")
    page.keyboard.press("Enter")
    expect(page.locator(".ps-words").nth(1)).to_contain_text("改过的句子")
    # The focus is where it was, and can be seen.
    focused = page.get_by_role("button", name="修改 00:01 的一句")
    expect(focused).to_be_focused()
    assert focused.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"


def test_every_control_has_a_name_and_is_in_the_tab_order(opened: OpenPage) -> None:
    opened.transcribe(CLIP)
    opened.wait_for("done")
    unnamed = opened.page.evaluate(
        """[...document.querySelectorAll(
          '.ps-page :is(button, select, input, textarea, [role=slider])')]
          .filter(one => one.offsetParent && (one.tabIndex < 0
            || !(one.ariaLabel || one.innerText.trim() || one.labels?.length)))
          .map(one => one.outerHTML)"""
    )
    assert unnamed == []


def test_new_state_is_announced(opened: OpenPage) -> None:
    opened.transcribe(CLIP)
    opened.wait_for("done")
    expect(opened.page.locator("[role=status].ps-hidden")).to_have_text(TEXTS["done"]["zh"])


def test_touch_targets_on_a_phone_are_large_enough(browser: Browser, page_url: str) -> None:
    with browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True) as context:
        opened = open_page(context, page_url)
        opened.transcribe(CLIP)
        opened.wait_for("done")
        small = opened.page.evaluate(
            """[...document.querySelectorAll('.ps-page :is(button, select, [type=search])')]
              .filter(one => one.offsetParent)
              .map(one => [one.className, one.getBoundingClientRect()])
              .filter(([, box]) => box.width < 24 || box.height < 28).map(([name]) => name)"""
        )
        assert small == []
