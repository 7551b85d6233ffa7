"""The samples that the service works with: 16 kHz mono int16."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000

Pcm: TypeAlias = npt.NDArray[np.int16]
"""Samples, shape [n]."""
