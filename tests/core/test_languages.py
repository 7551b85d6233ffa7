from __future__ import annotations

import pytest

from serve_app.core.languages import language_code


@pytest.mark.parametrize("name", ["zh", "ZH", "zh-CN", "zh_cn", " zh-Hans-CN "])
def test_region_and_case_do_not_count(name: str) -> None:
    assert language_code(name) == "zh"


def test_language_without_region_stays() -> None:
    assert language_code("yue") == "yue"
