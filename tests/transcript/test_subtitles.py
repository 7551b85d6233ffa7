"""Subtitles: valid clocks, ordered cues that can be read, and nothing cut in two."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.core.records import Token
from serve_app.transcript.subtitles import Cue, SubtitleOptions, cues, to_srt, to_vtt
from serve_app.transcript.transcript import MarkedToken, Sentence, Transcript

DIVIDED = "今天|我们|来|讨论|一下|关于|这个|项目|的|进度|以及|后面|的|安排|和|大家|的|分工|问题|吧"
UNMARKED = DIVIDED.replace("|", "")
ONE_LINE = SubtitleOptions(max_lines=1)


def sentence(text: str, start_ms: int = 0, word_ms: int = 200) -> Sentence:
    marked: list[MarkedToken] = []
    for character in text:
        if character in "，。？、":
            marked[-1] = MarkedToken(marked[-1].token, character)
        else:
            at_ms = start_ms + len(marked) * word_ms
            marked.append(MarkedToken(Token(character, at_ms, at_ms + word_ms, 0.9)))
    return Sentence(tuple(marked))


def spaced(text: str, word_ms: int = 300) -> Sentence:
    return Sentence(
        tuple(
            MarkedToken(Token(word, at * word_ms, (at + 1) * word_ms, 0.9))
            for at, word in enumerate(text.split())
        )
    )


def letters(cue: Cue) -> int:
    return sum(character.isalnum() for character in cue.text)


def test_srt_has_numbers_clocks_and_text() -> None:
    assert to_srt([sentence("你好大家好。", 3_600_000 + 61_001)]) == (
        "1\n01:01:01,001 --> 01:01:02,001\n你好大家好。\n\n"
    )


def test_vtt_has_its_header_and_escapes_markup() -> None:
    word = Sentence((MarkedToken(Token("a<b>&c", 0, 1500, 0.9)),))
    assert to_vtt([word]) == "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na&lt;b&gt;&amp;c\n\n"


def test_nothing_said_gives_no_cue() -> None:
    assert to_srt([]) == ""
    assert to_vtt([]) == "WEBVTT\n\n"


def test_long_sentence_is_divided_after_its_marks() -> None:
    found = list(cues([sentence("天" * 20 + "，" + "地" * 20 + "。")]))
    assert ["".join(cue.text.split()) for cue in found] == ["天" * 20 + "，", "地" * 20 + "。"]


@pytest.mark.parametrize("length", range(4, len(UNMARKED) + 1))
@pytest.mark.parametrize("max_chars", [12, 16, 20])
@pytest.mark.parametrize("max_lines", [1, 2])
def test_words_are_not_cut_in_two_and_no_cue_is_tiny(
    length: int, max_chars: int, max_lines: int
) -> None:
    options = SubtitleOptions(max_chars=max_chars, max_lines=max_lines)
    found = list(cues([sentence(UNMARKED[:length])], options))
    edges = {0}
    for word in DIVIDED.split("|"):
        edges.add(max(edges) + len(word))
    at = 0
    for line in "\n".join(cue.text for cue in found).split("\n"):
        assert len(line) <= max_chars
        at += len(line)
        assert at in edges or at == length
    assert all(letters(cue) > 2 for cue in found)
    assert all(cue.text.count("\n") < max_lines for cue in found)


def test_parts_of_a_sentence_are_about_equally_long() -> None:
    first, second = cues([sentence(UNMARKED)], ONE_LINE)
    assert abs(len(first.text) - len(second.text)) <= 4


def test_lines_of_a_cue_are_about_equally_long() -> None:
    (cue,) = cues([sentence(UNMARKED)])
    first, second = cue.text.split("\n")
    assert abs(len(first) - len(second)) <= 4


def test_slow_speech_is_divided_by_the_longest_duration() -> None:
    found = list(cues([sentence(UNMARKED, word_ms=600)]))
    assert len(found) > 2
    assert all(cue.end_ms - cue.start_ms <= 7000 for cue in found)
    assert all(letters(cue) > 2 for cue in found)


def test_one_endless_word_is_shown_for_the_longest_duration() -> None:
    assert list(cues([sentence("好", word_ms=20_000)])) == [Cue(0, 7000, "好")]


def test_short_answers_share_a_cue() -> None:
    answers = [sentence("好。", 0), sentence("嗯。", 600), sentence("对。", 1200)]
    assert list(cues(answers)) == [Cue(0, 1400, "好。嗯。对。")]


def test_short_answer_joins_the_sentence_beside_it() -> None:
    found = list(cues([sentence("好。", 0), sentence("我们现在开始说明预算。", 600)]))
    assert [cue.text for cue in found] == ["好。我们现在开始说明预算。"]


def test_answers_in_silence_are_shown_long_enough_to_be_seen() -> None:
    answers = [sentence("好。", 0), sentence("嗯。", 2000), sentence("对。", 4000)]
    assert list(cues(answers)) == [
        Cue(0, 1000, "好。"),
        Cue(2000, 3000, "嗯。"),
        Cue(4000, 5000, "对。"),
    ]


def test_longer_cue_never_reaches_into_the_next_one() -> None:
    found = list(cues([sentence("好。", 0, 100), sentence("对。", 1150)]))
    assert [(cue.start_ms, cue.end_ms) for cue in found] == [(0, 1000), (1150, 2150)]
    patient = SubtitleOptions(min_duration_s=3.0)
    found = list(cues([sentence("好。", 0, 100), sentence("对。", 1150)], patient))
    assert [(cue.start_ms, cue.end_ms) for cue in found] == [(0, 1150), (1150, 4150)]


def test_no_cue_is_shown_beyond_the_recording() -> None:
    assert list(cues([sentence("好。", 0)], duration_ms=450)) == [Cue(0, 450, "好。")]
    assert to_srt([sentence("好。")], duration_ms=450).endswith("00:00:00,450\n好。\n\n")


def test_fast_speech_with_many_commas_becomes_cues_that_can_be_read() -> None:
    clauses = "我们，今天，来讨论，一下，关于，这个，项目，的进度，以及，后面，"
    text = f"{clauses}的安排，和大家，的分工，问题吧。"
    found = list(cues([sentence(text, word_ms=100)]))
    assert all(cue.end_ms - cue.start_ms >= 1000 for cue in found)
    assert len(found) <= 3


def test_cue_that_is_spoken_too_fast_is_shown_until_it_is_read() -> None:
    options = SubtitleOptions(max_cps=5.0)
    (cue,) = cues([sentence("我们现在开始说明预算。", word_ms=100)], options)
    assert cue.end_ms - cue.start_ms == 2000


@pytest.mark.parametrize("pause_ms", [1000, 2500])
def test_no_cue_lasts_over_a_silence(pause_ms: int) -> None:
    """As in recordings that no VAD has divided: all is one sentence there."""
    first, second = sentence("我们开始吧"), sentence("大家好", 5 * 200 + pause_ms)
    found = list(cues([Sentence(first.tokens + second.tokens)]))
    assert [cue.text for cue in found] == ["我们开始吧", "大家好"]
    assert found[0].end_ms == 1000


def test_pauses_are_good_places_to_divide() -> None:
    first, second = sentence("天地玄黄宇宙洪荒天地"), sentence("日月盈昃辰宿", 10 * 200 + 600)
    found = list(cues([Sentence(first.tokens + second.tokens)], SubtitleOptions(max_chars=12)))
    assert [cue.text for cue in found] == ["天地玄黄宇宙洪荒天地", "日月盈昃辰宿"]


def test_numbers_stay_whole() -> None:
    text = "销售额达到了三千五百万元比去年同期增长了百分之三十九点七超过了预期目标"
    for max_chars in range(10, 24):
        found = cues([sentence(text)], SubtitleOptions(max_chars=max_chars))
        lines = "\n".join(cue.text for cue in found)
        assert "三千五百万元" in lines
        assert "百分之三十九点七" in lines


def test_english_words_stay_whole_and_lines_are_longer() -> None:
    text = "this is a rather long english sentence that somebody said without any mark at all"
    found = list(cues([spaced(text)]))
    assert [word for cue in found for word in cue.text.split()] == text.split()
    lines = [line for cue in found for line in cue.text.split("\n")]
    assert all(18 < len(line) <= 42 for line in lines)


def test_limits_given_hold_for_all_scripts() -> None:
    found = list(cues([spaced("one two three four five six seven")], SubtitleOptions(max_chars=10)))
    assert max(len(line) for cue in found for line in cue.text.split("\n")) <= 10


@given(
    parts=st.lists(
        st.tuples(
            st.text(alphabet="一二三天我们的和，。", min_size=1, max_size=90), st.integers(0, 3000)
        ),
        max_size=6,
    ),
    word_ms=st.integers(1, 1000),
    max_chars=st.integers(4, 40),
    max_lines=st.integers(1, 4),
    min_duration_s=st.floats(0, 3),
    max_duration_s=st.floats(3, 20),
    max_cps=st.floats(2, 60),
)
def test_cues_are_ordered_in_bounds_and_keep_every_word(
    parts: list[tuple[str, int]],
    word_ms: int,
    max_chars: int,
    max_lines: int,
    min_duration_s: float,
    max_duration_s: float,
    max_cps: float,
) -> None:
    sentences: list[Sentence] = []
    now_ms = 0
    for text, gap_ms in parts:
        sentences.append(sentence("天" + text, now_ms, word_ms))
        now_ms = sentences[-1].end_ms + gap_ms
    options = SubtitleOptions(max_chars, max_lines, min_duration_s, max_duration_s, max_cps)
    found = list(cues(sentences, options))
    whole = Transcript(now_ms, tuple(sentences)).text
    assert "".join(cue.text.replace("\n", "") for cue in found) == whole
    assert all(cue.start_ms < cue.end_ms for cue in found)
    assert all(a.end_ms <= b.start_ms for a, b in pairwise(found))
    for cue in found:
        lines = cue.text.split("\n")
        assert len(lines) <= max_lines
        # A word and its mark are not parted.
        assert all(len(line) <= max_chars for line in lines)
        # One unit more than fits is a single word; it is shown for no longer.
        assert cue.end_ms - cue.start_ms <= round(max_duration_s * 1000)


@given(
    parts=st.lists(
        st.tuples(st.text(alphabet="天我们的和，。", max_size=30), st.integers(0, 1500)),
        min_size=1,
        max_size=12,
    ),
    word_ms=st.integers(50, 600),
)
def test_tiny_cue_stands_alone_only_where_it_fits_no_neighbor(
    parts: list[tuple[str, int]], word_ms: int
) -> None:
    sentences: list[Sentence] = []
    now_ms = 0
    for text, gap_ms in parts:
        sentences.append(sentence("天" + text, now_ms, word_ms))
        now_ms = sentences[-1].end_ms + gap_ms
    for before, after in pairwise(cues(sentences)):
        pause_ms = after.start_ms - before.end_ms
        if min(letters(before), letters(after)) <= 2 and pause_ms < 1000:
            together = before.text + after.text
            # A cue that is shown for longer than it was said hides what the pause was.
            was_extended = before.end_ms - before.start_ms > letters(before) * word_ms
            too_long = after.end_ms - before.start_ms > 7000
            assert was_extended or too_long or len(together.replace("\n", "")) > 32
