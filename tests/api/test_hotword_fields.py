from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.api.hotword_fields import MAX_WORDS, hotwords_of, parse_hotwords, unweighted
from serve_app.core.errors import InvalidParameter
from serve_app.core.records import Hotword


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
        (
            "阿里巴巴,通义，达摩院、淘宝；天猫;支付宝",
            [(w, 1.0) for w in ["阿里巴巴", "通义", "达摩院", "淘宝", "天猫", "支付宝"]],
        ),
        ("阿里巴巴 20，通义 0.5\r\n, 达摩院", [("阿里巴巴", 20.0), ("通义", 0.5), ("达摩院", 1.0)]),
        ('{"热词": "100", "通义": " 0.5 "}', [("热词", 100.0), ("通义", 0.5)]),
        (
            "阿卜杜拉·萨利赫 C++ node.js AT&T",
            [("阿卜杜拉·萨利赫", 1.0), ("C++", 1.0), ("node.js", 1.0), ("AT&T", 1.0)],
        ),
        (
            "C# AC/DC Yahoo! D’Artagnan 《三体》",
            [(w, 1.0) for w in ("C#", "AC/DC", "Yahoo!", "D’Artagnan", "《三体》")],
        ),
        ('["", " ", "通义"]', [("通义", 1.0)]),
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
        "a\\b",
        "~root",
        '["http://host/words.txt"]',
        '{"/etc/passwd": 20}',
        "hotwords.CSV",
        "../words",
        "C:/words",
        "a\u0000b",
        "<s>",
    ],
)
def test_text_like_a_path_or_an_address_is_refused(value: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_hotwords(value)
    with pytest.raises(InvalidParameter):
        unweighted("refine_keywords", [value])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[1, 2]", "must be"),
        ('["a", ["b"]]', "must be"),
        ("[", "hotwords is not valid JSON; pass a JSON list or words separated by spaces"),
        ("[" * 10_000, "is not valid JSON"),
        ('{"a": "b"}', "a weight must be a number"),
        ('{"a": ""}', "a weight must be a number"),
        ('{"a": "nan"}', "a weight must be a number"),
        ('{"a": 0}', "a weight must be a number"),
        ('{"a": true}', "a weight must be a number"),
        ('{"a": null}', "a weight must be a number"),
        ('{"a": 1e9}', "a weight must be a number"),
        ('{"a": NaN}', "a weight must be a number"),
        ("一 -3", "a weight must be a number"),
        ("一" * 33, "longer than 32"),
        (" ".join(f"word{n}" for n in range(MAX_WORDS + 1)), "at most 100"),
        (" ".join(f"{n:021d}" for n in range(MAX_WORDS)), "2000 characters"),
        ("一 " * 20_000, "longer than"),
        ("<s>", "is not a word"),
    ],
)
def test_other_forms_and_too_much_are_refused(value: str, reason: str) -> None:
    with pytest.raises(InvalidParameter, match=reason):
        parse_hotwords(value)


def test_entries_of_a_list_are_phrases() -> None:
    words = hotwords_of(
        (), ("machine learning", "通义,达摩院", '["New York"]', '{"淘宝": "2"}'), None
    )
    assert [(word.text, word.weight) for word in words] == [
        ("machine learning", 1.0),
        ("通义", 1.0),
        ("达摩院", 1.0),
        ("New York", 1.0),
        ("淘宝", 2.0),
    ]


def test_weights_by_word_count_last() -> None:
    words = hotwords_of(("通义",), (), {"通义": "3"})
    assert words == (Hotword("通义", 3.0),)


def test_words_to_refine_have_no_weights() -> None:
    assert unweighted("refine_keywords", ["交易 停滞"]) == ("交易", "停滞")
    assert unweighted("refine_keywords", ["交易，停滞", "交易"]) == ("交易", "停滞")
    assert unweighted("refine_keywords", ['["交易", "交易"]']) == ("交易",)
    with pytest.raises(InvalidParameter, match="weights are not supported"):
        unweighted("refine_keywords", ['{"交易": 2}'])


@given(st.one_of(st.text(max_size=60), st.recursive(st.text(max_size=8), st.lists).map(json.dumps)))
def test_whatever_comes_in_words_come_out_or_a_refusal(value: str) -> None:
    try:
        words = parse_hotwords(value)
    except InvalidParameter:
        return
    for word in words:
        assert word.text
        assert word.text.isprintable()
        assert "://" not in word.text
