"""What the page is sent of a recording, and the subtitle files that it asks for."""

from __future__ import annotations

import json
from typing import TypeAlias

import pytest

from serve_app.client import FailedSpan, StreamEnd, StreamSentence, Word
from serve_app.settings.subtitles import SubtitleSettings
from serve_app.ui.results import ShownResult
from serve_app.ui.subtitle_files import SentSentence, render_subtitles, sentence_of
from tests.transcript.test_subtitles import UNMARKED

Sent: TypeAlias = tuple[int, int, str, list[list[object]]]


def rendered(sentences: list[Sent], max_chars: int | None = None, form: str = "srt") -> str:
    body = {
        "format": form,
        "max_chars": max_chars,
        "duration_ms": None,
        "sentences": [
            {"start": start, "end": end, "text": text, "words": words}
            for start, end, text, words in sentences
        ],
    }
    return render_subtitles(json.dumps(body).encode(), SubtitleSettings())


def test_long_sentence_becomes_subtitles_that_can_be_read() -> None:
    sentences: list[Sent] = [
        (0, 14_000, f"{UNMARKED}，{UNMARKED}。", []),
        (20_000, 24_000, "See you at 9:30, OK?", []),
    ]
    blocks = rendered(sentences).strip().split("\n\n")
    assert len(blocks) == 3
    first, second, last = (block.split("\n", 2) for block in blocks)
    assert first[2].replace("\n", "") == f"{UNMARKED}，"
    assert second[1].startswith("00:00:07,000 --> ")
    assert max(len(line) for line in first[2].split("\n")) <= 18
    assert last[1:] == ["00:00:20,000 --> 00:00:24,000", "See you at 9:30, OK?"]


def test_line_length_is_the_readers_choice() -> None:
    text = rendered([(0, 14_000, f"{UNMARKED}，{UNMARKED}。", [])], max_chars=12, form="vtt")
    assert text.startswith("WEBVTT\n\n")
    lines = [line for line in text.splitlines()[2:] if line and "-->" not in line]
    assert max(map(len, lines)) <= 12


def test_words_bring_their_times_and_marks() -> None:
    sent = SentSentence.model_validate(
        {
            "start": 0,
            "end": 900,
            "text": "“你好，OK。”",
            "words": (("你", 0, 100), ("好", 100, 200), ("OK", 600, 900)),
        }
    )
    sentence = sentence_of(sent)
    assert sentence.text == "“你好，OK。”"
    assert [marked.token.start_ms for marked in sentence.tokens] == [0, 100, 600]


@pytest.mark.parametrize("words", [(("不", 0, 100),), (("你", 0, 100),), (("好", 100, 200),)])
def test_words_that_are_not_those_of_the_text_are_not_used(
    words: tuple[tuple[str, int, int], ...],
) -> None:
    sent = SentSentence.model_validate({"start": 0, "end": 900, "text": "你好", "words": words})
    assert [marked.token.end_ms for marked in sentence_of(sent).tokens] == [450, 900]


def test_emptied_sentences_are_left_out() -> None:
    assert rendered([(0, 900, " ", []), (1000, 2000, "好", [])]).count("-->") == 1


def test_page_gets_whole_milliseconds_and_a_rounded_up_length() -> None:
    result = ShownResult("r1")
    result.add(StreamSentence(0.5, 1.6, " word ", (Word(0.5, 1.6, "word", 0.75),)))
    result.add(StreamEnd("word", 2.4, (FailedSpan(0.5, 1.25, "x"),)))
    shown = result.shown()
    assert isinstance(shown["sentences"], list)
    assert [json.loads(sentence) for sentence in shown["sentences"]] == [
        {"start": 500, "end": 1600, "text": "word", "words": [["word", 500, 1600, 0.75]]}
    ]
    assert shown["failed_ranges"] == [[500, 1250]]
    assert shown["duration_s"] == 3
