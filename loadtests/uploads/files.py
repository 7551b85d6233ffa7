"""Broken and hostile files, each a function of its seed."""

from __future__ import annotations

import functools
import gzip
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from tests.audio import recordings
from tests.fakes.mutated_audio import mutate

_SPEECH_S = 1.0
_BOMB_S = 3 * 3600
_BOMB_RATE_HZ = 8000
_MAX_RANDOM_BYTES = 20_000
CONTAINERS = ("wav", "rf64", "w64", "aiff", *recordings.COMPRESSED)
_EDGES = (0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
_OTHER_FILES = (
    b"%PDF-1.7\n" + bytes(800),
    b"\x89PNG\r\n\x1a\n" + bytes(800),
    b"PK\x03\x04" + bytes(800),
    b"<!DOCTYPE html><html><body>404</body></html>" * 20,
    b"#EXTM3U\nfile:///etc/passwd\n",
    b"\x7fELF" + bytes(800),
    b'{"error": "no audio"}',
    "这不是音频".encode() * 50,
)


@functools.cache
def valid_file(container: str) -> bytes:
    """A second of the bundled recording in the named container."""
    path = Path(__file__).parents[2] / "serve_app" / "packs" / "builtin" / "samples" / "clip.flac"
    speech, rate_hz = soundfile.read(path, dtype="float32")
    wanted_hz = recordings.COMPRESSED.get(container, ("", "", 0))[2] or int(rate_hz)
    signal = np.asarray(speech[: int(_SPEECH_S * rate_hz)], np.float32)
    if wanted_hz != rate_hz:
        places = np.arange(int(_SPEECH_S * wanted_hz)) * rate_hz / wanted_hz
        signal = np.interp(places, np.arange(len(signal)), signal).astype(np.float32)
    return recordings.encode(container, signal, wanted_hz)


@functools.cache
def _silence() -> bytes:
    file = io.BytesIO()
    samples = np.zeros(_BOMB_RATE_HZ * _BOMB_S, np.int16)
    soundfile.write(file, samples, _BOMB_RATE_HZ, format="FLAC")
    return file.getvalue()


def prepare() -> None:
    """Makes what all cases start from, so that their threads need not each."""
    for container in CONTAINERS:
        valid_file(container)
    _silence()


def flipped_header(random_: random.Random) -> bytes:
    return mutate(valid_file(random_.choice(CONTAINERS)), random_.getrandbits(32))


def flipped_anywhere(random_: random.Random) -> bytes:
    file = valid_file(random_.choice(CONTAINERS))
    return mutate(file, random_.getrandbits(32), head_bytes=len(file))


def truncated(random_: random.Random) -> bytes:
    file = valid_file(random_.choice(CONTAINERS))
    return file[: random_.randrange(len(file))]


def random_bytes(random_: random.Random) -> bytes:
    magic = random_.choice(
        (b"", b"RIFF", b"fLaC", b"OggS", b"ID3\x04\0\0", b"\x1aE\xdf\xa3", b"FORM")
    )
    return magic + random_.randbytes(random_.randrange(1, _MAX_RANDOM_BYTES))


def other_type(random_: random.Random) -> bytes:
    file = random_.choice(_OTHER_FILES)
    return gzip.compress(valid_file("wav")) if random_.random() < 0.1 else file


def huge_sizes(random_: random.Random) -> bytes:
    """Writes absurd numbers where the RIFF, fmt and data sizes of a WAV file stand."""
    file = bytearray(valid_file("wav"))
    for offset in random_.sample((4, 16, 24, 28, 40), random_.randint(1, 3)):
        file[offset : offset + 4] = random_.choice(_EDGES).to_bytes(4, "little")
    return bytes(file)


def bomb(random_: random.Random) -> bytes:
    """Hours of silence in a small file: declared, not declared, or lied about."""
    file = bytearray(_silence())
    choice = random_.randrange(5)
    if choice == 0:
        return bytes(file)
    if choice == 1:
        # STREAMINFO: the 36 bits of the length end at byte 26; 0 is unknown.
        file[21] &= 0xF0
        file[22:26] = bytes(4)
    elif choice == 2:
        file[21] &= 0xF0
        file[22:26] = (_BOMB_RATE_HZ * 5).to_bytes(4, "big")
    elif choice == 3:
        return recordings.silent_amr(400_000)
    else:
        tag = b"ID3\x04\0\0" + bytes((0x7F,)) * 4
        return tag + bytes(random_.randrange(1, 5000))
    return bytes(file)


def empty(random_: random.Random) -> bytes:
    return bytes(random_.choice((0, 0, 1, 3, 12, 44)))


FILES: dict[str, Callable[[random.Random], bytes]] = {
    "header flips": flipped_header,
    "flips anywhere": flipped_anywhere,
    "truncations": truncated,
    "random bytes": random_bytes,
    "other types": other_type,
    "absurd sizes": huge_sizes,
    "bombs": bomb,
    "next to nothing": empty,
}
