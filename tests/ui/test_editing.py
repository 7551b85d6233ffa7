"""Working with a transcript: search, uncertain words, editing, what is taken along."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from serve_app.ui.texts import TEXTS
from tests.ui.conftest import SAMPLES, OpenPage
from tests.ui.scripted_api import SAID, ScriptedApi

pytestmark = pytest.mark.browser

CLIP = SAMPLES / "clip.flac"
TEXT = [text for _, _, text in SAID]
EDITED = "今天苏州的天气很好，出太阳了。"


@pytest.fixture
def done(opened: OpenPage) -> OpenPage:
    opened.transcribe(CLIP)
    opened.wait_for("done")
    return opened


def downloaded(opened: OpenPage, kind: str) -> str:
    with opened.page.expect_download() as started:
        opened.page.click(f"[data-kind={kind}]")
    assert started.value.suggested_filename == f"clip.{kind}"
    return Path(started.value.path()).read_text(encoding="utf-8")


def edit(opened: OpenPage, number: int, text: str, key: str = "Enter") -> None:
    opened.page.locator(".ps-edit").nth(number).click()
    editor = opened.page.locator(".ps-editor")
    editor.fill(text)
    editor.press(key)


def leaves_silently(opened: OpenPage) -> bool:
    return bool(opened.page.evaluate("window.onbeforeunload === null"))


@pytest.mark.parametrize("kind", ["srt", "vtt", "txt", "md", "json"])
def test_downloads_carry_the_text_and_the_edits(done: OpenPage, kind: str) -> None:
    before = downloaded(done, kind)
    assert all(text in before for text in TEXT)
    edit(done, 1, EDITED)
    after = downloaded(done, kind)
    assert EDITED in after
    assert TEXT[1] not in after
    assert TEXT[0] in after
    if kind == "srt":
        assert before.startswith("1\n00:00:00,500 --> 00:00:01,600\n各位同事下午好。\n\n2\n")
    if kind == "md":
        assert after.startswith("# clip\n\n**00:00** 各位同事下午好。\n")


def test_json_has_words_with_times_and_confidences(done: OpenPage) -> None:
    edit(done, 1, EDITED)
    body = json.loads(downloaded(done, "json"))
    first, second, _ = body["segments"]
    assert body["text"] == TEXT[0] + EDITED + TEXT[2]
    assert (body["model"], body["complete"]) == ("paraformer-demo", True)
    assert "".join(word["word"] for word in first["words"]) == TEXT[0].rstrip("。")
    assert {word["confidence"] for word in first["words"]} == {0.98, 0.31}
    assert second["edited"] is True
    words = second["words"]
    assert "".join(word["word"] for word in words) == "今天苏州的天气很好出太阳了"
    # What was not changed keeps its times; what was typed lies between.
    assert words[0]["start"] == 1.9
    assert words[0]["confidence"] == 0.98
    assert "confidence" not in words[-1]
    starts = [word["start"] for word in words]
    assert starts == sorted(starts)
    assert words[-1]["end"] == pytest.approx(3.1)


def test_escape_discards_and_the_original_can_be_restored(done: OpenPage) -> None:
    edit(done, 0, "别的", key="Escape")
    assert done.sentences()[0] == TEXT[0]
    edit(done, 0, "别的")
    expect(done.page.locator(".ps-words").first).to_contain_text("别的")
    expect(done.page.locator(".ps-edited")).to_have_text(TEXTS["edited"]["zh"])
    done.page.locator(".ps-edit").first.click()
    done.page.get_by_role("button", name=TEXTS["restore"]["zh"]).click()
    assert done.sentences()[0] == TEXT[0]
    expect(done.page.locator(".ps-edited")).to_have_count(0)


def test_double_click_edits_and_leaving_the_field_saves(done: OpenPage) -> None:
    done.page.locator(".ps-words").nth(2).dblclick()
    done.page.locator(".ps-editor").fill("改过的<b>句子")
    done.page.locator(".ps-search").focus()
    expect(done.page.locator(".ps-words").nth(2)).to_contain_text("改过的<b>句子")


def test_emptied_sentence_is_left_out_of_downloads(done: OpenPage) -> None:
    edit(done, 0, " ")
    assert downloaded(done, "txt") == "\n".join(TEXT[1:]) + "\n"
    assert downloaded(done, "srt").count("-->") == 2


def test_line_length_of_subtitles_can_be_chosen(api: ScriptedApi, opened: OpenPage) -> None:
    api.said = (
        (0.0, 8.0, "语音识别项目已经完成了百分之二十二，预计二月二十一日上线，请大家准备。"),
    )
    opened.transcribe(CLIP)
    opened.wait_for("done")
    opened.page.get_by_label(TEXTS["subtitle_length"]["zh"]).select_option("12")
    lines = [line for line in downloaded(opened, "srt").splitlines() if "-->" not in line]
    assert max(map(len, lines)) <= 12


def test_copy_takes_the_edited_text(context: BrowserContext, done: OpenPage) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    edit(done, 1, EDITED)
    done.page.click(".ps-copy")
    expect(done.page.locator(".ps-copy")).to_have_text(TEXTS["copied"]["zh"])
    assert done.page.evaluate("navigator.clipboard.readText()") == "\n".join(
        [TEXT[0], EDITED, TEXT[2], ""]
    )


def test_search_finds_counts_and_steps(done: OpenPage) -> None:
    search = done.page.get_by_role("searchbox")
    search.fill("天")
    expect(done.page.locator("mark")).to_have_count(2)
    count = done.page.locator(".ps-count")
    expect(count).to_have_text("1/2")
    search.press("Enter")
    expect(count).to_have_text("2/2")
    search.press("Shift+Enter")
    expect(count).to_have_text("1/2")
    search.fill("没有的")
    expect(count).to_have_text(TEXTS["search_none"]["zh"])
    search.press("Escape")
    expect(done.page.locator("mark")).to_have_count(0)
    assert done.sentences() == TEXT


def test_uncertain_words_are_marked_on_request(done: OpenPage) -> None:
    doubt = done.page.locator(".ps-doubt").first
    line = "getComputedStyle(document.querySelector('.ps-doubt')).textDecorationLine"
    assert done.page.evaluate(line) == "none"
    done.page.get_by_label(TEXTS["uncertain"]["zh"]).check()
    assert done.page.evaluate(line) == "underline"
    expect(doubt).to_have_attribute("title", TEXTS["confidence"]["zh"].format(percent=31))


class TestLeaving:
    def test_asks_only_while_something_would_be_lost(
        self, opened: OpenPage, api: ScriptedApi
    ) -> None:
        assert leaves_silently(opened)
        opened.choose(CLIP)
        assert leaves_silently(opened)
        api.hold_after = 1
        opened.page.click(".ps-go")
        opened.wait_for("running")
        assert not leaves_silently(opened)
        api.release()
        opened.wait_for("done")
        assert not leaves_silently(opened)
        downloaded(opened, "txt")
        assert leaves_silently(opened)
        edit(opened, 0, "改过")
        assert not leaves_silently(opened)
        opened.page.click(".ps-remove")
        assert leaves_silently(opened)

    def test_browser_asks(self, done: OpenPage) -> None:
        done.page.locator(".ps-search").click()
        asked: list[str] = []

        def answer(dialog: object) -> None:
            asked.append(dialog.type)  # type: ignore[attr-defined]
            dialog.dismiss()  # type: ignore[attr-defined]

        done.page.on("dialog", answer)
        done.page.close(run_before_unload=True)
        done.page.wait_for_function("true")
        assert done.sentences() == TEXT
        assert asked == ["beforeunload"]

    def test_sample_is_no_loss(self, opened: OpenPage) -> None:
        opened.page.click(".ps-sample")
        opened.wait_for("done")
        assert leaves_silently(opened)


def test_canceled_transcript_can_be_taken_along(opened: OpenPage, api: ScriptedApi) -> None:
    api.hold_after = 2
    opened.transcribe(CLIP)
    opened.wait_for("running")
    expect(opened.page.locator(".ps-sentences li")).to_have_count(2)
    opened.page.click(".ps-cancel")
    opened.wait_for("cancelled")
    assert downloaded(opened, "txt") == "\n".join(TEXT[:2]) + "\n"
    assert json.loads(downloaded(opened, "json"))["complete"] is False
    assert downloaded(opened, "srt").count("-->") == 2
    api.release()


def test_service_that_is_gone_leaves_text_to_take_along(
    context: BrowserContext, done: OpenPage
) -> None:
    context.set_offline(True)
    done.page.click("[data-kind=srt]")
    expect(done.page.locator(".ps-alert")).to_contain_text(TEXTS["render_failed"]["zh"])
    assert downloaded(done, "txt") == "\n".join(TEXT) + "\n"
    expect(done.page.locator(".ps-alert")).to_be_hidden()
