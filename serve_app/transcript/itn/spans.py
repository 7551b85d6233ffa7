"""Finds the numbers in a sequence of words and writes them in digits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serve_app.transcript.itn.idioms import find_idioms
from serve_app.transcript.itn.numerals import DIGITS, NUMERALS, Line, read_cardinal, read_digits
from serve_app.transcript.itn.quantities import (
    MEASURES,
    ends_approximation,
    has_doubtful_end,
    is_approximate_year,
    is_counting,
    read_number,
    read_version,
)

_PARTS_OF_DAY = ("上午", "下午", "早上", "晚上", "凌晨", "中午", "傍晚", "今晚", "明早")
_MIN_SPOKEN_DIGITS = 3
_RANGES = ("到", "至")
_OPERATORS = ("乘以", "除以", "加上", "减去", "乘", "加", "减")
_SMALLER_UNITS = {
    "斤": ("两",), "公斤": ("斤", "两", "克"), "元": ("角", "分"), "块": ("毛", "角"),
    "角": ("分",), "米": ("厘米", "毫米"), "公里": ("米",), "吨": ("公斤", "斤"), "丈": ("尺",),
    "尺": ("寸",), "度": ("分",), "英尺": ("英寸",),
}  # fmt: skip
"""Units of a single digit after an amount: 二十斤三两."""

_UNITS_BY_LENGTH = sorted(_SMALLER_UNITS, key=len, reverse=True)
_DECIMAL_UNITS = ("块", "元", "度", "米", "斤")
"""A digit after these at the end of the phrase is a tenth: 三十七度二."""


@dataclass(frozen=True, slots=True)
class Span:
    """Words [start, end) that are written as `text`."""

    start: int
    end: int
    text: str


def find_spans(words: Sequence[str]) -> Iterator[Span]:
    """Yields the numbers among the words, in order, without overlaps.

    Args:
        words: as recognized, one Chinese character each; other words are never numbers.
    """
    line = Line(words)
    idioms = find_idioms(line.chars)
    position = 0
    while position < len(words):
        while idioms and idioms[0][1] <= position:
            idioms.pop(0)
        if idioms and idioms[0][0] <= position:
            position = idioms[0][1]
            continue
        found = next((span for rule in _RULES if (span := rule(line, position))), None)
        if found is not None and not (idioms and idioms[0][0] < found.end):
            yield found
            yield from (tail := _tail(line, found))
            position = tail[-1].end if tail else found.end
        else:
            position = max(_run_end_before(line, position, idioms), position + 1)


def _run_end_before(line: Line, position: int, idioms: list[tuple[int, int]]) -> int:
    end = line.run_end(position)
    return min(end, idioms[0][0]) if idioms else end


def _version(line: Line, position: int) -> Span | None:
    found = read_version(line, position)
    return None if found is None else Span(position, *found)


def _percent(line: Line, position: int) -> Span | None:
    for words, sign in (("百分之", "%"), ("千分之", "‰")):
        if not line.follows(position, words):
            continue
        start = position + len(words)
        if line.run(start) == words[0] == "百":
            return Span(position, start + 1, f"100{sign}")
        number = read_number(line, start)
        if number is None:
            continue
        end, text = number
        if line.follows(end, *_RANGES):
            last = read_number(line, end + 1)
            if last is not None:
                return Span(position, last[0], f"{text}%{line.chars[end]}{last[1]}{sign}")
        return Span(position, end, f"{text}{sign}")
    return None


def _fraction(line: Line, position: int) -> Span | None:
    whole, after = read_cardinal(line.run(position)), line.run_end(position)
    if whole is not None and line.follows(after, "又"):
        part = _fraction(line, after + 1)
        if part is not None:
            return Span(position, part.end, f"{whole.text}又{part.text}")
    below, end = whole, after
    if below is None or below.value < 2 or not line.follows(end, "分之"):
        return None
    above, stop = read_cardinal(line.run(end + 2)), line.run_end(end + 2)
    return None if above is None else Span(position, stop, f"{above.text}/{below.text}")


def _clock(line: Line, position: int) -> Span | None:
    """The hour before 点; `_minute` reads what follows."""
    hour, end = read_cardinal(line.run(position)), line.run_end(position)
    if hour is None or hour.value > 24 or not line.follows(end, "点"):
        return None
    in_day = line.preceded(position, *_PARTS_OF_DAY)
    minute = _minute_text(line, end + 1, in_day)
    certain = (
        in_day or line.follows(end + 1, "钟", "整", "半", "一刻", "三刻") or minute is not None
    )
    if not certain:
        return None
    # The minutes could be the decimals of a number.
    decimals = line.run(end + 1)
    if read_digits(decimals) is not None and minute is None:
        number = read_number(line, position)
        is_decimal = number is not None and number[0] > end
        if is_decimal and not line.follows(end + 1, "一刻", "三刻"):
            return None
    return Span(position, end, hour.text)


def _clock_range(line: Line, position: int) -> Span | None:
    """十点到十一点: both hours, or neither."""
    hour, end = read_cardinal(line.run(position)), line.run_end(position)
    if hour is None or hour.value > 24 or not line.follows(end, "点到", "点至"):
        return None
    other, stop = read_cardinal(line.run(end + 2)), line.run_end(end + 2)
    if other is None or other.value > 24 or not line.follows(stop, "点"):
        return None
    if line.run(stop + 1) and _minute_text(line, stop + 1, in_day=False) is None:
        return None
    in_day = line.preceded(position, *_PARTS_OF_DAY)
    if len(line.run(position)) == 1 and len(line.run(end + 2)) == 1 and not in_day:
        return None
    return Span(position, stop, f"{hour.text}点{line.chars[end + 1]}{other.text}")


def _minute(line: Line, position: int) -> Span | None:
    hour = position - 1
    while hour > 0 and line.chars[hour - 1] in NUMERALS:
        hour -= 1
    if not line.preceded(position, "点") or hour == position - 1:
        return None
    text = _minute_text(line, position, line.preceded(hour, *_PARTS_OF_DAY))
    return None if text is None else Span(position, line.run_end(position), text)


def _minute_text(line: Line, position: int, in_day: bool) -> str | None:
    """Returns minutes that cannot be decimals: 二十, 零五分; 零五 after 下午三点."""
    run = line.run(position)
    after_zero = run[:1] in ("零", "〇") and len(run) == 2 and run[1] in DIGITS
    if after_zero and (in_day or line.follows(position + 2, "分")):
        return f"0{DIGITS[run[1]]}"
    minute = read_cardinal(run)
    return minute.text if minute is not None and "十" in run and minute.value < 60 else None


def _date(line: Line, position: int) -> Span | None:
    run, end = line.run(position), line.run_end(position)
    digits = read_digits(run)
    if line.follows(end, "年") and digits is not None and len(digits) in (2, 4):
        return None if is_approximate_year(line, position) else Span(position, end, digits)
    number = read_cardinal(run)
    if number is None:
        return None
    is_month = line.follows(end, "月") and 1 <= number.value <= 12
    is_day = 1 <= number.value <= 31 and (
        line.follows(end, "号") or (line.follows(end, "日") and line.preceded(position, "月"))
    )
    return Span(position, end, number.text) if is_month or is_day else None


def _measure(line: Line, position: int) -> Span | None:
    number = read_number(line, position)
    if number is None or not line.follows(number[0], *MEASURES):
        return None
    if is_counting(line, position) and number[0] == line.run_end(position):
        return None
    return Span(position, *number)


def _sum(line: Line, position: int) -> Span | None:
    """A single digit before an operator and a number: 二乘以三点五."""
    if len(line.run(position)) != 1:
        return None
    left = read_number(line, position)
    if left is None:
        return None
    operator = next((word for word in _OPERATORS if line.follows(left[0], word)), None)
    if operator is None:
        return None
    start = left[0] + len(operator)
    right = read_number(line, start)
    if right is None or (len(line.chars[start : right[0]]) == 1 and len(operator) == 1):
        return None
    return Span(position, right[0], f"{left[1]}{operator}{right[1]}")


def _score(line: Line, position: int) -> Span | None:
    """二十一比九: two numbers, at least one above 9, or after 比分."""
    left, end = read_cardinal(line.run(position)), line.run_end(position)
    if left is None or not line.follows(end, "比"):
        return None
    right, stop = read_cardinal(line.run(end + 1)), line.run_end(end + 1)
    if right is None or line.follows(stop, "点", "分之"):
        return None
    if not (left.value >= 10 or right.value >= 10 or line.preceded(position, "比分", "比分是")):
        return None
    return Span(position, stop, f"{left.text}比{right.text}")


def _number_range(line: Line, position: int) -> Span | None:
    """五到十个: both ends in digits if either is; a range of single digits stays as spoken."""
    left, end = read_cardinal(line.run(position)), line.run_end(position)
    if left is None or not line.follows(end, *_RANGES) or has_doubtful_end(line, position):
        return None
    right, stop = read_cardinal(line.run(end + 1)), line.run_end(end + 1)
    if right is None or line.follows(stop, "点", "月", "号", "日", "几", "分之"):
        return None
    if (left.value < 10 and right.value < 10) or has_doubtful_end(line, end + 1):
        return None
    if left.value >= right.value and right.text[-1] not in "万亿":
        return None
    return Span(position, stop, f"{left.text}{line.chars[end]}{right.text}")


def _plain(line: Line, position: int) -> Span | None:
    run = line.run(position)
    number = read_number(line, position)
    if number is None or line.follows(number[0], "几", "好几"):
        return None
    if ends_approximation(line, position):
        return None
    end, text = number
    is_decimal = end > position + len(run)
    cardinal = read_cardinal(run)
    has_unit = len(run) > 1 and cardinal is not None
    is_long = len(run) >= _MIN_SPOKEN_DIGITS and read_digits(run) is not None
    if not (has_unit or is_long or is_decimal):
        return None
    if not is_decimal and (has_doubtful_end(line, position) or is_counting(line, position)):
        return None
    if line.preceded(position, "负") and not line.preceded(position, "正负"):
        return Span(position - 1, end, f"-{text}")
    return Span(position, end, text)


def _tail(line: Line, before: Span) -> list[Span]:
    """The single digits that continue an amount: 199块9, 20斤3两."""
    tail: list[Span] = []
    end = before.end
    while True:
        unit = next((unit for unit in _UNITS_BY_LENGTH if line.follows(end, unit)), None)
        if unit is None:
            return tail
        start = end + len(unit)
        after = start + 1
        # 两 is both a numeral and a unit.
        if line.run(start)[:1] not in DIGITS or line.run(after) not in ("", "两"):
            return tail
        is_last = unit in _DECIMAL_UNITS and (line.ends(after) or line.follows(after, "钱"))
        if not is_last and not line.follows(after, *_SMALLER_UNITS[unit]):
            return tail
        tail.append(Span(start, after, str(DIGITS[line.chars[start]])))
        end = after


_RULES = (
    _version,
    _percent,
    _fraction,
    _minute,
    _clock_range,
    _clock,
    _date,
    _sum,
    _score,
    _number_range,
    _measure,
    _plain,
)
