"""Recordings in many formats, and damaged copies of them; each a function of its seed."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import soundfile
import soxr

from tests.audio import recordings
from tests.audio.recordings import Signal

_SPEECH_S = 8.0
_HEADER_BYTES = 2048
_FRAGMENTS = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "frag_duration": "1000000",
}
_Ranges: TypeAlias = list[tuple[int, int]]
FORMATS = (
    "wav", "flac", "ogg", "mp3", "mp4", "fmp4", "aac", "webm", "matroska", "mpegts", "flv", "amr",
)  # fmt: skip


@functools.cache
def _speech(rate_hz: int) -> Signal:
    path = Path(__file__).parents[2] / "serve_app" / "packs" / "builtin" / "samples" / "demo.flac"
    speech, stored_hz = soundfile.read(path, dtype="float32")
    signal = np.asarray(speech[: int(_SPEECH_S * stored_hz)], np.float32)
    return np.asarray(soxr.resample(signal, stored_hz, rate_hz), np.float32)


@functools.cache
def sound_file(name: str) -> bytes:
    """Returns eight seconds of the bundled recording in the named format."""
    rate_hz = recordings.COMPRESSED.get(name, ("", "", 0))[2] or 16_000
    signal = _speech(rate_hz)
    if name == "mp4":
        options = {"moov_size": "20000"}
        return recordings.mux("ipod", "aac", signal, rate_hz, options=options)
    if name == "fmp4":
        return recordings.mux("mp4", "aac", signal, rate_hz, options=_FRAGMENTS)
    return recordings.encode(name, signal, rate_hz)


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A damaged copy of a sound file.

    Attributes:
        name: of the format.
        kind: what was done.
        content: the bytes.
        ranges: start and end of the bytes of the sound file that are gone or changed.
    """

    name: str
    kind: str
    content: bytes
    ranges: tuple[tuple[int, int], ...]


def damaged_file(seed: int) -> DamagedFile:
    """Returns the file of a seed."""
    random_ = random.Random(seed)  # noqa: S311 - no secret
    name = FORMATS[seed % len(FORMATS)]
    file = bytearray(sound_file(name))
    kind, damage = random_.choice(_DAMAGES)
    ranges = damage(file, random_)
    return DamagedFile(name, kind, bytes(file), tuple(ranges))


def _run(file: bytearray, random_: random.Random, longest: int = 8192) -> tuple[int, int]:
    """Returns start and length of a stretch, mostly behind the header; short ones are likelier."""
    length = round(2 ** random_.uniform(0, np.log2(longest)))
    # Headers are the mutation tests' business; a file without one is refused anyway.
    first = min(_HEADER_BYTES, len(file) // 4)
    return random_.randrange(first, max(len(file) - length, first + 1)), length


def _flip(file: bytearray, random_: random.Random) -> _Ranges:
    ranges: _Ranges = []
    for _ in range(random_.randint(1, 12)):
        start, _ = _run(file, random_)
        file[start] ^= 1 << random_.randrange(8)
        ranges.append((start, start + 1))
    return ranges


def _zero(file: bytearray, random_: random.Random) -> _Ranges:
    start, length = _run(file, random_)
    file[start : start + length] = bytes(len(file[start : start + length]))
    return [(start, start + length)]


def _overwrite(file: bytearray, random_: random.Random) -> _Ranges:
    start, length = _run(file, random_)
    file[start : start + length] = random_.randbytes(len(file[start : start + length]))
    return [(start, start + length)]


def _delete(file: bytearray, random_: random.Random) -> _Ranges:
    start, length = _run(file, random_)
    del file[start : start + length]
    return [(start, start + length)]


def _insert(file: bytearray, random_: random.Random) -> _Ranges:
    start, length = _run(file, random_, 2048)
    file[start:start] = random_.randbytes(length)
    return [(start, start)]


def _cut(file: bytearray, random_: random.Random) -> _Ranges:
    start, _ = _run(file, random_)
    ranges = [(start, len(file))]
    del file[start:]
    return ranges


_DAMAGES: tuple[tuple[str, Callable[[bytearray, random.Random], _Ranges]], ...] = (
    ("flip", _flip),
    ("zero", _zero),
    ("overwrite", _overwrite),
    ("delete", _delete),
    ("insert", _insert),
    ("cut", _cut),
)
