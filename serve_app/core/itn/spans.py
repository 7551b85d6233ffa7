"""Where numbers stand in a row of words, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from serve_app.core.itn.numerals import DIGITS, NUMERALS, read_cardinal, read_digits

# Said like numbers, but names and idioms; compared with the whole run of numerals.
_NAMES = frozenset({"二百五", "九一八", "一二九", "三七二十一", "十一二"})
# After these a lone digit is a measurement and not a turn of phrase.
_MEASURES = (
    "公斤", "公里", "千米", "厘米", "毫米", "平方米", "立方米", "小时", "分钟", "秒钟", "毫秒",
    "岁", "摄氏度", "赫兹", "美元", "欧元", "英镑", "日元", "港元", "港币", "块钱", "毛钱",
)  # fmt: skip
_PARTS_OF_DAY = ("上午", "下午", "早上", "晚上", "凌晨", "中午", "傍晚", "今晚", "明早")
_MIN_SPOKEN_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Span:
    """Words [start, end) that are written as `text`."""

    start: int
    end: int
    text: str


def find_spans(words: Sequence[str]) -> Iterator[Span]:
    """Yields the numbers among the words, in order, without overlaps.

    Args:
        words: as they were recognised, one Chinese character each; others are never numbers.
    """
    line = _Line(words)
    position = 0
    while position < len(words):
        found = next((span for rule in _RULES if (span := rule(line, position))), None)
        if found is not None:
            yield found
            position = found.end
        else:
            position = max(line.run_end(position), position + 1)


class _Line:
    """Words, looked at by character."""

    def __init__(self, words: Sequence[str]) -> None:
        # A character for each word, so that positions in both are the same.
        self.chars = "".join(word if len(word) == 1 else "\0" for word in words)

    def run_end(self, position: int) -> int:
        """Returns where the numerals that start here end."""
        while position < len(self.chars) and self.chars[position] in NUMERALS:
            position += 1
        return position

    def run(self, position: int) -> str:
        return self.chars[position : self.run_end(position)]

    def follows(self, position: int, *texts: str) -> bool:
        return self.chars.startswith(texts, position)

    def preceded(self, position: int, *texts: str) -> bool:
        return self.chars.endswith(texts, 0, position)


def _number(line: _Line, position: int) -> tuple[int, str] | None:
    """Reads a number where one is certain: returns its end and how it is written."""
    run = line.run(position)
    end = position + len(run)
    if not run:
        return None
    cardinal = read_cardinal(run)
    whole = cardinal.text if cardinal is not None else read_digits(run)
    if whole is None:
        return None
    if not line.follows(end, "点"):
        return end, whole
    decimals, unit = _split_unit(line.run(end + 1))
    digits = read_digits(decimals)
    if digits is None or whole[-1] in "万亿":
        return end, whole
    return end + 1 + len(decimals) + len(unit), f"{whole}.{digits}{unit}"


def _split_unit(run: str) -> tuple[str, str]:
    """Divides 二亿 into 二 and 亿."""
    return (run[:-1], run[-1]) if run[-1:] in ("万", "亿") else (run, "")


def _percent(line: _Line, position: int) -> Span | None:
    for words, sign in (("百分之", "%"), ("千分之", "‰")):
        if not line.follows(position, words):
            continue
        start = position + len(words)
        if line.run(start) == words[0] == "百":
            return Span(position, start + 1, f"100{sign}")
        number = _number(line, start)
        if number is not None:
            return Span(position, number[0], f"{number[1]}{sign}")
    return None


def _fraction(line: _Line, position: int) -> Span | None:
    below, end = read_cardinal(line.run(position)), line.run_end(position)
    if below is None or below.value < 2 or not line.follows(end, "分之"):
        return None
    above, stop = read_cardinal(line.run(end + 2)), line.run_end(end + 2)
    return None if above is None else Span(position, stop, f"{above.text}/{below.text}")


def _clock(line: _Line, position: int) -> Span | None:
    """The hour before 点, and by way of `_minute` what comes after it."""
    hour, end = read_cardinal(line.run(position)), line.run_end(position)
    if hour is None or hour.value > 24 or not line.follows(end, "点"):
        return None
    minute = _minute_text(line, end + 1)
    certain = (
        line.preceded(position, *_PARTS_OF_DAY)
        or line.follows(end + 1, "钟", "整", "半", "一刻", "三刻")
        or minute is not None
    )
    if not certain:
        return None
    # What was said of the minutes could be the decimals of a number.
    decimals = line.run(end + 1)
    spoken = read_digits(decimals) is not None and minute is None
    if spoken and not line.follows(end + 1, "一刻", "三刻"):
        return None
    return Span(position, end, hour.text)


def _minute(line: _Line, position: int) -> Span | None:
    if not line.preceded(position, "点") or line.chars[position - 2 : position - 1] not in NUMERALS:
        return None
    text = _minute_text(line, position)
    return None if text is None else Span(position, line.run_end(position), text)


def _minute_text(line: _Line, position: int) -> str | None:
    """Returns minutes that cannot be decimals: 二十, 零五分."""
    run = line.run(position)
    after_zero = run[:1] in ("零", "〇") and len(run) == 2 and run[1] in DIGITS
    if after_zero and line.follows(position + 2, "分"):
        return f"0{DIGITS[run[1]]}"
    minute = read_cardinal(run)
    return minute.text if minute is not None and "十" in run and minute.value < 60 else None


def _date(line: _Line, position: int) -> Span | None:
    run, end = line.run(position), line.run_end(position)
    digits = read_digits(run)
    if line.follows(end, "年") and digits is not None and len(digits) in (2, 4):
        return Span(position, end, digits)
    number = read_cardinal(run)
    if number is None:
        return None
    is_month = line.follows(end, "月") and 1 <= number.value <= 12
    is_day = 1 <= number.value <= 31 and (
        line.follows(end, "号") or (line.follows(end, "日") and line.preceded(position, "月"))
    )
    return Span(position, end, number.text) if is_month or is_day else None


def _measure(line: _Line, position: int) -> Span | None:
    number = _number(line, position)
    if number is None or not line.follows(number[0], *_MEASURES):
        return None
    return Span(position, *number)


def _plain(line: _Line, position: int) -> Span | None:
    run = line.run(position)
    number = _number(line, position)
    if number is None or line.follows(number[0], "几"):
        return None
    end, text = number
    has_unit = len(run) > 1 and read_cardinal(run) is not None
    is_long = len(run) >= _MIN_SPOKEN_DIGITS and read_digits(run) is not None
    if not (has_unit or is_long or end > position + len(run)):
        return None
    if line.preceded(position, "负"):
        return Span(position - 1, end, f"-{text}")
    return Span(position, end, text)


def _unless_a_name(
    rule: Callable[[_Line, int], Span | None],
) -> Callable[[_Line, int], Span | None]:
    def guarded(line: _Line, position: int) -> Span | None:
        return None if line.run(position) in _NAMES else rule(line, position)

    return guarded


_RULES = tuple(
    _unless_a_name(rule) for rule in (_percent, _fraction, _minute, _clock, _date, _measure, _plain)
)
