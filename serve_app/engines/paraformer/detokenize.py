"""From vocabulary entries to what a reader sees."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from serve_app.core.records import Token

_UNSEEN = frozenset({"<blank>", "<s>", "</s>", "<unk>", "<OOV>"})
_CONTINUES = "@@"
_LAST_LATIN = "\u024f"


def display_tokens(pieces: Iterable[Token]) -> tuple[Token, ...]:
    """Joins subwords into words and drops what has no text.

    A CJK character stays alone. Subwords that end in "@@" join what follows,
    spelled letters become one abbreviation ("a b c" -> "ABC"), digits one
    number. `<unk>` is dropped: nothing was understood there that could be shown.
    A joined token spans its pieces and is as certain as the least certain one.

    Source: `sentence_postprocess` of FunASR 1.4.16, with whose text the joined
    result agrees. One difference: a "@@" piece that nothing follows is kept.
    """
    words = _join_subwords(piece for piece in pieces if piece.text not in _UNSEEN)
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
