"""What can be downloaded of a recording that the page has heard."""

from __future__ import annotations

from serve_app.client import FailedSpan, StreamEnd, StreamSentence
from serve_app.ui.results import ShownResult
from tests.transcript.test_subtitles import UNMARKED


def test_long_sentence_becomes_subtitles_that_can_be_read() -> None:
    result = ShownResult("r1")
    result.add(StreamSentence(0.0, 14.0, f"{UNMARKED}，{UNMARKED}。"))
    result.add(StreamSentence(20.0, 24.0, "See you at 9:30, OK?"))
    result.add(StreamEnd("", 24.7))
    downloads = result.shown()["downloads"]
    assert isinstance(downloads, dict)
    blocks = downloads["srt"].strip().split("\n\n")
    assert len(blocks) == 3
    first, second, last = (block.split("\n", 2) for block in blocks)
    assert first[2].replace("\n", "") == f"{UNMARKED}，"
    assert second[1].startswith("00:00:07,000 --> ")
    assert max(len(line) for line in first[2].split("\n")) <= 18
    assert last[1:] == ["00:00:20,000 --> 00:00:24,000", "See you at 9:30, OK?"]


def test_page_gets_whole_milliseconds_and_a_rounded_up_length() -> None:
    result = ShownResult("r1")
    result.add(StreamSentence(0.5, 1.6, " word "))
    result.add(StreamEnd("word", 2.4, (FailedSpan(0.5, 1.25, "x"),)))
    shown = result.shown()
    assert shown["sentences"] == [[500, 1600, "word"]]
    assert shown["failed_ranges"] == [[500, 1250]]
    assert shown["duration_s"] == 3
