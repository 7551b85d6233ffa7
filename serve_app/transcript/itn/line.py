"""A row of words, read one character at a time."""

from __future__ import annotations

from collections.abc import Sequence

from serve_app.transcript.itn.numerals import NUMERALS


class Line:
    """Words as characters, so that positions in both are the same.

    Args:
        words: as they were recognized: one Chinese character each. Other words are
            kept as a placeholder, which is never a numeral.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.chars = "".join(word if len(word) == 1 else "\0" for word in words)

    def run_end(self, position: int) -> int:
        """Returns where the numerals that start here end."""
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
        """Whether the phrase is over here."""
        return position >= len(self.chars)
