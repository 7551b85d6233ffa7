"""Applies text rules to punctuated sentences; each word keeps its time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from serve_app.core.records import Token
from serve_app.transcript.itn.replacements import Replacement, Replacer
from serve_app.transcript.itn.spans import find_spans
from serve_app.transcript.transcript import MarkedToken, Sentence, TranscriptEvent

_MAX_PAUSE_MS = 1000
"""Numerals further apart belong to different numbers."""


def rewrite(sentence: Sentence) -> Sentence:
    """Returns the sentence with its numbers, dates and amounts in digits.

    The words of a number become one token from the first one's start to the last one's end,
    with their lowest confidence and the last one's mark. A number never spans a mark or a
    pause. All other tokens are kept.
    """
    tokens: list[MarkedToken] = []
    for phrase in _phrases(sentence.tokens):
        position = 0
        for span in find_spans([marked.token.text for marked in phrase]):
            tokens.extend(phrase[position : span.start])
            tokens.append(_merged(phrase[span.start : span.end], span.text))
            position = span.end
        tokens.extend(phrase[position:])
    return replace(sentence, tokens=tuple(tokens))


def _phrases(tokens: tuple[MarkedToken, ...]) -> Iterator[list[MarkedToken]]:
    phrase: list[MarkedToken] = []
    for marked in tokens:
        if phrase and (
            phrase[-1].mark or marked.token.start_ms - phrase[-1].token.end_ms > _MAX_PAUSE_MS
        ):
            yield phrase
            phrase = []
        phrase.append(marked)
    if phrase:
        yield phrase


def _merged(said: list[MarkedToken], text: str) -> MarkedToken:
    first, last = said[0].token, said[-1].token
    confidence = min(marked.token.confidence for marked in said)
    return MarkedToken(
        Token(text, first.start_ms, last.end_ms, confidence, first.model), said[-1].mark
    )


@dataclass(frozen=True, slots=True)
class TextRules:
    """Rules that change the text of a transcript.

    Attributes:
        itn: write numbers, dates and amounts in digits.
        replacements: of phrases; applied first, and their output is not changed again.
    """

    itn: bool = False
    replacements: tuple[Replacement, ...] = ()


AS_SAID = TextRules()


class SentenceRewriter:
    """Applies rules to one sentence after the other.

    Args:
        rules: to apply.
    """

    def __init__(self, rules: TextRules) -> None:
        self._replacer = Replacer(rules.replacements)
        self._itn = rules.itn

    def rewrite(self, sentence: Sentence) -> Sentence | None:
        """Returns the rewritten sentence, None if nothing is left of it."""
        replaced = self._replacer.replace(sentence)
        return rewrite(replaced) if replaced is not None and self._itn else replaced


async def apply_rules(
    events: AsyncGenerator[TranscriptEvent], rules: TextRules
) -> AsyncGenerator[TranscriptEvent]:
    """Yields the events with rewritten sentences; sentences that become empty are dropped."""
    rewriter = SentenceRewriter(rules)
    async with aclosing(events):
        async for event in events:
            if not isinstance(event, Sentence):
                yield event
            elif (sentence := rewriter.rewrite(event)) is not None:
                yield sentence
