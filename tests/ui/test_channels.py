"""Separate channels on the page: asking, names, downloads."""

from __future__ import annotations

import json

import pytest

from serve_app.client import StreamEnd, StreamSegment, StreamSentence, Word
from serve_app.settings.subtitles import SubtitleSettings
from serve_app.ui.results import ShownResult
from serve_app.ui.subtitle_files import render_subtitles
from serve_app.ui.texts import TEXTS
from tests.ui.conftest import OpenPage
from tests.ui.scripted_api import ScriptedApi
from tests.ui.test_editing import CLIP, TEXT, downloaded

browser = pytest.mark.browser


@pytest.fixture
def api() -> ScriptedApi:
    return ScriptedApi(channels=(0, 1, 1))


@browser
def test_channels_are_asked_for_and_named_where_they_change(
    opened: OpenPage, api: ScriptedApi
) -> None:
    opened.page.get_by_label(TEXTS["separate_channels"]["zh"]).check()
    opened.transcribe(CLIP)
    opened.wait_for("done")

    (order,) = api.orders
    assert order["channels"] == "separate"
    assert opened.sentences() == TEXT
    assert opened.page.locator(".ps-speaker:visible").all_inner_texts() == ["声道 1", "声道 2"]
    segments = json.loads(downloaded(opened, "json"))["segments"]
    assert [segment["channel"] for segment in segments] == [0, 1, 1]
    assert downloaded(opened, "txt").startswith("声道 1: ")
    assert "声道 2: " in downloaded(opened, "srt")
    assert opened.complaints == []


@browser
def test_channels_are_mixed_unless_the_option_is_checked(
    opened: OpenPage, api: ScriptedApi
) -> None:
    opened.transcribe(CLIP)
    opened.wait_for("done")
    (order,) = api.orders
    assert "channels" not in order
    assert opened.page.locator(".ps-speaker").count() == 0


def word(text: str, start_s: float, channel: int) -> Word:
    return Word(start_s, start_s + 0.5, text, 0.9, channel=channel)


def test_labelled_sentences_of_overlapping_channels_keep_their_own_words() -> None:
    result = ShownResult("run")
    first, second = (
        (word("你", 0.0, 0), word("好", 2.0, 0)),
        (word("再", 0.5, 1), word("见", 1.0, 1)),
    )
    result.add(StreamSentence(0.0, 2.5, "你好", first, 0))
    result.add(StreamSentence(0.5, 1.5, "再见", second, 1))
    result.add(StreamSegment(0.0, 2.5, "你好", "A", 0))
    result.add(StreamSegment(0.5, 1.5, "再见", "B", 1))
    result.add(StreamEnd("你好\n再见", 3.0))

    labelled = [json.loads(str(one)) for one in result.labelled]
    assert [(one["speaker"], one["channel"]) for one in labelled] == [("A", 0), ("B", 1)]
    assert [[text for text, *_ in one["words"]] for one in labelled] == [["你", "好"], ["再", "见"]]


def test_cues_of_talk_over_overlap_in_a_subtitle_file() -> None:
    sentences = [
        {"start": 0, "end": 4000, "text": "您好请问", "speaker": "声道 1", "channel": 0},
        {"start": 1000, "end": 3000, "text": "我想问", "speaker": "声道 2", "channel": 1},
    ]
    body = json.dumps({"format": "srt", "sentences": sentences}).encode()
    file = render_subtitles(body, SubtitleSettings())
    assert "00:00:00,000 --> 00:00:04,000\n声道 1: 您好请问" in file
    assert "00:00:01,000 --> 00:00:03,000\n声道 2: 我想问" in file
