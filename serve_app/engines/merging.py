"""One chunk as two models heard it: what of the draft stays beside the refined words.

Paraformer speaks Mandarin, and some English. Where a chunk holds Mandarin beside another
language, it writes nothing, or Mandarin, for what Whisper heard well.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise

from serve_app.core.records import Pcm, Token
from serve_app.engines.paraformer.speech_edges import speech_runs
from serve_app.engines.paraformer.timestamps import Span

# What is less certain than this may stay unsaid.
_MIN_CONFIDENCE = 0.5


def merged(draft: Sequence[Token], refined: Sequence[Token]) -> tuple[Token, ...]:
    """The refined words, and those of the draft in other scripts that refining would lose.

    A passage of the draft in another script than the Chinese one stays where the refiner
    heard nothing meanwhile, or Chinese that it is less sure of. Chinese words of the
    draft are always replaced.

    Args:
        draft: in order of time.
        refined: in order of time.

    Returns:
        The words in order of time.
    """
    kept: list[Token] = []
    for is_foreign, passage in groupby(draft, key=_is_foreign):
        words = list(passage)
        if not is_foreign or _confidence(words) < _MIN_CONFIDENCE:
            continue
        span = (words[0].start_ms, words[-1].end_ms)
        rivals = [word for word in refined if _is_within(word, span)]
        if any(map(_is_foreign, rivals)) or _confidence(rivals) >= _confidence(words):
            continue
        kept += words
        refined = [word for word in refined if not _is_within(word, span)]
    return _in_order([*refined, *kept])


def filled(
    draft: Sequence[Token], refined: Sequence[Token], gaps: Sequence[Span]
) -> tuple[Token, ...]:
    """The draft, and in its gaps the refined words that are certain enough."""
    found = [
        word
        for word in refined
        if word.confidence >= _MIN_CONFIDENCE and any(_is_within(word, gap) for gap in gaps)
    ]
    return _in_order([*draft, *found])


def wordless_sound(pcm: Pcm, words: Sequence[Token], min_ms: int) -> list[Span]:
    """Spans of at least that length in which there is clear sound and no word."""
    gaps: list[Span] = []
    for start_ms, end_ms in speech_runs(pcm):
        said_until_ms = start_ms
        for word in words:
            if word.end_ms <= said_until_ms or word.start_ms >= end_ms:
                continue
            gaps.append((said_until_ms, min(word.start_ms, end_ms)))
            said_until_ms = word.end_ms
        gaps.append((said_until_ms, end_ms))
    return [(start_ms, end_ms) for start_ms, end_ms in gaps if end_ms - start_ms >= min_ms]


def _in_order(words: Sequence[Token]) -> tuple[Token, ...]:
    """Words by the time at which they begin; none lasts into the next one."""
    ordered = sorted(words, key=lambda word: (word.start_ms, word.end_ms))
    cut = [
        replace(word, end_ms=min(word.end_ms, after.start_ms)) for word, after in pairwise(ordered)
    ]
    return (*cut, *ordered[-1:])


def _is_foreign(word: Token) -> bool:
    letters = [character for character in word.text if character.isalpha()]
    return bool(letters) and not any(_is_han(letter) for letter in letters)


def _is_han(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith("CJK ")


def _confidence(words: Sequence[Token]) -> float:
    return sum(word.confidence for word in words) / len(words) if words else 0.0


def _is_within(word: Token, span: Span) -> bool:
    return span[0] <= (word.start_ms + word.end_ms) / 2 < max(span[1], span[0] + 1)
