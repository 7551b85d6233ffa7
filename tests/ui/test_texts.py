from __future__ import annotations

import re
import string

from serve_app.ui.client import PROBLEMS
from serve_app.ui.texts import LANGUAGES, TEXTS


def test_every_text_exists_in_every_language() -> None:
    for name, said in TEXTS.items():
        assert set(said) == set(LANGUAGES), name
        assert all(said.values()), name


def test_languages_fill_in_the_same_values() -> None:
    for name, said in TEXTS.items():
        fields = [
            {field for _, field, _, _ in string.Formatter().parse(text) if field}
            for text in said.values()
        ]
        assert fields[0] == fields[1], name


def test_english_has_no_chinese_characters() -> None:
    assert not [name for name, said in TEXTS.items() if re.search("[一-鿿]", said["en"])]


def test_every_problem_has_a_message() -> None:
    assert set(PROBLEMS) <= set(TEXTS)
