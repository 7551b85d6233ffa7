from __future__ import annotations

import pytest

from serve_app.core.words import join_words, split_words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["你", "好"], "你好"),
        (["hello", "world"], "hello world"),
        (["我", "用", "iPhone", "十", "五"], "我用iPhone十五"),
        (["ok，", "thank", "you。"], "ok，thank you。"),
        (["Well,", "that", "is", "fine."], "Well, that is fine."),
        (["un", "café", "à", "Paris"], "un café à Paris"),
        (["это", "слово"], "это слово"),
        (["좋은", "아침"], "좋은 아침"),
        ([], ""),
    ],
)
def test_spaces_stand_between_latin_words_only(words: list[str], text: str) -> None:
    assert join_words(words) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("你好，世界。", [("你", ""), ("好", "，"), ("世", ""), ("界", "。")]),
        (
            "OK, it's 3.5% at 9:30.",
            [("OK", ","), ("it's", ""), ("3.5%", ""), ("at", ""), ("9:30", ".")],
        ),
        ("用iPhone 15吗？", [("用", ""), ("iPhone", ""), ("15", ""), ("吗", "？")]),
        ("  ", []),
    ],
)
def test_text_is_split_into_words_with_their_marks(text: str, words: list[tuple[str, str]]) -> None:
    assert split_words(text) == words
    assert join_words(word + mark for word, mark in words).replace(" ", "") == text.replace(" ", "")
