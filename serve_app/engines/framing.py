"""Framing of samples into spectra, and stacking of spectra (low frame rate), in numpy alone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FRAME_SAMPLES = 400
SHIFT_SAMPLES = 160


def num_frames(num_samples: int) -> int:
    """Returns the number of complete 25 ms frames at a 10 ms shift."""
    return max(0, (num_samples - FRAME_SAMPLES) // SHIFT_SAMPLES + 1)


def stacking(count: int, m: int, n: int) -> npt.NDArray[np.int64]:
    """Returns the indices of the m frames in each row, for one row every n frames.

    Row i starts at frame i * n - (m - 1) // 2; the first and the last frame are repeated beyond
    the ends.

    Returns:
        int64 [ceil(count / n), m].

    Source: `apply_lfr` of FunASR 1.4.16, `frontends/wav_frontend.py`.
    """
    starts: npt.NDArray[np.int64] = np.arange(math.ceil(count / n)) * n - (m - 1) // 2
    index = starts[:, None] + np.arange(m)
    return index.clip(0, max(count - 1, 0)).astype(np.int64)
