"""Joins words into text and splits text into words, by the spacing rules of their scripts."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable


@functools.lru_cache(maxsize=4096)
def is_wide(character: str) -> bool:
    """Whether a character is full width: CJK characters and full-width marks."""
    return unicodedata.east_asian_width(character) in "WF"


def needs_space(before: str, after: str) -> bool:
    """Whether a space belongs between two words.

    Chinese characters and full-width marks take no spaces, even next to a Latin word.
    """
    return bool(before) and bool(after) and _is_spaced(before[-1]) and _is_spaced(after[0])


def join_words(words: Iterable[str]) -> str:
    """Joins words, each with the marks that follow it, into running text."""
    text = ""
    for word in words:
        text += f" {word}" if needs_space(text, word) else word
    return text


def split_words(text: str) -> list[tuple[str, str]]:
    """The inverse of `join_words`: returns words, each with the marks that follow it.

    Each Chinese character is a word. Leading marks belong to the first word.
    """
    words: list[list[str]] = []
    after_space = True
    for at, character in enumerate(text):
        if character.isspace():
            after_space = True
            continue
        alone = not _is_spaced(character)
        # Not the point in 3.5, or the colon in 9:30.
        inside = text[at + 1 : at + 2].isalnum() and not is_wide(text[at + 1])
        is_mark = not character.isalnum() and (alone or (character in ".,?!;:" and not inside))
        if is_mark and words and not after_space:
            words[-1][1] += character
        elif alone or after_space or not words or words[-1][1] or not _is_spaced(words[-1][0][-1]):
            words.append([character, ""])
        else:
            words[-1][0] += character
        after_space = False
    return [(word, marks) for word, marks in words]


@functools.lru_cache(maxsize=4096)
def _is_spaced(character: str) -> bool:
    return not is_wide(character) or unicodedata.name(character, "").startswith("HANGUL")
