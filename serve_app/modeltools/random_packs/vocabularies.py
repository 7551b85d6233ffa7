"""Vocabularies of any size whose words mean nothing but are of the right kind."""

from __future__ import annotations

from itertools import islice, product

_FIRST, _LAST = ord("一"), ord("龥")
_CHARACTERS = tuple(chr(code) for code in range(_FIRST, _LAST + 1))


def speech_tokens(size: int) -> list[str]:
    """Single characters between the reserved entries; what recognisers emit."""
    return ["<blank>", "<s>", "</s>", *_CHARACTERS[: size - 4], "<unk>"]


def punctuation_tokens(size: int) -> list[str]:
    """All single characters, so that recognised ones are known, then pairs of them."""
    pairs = ("".join(pair) for pair in product(_CHARACTERS, repeat=2))
    words = [*_CHARACTERS, *islice(pairs, size - len(_CHARACTERS) - 1)]
    return ["<unk>", *words]
