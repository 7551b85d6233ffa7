"""Collects the damaged ranges of a recording and notices for the caller."""

from __future__ import annotations

from serve_app.core.records import DamagedRange

_MAX_RANGES = 64
_MAX_NOTICES = 16
# Ranges closer than this are merged.
_JOINED_S = 0.5


class DamageReport:
    """Collects damaged ranges and notices of one recording, up to a fixed number of each."""

    def __init__(self) -> None:
        self._ranges: list[tuple[float, float, str]] = []
        self._notices: dict[str, None] = {}

    @property
    def ranges(self) -> tuple[DamagedRange, ...]:
        """The ranges in order of time, with neighbors merged."""
        return tuple(
            DamagedRange(
                int(start_s * 1000), max(round(end_s * 1000), int(start_s * 1000) + 1), why
            )
            for start_s, end_s, why in self._ranges
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences in plain English, without duplicates."""
        return tuple(self._notices)

    def add(self, start_s: float, end_s: float, why: str) -> None:
        """Adds a range, which must not start before the previous one."""
        if self._ranges:
            last_start_s, last_end_s, last_why = self._ranges[-1]
            if start_s - last_end_s <= _JOINED_S or len(self._ranges) >= _MAX_RANGES:
                self._ranges[-1] = (last_start_s, max(last_end_s, end_s), last_why)
                return
        self._ranges.append((start_s, end_s, why))

    def notice(self, text: str) -> None:
        """Adds a sentence; beyond the limit one last notice says that there are more."""
        if len(self._notices) < _MAX_NOTICES:
            self._notices[text] = None
        elif text not in self._notices:
            self._notices["There are more remarks of this kind."] = None
