"""What is done to the text of a transcript once it is punctuated."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from serve_app.transcript.itn.replacements import Replacement, Replacer
from serve_app.transcript.itn.rewriting import rewrite
from serve_app.transcript.transcript import Sentence, TranscriptEvent


@dataclass(frozen=True, slots=True)
class TextRules:
    """What a transcript's text is changed by.

    Attributes:
        itn: write numbers, dates and amounts in digits.
        replacements: phrases that are written otherwise; they come first, and what they
            wrote stays.
    """

    itn: bool = False
    replacements: tuple[Replacement, ...] = ()


AS_SAID = TextRules()


async def apply_rules(
    events: AsyncGenerator[TranscriptEvent], rules: TextRules
) -> AsyncGenerator[TranscriptEvent]:
    """Passes events on, their sentences rewritten; one of which nothing is left is dropped."""
    replacer = Replacer(rules.replacements)
    async with aclosing(events):
        async for event in events:
            if not isinstance(event, Sentence):
                yield event
            elif (sentence := replacer.replace(event)) is not None:
                yield rewrite(sentence) if rules.itn else sentence
