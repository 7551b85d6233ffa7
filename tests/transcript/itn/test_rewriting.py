from __future__ import annotations

from collections.abc import AsyncGenerator

from hypothesis import given
from hypothesis import strategies as st

from serve_app.core.records import RecordingEnd, Token
from serve_app.transcript.itn import TextRules, apply_rules, rewrite
from serve_app.transcript.itn.numerals import NUMERALS
from serve_app.transcript.transcript import FailedRange, MarkedToken, Sentence, TranscriptEvent

WORDS = [*sorted(NUMERALS), "点", "分", "之", "年", "月", "号", "百", "的", "AI"]


def sentence(text: str, *, gap_ms: int = 0, marks: dict[int, str] | None = None) -> Sentence:
    return Sentence(
        tuple(
            MarkedToken(
                Token(word, at * (200 + gap_ms), at * (200 + gap_ms) + 200, 0.5 + at / 100),
                (marks or {}).get(at, ""),
            )
            for at, word in enumerate(text)
        )
    )


@st.composite
def sentences(draw: st.DrawFn) -> Sentence:
    tokens, now_ms = [], 0
    for word in draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=20)):
        start_ms = now_ms + draw(st.integers(0, 1500))
        now_ms = start_ms + draw(st.integers(0, 400))
        mark = draw(st.sampled_from(["", "", "", "，", "。"]))
        tokens.append(MarkedToken(Token(word, start_ms, now_ms, draw(st.floats(0, 1))), mark))
    return Sentence(tuple(tokens))


def test_number_has_the_times_of_its_words() -> None:
    result = rewrite(sentence("共二十五人"))

    assert [marked.token.text for marked in result.tokens] == ["共", "25", "人"]
    number = result.tokens[1].token
    assert (number.start_ms, number.end_ms, number.confidence) == (200, 800, 0.51)


def test_number_keeps_the_mark_after_it() -> None:
    assert rewrite(sentence("有二十五，", marks={3: "，"})).text.startswith("有25，")


def test_number_does_not_go_across_a_mark() -> None:
    assert rewrite(sentence("二十五", marks={1: "，"})).text == "20，五"


def test_number_does_not_go_across_a_pause() -> None:
    assert rewrite(sentence("二十五", gap_ms=1200)).text == "二十五"


@given(sentences())
def test_times_are_those_of_the_words(said: Sentence) -> None:
    result = rewrite(said)

    assert (result.start_ms, result.end_ms) == (said.start_ms, said.end_ms)
    starts = {marked.token.start_ms for marked in said.tokens}
    ends = {marked.token.end_ms for marked in said.tokens}
    for marked in result.tokens:
        assert marked.token.start_ms in starts
        assert marked.token.end_ms in ends
    for before, after in zip(result.tokens, result.tokens[1:], strict=False):
        assert before.token.end_ms <= after.token.start_ms


@given(sentences())
def test_marks_stay_in_order(said: Sentence) -> None:
    assert [m.mark for m in rewrite(said).tokens if m.mark] == [
        m.mark for m in said.tokens if m.mark
    ]


@given(sentences())
def test_rewriting_twice_is_rewriting_once(said: Sentence) -> None:
    once = rewrite(said)

    assert rewrite(once) == once


async def test_other_events_pass_untouched() -> None:
    failed, end = FailedRange(0, 10, "engine_error"), RecordingEnd(100)

    async def events() -> AsyncGenerator[TranscriptEvent]:
        yield failed
        yield sentence("二十五")
        yield end

    first, middle, last = [event async for event in apply_rules(events(), TextRules(itn=True))]

    assert first is failed
    assert last is end
    assert isinstance(middle, Sentence)
    assert middle.text == "25"
