"""Sentences of separate channels: in order of time, as soon as that is certain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.audio import AudioLimits
from serve_app.core.records import Chunk, RecordingEnd, RequestContext, Token, Utterance
from serve_app.transcript.assembly import assemble
from serve_app.transcript.chunking import SegmentChunker
from serve_app.transcript.segmentation import Segmentation, SegmentationOptions
from serve_app.transcript.sentences import PunctuationResult, PunctuationTask, punctuate_tasks
from serve_app.transcript.subtitles import DEFAULT_SUBTITLES, cues, to_srt, to_vtt
from serve_app.transcript.transcript import (
    FailedRange,
    MarkedToken,
    Sentence,
    Transcript,
    TranscriptEvent,
    collect,
)
from tests.fakes.calls import file_of
from tests.fakes.engines import FakePunctuator, FakeVad

CONTEXT = RequestContext("r")
OPTIONS = SegmentationOptions(
    AudioLimits(block_s=1.0, max_separate_channels=3), max_segment_s=2.0, max_group_s=3.0
)


def utterance(
    index: int, channel: int, text: str, start_ms: int, settled_ms: int, *, failed: bool = False
) -> Utterance:
    tokens = tuple(
        Token(word, start_ms + 100 * i, start_ms + 100 * (i + 1), 0.9)
        for i, word in enumerate(text)
    )
    return Utterance(
        index,
        start_ms,
        start_ms + max(100 * len(text), 100),
        "failed" if failed else "done" if text else "empty",
        tokens,
        error="engine_error: x" if failed else None,
        channel=channel,
        settled_ms=settled_ms,
    )


async def punctuate(task: PunctuationTask) -> PunctuationResult:
    await asyncio.sleep(0)
    return punctuate_tasks(FakePunctuator(), [task])[0]


def events(
    utterances: AsyncGenerator[Utterance], *, punctuated: bool = True, break_s: float | None = 3.0
) -> AsyncGenerator[TranscriptEvent]:
    return assemble(
        CONTEXT, utterances, punctuate if punctuated else None, break_s, lambda: RecordingEnd(0)
    )


async def arriving(utterances: Sequence[Utterance]) -> AsyncGenerator[Utterance]:
    for one in utterances:
        await asyncio.sleep(0)
        yield one


def shown(parts: Sequence[TranscriptEvent]) -> list[tuple[int | None, str]]:
    return [(one.channel, one.text) for one in parts if isinstance(one, Sentence)]


@pytest.mark.parametrize("punctuated", [True, False])
async def test_sentences_are_in_order_of_time_whatever_the_order_of_utterances(
    punctuated: bool,
) -> None:
    # Channel 1 speaks from 0.5 s on, but its chunk is cut only after two of channel 0.
    heard = [
        utterance(0, 0, "一句", 0, 500),
        utterance(1, 0, "二句", 4000, 500),
        utterance(2, 1, "三句", 500, 4200),
        utterance(3, 1, "四句", 9000, 9000),
    ]
    parts = [one async for one in events(arriving(heard), punctuated=punctuated)]

    mark = "。" if punctuated else ""
    assert shown(parts) == [
        (0, f"一句{mark}"),
        (1, f"三句{mark}"),
        (0, f"二句{mark}"),
        (1, f"四句{mark}"),
    ]


async def test_a_sentence_is_sent_once_no_other_channel_can_yield_an_earlier_one() -> None:
    sent: asyncio.Queue[Utterance | None] = asyncio.Queue()

    async def utterances() -> AsyncGenerator[Utterance]:
        while (one := await sent.get()) is not None:
            yield one

    parts = events(utterances())
    # Channel 1 is silent until 5 s.
    sent.put_nowait(utterance(0, 0, "一句", 1000, 5000))
    async with asyncio.timeout(10):
        assert shown([await anext(parts)]) == [(0, "一句。")]

        # Channel 1 has spoken since 6 s.
        sent.put_nowait(utterance(1, 0, "二句", 7000, 6000))
        waiting = asyncio.ensure_future(anext(parts))
        sent.put_nowait(utterance(2, 1, "三句", 6000, 11_000))
        assert shown([await waiting]) == [(1, "三句。")]
        assert shown([await anext(parts)]) == [(0, "二句。")]
        sent.put_nowait(None)
        assert isinstance(await anext(parts), RecordingEnd)


async def test_words_without_a_mark_hold_nothing_back_after_a_pause() -> None:
    sent: asyncio.Queue[Utterance | None] = asyncio.Queue()

    async def utterances() -> AsyncGenerator[Utterance]:
        while (one := await sent.get()) is not None:
            yield one

    parts = events(utterances())
    sent.put_nowait(utterance(0, 1, "三", 1000, 1200))
    sent.put_nowait(utterance(1, 0, "一句", 8000, 9000))
    async with asyncio.timeout(10):
        # Nothing more of channel 1 comes before 9 s: its sentence has ended.
        (first,) = shown([await anext(parts)])
        assert first[0] == 1
    sent.put_nowait(None)
    assert shown([await anext(parts)]) == [(0, "一句。")]
    assert isinstance(await anext(parts), RecordingEnd)


async def test_a_failed_utterance_names_its_channel_and_ends_no_sentence_of_the_other() -> None:
    heard = [
        utterance(0, 0, "一", 0, 200),
        utterance(1, 1, "", 200, 400, failed=True),
        utterance(2, 0, "二句", 400, 9000),
    ]
    parts = [one async for one in events(arriving(heard))]

    assert shown(parts) == [(0, "一二句。")]
    failed = [one for one in parts if isinstance(one, FailedRange)]
    assert [(one.channel, one.start_ms) for one in failed] == [(1, 200)]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 40), st.sampled_from(["一句", "二", "三五四"])),
        max_size=25,
    ),
    st.booleans(),
)
def test_each_channel_is_joined_as_if_it_were_alone(
    said: list[tuple[int, int, str]], punctuated: bool
) -> None:
    free_ms = [0, 0, 0]
    placed: list[Utterance] = []
    for channel, pause, text in said:
        start_ms = free_ms[channel] + 100 * pause
        placed.append(utterance(0, channel, text, start_ms, 0))
        free_ms[channel] = placed[-1].end_ms
    # As a segmenter sends them: by their ends, with what is settled.
    placed.sort(key=lambda one: one.end_ms)
    for number, one in enumerate(placed):
        later = [other.start_ms for other in placed[number + 1 :]]
        placed[number] = replace(one, index=number, settled_ms=min(later, default=10**6))

    async def joined(utterances: Sequence[Utterance]) -> list[Sentence]:
        source = events(arriving(utterances), punctuated=punctuated, break_s=1.0)
        return list((await collect(source)).sentences)

    async def check() -> None:
        merged = await joined(placed)
        order = [(one.start_ms, one.channel or 0) for one in merged]
        assert order == sorted(order)
        for channel in range(3):
            alone = [
                replace(one, channel=None, settled_ms=0) for one in placed if one.channel == channel
            ]
            own = [one.tokens for one in merged if one.channel == channel]
            assert own == [one.tokens for one in await joined(alone)]

    asyncio.run(check())


def spoken(
    *stretches: tuple[float, float], duration_s: float = 12.0
) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """Samples that are not zero in the given ranges of seconds."""
    pcm = np.zeros(int(duration_s * 16_000), np.int16)
    for start_s, end_s in stretches:
        pcm[int(start_s * 16_000) : int(end_s * 16_000)] = 500
    return pcm


def chunks_of(
    pcm: np.ndarray[tuple[int, ...], np.dtype[np.int16]], *, vad: bool, separate: bool
) -> list[Chunk]:
    segmentation = Segmentation(
        file_of(pcm, "WAV"), FakeVad() if vad else None, OPTIONS, separate_channels=separate
    )
    return [chunk for group in segmentation.groups(CONTEXT) for chunk in group]


CALL = [
    spoken((0.5, 1.2), (4.0, 5.5), (9.5, 12.0)),
    spoken((1.0, 4.8), (6.0, 6.5)),
    spoken(),
]


@pytest.mark.parametrize("vad", [True, False])
def test_each_channel_is_cut_as_if_it_were_alone(vad: bool) -> None:
    found = chunks_of(np.stack(CALL, axis=1), vad=vad, separate=True)

    assert [chunk.index for chunk in found] == list(range(len(found)))
    for channel, pcm in enumerate(CALL):
        own = [one for one in found if one.channel == channel]
        alone = chunks_of(pcm, vad=vad, separate=False)
        assert [(one.start_ms, one.num_samples) for one in own] == [
            (one.start_ms, one.num_samples) for one in alone
        ]
        for one, other in zip(own, alone, strict=True):
            np.testing.assert_array_equal(one.pcm, other.pcm)
            assert (other.channel, other.settled_ms) == (None, 0)


@pytest.mark.parametrize("vad", [True, False])
def test_no_chunk_starts_before_what_was_settled(vad: bool) -> None:
    found = chunks_of(np.stack(CALL, axis=1), vad=vad, separate=True)

    for number, chunk in enumerate(found):
        later = [other.start_ms for other in found[number + 1 :]]
        assert chunk.settled_ms <= min(later, default=12_000)
    assert [one.settled_ms for one in found] == sorted(one.settled_ms for one in found)


def test_a_silent_channel_settles_as_it_is_decoded() -> None:
    found = chunks_of(np.stack([CALL[0], CALL[2]], axis=1), vad=True, separate=True)
    assert found
    assert all(one.settled_ms > one.start_ms for one in found)


def test_duration_and_number_of_channels_are_those_of_the_recording() -> None:
    segmentation = Segmentation(
        file_of(np.stack(CALL, axis=1)), FakeVad(), OPTIONS, separate_channels=True
    )
    list(segmentation.steps())
    end = segmentation.end([])
    assert (end.duration_ms, end.num_channels) == (12_000, 3)


def test_settled_time_never_decreases() -> None:
    chunker = SegmentChunker(2.0)
    chunker.append(np.zeros(16_000, np.int16))
    assert chunker.settled_ms == 0
    chunker.cut([], None, 700)
    assert chunker.settled_ms == 700


def sentence(text: str, start_ms: int, channel: int | None) -> Sentence:
    marked = tuple(
        MarkedToken(Token(word, start_ms + 200 * i, start_ms + 200 * (i + 1), 0.9))
        for i, word in enumerate(text)
    )
    return Sentence((*marked[:-1], replace(marked[-1], mark="。")), channel=channel)


CONVERSATION = (
    sentence("您好请问有什么可以帮您", 0, 0),
    sentence("我想问一下账单", 1500, 1),
    sentence("这个月的账单", 2900, 1),
    sentence("好的请稍等", 5000, 0),
)


def test_text_has_a_line_for_each_turn() -> None:
    assert Transcript(8000, CONVERSATION).text == (
        "您好请问有什么可以帮您。\n我想问一下账单。这个月的账单。\n好的请稍等。"
    )


def test_cues_of_a_channel_do_not_overlap_and_those_of_two_do_as_the_speech() -> None:
    found = list(cues(CONVERSATION, duration_ms=8000))

    assert [cue.start_ms for cue in found] == sorted(cue.start_ms for cue in found)
    for channel in (0, 1):
        own = [cue for cue in found if cue.channel == channel]
        assert all(a.end_ms <= b.start_ms for a, b in pairwise(own))
    first, second, *_ = found
    assert first.end_ms == 2200 > second.start_ms == 1500
    assert all(cue.end_ms - cue.start_ms >= 1000 for cue in found)


def test_cues_name_the_channel_if_that_is_asked() -> None:
    named = replace(DEFAULT_SUBTITLES, with_channels=True)
    assert "Channel" not in to_srt(CONVERSATION)
    assert "\nChannel 1: 您好" in to_srt(CONVERSATION, named)
    assert "\n<v Channel 2>我想问" in to_vtt(CONVERSATION, named)
    spoken_by = [replace(CONVERSATION[0], speaker="A")]
    assert "\nChannel 1, A: " in to_srt(spoken_by, replace(named, with_speakers=True))
