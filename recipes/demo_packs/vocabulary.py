"""Token lists: FunASR wants <blank>, <s>, </s> first and <unk> somewhere."""

from __future__ import annotations

import string

from recipes.demo_packs.sentences import all_characters

BLANK, START, END, UNKNOWN = "<blank>", "<s>", "</s>", "<unk>"
END_ID = 2


def speech_tokens() -> list[str]:
    """The tokens of the recognizer."""
    return [BLANK, START, END, *all_characters(), UNKNOWN]


def punctuation_tokens() -> list[str]:
    """The tokens of the punctuator: the recognizer's, letters and digits."""
    fallbacks = string.digits + string.ascii_lowercase
    return [BLANK, START, END, *fallbacks, *all_characters(), UNKNOWN]


def token_ids(tokens: list[str]) -> dict[str, int]:
    """The id of every token."""
    return {token: i for i, token in enumerate(tokens)}
