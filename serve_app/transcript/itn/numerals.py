"""Converts Chinese numerals to Arabic ones, reading one character at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {
    "〇": 0,
    "两": 2,
    "幺": 1,
}
_SMALL_UNITS = {"千": 1000, "百": 100, "十": 10}
_LARGE_UNITS = {"亿": 10**8, "万": 10**4}
NUMERALS = frozenset(DIGITS) | frozenset(_SMALL_UNITS) | frozenset(_LARGE_UNITS)

_SPOKEN_DIGITS = frozenset(DIGITS) - {"两"}


@dataclass(frozen=True, slots=True)
class Cardinal:
    """A number that was spoken with its units (十, 百, 千, 万, 亿).

    Attributes:
        value: the number.
        text: in digits; 万 and 亿 stay if the number ends with them.
    """

    value: int
    text: str


def read_digits(chars: str) -> str | None:
    """Returns digits that were spoken one by one (二零二四), or None."""
    if not chars or any(char not in _SPOKEN_DIGITS for char in chars):
        return None
    return "".join(str(DIGITS[char]) for char in chars)


def read_cardinal(chars: str) -> Cardinal | None:
    """Returns a number with units (两千零三, 一百五), or None if the text is not exactly one.

    Approximations (三四十, 十七八) return None.
    """
    if not chars or "幺" in chars:
        return None
    value, written, rest = 0, "", chars
    last_unit: int | None = None
    for unit, size in _LARGE_UNITS.items():
        head, found, tail = rest.partition(unit)
        if not found:
            continue
        count = _read_section(head, None if last_unit is None else last_unit // size)
        if count is None or count == 0:
            return None
        value += count * size
        written += f"{count}{unit}"
        rest, last_unit = tail, size
    if not rest:
        return Cardinal(value, written)
    if last_unit is not None and len(rest) == 1 and rest in DIGITS and DIGITS[rest]:
        # 一万二 is 12,000.
        value += DIGITS[rest] * last_unit // 10
        return Cardinal(value, str(value))
    section = _read_section(rest, last_unit)
    if section is None or (last_unit is not None and section == 0):
        return None
    value += section
    return Cardinal(value, str(value))


def _read_section(chars: str, above: int | None) -> int | None:
    """Reads a number below 10,000.

    Args:
        chars: the whole number.
        above: size of the unit before it, in its own units, None for none; decides whether it
            must start with 零.
    """
    value, position = 0, 0
    last_size = None if above is None else 10_000
    zero = False
    if chars[:1] in ("零", "〇") and above is not None:
        zero, position = True, 1
    while position < len(chars):
        char = chars[position]
        if char in ("零", "〇") and value and not zero:
            zero, position = True, position + 1
            continue
        if char == "十" and position == 0 and last_size is None:
            count, size, width = 1, 10, 1
        elif DIGITS.get(char):
            count = DIGITS[char]
            unit = chars[position + 1 : position + 2]
            size, width = (_SMALL_UNITS[unit], 2) if unit in _SMALL_UNITS else (1, 1)
        elif char in ("零", "〇") and len(chars) == 1 and above is None:
            return 0
        else:
            return None
        if size == 1 and position + 1 < len(chars):
            return None
        if last_size is not None and size >= last_size:
            return None
        if size == 1 and not zero and last_size in (100, 1000) and value:
            # 一百五 is 150.
            size = last_size // 10
        value += count * size
        last_size, zero, position = size, False, position + width
    return None if zero else value


class Line:
    """Words as characters, so that positions in both agree.

    Args:
        words: as recognized: one Chinese character each. Other words become a placeholder,
            which is never a numeral.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.chars = "".join(word if len(word) == 1 else "\0" for word in words)

    def run_end(self, position: int) -> int:
        """Returns the end of the numerals that start here."""
        while position < len(self.chars) and self.chars[position] in NUMERALS:
            position += 1
        return position

    def run(self, position: int) -> str:
        """Returns the numerals that start here."""
        return self.chars[position : self.run_end(position)]

    def follows(self, position: int, *texts: str) -> bool:
        """Whether one of the texts starts here."""
        return self.chars.startswith(texts, position)

    def preceded(self, position: int, *texts: str) -> bool:
        """Whether one of the texts ends here."""
        return self.chars.endswith(texts, 0, position)

    def ends(self, position: int) -> bool:
        """Whether the phrase ends here."""
        return position >= len(self.chars)
