"""Joining: sentences do not depend on how the utterances arrived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.core.records import RequestContext, Token, Utterance
from serve_app.transcript.sentences import (
    PunctuationResult,
    PunctuationTask,
    SentenceAssembler,
    join_plain,
    join_punctuated,
    punctuate_tasks,
)
from serve_app.transcript.transcript import FailedRange, Sentence
from tests.fakes.engines import FakePunctuator


def utterance(index: int, words: Sequence[str], start_ms: int, word_ms: int = 100) -> Utterance:
    tokens = tuple(
        Token(word, start_ms + i * word_ms, start_ms + (i + 1) * word_ms, 0.9)
        for i, word in enumerate(words)
    )
    end_ms = start_ms + len(words) * word_ms
    return Utterance(index, start_ms, end_ms, "done" if words else "empty", tokens)


def failed(index: int, start_ms: int, end_ms: int) -> Utterance:
    return Utterance(index, start_ms, end_ms, "failed", error="engine_error: x")


async def arriving(utterances: Sequence[Utterance]) -> AsyncGenerator[Utterance]:
    for item in utterances:
        await asyncio.sleep(0)
        yield item


async def join(
    utterances: Sequence[Utterance], break_s: float | None = None
) -> list[Sentence | FailedRange]:
    async def punctuate(task: PunctuationTask) -> PunctuationResult:
        await asyncio.sleep(0)
        return punctuate_tasks(FakePunctuator(), [task])[0]

    return [
        part
        async for part in join_punctuated(
            RequestContext("r"), arriving(utterances), punctuate, break_s
        )
    ]


def texts(parts: Sequence[Sentence | FailedRange]) -> list[str]:
    return [part.text for part in parts if isinstance(part, Sentence)]


async def test_plain_join_gives_one_sentence_per_utterance_with_words() -> None:
    utterances = [utterance(0, "你好", 0), utterance(1, "", 500), utterance(2, "再见", 900)]
    parts = [part async for part in join_plain(arriving(utterances))]
    assert texts(parts) == ["你好", "再见"]


async def test_sentence_may_span_utterances() -> None:
    parts = await join([utterance(0, "我们", 0), utterance(1, "走吧", 900)])
    assert texts(parts) == ["我们走吧。"]


async def test_long_pause_ends_a_sentence() -> None:
    parts = await join([utterance(0, "我们", 0), utterance(1, "走吧", 5000)], break_s=3.0)
    assert texts(parts) == ["我们。", "走吧。"]


async def test_failed_utterance_ends_the_sentence_and_is_yielded_in_order() -> None:
    parts = await join([utterance(0, "前面", 0), failed(1, 300, 900), utterance(2, "后面", 1000)])
    assert [type(part).__name__ for part in parts] == ["Sentence", "FailedRange", "Sentence"]
    assert parts[1] == FailedRange(300, 900, "engine_error: x")


async def test_recording_without_words_has_no_sentence() -> None:
    assert await join([utterance(0, "", 0), utterance(1, "", 900)]) == []
    assert await join([]) == []


async def test_error_of_the_utterances_is_passed_on() -> None:
    async def broken() -> AsyncGenerator[Utterance]:
        yield utterance(0, "你好", 0)
        raise ValueError("bad audio")

    async def punctuate(task: PunctuationTask) -> PunctuationResult:
        return punctuate_tasks(FakePunctuator(), [task])[0]

    with pytest.raises(ValueError, match="bad audio"):
        async for _ in join_punctuated(RequestContext("r"), broken(), punctuate, None):
            pass


async def test_short_texts_take_one_call() -> None:
    calls = 0

    async def punctuate(task: PunctuationTask) -> PunctuationResult:
        nonlocal calls
        calls += 1
        return punctuate_tasks(FakePunctuator(), [task])[0]

    utterances = [utterance(i, "一二三", i * 1000) for i in range(5)]
    async for _ in join_punctuated(RequestContext("r"), arriving(utterances), punctuate, None):
        pass
    assert calls == 1


def test_assembler_rejects_words_that_were_not_pushed() -> None:
    assembler = SentenceAssembler()
    assembler.push(utterance(0, "你好", 0).tokens)
    with pytest.raises(ValueError, match="did not get"):
        assembler.mark((("您", ""),))


@given(
    text=st.text(alphabet="一二三四五六七八九十句", max_size=150),
    cuts=st.lists(st.integers(0, 150), max_size=12),
)
def test_sentences_do_not_depend_on_the_utterances(text: str, cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [
        utterance(index, text[start:end], start * 100)
        for index, (start, end) in enumerate(pairwise(edges))
    ]
    divided = asyncio.run(join(pieces))
    whole = asyncio.run(join([utterance(0, text, 0)]))
    assert divided == whole
    words = [m.token.text for part in divided if isinstance(part, Sentence) for m in part.tokens]
    assert "".join(words) == text
