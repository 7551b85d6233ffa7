"""Reads and checks Whisper models in whisper.cpp's file format, without loading them.

Source: the order of the fields is that of whisper.cpp's loader (`whisper_model_load` in
`src/whisper.cpp`, v1.8), the sizes of quantized blocks those of ggml's `ggml-common.h`.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from serve_app.core.errors import PackCorrupt
from serve_app.packs.pack_files import fetch_remedy

MODEL_CLASS = "Whisper"

_MAGIC = b"lmgg"
_GGUF_MAGIC = b"GGUF"
_SHAPE = struct.Struct("<11i")
_MOST_TOKENS = 1_000_000
_MOST_DIMENSIONS = 4
_LONGEST_NAME = 256
# (elements, bytes) of a block, by ggml's number of the type.
_BLOCKS = {
    0: (1, 4),  # float32
    1: (1, 2),  # float16
    2: (32, 18),  # q4_0
    3: (32, 20),  # q4_1
    6: (32, 22),  # q5_0
    7: (32, 24),  # q5_1
    8: (32, 34),  # q8_0
    10: (256, 84),  # q2_K
    11: (256, 110),  # q3_K
    12: (256, 144),  # q4_K
    13: (256, 176),  # q5_K
    14: (256, 210),  # q6_K
}


@dataclass(frozen=True, slots=True)
class WhisperShape:
    """The model's dimensions, from the file's header."""

    num_tokens: int
    audio_layers: int
    text_layers: int
    num_mels: int

    @property
    def multilingual(self) -> bool:
        return self.num_tokens >= 51_865


def find_whisper(directory: Path) -> Path | None:
    """Returns the model file if the directory is a Whisper pack, else None.

    A Whisper pack has a single `.bin` or `.gguf` file and no config.yaml.
    """
    if (directory / "config.yaml").exists():
        return None
    files = [path for path in sorted(directory.iterdir()) if path.suffix in (".bin", ".gguf")]
    return files[0] if len(files) == 1 else None


def read_whisper_shape(path: Path, name: str) -> WhisperShape:
    """Reads the header of a model file.

    Raises:
        PackCorrupt: the file is not a Whisper model for whisper.cpp.
    """
    with path.open("rb") as file:
        return _read_shape(file, path, name)


def check_whisper(path: Path, name: str) -> WhisperShape:
    """Walks through the tensors of a model file to check that it is complete.

    Raises:
        PackCorrupt: the file is not a Whisper model for whisper.cpp, or is truncated.
    """
    size_bytes = path.stat().st_size
    try:
        with path.open("rb") as file:
            shape = _read_shape(file, path, name)
            num_mels, num_bins = _numbers(file, 2)
            file.seek(4 * num_mels * num_bins, os.SEEK_CUR)
            (num_words,) = _numbers(file, 1)
            if num_mels != shape.num_mels or not 0 < num_words <= _MOST_TOKENS:
                raise ValueError("its filters or its vocabulary contradict its header")
            for _ in range(num_words):
                (length,) = _numbers(file, 1)
                file.seek(length, os.SEEK_CUR)
            num_tensors = 0
            while file.tell() < size_bytes:
                _skip_tensor(file)
                num_tensors += 1
            if file.tell() != size_bytes or num_tensors == 0:
                raise ValueError("its last tensor is truncated")
    except (ValueError, struct.error) as error:
        raise PackCorrupt(
            name, f"{path.name} is not a complete model file: {error}", fetch_remedy(name)
        ) from error
    return shape


def _read_shape(file: BinaryIO, path: Path, name: str) -> WhisperShape:
    magic = file.read(4)
    if magic == _GGUF_MAGIC:
        raise PackCorrupt(
            name,
            f"{path.name} is a GGUF file, which whisper.cpp does not read",
            "Use the model's ggml .bin file, such as ggml-base.bin",
        )
    head = file.read(_SHAPE.size)
    if magic != _MAGIC or len(head) < _SHAPE.size:
        raise PackCorrupt(
            name, f"{path.name} is not a ggml model file for whisper.cpp", fetch_remedy(name)
        )
    numbers = _SHAPE.unpack(head)
    return WhisperShape(
        num_tokens=numbers[0],
        audio_layers=numbers[4],
        text_layers=numbers[8],
        num_mels=numbers[9],
    )


def _skip_tensor(file: BinaryIO) -> None:
    num_dimensions, length, kind = _numbers(file, 3)
    if not 0 < num_dimensions <= _MOST_DIMENSIONS or not 0 < length <= _LONGEST_NAME:
        raise ValueError("its vocabulary is not followed by tensors")
    if kind not in _BLOCKS:
        raise ValueError(f"tensors of type {kind} are not known")
    num_elements = math.prod(_numbers(file, num_dimensions))
    block_elements, block_bytes = _BLOCKS[kind]
    file.seek(length + num_elements // block_elements * block_bytes, os.SEEK_CUR)


def _numbers(file: BinaryIO, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}i", file.read(4 * count))
