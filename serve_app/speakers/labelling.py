"""Placeholder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from serve_app.core.speakers import Diarization
from serve_app.transcript.transcript import MarkedToken, Sentence


def label_sentences(
    sentences: Iterable[Sentence], diarization: Diarization
) -> tuple[Sentence, ...]:
    def label(marked: MarkedToken) -> str | None:
        best, most = None, 0
        for turn in diarization.turns:
            ms = min(turn.end_ms, marked.token.end_ms) - max(turn.start_ms, marked.token.start_ms)
            if ms > most:
                best, most = diarization.labels[turn.speaker], ms
        return best

    return tuple(
        replace(sentence, tokens=tuple(part), speaker=speaker)
        for sentence in sentences
        for speaker, part in groupby(sentence.tokens, label)
    )
