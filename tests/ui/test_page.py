"""What a user sees and does, in a browser."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from serve_app.ui.texts import TEXTS
from tests.ui.conftest import SAMPLES, OpenPage, open_page
from tests.ui.scripted_api import SAID, Refusal, ScriptedApi

pytestmark = pytest.mark.browser

CLIP = SAMPLES / "clip.flac"


def test_idle_page_speaks_the_browsers_language_and_waits_for_a_recording(
    opened: OpenPage,
) -> None:
    expect(opened.page.locator("h1")).to_have_text(TEXTS["title"]["zh"])
    expect(opened.page.locator(".ps-go")).to_be_disabled()
    expect(opened.page.locator("#ps-hotwords")).to_be_hidden()
    expect(opened.page.locator("#ps-key")).to_be_hidden()
    assert opened.complaints == []


def test_other_browsers_get_english(browser: Browser, page_url: str) -> None:
    with browser.new_context(locale="fr-FR") as context:
        opened = open_page(context, page_url)
        expect(opened.page.locator("h1")).to_have_text(TEXTS["title"]["en"])
        expect(opened.page.locator("#ps-model")).to_contain_text("Model")


def test_language_switch_changes_every_text_and_keeps_results(opened: OpenPage) -> None:
    opened.transcribe(CLIP)
    opened.wait_for("done")
    opened.page.click("[data-language=en]")
    expect(opened.page.locator("#ps-stages")).to_contain_text(TEXTS["stage_vad"]["en"])
    expect(opened.page.locator("#ps-model")).to_contain_text("Model")
    assert opened.page.locator("html").get_attribute("lang") == "en"
    assert opened.page.locator("h1").inner_text() == TEXTS["title"]["en"]
    assert opened.page.locator(".ps-status").inner_text() == "Done"
    assert opened.sentences() == [text for _, _, text in SAID]
    chrome = " ".join(opened.page.locator(".ps-source, .ps-head, .ps-hint").all_inner_texts())
    names = opened.page.evaluate(
        "[...document.querySelectorAll('[aria-label], [title], [placeholder]')]"
        ".map(one => `${one.ariaLabel} ${one.title} ${one.placeholder}`).join(' ')"
    )
    assert not re.search("[一-鿿]", chrome + names)


def test_demo_warning_exists_in_both_languages(opened: OpenPage) -> None:
    warning = opened.page.locator(".ps-demo")
    expect(warning).to_be_visible()
    for language in ("zh", "en"):
        opened.page.click(f"[data-language={language}]")
        said = TEXTS["demo_warning"]["zh" if language == "zh" else "en"]
        expect(warning).to_have_text(said.format(models="paraformer-demo"))


def test_no_warning_stands_before_real_models(
    context: BrowserContext, page_url: str, api: ScriptedApi
) -> None:
    api.models = ("paraformer-large", "seaco-demo")
    opened = open_page(context, page_url)
    expect(opened.page.locator("#ps-model")).to_be_visible()
    expect(opened.page.locator(".ps-demo")).to_be_hidden()


def test_text_grows_while_it_is_recognized(opened: OpenPage, api: ScriptedApi) -> None:
    api.hold_after = 2
    opened.transcribe(CLIP)
    opened.wait_for("running")
    expect(opened.page.locator(".ps-sentences li")).to_have_count(2)
    expect(opened.page.locator(".ps-head .ps-bar")).to_be_visible()
    api.release()
    opened.wait_for("done")
    assert opened.sentences() == [text for _, _, text in SAID]
    assert opened.page.locator(".ps-status").inner_text() == TEXTS["done"]["zh"]
    assert api.uploads == [CLIP.read_bytes()]


@pytest.mark.parametrize(
    ("refusal", "problem"),
    [
        (Refusal(400, "invalid_parameter", "hotwords: are not taken"), "refused"),
        (Refusal(413, "upload_too_large"), "too_large"),
        (Refusal(413, "audio_too_long"), "too_long_unknown"),
        (Refusal(400, "unknown_audio_format"), "not_audio"),
        (Refusal(400, "corrupt_audio"), "damaged"),
        (Refusal(429, "overloaded", retry_after_s=17), "busy"),
        (Refusal(503, "not_ready", retry_after_s=5), "not_ready"),
        (Refusal(504, "deadline_exceeded"), "too_late"),
        (Refusal(500, "recognition_failed"), "failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.code,
)
def test_refusal_is_reported_in_clear_words(
    opened: OpenPage, api: ScriptedApi, refusal: Refusal, problem: str
) -> None:
    api.refusal = refusal
    opened.transcribe(CLIP)
    opened.wait_for("failed")
    alert = opened.page.locator(".ps-alert")
    limits = {"size": "71 KB", "limit": "8.0 MB"}
    expect(alert).to_contain_text(TEXTS[problem]["zh"].format(**limits))
    expect(alert).to_contain_text(refusal.message)
    if refusal.retry_after_s is not None:
        expect(alert).to_contain_text(str(refusal.retry_after_s))
    opened.page.click("[data-language=en]")
    expect(alert).to_contain_text(TEXTS[problem]["en"].format(**limits))
    if (fix := TEXTS.get(f"{problem}_fix")) is not None:
        expect(alert).to_contain_text(fix["en"])


def test_error_in_the_middle_keeps_the_text_before_it(opened: OpenPage, api: ScriptedApi) -> None:
    api.error_after = 1
    opened.transcribe(CLIP)
    opened.wait_for("failed")
    assert opened.sentences() == [SAID[0][2]]
    expect(opened.page.locator(".ps-alert")).to_contain_text(TEXTS["failed"]["zh"])


def test_after_an_error_the_next_recording_is_transcribed(
    opened: OpenPage, api: ScriptedApi
) -> None:
    api.refusal = Refusal(400, "unknown_audio_format")
    opened.transcribe(CLIP)
    opened.wait_for("failed")
    api.refusal = None
    opened.page.click(".ps-go")
    opened.wait_for("done")
    expect(opened.page.locator(".ps-alert")).to_be_hidden()


def test_no_request_leaves_the_machine(opened: OpenPage) -> None:
    opened.transcribe(CLIP)
    opened.wait_for("done")
    hosts = {urlsplit(url.removeprefix("blob:")).hostname for url in opened.requests}
    assert hosts <= {"127.0.0.1", None}
    assert all(url.startswith(("http:", "blob:", "data:")) for url in opened.requests)


def test_two_users_do_not_see_each_others_results(
    browser: Browser, page_url: str, api: ScriptedApi
) -> None:
    with browser.new_context() as one, browser.new_context() as other:
        first, second = open_page(one, page_url), open_page(other, page_url)
        api.hold_after = 1
        first.transcribe(CLIP)
        # The same file at the same time.
        second.transcribe(CLIP)
        first.wait_for("running")
        second.wait_for("running")
        second.page.click(".ps-cancel")
        api.release()
        first.wait_for("done")
        assert len(first.sentences()) == len(SAID)
        assert second.phase() == "cancelled"
        assert len(second.sentences()) == 1
        third = open_page(other, page_url)
        assert third.sentences() == []


def test_form_lists_served_models_and_sends_the_chosen_one(
    opened: OpenPage, api: ScriptedApi
) -> None:
    opened.page.get_by_label(TEXTS["stage_punctuation"]["zh"]).uncheck()
    opened.transcribe(CLIP)
    opened.wait_for("done")
    (order,) = api.orders
    assert (order["model"], order["stream"]) == ("paraformer-demo", "true")
    assert order["stages"] == "vad,asr"


def choose_model(opened: OpenPage, name: str) -> None:
    opened.page.locator("#ps-model select").select_option(name)


def test_options_are_offered_only_where_they_are_served(
    context: BrowserContext, page_url: str, api: ScriptedApi
) -> None:
    api.stages = ("asr",)
    opened = open_page(context, page_url)
    for name in ("stage_vad", "stage_punctuation"):
        expect(opened.page.get_by_label(TEXTS[name]["zh"])).to_be_hidden()
    expect(opened.page.locator("#ps-language")).to_be_hidden()
    opened.page.get_by_label(TEXTS["itn"]["zh"]).check()
    opened.transcribe(CLIP)
    opened.wait_for("done")
    order = api.orders[0]
    assert (order["stages"], order["itn"]) == ("asr", "true")
    assert "language" not in order
    assert "hotwords" not in order


def test_language_can_be_chosen_where_there_are_several(
    context: BrowserContext, page_url: str, api: ScriptedApi
) -> None:
    api.languages = ("zh", "en", "auto")
    opened = open_page(context, page_url)
    opened.page.locator("#ps-language select").select_option("auto")
    opened.page.click("[data-language=en]")
    expect(opened.page.locator("#ps-language select")).to_have_value("auto")
    opened.transcribe(CLIP)
    opened.wait_for("done")
    assert api.orders[0]["language"] == "auto"


class TestHotwords:
    def test_are_offered_only_for_a_model_that_takes_them(
        self, context: BrowserContext, page_url: str, api: ScriptedApi
    ) -> None:
        api.hotwords = True
        opened = open_page(context, page_url)
        expect(opened.page.locator("#ps-hotwords")).to_be_hidden()
        choose_model(opened, "seaco-demo")
        expect(opened.page.locator("#ps-hotwords")).to_be_visible()
        opened.page.locator("#ps-hotwords textarea").fill("杭州 语音识别")
        opened.transcribe(CLIP)
        opened.wait_for("done")
        assert api.orders[0]["hotwords"] == "杭州 语音识别"
        choose_model(opened, "paraformer-demo")
        expect(opened.page.locator("#ps-hotwords")).to_be_hidden()
        opened.page.click(".ps-go")
        opened.page.wait_for_function("paraserve.state.phase === 'done'")
        assert "hotwords" not in api.orders[1]

    def test_are_not_offered_where_no_model_takes_them(self, opened: OpenPage) -> None:
        choose_model(opened, "seaco-demo")
        expect(opened.page.locator("#ps-hotwords")).to_be_hidden()


def test_sample_is_transcribed_at_a_click(opened: OpenPage, api: ScriptedApi) -> None:
    opened.page.click(".ps-sample")
    opened.wait_for("done")
    assert api.uploads == [(SAMPLES / "demo.flac").read_bytes()]
