"""Converts the decoded tokens of an utterance into words with times and confidences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.core.records import SAMPLES_PER_MS, ChunkFailure, Pcm, Recognition, Token
from serve_app.engines.paraformer.speech_edges import snap_to_speech_edges
from serve_app.engines.paraformer.timestamps import FiringWeights, Span, token_spans

_SPECIAL = frozenset({"<blank>", "<s>", "</s>", "<unk>", "<OOV>"})
_CONTINUES = "@@"
_LAST_LATIN = "\u024f"


def display_tokens(pieces: Iterable[Token]) -> tuple[Token, ...]:
    """Joins subwords into words and drops special tokens.

    A CJK character is a word. Subwords that end in "@@" join the next one, spelled letters become
    an abbreviation ("a b c" -> "ABC"), and digits a number. `<unk>` is dropped. A joined token
    spans its subwords and has their lowest confidence.

    Source: `sentence_postprocess` of FunASR 1.4.16; the joined text is the same, except that a
    trailing "@@" subword is kept.
    """
    words = _join_subwords(piece for piece in pieces if piece.text not in _SPECIAL)
    tokens: list[Token] = []
    for kind, run in groupby(words, key=_kind):
        group = list(run)
        if kind == "letter" and len(group) > 1:
            tokens.append(_joined(group, "".join(word.text for word in group).upper()))
        elif kind == "digit":
            tokens.append(_joined(group, "".join(word.text for word in group)))
        else:
            tokens.extend(group)
    return tuple(tokens)


def _join_subwords(pieces: Iterable[Token]) -> list[Token]:
    words: list[Token] = []
    open_pieces: list[Token] = []

    def close() -> None:
        text = "".join(piece.text.replace(_CONTINUES, "") for piece in open_pieces)
        if text:
            words.append(_joined(open_pieces, text))
        open_pieces.clear()

    for piece in pieces:
        if not _is_latin(piece.text.replace(_CONTINUES, "")):
            close()
        open_pieces.append(piece)
        if not piece.text.endswith(_CONTINUES):
            close()
    close()
    return words


def _joined(pieces: list[Token], text: str) -> Token:
    return Token(
        text=text,
        start_ms=pieces[0].start_ms,
        end_ms=pieces[-1].end_ms,
        confidence=min(piece.confidence for piece in pieces),
    )


def _kind(word: Token) -> str:
    if len(word.text) == 1 and word.text.isascii():
        if word.text.isalpha():
            return "letter"
        if word.text.isdigit():
            return "digit"
    return "word"


def _is_latin(text: str) -> bool:
    return all(letter <= _LAST_LATIN and (letter.isalpha() or letter == "'") for letter in text)


_RESERVED_IDS = (0, 1, 2)  # blank, sos, eos: never shown


@dataclass(frozen=True, slots=True)
class Decoded:
    """The network's output for one utterance; arrays are [num_tokens].

    Attributes:
        ids: the best vocabulary entry, of any integer type.
        confidences: float32, its probability.
        weights: for token times; None without tokens or weights.
    """

    ids: npt.NDArray[np.integer[Any]]
    confidences: npt.NDArray[np.float32]
    weights: FiringWeights | None

    @property
    def shown(self) -> npt.NDArray[np.bool_]:
        """Mask of the tokens other than blank, sos and eos."""
        return ~np.isin(self.ids, _RESERVED_IDS)

    def spans(self, duration_ms: int) -> list[Span]:
        """Returns the model's times of the shown tokens."""
        return token_spans(self.weights, int(self.shown.sum()), duration_ms)


def recognition_of(
    pcm: Pcm, decoded: Decoded | ChunkFailure | None, names: Sequence[str]
) -> Recognition | ChunkFailure:
    """Returns the words of an utterance.

    Times are the model's, with words beside a pause moved by `snap_to_speech_edges`.

    Args:
        pcm: the utterance.
        decoded: None for empty and silent utterances.
        names: the vocabulary.
    """
    if decoded is None:
        return Recognition(tokens=())
    if isinstance(decoded, ChunkFailure):
        return decoded
    shown = decoded.shown
    rows = zip(
        decoded.ids[shown].tolist(),
        decoded.confidences[shown].tolist(),
        snap_to_speech_edges(pcm, decoded.spans(len(pcm) // SAMPLES_PER_MS), ends_are_loose=True),
        strict=True,
    )
    return Recognition(
        display_tokens(
            Token(names[token_id], start_ms, end_ms, confidence)
            for token_id, confidence, (start_ms, end_ms) in rows
        )
    )


def shown_ids(decoded: Decoded | ChunkFailure | None) -> list[int]:
    """Returns the vocabulary ids of an utterance, without blank, sos and eos."""
    return decoded.ids[decoded.shown].tolist() if isinstance(decoded, Decoded) else []


def overflow_failure() -> ChunkFailure:
    """Returns the failure of an utterance whose scores are not finite."""
    return ChunkFailure("non_finite_scores", "the model's scores overflowed")
