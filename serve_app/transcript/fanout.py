"""Spreads the chunks of one recording over the recognizers and keeps their order.

`with_heartbeats` adds heartbeats to a stream whose items may be far apart.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeAlias, TypeVar

from serve_app.core.errors import ServiceError
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    Recognition,
    Token,
    Utterance,
    UtteranceStatus,
)
from serve_app.core.speakers import SpeakerWindows

Recognize: TypeAlias = Callable[[list[Chunk]], Awaitable[Sequence[Recognition | ChunkFailure]]]
EmbedVoices: TypeAlias = Callable[[list[Chunk]], Awaitable[Sequence[SpeakerWindows | None]]]
FindKnown: TypeAlias = Callable[[Chunk], Utterance | None]


class KnownUtterances:
    """The utterances of an earlier attempt at a recording.

    Args:
        utterances: in any order; of several with the same index the last one counts.
    """

    def __init__(self, utterances: Iterable[Utterance]) -> None:
        self._by_index = {utterance.index: utterance for utterance in utterances}

    def of(self, chunk: Chunk) -> Utterance | None:
        """Returns the utterance of this very chunk; None if it has to be recognized."""
        known = self._by_index.get(chunk.index)
        if known is None or (known.start_ms, known.end_ms, known.channel) != (
            chunk.start_ms,
            chunk.end_ms,
            chunk.channel,
        ):
            return None
        return replace(known, settled_ms=chunk.settled_ms)


async def fan_out(
    groups: AsyncIterator[list[Chunk]],
    recognize: Recognize,
    max_in_flight: int,
    embed_voices: EmbedVoices | None = None,
    find_known: FindKnown | None = None,
) -> AsyncGenerator[Utterance]:
    """Yields one utterance per chunk, in order, with at most `max_in_flight` groups in flight.

    The next group is taken from `groups` only if there is room, so that a slow recognizer
    slows down the decoder. If the consumer stops, the calls in flight are canceled.

    Args:
        groups: chunks that are sent together, in order of their index.
        recognize: returns a result per chunk; if it raises, every chunk of the group becomes
            a failed utterance, except for a `ServiceError`.
        max_in_flight: most groups in flight, at least 1.
        embed_voices: called for each group beside `recognize`; returns the windows of each
            chunk, None for a chunk without any. None to embed nothing.
        find_known: returns a chunk's utterance if it is known already; such chunks are neither
            recognized nor embedded. None to know nothing.

    Raises:
        ServiceError: from `recognize`.
        Exception: from `embed_voices`.
    """
    calls: deque[asyncio.Task[list[Utterance]]] = deque()
    try:
        async for group in groups:
            processing = _process_group(group, recognize, embed_voices, find_known)
            calls.append(asyncio.create_task(processing))
            while calls and (len(calls) >= max_in_flight or calls[0].done()):
                for utterance in await calls.popleft():
                    yield utterance
        while calls:
            for utterance in await calls.popleft():
                yield utterance
    finally:
        for call in calls:
            call.cancel()


async def _process_group(
    group: list[Chunk],
    recognize: Recognize,
    embed_voices: EmbedVoices | None,
    find_known: FindKnown | None,
) -> list[Utterance]:
    if find_known is None:
        return await _process_chunks(group, recognize, embed_voices)
    known = [find_known(chunk) for chunk in group]
    others = [chunk for chunk, found in zip(group, known, strict=True) if found is None]
    processed: list[Utterance] = []
    if others:
        processed = await _process_chunks(others, recognize, embed_voices)
    rest = iter(processed)
    return [next(rest) if found is None else found for found in known]


async def _process_chunks(
    group: list[Chunk], recognize: Recognize, embed_voices: EmbedVoices | None
) -> list[Utterance]:
    if embed_voices is None:
        return await _recognize_group(group, recognize)
    embedding = asyncio.ensure_future(embed_voices(group))
    try:
        utterances = await _recognize_group(group, recognize)
        voices = await embedding
    finally:
        if not embedding.cancel() and not embedding.cancelled():
            # Where recognition has failed as well, nobody asks for this error.
            embedding.exception()
    return [
        replace(utterance, voices=windows)
        for utterance, windows in zip(utterances, voices, strict=True)
    ]


async def _recognize_group(group: list[Chunk], recognize: Recognize) -> list[Utterance]:
    try:
        results = await recognize(group)
    except ServiceError:
        # The whole request fails, not just these chunks.
        raise
    except Exception as error:
        results = [ChunkFailure("recognizer_error", str(error) or type(error).__name__)] * len(
            group
        )
    return [to_recording_time(chunk, result) for chunk, result in zip(group, results, strict=True)]


def to_recording_time(chunk: Chunk, result: Recognition | ChunkFailure) -> Utterance:
    """Converts the times of a chunk's result to times in the recording.

    Whatever the engine returns, tokens are in order, do not overlap, and stay in the chunk.
    """
    end_ms = chunk.end_ms
    duration_ms = end_ms - chunk.start_ms
    if isinstance(result, ChunkFailure):
        return Utterance(
            chunk.index,
            chunk.start_ms,
            end_ms,
            "failed",
            error=f"{result.code}: {result.message}",
            channel=chunk.channel,
            settled_ms=chunk.settled_ms,
        )
    tokens: list[Token] = []
    said_until_ms = 0
    for token in result.tokens:
        token_start_ms = min(max(token.start_ms, said_until_ms), duration_ms)
        said_until_ms = min(max(token.end_ms, token_start_ms), duration_ms)
        tokens.append(
            Token(
                token.text,
                chunk.start_ms + token_start_ms,
                chunk.start_ms + said_until_ms,
                token.confidence,
                token.model or result.model,
            )
        )
    status: UtteranceStatus = "done" if tokens else "empty"
    return Utterance(
        chunk.index,
        chunk.start_ms,
        end_ms,
        status,
        tuple(tokens),
        language=result.language,
        channel=chunk.channel,
        settled_ms=chunk.settled_ms,
    )


POISON = "poison"
"""Code of the failure of a chunk that kills recognizers."""


def poison_failure(num_deaths: int, max_deaths: int) -> ChunkFailure | None:
    """Returns the failure of a chunk that kills recognizers, None while it may be retried.

    Args:
        num_deaths: recognizers that died while running only this chunk.
        max_deaths: deaths after which a chunk fails.
    """
    if num_deaths < max_deaths:
        return None
    return ChunkFailure(POISON, f"{num_deaths} recognizers died while running it")


ItemT = TypeVar("ItemT")


async def with_heartbeats(
    source: AsyncGenerator[ItemT], every_s: float
) -> AsyncGenerator[ItemT | None]:
    """Yields the items of `source`, and None after every `every_s` without one.

    If the consumer stops early, the source is closed.
    """
    async with aclosing(source):
        while True:
            step = asyncio.ensure_future(anext(source))
            try:
                while not (await asyncio.wait((step,), timeout=every_s))[0]:
                    yield None
            finally:
                if not step.done():
                    step.cancel()
                    # The source can be closed only after the step has ended.
                    await asyncio.wait((step,))
            try:
                item = step.result()
            except StopAsyncIteration:
                return
            yield item
