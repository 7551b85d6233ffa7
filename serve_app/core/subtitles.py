"""SubRip and WebVTT, with cues of a length that can be read.

Sources: SubRip has no specification beyond its common use; WebVTT is
https://www.w3.org/TR/webvtt1/ (cue timings, section 4.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from serve_app.core.transcripts import MarkedToken, Sentence

_MAX_CUE_MS = 7_000
_MAX_CUE_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: its text and when it is shown, in ms."""

    start_ms: int
    end_ms: int
    text: str


def cues(sentences: Iterable[Sentence]) -> Iterator[Cue]:
    """Yields the cues of a transcript, in order and never overlapping.

    A sentence is one cue unless it is too long to read; then it is divided,
    after a mark where there is one.
    """
    shown_until_ms = 0
    for sentence in sentences:
        for part in _readable_parts(sentence):
            start_ms = max(part.start_ms, shown_until_ms)
            end_ms = max(part.end_ms, start_ms + 1)
            yield Cue(start_ms, end_ms, part.text)
            shown_until_ms = end_ms


def to_srt(sentences: Iterable[Sentence]) -> str:
    return "".join(
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(cues(sentences), start=1)
    )


def to_vtt(sentences: Iterable[Sentence]) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{_escape_vtt(cue.text)}\n\n"
        for cue in cues(sentences)
    )


def _readable_parts(sentence: Sentence) -> Iterator[Sentence]:
    part: list[MarkedToken] = []
    characters = 0
    clauses = _clauses(sentence)
    for clause in clauses:
        clause_characters = sum(len(marked.token.text) + len(marked.mark) for marked in clause)
        too_long = part and (
            characters + clause_characters > _MAX_CUE_CHARACTERS
            or clause[-1].token.end_ms - part[0].token.start_ms > _MAX_CUE_MS
        )
        if too_long:
            yield Sentence(tuple(part))
            part, characters = [], 0
        part.extend(clause)
        characters += clause_characters
    if part:
        yield Sentence(tuple(part))


def _clauses(sentence: Sentence) -> Iterator[list[MarkedToken]]:
    """Divides after marks, and where even a clause is too long to read."""
    clause: list[MarkedToken] = []
    characters = 0
    for marked in sentence.tokens:
        too_long = clause and (
            characters + len(marked.token.text) > _MAX_CUE_CHARACTERS
            or marked.token.end_ms - clause[0].token.start_ms > _MAX_CUE_MS
        )
        if too_long:
            yield clause
            clause, characters = [], 0
        clause.append(marked)
        characters += len(marked.token.text) + len(marked.mark)
        if marked.mark:
            yield clause
            clause, characters = [], 0
    if clause:
        yield clause


def _clock(time_ms: int, decimal_mark: str) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal_mark}{milliseconds:03d}"


def _escape_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
