from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.transcript.itn.numerals import NUMERALS
from serve_app.transcript.itn.spans import find_spans


def written(said: str) -> str:
    text, position = "", 0
    for span in find_spans(list(said)):
        text += said[position : span.start] + span.text
        position = span.end
    return text + said[position:]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("一共二十五个人", "一共25个人"),
        ("二零二四年三月五号", "2024年3月5号"),
        ("九八年十一月十一日", "98年11月11日"),
        ("电话幺三八零零幺三八零零零", "电话13800138000"),
        ("涨了百分之三点五", "涨了3.5%"),
        ("百分之百", "100%"),
        ("千分之三", "3‰"),
        ("三分之二", "2/3"),
        ("一点二亿美元", "1.2亿美元"),
        ("圆周率三点一四", "圆周率3.14"),
        ("三点二十分", "3点20分"),
        ("三点零五分", "3点05分"),
        ("下午三点开会", "下午3点开会"),
        ("晚上八点四十五", "晚上8点45"),
        ("五块钱", "5块钱"),
        ("一千两百块", "1200块"),
        ("负二十度", "-20度"),
        ("三小时五分钟", "3小时5分钟"),
        ("二十多岁", "20多岁"),
    ],
)
def test_number_is_written_in_digits(said: str, expected: str) -> None:
    assert written(said) == expected


@pytest.mark.parametrize(
    "said",
    [
        "一些人", "一个", "十分满意", "万一", "千万别去", "三四十个", "十七八岁", "三三两两",
        "一五一十", "九九八十一难", "二百五", "有一点", "我有两点要说", "一块去", "百万富翁",
        "二十几个", "一心一意", "九一八事变",
    ],
)  # fmt: skip
def test_idiom_stays_as_spoken(said: str) -> None:
    assert written(said) == said


def test_words_of_several_letters_are_never_numbers() -> None:
    assert not list(find_spans(["二十", "API", "三十"]))


@given(
    st.lists(
        st.sampled_from([*sorted(NUMERALS), "点", "分", "之", "年", "月", "号", "负", "的", "AI"]),
        max_size=20,
    )
)
def test_spans_are_ordered_and_inside(words: list[str]) -> None:
    end = 0
    for span in find_spans(words):
        assert end <= span.start < span.end <= len(words)
        assert span.text
        end = span.end


@given(
    st.lists(st.sampled_from(["你", "好", "点", "分", "之", "年", "月", "AI", "负"]), max_size=20)
)
def test_without_numerals_there_is_nothing_to_write(words: list[str]) -> None:
    assert not list(find_spans(words))
