"""Gives words and sentences their speakers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from serve_app.core.records import Token
from serve_app.core.speakers import Diarization, SpeakerTurn
from serve_app.transcript.transcript import MarkedToken, Sentence

_SHORTEST_RUN_MS = 500


@dataclass(slots=True)
class _Run:
    """Words of one speaker in a row, in one sentence."""

    speaker: int
    tokens: list[MarkedToken]

    @property
    def duration_ms(self) -> int:
        return self.tokens[-1].token.end_ms - self.tokens[0].token.start_ms

    @property
    def is_short(self) -> bool:
        return len(self.tokens) == 1 or self.duration_ms < _SHORTEST_RUN_MS


def label_sentences(
    sentences: Iterable[Sentence], diarization: Diarization
) -> tuple[Sentence, ...]:
    """Returns the sentences with their speakers, divided where the speaker changes.

    A word has the speaker whose turn it lies in most, outside of all turns that of the nearest.
    In a sentence of several speakers, a single word, or words that last less than 500 ms
    together, are given to the longer of their neighbors: a boundary between turns is not more
    exact than that. Marks stay with their words. Without turns, nothing is labeled.
    """
    if not diarization.turns:
        return tuple(sentences)
    finder = _TurnFinder(diarization.turns)
    return tuple(
        replace(sentence, tokens=tuple(run.tokens), speaker=diarization.labels[run.speaker])
        for sentence in sentences
        for run in _smoothed(list(_runs(sentence.tokens, finder)))
    )


class _TurnFinder:
    """Looks up the turn of a word; turns are in order and do not overlap."""

    def __init__(self, turns: Sequence[SpeakerTurn]) -> None:
        self._turns = turns
        self._starts_ms = [turn.start_ms for turn in turns]
        self._ends_ms = [turn.end_ms for turn in turns]

    def speaker_of(self, token: Token) -> int:
        first = bisect_right(self._ends_ms, token.start_ms)
        last = bisect_left(self._starts_ms, token.end_ms)
        shared_ms: dict[int, int] = {}
        for turn in self._turns[first:last]:
            length_ms = min(token.end_ms, turn.end_ms) - max(token.start_ms, turn.start_ms)
            shared_ms[turn.speaker] = shared_ms.get(turn.speaker, 0) + length_ms
        if shared_ms:
            return max(shared_ms, key=shared_ms.__getitem__)
        around = self._turns[max(0, first - 1) : first + 1]
        return min(around, key=lambda turn: _distance_ms(token, turn)).speaker


def _distance_ms(token: Token, turn: SpeakerTurn) -> int:
    return max(turn.start_ms - token.end_ms, token.start_ms - turn.end_ms)


def _runs(tokens: Sequence[MarkedToken], finder: _TurnFinder) -> Iterator[_Run]:
    for speaker, group in groupby(tokens, lambda marked: finder.speaker_of(marked.token)):
        yield _Run(speaker, list(group))


def _smoothed(runs: list[_Run]) -> list[_Run]:
    """Merges short runs with a neighbor, the shortest first, until none is left."""
    while len(runs) > 1:
        short = [index for index, run in enumerate(runs) if run.is_short]
        if not short:
            break
        at = min(short, key=lambda index: runs[index].duration_ms)
        beside = [index for index in (at - 1, at + 1) if 0 <= index < len(runs)]
        runs[at].speaker = runs[max(beside, key=lambda index: runs[index].duration_ms)].speaker
        runs = _merged(runs)
    return runs


def _merged(runs: Sequence[_Run]) -> list[_Run]:
    return [
        _Run(speaker, [marked for run in group for marked in run.tokens])
        for speaker, group in groupby(runs, lambda run: run.speaker)
    ]
