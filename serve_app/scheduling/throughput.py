"""How much audio a replica has done lately, pauses included."""

from __future__ import annotations

import math


class Throughput:
    """Audio seconds per second, of which those that lie back count less and less.

    Args:
        memory_s: time in which the say of what is done falls to 1/e.
        now: monotonic seconds.
    """

    def __init__(self, memory_s: float, now: float) -> None:
        self._memory_s = memory_s
        self._since = now
        self._last = now
        self._audio_s = 0.0

    def done(self, audio_s: float, now: float) -> None:
        """Takes note of audio that was recognised."""
        self._fade(now)
        self._audio_s += audio_s

    def read(self, now: float) -> float:
        """Returns audio seconds per second."""
        self._fade(now)
        # The weights of the time since the start add up to this, not to memory_s.
        age_s = self._memory_s * -math.expm1(-(self._last - self._since) / self._memory_s)
        return self._audio_s / max(age_s, 1.0)

    def _fade(self, now: float) -> None:
        self._audio_s *= math.exp(-max(0.0, now - self._last) / self._memory_s)
        self._last = max(now, self._last)
