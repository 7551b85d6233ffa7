"""Times of a transcript: ordered, never overlapping, inside the audio, whatever an engine says."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve_app.core.records import (
    SAMPLES_PER_MS,
    Chunk,
    Recognition,
    RequestContext,
    Token,
    Utterance,
)
from serve_app.transcript.fanout import to_recording_time
from serve_app.transcript.itn import rewrite
from serve_app.transcript.sentences import (
    PunctuationResult,
    PunctuationTask,
    join_plain,
    join_punctuated,
    punctuate_tasks,
)
from serve_app.transcript.subtitles import cues
from serve_app.transcript.transcript import Sentence
from tests.fakes.engines import FakePunctuator

_WORDS = st.sampled_from(["你", "好", "二", "十", "五", "吗", "API"])
_TIMES_MS = st.integers(-500, 3000)


@st.composite
def utterances(draw: st.DrawFn) -> list[Utterance]:
    """Chunks one after another with tokens of a careless engine."""
    context, start_ms, placed = RequestContext("request"), 0, []
    for index in range(draw(st.integers(1, 5))):
        start_ms += draw(st.integers(0, 4000))
        duration_ms = draw(st.integers(0, 2000))
        pcm = np.zeros(duration_ms * SAMPLES_PER_MS, np.int16)
        tokens = tuple(
            Token(word, draw(_TIMES_MS), draw(_TIMES_MS), 0.9)
            for word in draw(st.lists(_WORDS, max_size=8))
        )
        placed.append(to_recording_time(Chunk(context, index, start_ms, pcm), Recognition(tokens)))
        start_ms += duration_ms
    return placed


async def _arriving(items: list[Utterance]) -> AsyncGenerator[Utterance]:
    for item in items:
        yield item


async def _punctuate(task: PunctuationTask) -> PunctuationResult:
    return punctuate_tasks(FakePunctuator(), [task])[0]


async def _punctuated(items: list[Utterance]) -> list[Sentence]:
    parts = join_punctuated(RequestContext("request"), _arriving(items), _punctuate, 3.0)
    return [part async for part in parts if isinstance(part, Sentence)]


def _spans(sentences: list[Sentence]) -> list[tuple[int, int]]:
    return [
        (marked.token.start_ms, marked.token.end_ms)
        for sentence in sentences
        for marked in sentence.tokens
    ]


@given(utterances())
def test_tokens_are_ordered_and_inside_their_chunk(items: list[Utterance]) -> None:
    for item in items:
        times = [time for token in item.tokens for time in (token.start_ms, token.end_ms)]
        assert times == sorted(times)
        assert all(item.start_ms <= time <= item.end_ms for time in times)


@given(utterances())
async def test_sentences_and_cues_never_overlap(items: list[Utterance]) -> None:
    for sentences in (await _punctuated(items), [rewrite(s) for s in await _punctuated(items)]):
        for before, after in pairwise(sentences):
            assert before.end_ms <= after.start_ms
        assert all(0 <= s.start_ms <= s.end_ms <= items[-1].end_ms for s in sentences)
        for first, second in pairwise(cues(sentences)):
            assert first.end_ms <= second.start_ms


@given(utterances())
async def test_punctuation_moves_no_time(items: list[Utterance]) -> None:
    plain = [part async for part in join_plain(_arriving(items)) if isinstance(part, Sentence)]

    assert _spans(await _punctuated(items)) == _spans(plain)
