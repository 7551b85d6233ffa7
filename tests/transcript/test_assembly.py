from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from serve_app.core.records import RecordingEnd, RequestContext, Token, Utterance
from serve_app.transcript.assembly import assemble
from serve_app.transcript.punctuation import PunctuationState
from serve_app.transcript.sentences import Punctuate, PunctuationResult, PunctuationTask
from serve_app.transcript.transcript import FailedRange, Sentence, TranscriptEvent

HEARD = Utterance(0, 0, 400, "done", (Token("你", 0, 200, 1.0), Token("好", 200, 400, 1.0)))
FAILED = Utterance(1, 500, 900, "failed", error="recognizer_error: no memory")
END = RecordingEnd(1000, (HEARD.summary, FAILED.summary))


async def marked(task: PunctuationTask) -> PunctuationResult:
    marks = [""] * (len(task.words) - 1) + ["。"]
    return PunctuationResult(tuple(zip(task.words, marks, strict=True)), PunctuationState())


async def events_of(punctuate: Punctuate | None) -> list[TranscriptEvent]:
    async def utterances() -> AsyncGenerator[Utterance]:
        yield HEARD
        yield FAILED

    context = RequestContext("request")
    return [event async for event in assemble(context, utterances(), punctuate, None, lambda: END)]


@pytest.mark.parametrize(("punctuate", "text"), [(None, "你好"), (marked, "你好。")])
async def test_sentences_and_failures_come_in_order_of_time_and_the_end_is_last(
    punctuate: Punctuate | None, text: str
) -> None:
    sentence, failure, end = await events_of(punctuate)
    assert isinstance(sentence, Sentence)
    assert sentence.text == text
    assert failure == FailedRange(500, 900, "recognizer_error: no memory")
    assert end == END


async def test_end_is_called_only_after_the_last_utterance() -> None:
    seen: list[int] = []

    async def utterances() -> AsyncGenerator[Utterance]:
        yield HEARD
        seen.append(1)

    def end() -> RecordingEnd:
        return RecordingEnd(len(seen))

    events = assemble(RequestContext("request"), utterances(), None, None, end)
    assert [event async for event in events][-1] == RecordingEnd(1)
