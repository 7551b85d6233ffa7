"""Spreads the chunks of one recording over the recognizers and keeps their order.

`with_heartbeats` adds heartbeats to a stream whose items may be far apart.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias, TypeVar

from serve_app.core.errors import ServiceError
from serve_app.core.records import (
    SAMPLES_PER_MS,
    Chunk,
    ChunkFailure,
    Recognition,
    Token,
    Utterance,
    UtteranceStatus,
)

Recognize: TypeAlias = Callable[[list[Chunk]], Awaitable[Sequence[Recognition | ChunkFailure]]]


async def fan_out(
    groups: AsyncIterator[list[Chunk]], recognize: Recognize, max_in_flight: int
) -> AsyncGenerator[Utterance]:
    """Yields one utterance per chunk, in order, at most `max_in_flight` groups in flight.

    The next group is drawn from `groups` only when there is room, which is how
    a slow recognizer holds back the decoder. When the consumer goes away, the
    calls in flight are canceled.

    Args:
        groups: chunks that travel together, in order of their index.
        recognize: returns a result per chunk; if it raises, every chunk of the
            group becomes a failed utterance, save for a `ServiceError`.
        max_in_flight: bound of groups in flight, at least 1.

    Raises:
        ServiceError: from `recognize`.
    """
    calls: deque[asyncio.Task[list[Utterance]]] = deque()
    try:
        async for group in groups:
            calls.append(asyncio.create_task(_recognize_group(group, recognize)))
            while calls and (len(calls) >= max_in_flight or calls[0].done()):
                for utterance in await calls.popleft():
                    yield utterance
        while calls:
            for utterance in await calls.popleft():
                yield utterance
    finally:
        for call in calls:
            call.cancel()


async def _recognize_group(group: list[Chunk], recognize: Recognize) -> list[Utterance]:
    try:
        results = await recognize(group)
    except ServiceError:
        # Not about these chunks: the request as a whole cannot be answered now.
        raise
    except Exception as error:
        results = [ChunkFailure("recognizer_error", str(error) or type(error).__name__)] * len(
            group
        )
    return [to_recording_time(chunk, result) for chunk, result in zip(group, results, strict=True)]


def to_recording_time(chunk: Chunk, result: Recognition | ChunkFailure) -> Utterance:
    """Moves a chunk's result to the chunk's place in the recording.

    Whatever an engine says, tokens come in order, without overlap, inside the chunk.
    """
    duration_ms = chunk.num_samples // SAMPLES_PER_MS
    end_ms = chunk.start_ms + duration_ms
    if isinstance(result, ChunkFailure):
        return Utterance(
            chunk.index, chunk.start_ms, end_ms, "failed", error=f"{result.code}: {result.message}"
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
        chunk.index, chunk.start_ms, end_ms, status, tuple(tokens), language=result.language
    )


POISON = "poison"
"""Code of the failure of a chunk that kills recognizers."""


def poison_failure(num_deaths: int, max_deaths: int) -> ChunkFailure | None:
    """Returns the failure of a chunk that kills, None while it may be tried again.

    Args:
        num_deaths: recognizers that died while the chunk was the only one they worked on.
        max_deaths: deaths at which a chunk is given up.
    """
    if num_deaths < max_deaths:
        return None
    return ChunkFailure(POISON, f"{num_deaths} recognizers died while they had it")


ItemT = TypeVar("ItemT")


async def with_heartbeats(
    source: AsyncGenerator[ItemT], every_s: float
) -> AsyncGenerator[ItemT | None]:
    """Yields the items of `source`, and None whenever none has come for `every_s`.

    Leaving early closes the source.
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
                    # The source is closed only after the step has let go of it.
                    await asyncio.wait((step,))
            try:
                item = step.result()
            except StopAsyncIteration:
                return
            yield item
