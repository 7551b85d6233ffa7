from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.api.hinting import MAX_WORDS, parse_hotwords, parse_keywords
from serve_app.core.errors import InvalidParameter
from serve_app.core.hints import Hotword


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", []),
        ("  \n ", []),
        ("阿里巴巴", [("阿里巴巴", 1.0)]),
        ("阿里巴巴 通义\n达摩院", [("阿里巴巴", 1.0), ("通义", 1.0), ("达摩院", 1.0)]),
        ("阿里巴巴 20\n通义 0.5", [("阿里巴巴", 20.0), ("通义", 0.5)]),
        ("阿里巴巴 20 通义", [("阿里巴巴", 1.0), ("20", 1.0), ("通义", 1.0)]),
        ('["machine learning", "ＡＢ 20"]', [("machine learning", 1.0), ("AB 20", 1.0)]),
        ('{"阿里巴巴": 20, "通义": 1.5}', [("阿里巴巴", 20.0), ("通义", 1.5)]),
        ('"don\'t"', [("don't", 1.0)]),
        ("通义 通义", [("通义", 1.0)]),
    ],
)
def test_lists_lines_and_objects_are_understood(value: str, words: list[tuple[str, float]]) -> None:
    assert parse_hotwords(value) == tuple(Hotword(text, weight) for text, weight in words)


@pytest.mark.parametrize(
    "value",
    [
        "http://host/words.txt",
        "https://host",
        "file:words",
        "words.txt",
        "/etc/passwd",
        "..",
        "a\\b",
        "~root",
        '["http://host/words.txt"]',
        '{"/etc/passwd": 20}',
        "words\u2215txt",
        "a\u0000b",
        "<s>",
    ],
)
def test_what_looks_like_a_path_or_an_address_is_refused(value: str) -> None:
    for parse in (parse_hotwords, parse_keywords):
        with pytest.raises(InvalidParameter):
            parse(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[1, 2]", "must be"),
        ('["a", ["b"]]', "must be"),
        ("[", "not; give"),
        ("[" * 10_000, "not; give"),
        ('{"a": "b"}', "not a number"),
        ('{"a": 0}', "not a number"),
        ('{"a": true}', "not a number"),
        ('{"a": 1e9}', "not a number"),
        ('{"a": NaN}', "not a number"),
        ("一 -3", "not a number"),
        ("一" * 33, "longer than 32"),
        (" ".join(f"word{n}" for n in range(MAX_WORDS + 1)), "at most 100"),
        (" ".join(f"{n:021d}" for n in range(MAX_WORDS)), "2000 letters"),
        ("一 " * 20_000, "longer than"),
        ("-- ''", "is no word"),
    ],
)
def test_other_forms_and_too_much_are_refused(value: str, reason: str) -> None:
    with pytest.raises(InvalidParameter, match=reason):
        parse_hotwords(value)


def test_keywords_have_no_weights() -> None:
    assert parse_keywords("交易 停滞") == ("交易", "停滞")
    assert parse_keywords('["交易", "交易"]') == ("交易",)
    with pytest.raises(InvalidParameter, match="no weights"):
        parse_keywords('{"交易": 2}')


@given(st.one_of(st.text(max_size=60), st.recursive(st.text(max_size=8), st.lists).map(json.dumps)))
def test_whatever_comes_in_words_come_out_or_a_refusal(value: str) -> None:
    try:
        words = parse_hotwords(value)
    except InvalidParameter:
        return
    for word in words:
        assert word.text
        assert all(letter.isalnum() or letter in "' -" for letter in word.text)
