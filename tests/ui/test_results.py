"""What can be downloaded of a recording that the page has heard."""

from __future__ import annotations

from serve_app.ui.client import SentenceReceived, TranscriptEnded
from serve_app.ui.results import ShownResult
from tests.transcript.test_subtitles import UNMARKED


def test_long_sentence_becomes_subtitles_that_can_be_read() -> None:
    result = ShownResult("r1")
    result.add(SentenceReceived(0, 14_000, f"{UNMARKED}，{UNMARKED}。"))
    result.add(SentenceReceived(20_000, 24_000, "See you at 9:30, OK?"))
    result.add(TranscriptEnded(25, ()))
    downloads = result.shown()["downloads"]
    assert isinstance(downloads, dict)
    blocks = downloads["srt"].strip().split("\n\n")
    assert len(blocks) == 3
    first, second, last = (block.split("\n", 2) for block in blocks)
    assert first[2].replace("\n", "") == f"{UNMARKED}，"
    assert second[1].startswith("00:00:07,000 --> ")
    assert max(len(line) for line in first[2].split("\n")) <= 18
    assert last[1:] == ["00:00:20,000 --> 00:00:24,000", "See you at 9:30, OK?"]
