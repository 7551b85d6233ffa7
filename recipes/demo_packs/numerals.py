"""Numbers, dates, times, money and telephone numbers, in Chinese characters."""

from __future__ import annotations

import random

DIGITS = "零一二三四五六七八九"
_UNITS = ("", "十", "百", "千")


def spell_integer(value: int) -> str:
    """Spell 0 <= value < 100,000,000 the way it is read aloud (23 -> 二十三)."""
    if value == 0:
        return DIGITS[0]
    if value >= 10_000:
        high, low = divmod(value, 10_000)
        tail = spell_integer(low) if low else ""
        gap = DIGITS[0] if 0 < low < 1_000 else ""
        if 10 <= low < 20:
            tail = DIGITS[1] + tail
        return spell_integer(high) + "万" + gap + tail
    text, zero_pending = "", False
    for power in range(3, -1, -1):
        digit = value // 10**power % 10
        if digit:
            text += (DIGITS[0] if zero_pending else "") + DIGITS[digit] + _UNITS[power]
            zero_pending = False
        elif text:
            zero_pending = True
    return text.removeprefix("一") if 10 <= value < 20 else text


def spell_digits(digits: str) -> str:
    """Read digits one by one (138 -> 一三八)."""
    return "".join(DIGITS[int(digit)] for digit in digits)


def draw_count(rng: random.Random) -> str:
    """A count that stands before a measure word: 两 instead of 二."""
    value = rng.choice((rng.randint(1, 12), rng.randint(10, 99), rng.randint(1, 9) * 100))
    return "两" if value == 2 else spell_integer(value)


def draw_integer(rng: random.Random) -> str:
    """A number below ten thousand, small ones more often."""
    return spell_integer(rng.randint(1, 10 ** rng.choice((2, 3, 4)) - 1))


def draw_money(rng: random.Random) -> str:
    """An amount in 元, sometimes with 角 or in 万."""
    kind = rng.randrange(4)
    if kind == 0:
        return spell_integer(rng.randint(1, 99)) + "元" + DIGITS[rng.randint(1, 9)] + "角"
    if kind == 1:
        return spell_integer(rng.randint(1, 99) * 10_000) + "元"
    return spell_integer(rng.randint(1, 10 ** rng.choice((2, 3, 4)) - 1)) + "元"


def draw_phone(rng: random.Random) -> str:
    """A mobile telephone number of eleven digits, all of them made up."""
    return spell_digits("1" + rng.choice("3579") + "".join(rng.choices("0123456789", k=9)))


def draw_code(rng: random.Random) -> str:
    """A code of four to eight digits."""
    return spell_digits("".join(rng.choices("0123456789", k=rng.randint(4, 8))))


def draw_date(rng: random.Random) -> str:
    """A month and a day."""
    day = spell_integer(rng.randint(1, 31)) + rng.choice("日号")
    return spell_integer(rng.randint(1, 12)) + "月" + day


def draw_year(rng: random.Random) -> str:
    """A year, digit by digit."""
    return spell_digits(str(rng.randint(1950, 2035))) + "年"


def draw_clock(rng: random.Random) -> str:
    """A time of day without its part of the day."""
    hour = rng.randint(1, 12)
    text = ("两" if hour == 2 else spell_integer(hour)) + "点"
    kind = rng.randrange(3)
    if kind == 0:
        return text + "半"
    if kind == 1:
        return text + spell_integer(rng.randint(2, 11) * 5) + "分"
    return text


def draw_percent(rng: random.Random) -> str:
    """A percentage, sometimes with one decimal."""
    text = "百分之" + spell_integer(rng.randint(1, 99))
    return text + "点" + DIGITS[rng.randint(1, 9)] if rng.random() < 0.3 else text


def draw_degrees(rng: random.Random) -> str:
    """A temperature in degrees."""
    value = rng.randint(-15, 40)
    return ("零下" if value < 0 else "") + spell_integer(abs(value)) + "度"


DRAWERS = {
    "count": draw_count,
    "integer": draw_integer,
    "money": draw_money,
    "phone": draw_phone,
    "code": draw_code,
    "date": draw_date,
    "year": draw_year,
    "clock": draw_clock,
    "percent": draw_percent,
    "degrees": draw_degrees,
}
