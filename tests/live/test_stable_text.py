"""What is told of an open segment, and how its final text continues it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.core.records import Token
from serve_app.core.words import join_words
from serve_app.live.stable_text import StableText, continuation, sentences_of
from serve_app.transcript.transcript import MarkedToken

FAR_MS = 1_000_000


def words(text: str | Sequence[str], start_ms: int = 0) -> list[MarkedToken]:
    """Each item a word of 100 ms; marks follow their word."""
    found: list[MarkedToken] = []
    for item in text:
        if item in "，。？,." and found:
            found[-1] = MarkedToken(found[-1].token, item)
        else:
            at_ms = start_ms + len(found) * 100
            found.append(MarkedToken(Token(item, at_ms, at_ms + 100, 0.9)))
    return found


def test_words_are_told_once_two_decodes_agree() -> None:
    text = StableText()
    assert text.advance(words("今天天"), FAR_MS) == ""
    assert text.advance(words("今天天气"), FAR_MS) == "今天天"
    assert text.advance(words("今天天器很"), FAR_MS) == ""
    assert text.advance(words("今天天器很好"), FAR_MS) == "器很"
    assert text.complete(words("今天天器很好。"), FAR_MS) == "好。"
    assert text.text == "今天天器很好。"


def test_a_word_is_told_with_its_mark_once_both_are_agreed_on() -> None:
    text = StableText()
    text.advance(words("你好世。"), FAR_MS)
    assert text.advance(words("你好，世界。"), FAR_MS) == "你"
    assert text.advance(words("你好，世界上。"), FAR_MS) == "好，世"


def test_a_mark_waits_for_the_word_after_it() -> None:
    text = StableText()
    text.advance(words("说明语。算"), FAR_MS)
    assert text.advance(words("说明语。算了"), FAR_MS) == "说明语。算"
    text = StableText()
    text.advance(words("说明语。"), FAR_MS)
    text.advance(words("说明语。预"), FAR_MS)
    assert text.text == "说明"
    assert text.complete(words("说明预算。"), FAR_MS) == "预算。"


def test_words_at_the_end_of_the_audio_wait() -> None:
    text = StableText()
    text.advance(words("今天天气"), 100)
    assert text.advance(words("今天天气很"), 200) == "今天"
    assert text.advance(words("今天天气很好"), 700) == "天气很"


def test_what_was_told_stays_when_a_decode_changes_its_mind() -> None:
    text = StableText()
    text.advance(words("他们在哪里"), FAR_MS)
    text.advance(words("他们在哪里呀"), FAR_MS)
    assert text.text == "他们在哪里"
    # One word differs, and the text goes on after the same number of words.
    assert text.complete(words("她们在哪里呀。"), FAR_MS) == "呀。"
    assert text.text == "他们在哪里呀。"


@pytest.mark.parametrize(
    ("told", "decoded", "rest"),
    [
        ("一二三", "一二三四五", "四五"),
        ("一二三", "一二七四五", "四五"),
        ("一二三", "四五", "四五"),
        ("一二三", "", ""),
        ("", "一二", "一二"),
        ("一二三四", "零一二三四五", "五"),
    ],
)
def test_a_text_continues_where_the_decode_matches_best(told: str, decoded: str, rest: str) -> None:
    decode = words(decoded, start_ms=300 if decoded == "四五" else 0)
    at = continuation(words(told), decode)
    assert "".join(word.token.text for word in decode[at:]) == rest


def test_a_mark_is_appended_to_the_last_word_told() -> None:
    text = StableText()
    text.advance(words("好的吗"), FAR_MS)
    text.advance(words("好的吗我"), FAR_MS)
    assert text.complete(words("好的吗？"), FAR_MS) == "？"
    assert [word.mark for word in text.tokens] == ["", "", "？"]


def test_latin_words_are_spaced() -> None:
    text = StableText()
    decode = words(["good", "morning", "everyone", "here"])
    assert text.advance(decode, FAR_MS) == ""
    assert text.advance(decode, FAR_MS) == "good morning everyone"
    assert text.complete(decode, FAR_MS) == " here"


def test_sentences_end_at_their_marks() -> None:
    divided = sentences_of(words("一二，三。四"))
    assert [sentence.text for sentence in divided] == ["一二，三。", "四"]
    assert sentences_of([]) == ()


_WORDS = st.lists(st.sampled_from(["一", "二", "三", "a", "bc", "，", "。"]), max_size=12)


@given(decodes=st.lists(st.tuples(_WORDS, st.integers(0, 2000)), min_size=1, max_size=8))
def test_the_text_only_grows_whatever_the_decodes_say(
    decodes: list[tuple[list[str], int]],
) -> None:
    text = StableText()
    told = ""
    for decoded, audio_end_ms in decodes:
        told += text.advance(words(decoded), audio_end_ms)
        assert text.text == told
    told += text.complete(words(decodes[-1][0]), FAR_MS)
    assert text.text == told
    assert join_words(word.token.text + word.mark for word in text.tokens) == told
    assert "".join(one.text for one in sentences_of(text.tokens)).replace(" ", "") == told.replace(
        " ", ""
    )
    times = [time for word in text.tokens for time in (word.token.start_ms, word.token.end_ms)]
    assert times == sorted(times)


@given(
    said=st.text("一二三四五六", max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=6),
)
def test_a_decode_that_only_grows_is_told_word_for_word(said: str, cuts: list[int]) -> None:
    text = StableText()
    told = "".join(text.advance(words(said[:cut]), cut * 100) for cut in sorted(cuts))
    assert told + text.complete(words(said), FAR_MS) == said
