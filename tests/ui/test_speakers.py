"""Speaker labels on the page: asking, colors, renaming, downloads."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from serve_app.client import StreamEnd, StreamSegment, StreamSentence, Word
from serve_app.settings.subtitles import SubtitleSettings
from serve_app.ui.results import ShownResult
from serve_app.ui.subtitle_files import render_subtitles
from serve_app.ui.texts import TEXTS
from tests.ui.conftest import OpenPage
from tests.ui.scripted_api import ScriptedApi
from tests.ui.test_editing import CLIP, TEXT, downloaded, edit

browser = pytest.mark.browser
NAME = "Anna <b>"


@pytest.fixture
def api() -> ScriptedApi:
    stages = ("vad", "asr", "punctuation", "speakers")
    return ScriptedApi(stages=stages, speakers=("A", "B", "B"))


@pytest.fixture
def done(opened: OpenPage) -> OpenPage:
    opened.page.get_by_label(TEXTS["stage_speakers"]["zh"]).check()
    opened.page.get_by_label(TEXTS["num_speakers"]["zh"]).select_option("2")
    opened.transcribe(CLIP)
    opened.wait_for("done")
    return opened


def rename(opened: OpenPage, number: int, name: str, key: str = "Enter") -> None:
    opened.page.locator(".ps-speaker:visible").nth(number).click()
    editor = opened.page.locator(".ps-speaker-editor")
    editor.fill(name)
    editor.press(key)


@browser
def test_labels_are_asked_for_and_shown_where_the_speaker_changes(
    done: OpenPage, api: ScriptedApi
) -> None:
    (order,) = api.orders
    assert order["response_format"] == "diarized_json"
    assert (order["speaker_labels"], order["num_speakers"]) == ("true", "2")
    assert done.sentences() == TEXT
    assert done.page.locator(".ps-speaker:visible").all_inner_texts() == ["A", "B"]
    lines = done.page.locator(".ps-sentences li")
    colors = [
        lines.nth(number).evaluate("one => getComputedStyle(one).borderLeftColor")
        for number in range(3)
    ]
    assert colors[0] != colors[1] == colors[2]
    assert done.complaints == []


@browser
def test_no_labels_are_made_unless_the_option_is_checked(
    opened: OpenPage, api: ScriptedApi
) -> None:
    expect(opened.page.locator("#ps-speakers")).to_be_hidden()
    opened.transcribe(CLIP)
    opened.wait_for("done")
    (order,) = api.orders
    assert order["response_format"] == "json"
    assert "speaker_labels" not in order
    assert "speakers" not in order["stages"]
    expect(opened.page.locator(".ps-speaker")).to_have_count(0)


@browser
def test_renamed_speaker_is_named_everywhere_and_in_downloads(done: OpenPage) -> None:
    rename(done, 1, NAME)
    assert done.page.locator(".ps-speaker:visible").all_inner_texts() == ["A", NAME]
    rename(done, 0, "别人", key="Escape")
    assert done.page.locator(".ps-speaker:visible").all_inner_texts() == ["A", NAME]
    assert downloaded(done, "txt") == f"A: {TEXT[0]}\n{NAME}: {TEXT[1]}\n{TEXT[2]}\n"
    assert f"**{NAME.replace('<', chr(92) + '<').replace('>', chr(92) + '>')}:**" in downloaded(
        done, "md"
    )
    segments = json.loads(downloaded(done, "json"))["segments"]
    assert [one["speaker"] for one in segments] == ["A", NAME, NAME]
    assert [len(one["words"]) > 0 for one in segments] == [True] * 3
    srt = downloaded(done, "srt")
    assert f"A: {TEXT[0]}" in srt
    assert f"{NAME}: {TEXT[1]}" in srt
    assert f"<v Anna &lt;b&gt;>{TEXT[1]}" in downloaded(done, "vtt")


@browser
def test_edit_before_the_end_is_kept(opened: OpenPage, api: ScriptedApi) -> None:
    api.hold_after = 2
    opened.page.get_by_label(TEXTS["stage_speakers"]["zh"]).check()
    opened.transcribe(CLIP)
    opened.wait_for("running")
    expect(opened.page.locator(".ps-sentences li")).to_have_count(2)
    edit(opened, 1, "改过的句子。")
    api.release()
    opened.wait_for("done")
    assert downloaded(opened, "txt") == f"A: {TEXT[0]}\nB: 改过的句子。\n{TEXT[2]}\n"


def test_words_go_to_the_segment_that_they_are_in() -> None:
    result = ShownResult("run")
    words = (Word(0.5, 0.7, "你", 0.9), Word(0.7, 1.0, "好", 0.9), Word(1.0, 1.3, "在", 0.8))
    result.add(StreamSentence(0.5, 1.3, "你好，在。", words))
    assert result.shown()["labelled"] == []
    result.add(StreamSegment(0.5, 1.0, "你好，", "A"))
    result.add(StreamSegment(1.0, 1.3, "在。", "B"))
    result.add(StreamEnd("你好，在。", 2.0))
    labelled = result.shown()["labelled"]
    assert isinstance(labelled, list)
    first, second = map(json.loads, labelled)
    assert (first["speaker"], first["text"], len(first["words"])) == ("A", "你好，", 2)
    assert (second["speaker"], second["words"]) == ("B", [["在", 1000, 1300, 0.8]])


def test_words_of_two_channels_that_talk_at_once_are_kept_apart() -> None:
    result = ShownResult("run")
    first = (Word(0.0, 1.0, "你", 0.9, channel=0), Word(2.0, 3.0, "好", 0.9, channel=0))
    result.add(StreamSentence(0.0, 3.0, "你好", first, 0))
    result.add(StreamSentence(1.0, 2.5, "在", (Word(1.0, 2.5, "在", 0.8, channel=1),), 1))
    for start_s, end_s, text, speaker, channel in (
        (0.0, 1.0, "你", "A", 0),
        (1.0, 2.5, "在", "C", 1),
        (2.0, 3.0, "好", "B", 0),
    ):
        result.add(StreamSegment(start_s, end_s, text, speaker, channel))
    words = [[word for word, *_ in json.loads(one)["words"]] for one in result.labelled]
    assert words == [["你"], ["在"], ["好"]]


def order(speaker: str) -> bytes:
    sentence = {"start": 0, "end": 900, "text": "你好。", "speaker": speaker}
    return json.dumps({"format": "srt", "sentences": [sentence]}).encode()


def test_subtitles_carry_the_names_and_refuse_what_would_break_a_cue() -> None:
    assert "Anna: 你好。" in render_subtitles(order("Anna"), SubtitleSettings())
    for name in ("", "a\nb", "a" * 65):
        with pytest.raises(ValueError, match="speaker"):
            render_subtitles(order(name), SubtitleSettings())
