"""Joins the tokens that whisper.cpp decodes into words with times."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve_app.core.records import Token
from serve_app.engines.paraformer.timestamps import Span, fit_spans

_MAX_HALF_SPAN_MS = 200.0
# Where attention jumps, it places several words on one frame.
_LEAST_GAP_MS = 50.0
_CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_OTHER_LETTER = rf"(?:(?![{_CJK}])[^\W_])"
# One CJK character, or a word with inner punctuation: don't, 3.5, 1,000, 20%.
_WORD = re.compile(
    rf"[{_CJK}]|{_OTHER_LETTER}+(?:(?:['’.-]|(?<=\d)[,:/](?=\d)){_OTHER_LETTER}+)*%?"
)
_UNREADABLE = "\ufffd"


@dataclass(frozen=True, slots=True)
class WhisperToken:
    """A decoded token of Whisper.

    Attributes:
        text: its bytes, which may be a part of a character.
        probability: of the token.
        log_probability: its natural logarithm.
        center_ms: middle of the token, from the start of the chunk.
    """

    text: bytes
    probability: float
    log_probability: float
    center_ms: float


@dataclass(frozen=True, slots=True)
class _Group:
    """Consecutive tokens whose bytes are whole characters."""

    text: str
    confidence: float
    center_ms: float


def tokens_of(
    pieces: Sequence[WhisperToken], duration_ms: int, script: Callable[[str], str] | None = None
) -> tuple[Token, ...]:
    """Joins tokens into words with times, without punctuation.

    A CJK character is a word; letters and digits form words at spaces. The confidence of a word
    is the lowest of its tokens.

    Args:
        pieces: tokens in order.
        duration_ms: of the chunk, which bounds all times.
        script: converts the script of a text, such as traditional to simplified Chinese.
    """
    groups = _group_characters(pieces)
    spans = _spans(spread_apart([group.center_ms for group in groups], _LEAST_GAP_MS), duration_ms)
    times: list[Span] = []
    confidences: list[float] = []
    for group, (start_ms, end_ms) in zip(groups, spans, strict=True):
        step_ms = (end_ms - start_ms) / max(len(group.text), 1)
        for number in range(len(group.text)):
            times.append(
                (round(start_ms + number * step_ms), round(start_ms + (number + 1) * step_ms))
            )
            confidences.append(group.confidence)
    text = _convert_script("".join(group.text for group in groups), script)
    return tuple(
        Token(
            text=match.group(),
            start_ms=times[match.start()][0],
            end_ms=times[match.end() - 1][1],
            confidence=min(confidences[match.start() : match.end()]),
        )
        for match in _WORD.finditer(text)
        if _UNREADABLE not in match.group()
    )


def _group_characters(pieces: Sequence[WhisperToken]) -> list[_Group]:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    groups: list[_Group] = []
    pending: list[WhisperToken] = []
    text = ""
    for number, piece in enumerate(pieces):
        text += decoder.decode(piece.text, final=number == len(pieces) - 1)
        pending.append(piece)
        if decoder.getstate()[0] and number < len(pieces) - 1:
            continue
        center_ms = (pending[0].center_ms + pending[-1].center_ms) / 2
        confidence = min(part.probability for part in pending)
        groups.append(_Group(text, confidence, center_ms))
        pending, text = [], ""
    return groups


def spread_apart(centers_ms: Sequence[float], gap_ms: float) -> list[float]:
    """Moves times apart to at least `gap_ms` with the least total squared change.

    Source: isotonic regression by pooling adjacent violators (Barlow et al., 1972), on the
    times less the gaps before them.
    """
    pools: list[tuple[float, int]] = []  # mean, members
    for number, center_ms in enumerate(centers_ms):
        mean, members = center_ms - number * gap_ms, 1
        while pools and pools[-1][0] > mean:
            before, others = pools.pop()
            mean = (before * others + mean * members) / (others + members)
            members += others
        pools.append((mean, members))
    means = [mean for mean, members in pools for _ in range(members)]
    return [mean + number * gap_ms for number, mean in enumerate(means)]


def _spans(centers_ms: Sequence[float], duration_ms: int) -> list[Span]:
    """Each span ends midway to the next center, at most 200 ms from its own center."""
    spans = []
    for number, center_ms in enumerate(centers_ms):
        start_ms, end_ms = center_ms - _MAX_HALF_SPAN_MS, center_ms + _MAX_HALF_SPAN_MS
        if number > 0:
            start_ms = max(start_ms, (centers_ms[number - 1] + center_ms) / 2)
        if number + 1 < len(centers_ms):
            end_ms = min(end_ms, (center_ms + centers_ms[number + 1]) / 2)
        spans.append((start_ms, end_ms))
    return fit_spans(spans, duration_ms)


def _convert_script(text: str, script: Callable[[str], str] | None) -> str:
    """Converts the script; character by character if conversion of phrases changes the length."""
    if script is None:
        return text
    whole = script(text)
    if len(whole) == len(text):
        return whole
    return "".join(
        one if len(one) == 1 else character
        for character, one in ((character, script(character)) for character in text)
    )
