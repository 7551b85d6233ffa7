from __future__ import annotations

import pytest

from serve_app.core.records import Token
from serve_app.engines.paraformer.detokenize import display_tokens


def _texts(*pieces: str) -> list[str]:
    tokens = [Token(piece, 10 * at, 10 * at + 10, 0.9) for at, piece in enumerate(pieces)]
    return [token.text for token in display_tokens(tokens)]


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (("你", "好"), ["你", "好"]),
        (("hel@@", "lo", "world"), ["hello", "world"]),
        (("我", "用", "pay@@", "tho@@", "n", "写"), ["我", "用", "paython", "写"]),
        (("a", "p", "i"), ["API"]),
        (("i", "say"), ["i", "say"]),
        (("一", "1", "2", "个"), ["一", "12", "个"]),
        (("你", "<unk>", "<blank>", "好"), ["你", "好"]),
        (("abc@@", "你"), ["abc", "你"]),
        (("abc@@",), ["abc"]),
        (("it's",), ["it's"]),
        ((), []),
    ],
)
def test_subwords_become_words(pieces: tuple[str, ...], shown: list[str]) -> None:
    assert _texts(*pieces) == shown


def test_word_spans_its_subwords_and_has_their_lowest_confidence() -> None:
    (word,) = display_tokens([Token("hel@@", 100, 200, 0.5), Token("lo", 200, 340, 0.9)])
    assert word == Token("hello", 100, 340, 0.5)
