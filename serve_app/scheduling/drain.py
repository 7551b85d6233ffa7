"""How fast recordings are being finished, measured as they leave."""

from __future__ import annotations

import math

_MEMORY_S = 300.0
_MEAN_SHARE = 0.2
# Before anything was measured: a small CPU's pace, and a few minutes of speech.
_FALLBACK_RATE = 10.0
_FALLBACK_AUDIO_S = 60.0


class DrainRate:
    """Seconds of audio finished per second, over the time in which there was work.

    Work and busy time fade with the same half-life, so that the rate follows the
    service, and an idle night does not pull it down.

    Args:
        now: monotonic time in s.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._work_s = 0.0
        self._busy_s = 0.0
        self._mean_audio_s: float | None = None

    @property
    def is_measured(self) -> bool:
        """Whether a recording has been finished; before that the rest are guesses."""
        return bool(self._work_s and self._busy_s)

    @property
    def per_s(self) -> float:
        """Audio seconds per second; a guess before the first recording was finished."""
        return self._work_s / self._busy_s if self.is_measured else _FALLBACK_RATE

    @property
    def mean_audio_s(self) -> float:
        """Length of a recording, as far as one can know before it is uploaded."""
        return _FALLBACK_AUDIO_S if self._mean_audio_s is None else self._mean_audio_s

    def advance(self, now: float, busy: bool) -> None:
        """Counts the time since the last call as busy, or not at all."""
        elapsed_s = max(now - self._now, 0.0)
        self._now = max(now, self._now)
        if busy and elapsed_s:
            kept = math.exp(-elapsed_s / _MEMORY_S)
            self._work_s *= kept
            # The integral of the fading weight over the elapsed time.
            self._busy_s = self._busy_s * kept + _MEMORY_S * (1 - kept)

    def credit(self, audio_s: float) -> None:
        """Counts a recording that has just been finished."""
        self._work_s += audio_s
        if self._mean_audio_s is None:
            self._mean_audio_s = audio_s
        self._mean_audio_s += _MEAN_SHARE * (audio_s - self._mean_audio_s)
