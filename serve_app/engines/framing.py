"""How samples are cut into spectra, and spectra stacked into frames."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FRAME_SAMPLES = 400
SHIFT_SAMPLES = 160


def num_frames(num_samples: int) -> int:
    """Frames of 25 ms every 10 ms that lie wholly inside num_samples."""
    return max(0, (num_samples - FRAME_SAMPLES) // SHIFT_SAMPLES + 1)


def stacking(count: int, m: int, n: int) -> npt.NDArray[np.int64]:
    """Which of `count` frames each row of m frames, every n frames, holds.

    Row i holds the frames from i * n - (m - 1) // 2 on; before the first frame
    and after the last one, these two are repeated.

    Returns:
        int64 [ceil(count / n), m].

    Source: `apply_lfr` of FunASR 1.4.16, `frontends/wav_frontend.py`.
    """
    starts: npt.NDArray[np.int64] = np.arange(math.ceil(count / n)) * n - (m - 1) // 2
    index = starts[:, None] + np.arange(m)
    return index.clip(0, max(count - 1, 0)).astype(np.int64)
