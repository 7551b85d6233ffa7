from __future__ import annotations

import pytest

from serve_app.core.words import join_words


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["你", "好"], "你好"),
        (["hello", "world"], "hello world"),
        (["我", "用", "iPhone", "十", "五"], "我用iPhone十五"),
        (["ok", "，", "thank", "you", "。"], "ok，thank you。"),
        ([], ""),
    ],
)
def test_spaces_stand_between_latin_words_only(words: list[str], text: str) -> None:
    assert join_words(words) == text
