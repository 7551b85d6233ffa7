"""FFmpeg's frames as arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.plane import AudioPlane

_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31}


def channels_of(frame: AudioFrame) -> npt.NDArray[np.float32]:
    """Returns the samples, shape [channels, n], full scale at 1.0.

    PyAV's `AudioFrame.planes`, and `to_ndarray` with it, counts the planes by
    reading pointers up to a null (18.1, av/audio/frame.py). With eight planar
    channels or more there is none, and the process crashes. So the planes are
    taken by their number.
    """
    planar = frame.format.is_planar
    kind = frame.format.name.removesuffix("p") if planar else frame.format.name
    channels = frame.layout.nb_channels
    num_planes, interleaved = (channels, 1) if planar else (1, channels)
    planes = [
        np.frombuffer(
            memoryview(AudioPlane(frame, plane)), _DTYPES[kind], frame.samples * interleaved
        )
        for plane in range(num_planes)
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        samples = np.stack(planes).astype(np.float32)
    if kind == "u8":
        samples -= 128.0
    samples /= np.float32(_FULL_SCALE.get(kind, 1.0))
    return samples if planar else samples.reshape(-1, channels).T
