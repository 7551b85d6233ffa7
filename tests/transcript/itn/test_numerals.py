from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.transcript.itn.numerals import NUMERALS, read_cardinal, read_digits

_DIGITS = "零一二三四五六七八九"


def spoken(value: int) -> str:
    """Says a number below 10**12 in full, as a speaker of Mandarin does."""
    if value >= 10**8:
        return _joined(value, 10**8, "亿")
    if value >= 10**4:
        return _joined(value, 10**4, "万")
    said, zero = "", False
    for size, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, value = divmod(value, size)
        if digit:
            said += ("零" if zero and said else "") + _DIGITS[digit] + unit
            zero = False
        else:
            zero = True
    return said


def _joined(value: int, size: int, unit: str) -> str:
    head, tail = divmod(value, size)
    if not tail:
        return spoken(head) + unit
    return spoken(head) + unit + ("零" if tail < size // 10 else "") + spoken(tail)


@given(st.integers(1, 10**12 - 1))
def test_number_said_in_full_is_read_back(value: int) -> None:
    cardinal = read_cardinal(spoken(value))

    assert cardinal is not None
    assert cardinal.value == value


@given(st.text(alphabet=sorted(NUMERALS), max_size=8))
def test_any_row_of_numerals_is_read_or_refused(chars: str) -> None:
    cardinal = read_cardinal(chars)

    assert cardinal is None or cardinal.value >= 0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_digits_are_read_one_by_one(digits: list[int]) -> None:
    assert read_digits("".join(_DIGITS[digit] for digit in digits)) == "".join(map(str, digits))


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("十五", "15"),
        ("一百五", "150"),
        ("一百零五", "105"),
        ("两千零三十", "2030"),
        ("一万二", "12000"),
        ("三千五百万", "3500万"),
        ("一亿二千万", "1亿2000万"),
    ],
)
def test_cardinal_is_written_as_readers_expect(said: str, written: str) -> None:
    cardinal = read_cardinal(said)

    assert cardinal is not None
    assert cardinal.text == written


@pytest.mark.parametrize(
    "said", ["三四十", "十七八", "百万", "九九八十一", "五百零", "十百", "一五一十"]
)
def test_text_that_is_not_exactly_one_number_is_refused(said: str) -> None:
    assert read_cardinal(said) is None
