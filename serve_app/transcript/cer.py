"""The character error rate (CER)."""

from __future__ import annotations

import unicodedata

from rapidfuzz.distance import Levenshtein


def spoken_characters(text: str) -> str:
    """Returns the letters and digits of a text in lower case, without marks or spaces."""
    return "".join(
        character.lower() for character in text if unicodedata.category(character)[0] in "LN"
    )


def character_error_rate(reference: str, hypothesis: str) -> float:
    """Returns the CER of a text, ignoring punctuation, spaces and case.

    CER is (substitutions + deletions + insertions) / characters of the reference.
    For an empty reference it is 0.0 if the hypothesis is empty, else 1.0.
    """
    said, heard = spoken_characters(reference), spoken_characters(hypothesis)
    if not said:
        return 1.0 if heard else 0.0
    return Levenshtein.distance(said, heard) / len(said)
