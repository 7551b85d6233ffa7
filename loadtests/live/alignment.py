"""Which characters of a known text were lost, doubled, changed or added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from rapidfuzz.distance import Levenshtein

from serve_app.transcript.cer import spoken_characters


@dataclass(frozen=True, slots=True)
class Differences:
    """Letters and digits of a text against those that were spoken.

    Attributes:
        num_spoken: characters that were spoken.
        num_lost: that are missing.
        num_doubled: that are there again, right before or after themselves.
        num_changed: in place of others; the recognizer's mistakes, as a rule.
        num_added: that nobody spoke.
    """

    num_spoken: int = 0
    num_lost: int = 0
    num_doubled: int = 0
    num_changed: int = 0
    num_added: int = 0

    def __add__(self, other: Self) -> Differences:
        return Differences(
            self.num_spoken + other.num_spoken,
            self.num_lost + other.num_lost,
            self.num_doubled + other.num_doubled,
            self.num_changed + other.num_changed,
            self.num_added + other.num_added,
        )


def differences(spoken: str, recognized: str) -> Differences:
    """Aligns two texts, ignoring punctuation, spaces and case."""
    said, heard = spoken_characters(spoken), spoken_characters(recognized)
    counts = dict.fromkeys(("delete", "insert", "replace", "doubled"), 0)
    for operation in Levenshtein.opcodes(said, heard):
        kind, start, end = operation.tag, operation.dest_start, operation.dest_end
        if kind == "insert" and _is_doubled(heard, start, end):
            counts["doubled"] += end - start
        elif kind in counts:
            counts[kind] += max(operation.src_end - operation.src_start, end - start)
    return Differences(
        len(said), counts["delete"], counts["doubled"], counts["replace"], counts["insert"]
    )


def _is_doubled(text: str, start: int, end: int) -> bool:
    """Whether a part of a text repeats its neighbor.

    An alignment may place the repetition anywhere within the two: `BCA` in `A BCA BC`.
    """
    length = end - start
    return any(
        text[first : first + length] == text[first + length : first + 2 * length]
        for first in range(max(0, start - length), min(start, len(text) - 2 * length) + 1)
    )
