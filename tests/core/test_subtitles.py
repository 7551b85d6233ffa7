"""Subtitles: valid clocks, ordered cues, readable lengths."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from serve_app.core.chunks import Token
from serve_app.core.subtitles import cues, to_srt, to_vtt
from serve_app.core.transcripts import MarkedToken, Sentence


def sentence(text: str, start_ms: int = 0, word_ms: int = 200) -> Sentence:
    marked: list[MarkedToken] = []
    for character in text:
        if character in "，。":
            marked[-1] = MarkedToken(marked[-1].token, character)
        else:
            at_ms = start_ms + len(marked) * word_ms
            marked.append(MarkedToken(Token(character, at_ms, at_ms + word_ms, 0.9)))
    return Sentence(tuple(marked))


def test_srt_has_numbers_clocks_and_text() -> None:
    assert to_srt([sentence("你好。", 3_600_000 + 61_001)]) == (
        "1\n01:01:01,001 --> 01:01:01,401\n你好。\n\n"
    )


def test_vtt_has_its_header_and_escapes_markup() -> None:
    word = Sentence((MarkedToken(Token("a<b>&c", 0, 500, 0.9)),))
    assert to_vtt([word]) == "WEBVTT\n\n00:00:00.000 --> 00:00:00.500\na&lt;b&gt;&amp;c\n\n"


def test_nothing_said_gives_no_cue() -> None:
    assert to_srt([]) == ""
    assert to_vtt([]) == "WEBVTT\n\n"


def test_long_sentence_is_divided_after_its_marks() -> None:
    found = list(cues([sentence("一" * 20 + "，" + "二" * 20 + "。")]))
    assert [cue.text for cue in found] == ["一" * 20 + "，", "二" * 20 + "。"]


@given(
    parts=st.lists(
        st.tuples(st.text(alphabet="一二三，。", min_size=1, max_size=90), st.integers(0, 3000)),
        max_size=6,
    ),
    word_ms=st.integers(1, 1000),
)
def test_cues_are_ordered_never_overlap_and_keep_every_word(
    parts: list[tuple[str, int]], word_ms: int
) -> None:
    sentences: list[Sentence] = []
    now_ms = 0
    for text, gap_ms in parts:
        spoken = "一" + text
        sentences.append(sentence(spoken, now_ms, word_ms))
        now_ms = sentences[-1].end_ms + gap_ms
    found = list(cues(sentences))
    assert "".join(cue.text for cue in found) == "".join(s.text for s in sentences)
    assert all(cue.start_ms < cue.end_ms for cue in found)
    assert all(a.end_ms <= b.start_ms for a, b in pairwise(found))
    assert all(len(cue.text) <= 34 for cue in found)
