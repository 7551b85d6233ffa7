"""Joins utterances into sentences as they arrive.

The punctuation model reads across utterances, so it gets the words in order, and sentences are
yielded as soon as they are final. The result does not depend on how the words were grouped.
Marks are written in the script of their sentence. Each channel that was recognized separately is
a text of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from serve_app.core.ports import Punctuator
from serve_app.core.records import RequestContext, Token, Utterance
from serve_app.core.words import is_wide
from serve_app.transcript.channels import ChannelMerger
from serve_app.transcript.punctuation import PunctuationSession, PunctuationState, advance_all
from serve_app.transcript.transcript import FailedRange, MarkedToken, Sentence

SENTENCE_ENDS = frozenset("。？！.?!")


@dataclass(frozen=True, slots=True)
class PunctuationTask:
    """Words to punctuate after those that led to `state`.

    Attributes:
        context: the request that they belong to.
        state: after the earlier words.
        words: the next words of the text.
        final: no more words follow, so all become final.
        end_ms: end of the last word, in the recording.
    """

    context: RequestContext
    state: PunctuationState
    words: tuple[str, ...]
    final: bool
    end_ms: int = 0


@dataclass(frozen=True, slots=True)
class PunctuationResult:
    """The words that became final, each with the mark after it, and the new state."""

    pairs: tuple[tuple[str, str], ...]
    state: PunctuationState


Punctuate: TypeAlias = Callable[[PunctuationTask], Awaitable[PunctuationResult]]


def punctuate_tasks(
    labeler: Punctuator, tasks: Sequence[PunctuationTask]
) -> list[PunctuationResult]:
    """Continues several texts together, with one window of each per batch."""
    sessions: list[PunctuationSession] = []
    for task in tasks:
        session = PunctuationSession(task.state)
        session.push(task.words)
        if task.final:
            session.finish()
        sessions.append(session)
    pairs = advance_all(labeler, sessions)
    return [
        PunctuationResult(tuple(final), session.state)
        for final, session in zip(pairs, sessions, strict=True)
    ]


class SentenceAssembler:
    """Groups tokens into sentences by their marks.

    `push` takes tokens; `mark` takes their marks in the same order.

    Args:
        channel: that the tokens are spoken on; None for the mix of all channels.
    """

    def __init__(self, channel: int | None = None) -> None:
        self._channel = channel
        self._unmarked: deque[Token] = deque()
        self._open: list[MarkedToken] = []

    @property
    def open_since_ms(self) -> int | None:
        """Start of the tokens that are no sentence yet; None without any."""
        if self._open:
            return self._open[0].token.start_ms
        return self._unmarked[0].start_ms if self._unmarked else None

    def push(self, tokens: tuple[Token, ...]) -> None:
        self._unmarked.extend(tokens)

    def mark(self, pairs: tuple[tuple[str, str], ...]) -> list[Sentence]:
        """Returns the sentences that these marks complete.

        Raises:
            ValueError: the words differ from those that were pushed.
        """
        sentences: list[Sentence] = []
        for word, mark in pairs:
            token = self._unmarked.popleft()
            if token.text != word:
                raise ValueError("the punctuation stage returned words that it did not get")
            self._open.append(MarkedToken(token, mark))
            if mark in SENTENCE_ENDS:
                sentences.append(self._close())
        return sentences

    def flush(self) -> list[Sentence]:
        """Returns the unfinished sentence, if any."""
        return [self._close()] if self._open else []

    def _close(self) -> Sentence:
        sentence = Sentence(in_script_of_words(self._open), channel=self._channel)
        self._open = []
        return sentence


async def join_plain(
    utterances: AsyncIterator[Utterance],
) -> AsyncGenerator[Sentence | FailedRange]:
    """Yields one sentence per utterance that has words, in order of time."""
    merger = ChannelMerger()
    async for utterance in utterances:
        if utterance.status == "failed":
            merger.add([_failed_range(utterance)])
        elif utterance.tokens:
            tokens = tuple(MarkedToken(token) for token in utterance.tokens)
            merger.add([Sentence(tokens, channel=utterance.channel)])
        for part in merger.release(utterance.settled_ms, {}):
            yield part
    for part in merger.release_all():
        yield part


async def join_punctuated(
    context: RequestContext,
    utterances: AsyncIterator[Utterance],
    punctuate: Punctuate,
    sentence_break_s: float | None,
) -> AsyncGenerator[Sentence | FailedRange]:
    """Yields sentences with their marks, in order, as soon as they are final.

    Utterances that arrive during a punctuation call go into the next call together: the faster
    the recognizer, the fewer calls.

    Args:
        context: the request that the utterances belong to.
        utterances: of each channel in order of time.
        punctuate: labels words; never called concurrently.
        sentence_break_s: a pause of at least this many seconds always ends a sentence; None
            to leave that to the model.
    """
    arrivals: asyncio.Queue[Utterance | None] = asyncio.Queue()

    async def read() -> None:
        try:
            async for utterance in utterances:
                arrivals.put_nowait(utterance)
        finally:
            arrivals.put_nowait(None)

    joiner = _ChannelJoiner(context, punctuate, sentence_break_s)
    reader = asyncio.create_task(read())
    try:
        ended = False
        while not ended:
            batch = [await arrivals.get()]
            while not arrivals.empty():
                batch.append(arrivals.get_nowait())
            for utterance in batch:
                if utterance is None:
                    ended = True
                    break
                for part in await joiner.add(utterance):
                    yield part
            for part in await joiner.advance():
                yield part
        await reader
        for part in await joiner.end():
            yield part
    finally:
        reader.cancel()


class _ChannelJoiner:
    """Joins the words of each channel, and merges the sentences of all."""

    def __init__(
        self, context: RequestContext, punctuate: Punctuate, sentence_break_s: float | None
    ) -> None:
        self._new_joiner = partial(_Joiner, context, punctuate, sentence_break_s)
        self._joiners: dict[int | None, _Joiner] = {}
        self._merger = ChannelMerger()
        self._settled_ms = 0

    async def add(self, utterance: Utterance) -> list[Sentence | FailedRange]:
        joiner = self._joiners.get(utterance.channel)
        if joiner is None:
            joiner = self._joiners[utterance.channel] = self._new_joiner(utterance.channel)
        self._merger.add(await joiner.add(utterance))
        self._settled_ms = utterance.settled_ms
        return self._release()

    async def advance(self) -> list[Sentence | FailedRange]:
        for joiner in self._joiners.values():
            self._merger.add(await joiner.advance(self._settled_ms))
        return self._release()

    async def end(self) -> list[Sentence | FailedRange]:
        for joiner in self._joiners.values():
            self._merger.add(await joiner.end_text())
        return self._merger.release_all()

    def _release(self) -> list[Sentence | FailedRange]:
        open_since_ms = {
            channel: joiner.open_since_ms
            for channel, joiner in self._joiners.items()
            if channel is not None and joiner.open_since_ms is not None
        }
        return self._merger.release(self._settled_ms, open_since_ms)


class _Joiner:
    def __init__(
        self,
        context: RequestContext,
        punctuate: Punctuate,
        sentence_break_s: float | None,
        channel: int | None,
    ) -> None:
        self._context = context
        self._punctuate = punctuate
        self._break_ms = None if sentence_break_s is None else int(sentence_break_s * 1000)
        self._assembler = SentenceAssembler(channel)
        self._state = PunctuationState()
        self._words: list[str] = []
        self._last_end_ms: int | None = None

    async def add(self, utterance: Utterance) -> list[Sentence | FailedRange]:
        parts: list[Sentence | FailedRange] = []
        if utterance.status == "failed":
            # A sentence does not extend across a missing utterance.
            parts.extend(await self.end_text())
            parts.append(_failed_range(utterance))
        elif utterance.tokens:
            if self._pauses_until(utterance.tokens[0].start_ms):
                parts.extend(await self.end_text())
            self._assembler.push(utterance.tokens)
            self._words.extend(token.text for token in utterance.tokens)
            self._last_end_ms = utterance.tokens[-1].end_ms
        return parts

    @property
    def open_since_ms(self) -> int | None:
        return self._assembler.open_since_ms

    async def advance(self, settled_ms: int) -> list[Sentence]:
        """Punctuates the words so far, unless the model needs more to label any of them.

        Args:
            settled_ms: no later word starts before this; a pause until then ends the text.
        """
        if self._pauses_until(settled_ms):
            return await self.end_text()
        session = PunctuationSession(self._state)
        session.push(self._words)
        if session.next_window() is None:
            return []
        return await self._call(final=False)

    async def end_text(self) -> list[Sentence]:
        """Punctuates the rest and starts a new text."""
        sentences: list[Sentence] = []
        if self._words or self._state != PunctuationState():
            sentences = await self._call(final=True)
            sentences.extend(self._assembler.flush())
            self._state = PunctuationState()
        self._last_end_ms = None
        return sentences

    async def _call(self, *, final: bool) -> list[Sentence]:
        result = await self._punctuate(
            PunctuationTask(
                self._context, self._state, tuple(self._words), final, self._last_end_ms or 0
            )
        )
        self._words = []
        self._state = result.state
        return self._assembler.mark(result.pairs)

    def _pauses_until(self, time_ms: int) -> bool:
        return (
            self._break_ms is not None
            and self._last_end_ms is not None
            and time_ms - self._last_end_ms >= self._break_ms
        )


def _failed_range(utterance: Utterance) -> FailedRange:
    return FailedRange(
        utterance.start_ms,
        utterance.end_ms,
        utterance.error or "unknown error",
        channel=utterance.channel,
    )


_NARROW = str.maketrans("，。？！、；：", ",.?!,;:")


def in_script_of_words(tokens: Sequence[MarkedToken]) -> tuple[MarkedToken, ...]:
    """Returns a sentence with Latin marks if most of its words are Latin.

    The punctuation model writes Chinese marks for every language. Each Chinese character counts
    as a word; numbers do not count. A sentence with as many Chinese characters as other words
    counts as Chinese.
    """
    words = [letter for marked in tokens if (letter := _first_letter(marked.token.text))]
    num_wide = sum(map(is_wide, words))
    if len(words) - num_wide <= num_wide:
        return tuple(tokens)
    return tuple(replace(marked, mark=marked.mark.translate(_NARROW)) for marked in tokens)


def _first_letter(word: str) -> str:
    return next((character for character in word if character.isalpha()), "")
