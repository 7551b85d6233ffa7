"""Punctuation marks in the script of the sentence that they stand in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from serve_app.core.words import is_wide
from serve_app.transcript.transcript import MarkedToken

_NARROW = str.maketrans("，。？！、；：", ",.?!,;:")


def in_script_of_words(tokens: Sequence[MarkedToken]) -> tuple[MarkedToken, ...]:
    """Returns a sentence whose marks are Latin ones if most of its words are.

    The punctuation model knows Chinese marks alone, whatever language it reads. A Chinese
    character counts as a word; numbers count for neither script. A sentence in which there
    are as many Chinese characters as other words is a Chinese one.
    """
    words = [letter for marked in tokens if (letter := _first_letter(marked.token.text))]
    num_wide = sum(map(is_wide, words))
    if len(words) - num_wide <= num_wide:
        return tuple(tokens)
    return tuple(replace(marked, mark=marked.mark.translate(_NARROW)) for marked in tokens)


def _first_letter(word: str) -> str:
    return next((character for character in word if character.isalpha()), "")
