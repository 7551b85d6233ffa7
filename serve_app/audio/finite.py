"""Samples that are no numbers."""

from __future__ import annotations

import numpy as np

from serve_app.audio.damage import DamageReport
from serve_app.audio.layout import FloatMono
from serve_app.core.errors import CorruptAudio, InvalidSamples


class FiniteSamples:
    """Puts silence for what is NaN or infinite, and reports it.

    Args:
        report: is told where.
        codec: of the samples; only uncompressed ones hold such values on their own account.
    """

    def __init__(self, report: DamageReport, codec: str) -> None:
        self._report = report
        self._codec = codec
        self._first_s: float | None = None
        self._num_finite = 0

    def only(self, samples: FloatMono, rate_hz: int, at_s: float) -> FloatMono:
        """Returns the samples without what is no number; at_s is where they begin."""
        finite = np.isfinite(samples)
        if finite.all():
            self._num_finite += len(samples)
            return samples
        self._num_finite += int(finite.sum())
        at = np.flatnonzero(~finite)
        first_s, last_s = at_s + int(at[0]) / rate_hz, at_s + (int(at[-1]) + 1) / rate_hz
        if self._first_s is None:
            self._first_s = first_s
        self._report.add(first_s, last_s, "samples are NaN or infinite")
        return np.where(finite, samples, np.float32(0)).astype(np.float32)

    def check_end(self) -> None:
        """Raises InvalidSamples or CorruptAudio if there was not one finite sample."""
        if self._first_s is None or self._num_finite:
            return
        if self._codec.startswith("pcm_"):
            raise InvalidSamples(self._first_s)
        raise CorruptAudio(f"{self._codec} data decodes to no finite samples")
