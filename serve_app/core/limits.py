"""Bounds of what is in flight, and how much is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what is in flight, of all callers or of one key; None is no bound.

    Attributes:
        max_running: requests worked on at once.
        max_waiting: requests in line.
        max_bytes: bytes of running requests' uploads.
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
    num_waiting: int = 0
    num_bytes: int = 0
    audio_s: float = 0.0
    num_unmeasured: int = 0

    def has_room(self, limits: Limits, num_bytes: int) -> bool:
        return (
            under(self.num_running, limits.max_running)
            and (limits.max_bytes is None or self.num_bytes + num_bytes <= limits.max_bytes)
            and under(self.audio_s, limits.max_audio_s)
        )


def under(value: float, limit: float | None) -> bool:
    return limit is None or value < limit


def over(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit
