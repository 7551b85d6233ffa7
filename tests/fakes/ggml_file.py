"""Writes a Whisper model as the file that whisper.cpp reads.

Source: the order of the fields is that of whisper.cpp's loader
(`whisper_model_load` in `src/whisper.cpp`, v1.8); the filter bank is Slaney's, as
`librosa.filters.mel` documents it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

MAGIC = 0x67676D6C
_SAMPLE_RATE_HZ = 16_000
_FFT_SAMPLES = 400
_FLOAT32, _FLOAT16 = 0, 1
# The loader wants these in full precision, beside whatever has one dimension.
_WIDE = frozenset(
    {
        "encoder.conv1.bias",
        "encoder.conv2.bias",
        "encoder.positional_embedding",
        "decoder.positional_embedding",
    }
)


@dataclass(frozen=True, slots=True)
class WhisperShape:
    """The header's numbers, in the order of the file."""

    num_tokens: int
    audio_context: int
    audio_size: int
    audio_heads: int
    audio_layers: int
    text_context: int
    text_size: int
    text_heads: int
    text_layers: int
    num_mels: int = 80
    file_type: int = _FLOAT16

    def packed(self) -> bytes:
        numbers = [getattr(self, name) for name in self.__dataclass_fields__]
        return struct.pack("<I11i", MAGIC, *numbers)


def write_ggml(
    path: Path,
    shape: WhisperShape,
    vocabulary: Sequence[bytes],
    tensors: Mapping[str, npt.NDArray[np.float16]],
) -> None:
    """Writes the model; matrices as float16, the rest as float32."""
    with path.open("wb") as file:
        file.write(shape.packed())
        filters = slaney_filters(shape.num_mels)
        file.write(struct.pack("<2i", *filters.shape))
        file.write(filters.tobytes())
        file.write(struct.pack("<i", len(vocabulary)))
        for token in vocabulary:
            file.write(struct.pack("<I", len(token)) + token)
        for name, tensor in tensors.items():
            _write_tensor(file, name, tensor)


def _write_tensor(file: BinaryIO, name: str, tensor: npt.NDArray[np.float16]) -> None:
    wide = tensor.ndim < 2 or name in _WIDE
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        tensor = tensor[:, None]
    label = name.encode()
    kind = _FLOAT32 if wide else _FLOAT16
    file.write(struct.pack("<3i", tensor.ndim, len(label), kind))
    file.write(struct.pack(f"<{tensor.ndim}i", *reversed(tensor.shape)))
    file.write(label)
    file.write(tensor.astype(np.float32 if wide else np.float16).tobytes())


def slaney_filters(num_mels: int) -> npt.NDArray[np.float32]:
    """Triangular filters of equal area over an FFT's bins, shape (num_mels, bins)."""
    bins_hz = np.linspace(0, _SAMPLE_RATE_HZ / 2, _FFT_SAMPLES // 2 + 1)
    edges_hz = _mel_to_hz(np.linspace(0, _hz_to_mel(_SAMPLE_RATE_HZ / 2), num_mels + 2))
    low, center, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising = (bins_hz - low) / (center - low)
    falling = (high - bins_hz) / (high - center)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (high - low)).astype(np.float32)


# Linear up to 1 kHz, 15 mels; then 27 mels for each factor of 6.4.
_LINEAR_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(frequency_hz: float) -> float:
    if frequency_hz < _BREAK_HZ:
        return frequency_hz / _LINEAR_HZ_PER_MEL
    return float(_BREAK_MEL + np.log(frequency_hz / _BREAK_HZ) / _LOG_STEP)


def _mel_to_hz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (mels - _BREAK_MEL))
    return np.where(mels < _BREAK_MEL, mels * _LINEAR_HZ_PER_MEL, logarithmic)
