"""How recognised words stand next to each other on the page."""

from __future__ import annotations

from collections.abc import Iterable


def needs_space(before: str, after: str) -> bool:
    """True between two words of a script that separates words by spaces.

    Chinese characters and full-width marks stand without spaces, also next to a
    Latin word.
    """
    return bool(before) and bool(after) and before[-1].isascii() and after[0].isascii()


def join_words(words: Iterable[str]) -> str:
    """Joins words and marks into running text."""
    text = ""
    for word in words:
        text += f" {word}" if needs_space(text, word) else word
    return text
