from __future__ import annotations

import pytest

from serve_app.core.languages import language_code, names_a_language


@pytest.mark.parametrize("name", ["zh", "ZH", "zh-CN", "zh_cn", " zh-Hans-CN "])
def test_region_and_case_do_not_count(name: str) -> None:
    assert language_code(name) == "zh"


def test_language_without_region_stays() -> None:
    assert language_code("yue") == "yue"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Chinese", "zh"),
        ("Chinese (Simplified)", "zh"),
        ("Mandarin Chinese", "zh"),
        ("中文", "zh"),
        ("普通话", "zh"),
        ("zh_CN.UTF-8", "zh"),
        ("cmn-Hans-CN", "zh"),
        ("CN", "zh"),
        ("ENGLISH", "en"),
        ("英语", "en"),
        ("eng", "en"),
        ("Cantonese", "yue"),
        ("粤语", "yue"),
        ("日本語", "ja"),
        ("AUTO", "auto"),
    ],
)
def test_names_mean_codes(name: str, code: str) -> None:
    assert language_code(name) == code


def test_text_that_is_neither_a_code_nor_a_name_is_distinguished() -> None:
    assert all(map(names_a_language, ("zh", "hh", "French", "zh-CN", "yue")))
    assert not any(map(names_a_language, ("language", "string", "", "12", "auto", "普")))
