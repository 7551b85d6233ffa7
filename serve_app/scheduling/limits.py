"""Bounds of what is in flight, and how much is."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what is in flight, of all callers or of one key; None is no bound.

    Attributes:
        max_running: requests worked on at once.
        max_waiting: requests in line; those whose upload is arriving are in line too.
        max_bytes: bytes of the uploads that are here or arriving.
        max_audio_s: audio of running requests in s.
    """

    max_running: int | None = None
    max_waiting: int | None = None
    max_bytes: int | None = None
    max_audio_s: float | None = None


NO_LIMITS = Limits()


@dataclass(slots=True)
class Load:
    """What is in flight, of all or of one key."""

    num_running: int = 0
    num_in_line: int = 0
    num_bytes: int = 0
    audio_s: float = 0.0
    num_unmeasured: int = 0

    def has_bytes(self, limits: Limits, num_bytes: int) -> bool:
        """True if so many bytes more may arrive."""
        return limits.max_bytes is None or self.num_bytes + num_bytes <= limits.max_bytes

    def has_place(self, limits: Limits, audio_s: float) -> bool:
        """True if one more recording of that length may be worked on."""
        if limits.max_running is not None and self.num_running >= limits.max_running:
            return False
        if limits.max_audio_s is None:
            return True
        return self.audio_s < limits.max_audio_s and self.audio_s + audio_s <= limits.max_audio_s

    def num_free(self, limits: Limits) -> float:
        """Returns how many more may be worked on, infinite without a limit."""
        if limits.max_running is None:
            return math.inf
        return max(limits.max_running - self.num_running, 0)
