"""Assembles a transcript: joins utterances into sentences and adds the end of the recording."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from serve_app.core.records import RecordingEnd, RequestContext, Utterance
from serve_app.transcript.sentences import Punctuate, join_plain, join_punctuated
from serve_app.transcript.transcript import TranscriptEvent


async def assemble(
    context: RequestContext,
    utterances: AsyncIterator[Utterance],
    punctuate: Punctuate | None,
    sentence_break_s: float | None,
    end: Callable[[], RecordingEnd],
) -> AsyncGenerator[TranscriptEvent]:
    """Yields the transcript of a recording in order of time, then its end.

    Args:
        context: the request that the recording belongs to.
        utterances: of the recording, those of each channel in order of time.
        punctuate: labels words; None for a sentence per utterance, without marks.
        sentence_break_s: a pause of at least this many seconds ends a sentence, None for never.
        end: returns the end of the recording; called after the last sentence.
    """
    if punctuate is None:
        joined = join_plain(utterances)
    else:
        joined = join_punctuated(context, utterances, punctuate, sentence_break_s)
    async with aclosing(joined):
        async for event in joined:
            yield event
    yield end()
