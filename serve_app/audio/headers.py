"""What the headers of uncompressed files declare, and how much of it is there.

libsndfile clips a declared length to the bytes that follow without a word, so a
cut-off upload would look complete. Here both numbers are read.

Sources: the RIFF/WAVE chunk layout (Microsoft, Multimedia Programming
Interface), RF64 is EBU Tech 3306, Sony Wave64, AIFF 1.3 (Apple).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from serve_app.audio.bytesource import ByteSource

_MAX_CHUNKS = 4096
_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
# What writers that cannot seek back leave behind, and every size near it.
_UNKNOWN_SIZE = 0x7FFF_FFFF
_UNKNOWN_SIZE_64 = 0x7FFF_FFFF_FFFF_0000


@dataclass(frozen=True, slots=True)
class PcmHeader:
    """Lengths in s: declared by the header, and present; None where unknown.

    `plain` is False for a codec that is left to FFmpeg.
    """

    plain: bool
    declared_s: float | None = None
    available_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: bytes
    start: int
    num_bytes: int


def read_pcm_header(source: ByteSource, container: str) -> PcmHeader:
    """Reads a "wav", "rf64", "w64" or "aiff" header; a broken one yields no lengths."""
    try:
        if container == "aiff":
            return _read_aiff(source)
        return _read_wave(source, container)
    except (struct.error, OverflowError):
        return PcmHeader(plain=True)


def _read_wave(source: ByteSource, container: str) -> PcmHeader:
    chunks = _w64_chunks(source) if container == "w64" else _chunks(source, "<")
    tag = bytes_per_s = 0
    large_num_bytes = 0
    for chunk in chunks:
        if chunk.name == b"ds64":
            large_num_bytes = struct.unpack("<Q", source.peek(chunk.start + 8, 8))[0]
        elif chunk.name == b"fmt ":
            tag, bytes_per_s = _read_format(source.peek(chunk.start, min(chunk.num_bytes, 40)))
        elif chunk.name == b"data":
            num_bytes = chunk.num_bytes
            unknown = _UNKNOWN_SIZE_64 if container == "w64" else _UNKNOWN_SIZE
            if container == "rf64" and num_bytes == 0xFFFF_FFFF:
                num_bytes, unknown = large_num_bytes, _UNKNOWN_SIZE_64
            available_bytes = max(source.num_bytes - chunk.start, 0)
            plain = tag in {_PCM, _FLOAT, _ALAW, _MULAW}
            if not num_bytes:
                # libsndfile believes the 0; FFmpeg reads what is there.
                return PcmHeader(plain and not available_bytes)
            if not bytes_per_s or num_bytes >= unknown:
                return PcmHeader(plain)
            return PcmHeader(plain, num_bytes / bytes_per_s, available_bytes / bytes_per_s)
    return PcmHeader(plain=tag in {0, _PCM, _FLOAT, _ALAW, _MULAW})


def _read_format(body: bytes) -> tuple[int, int]:
    """Returns the codec's tag and its bytes per second, 0 if they contradict each other."""
    tag, channels, rate_hz, bytes_per_s, block_bytes, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == _EXTENSIBLE and len(body) >= 26:
        tag = struct.unpack("<H", body[24:26])[0]
    if tag in {_PCM, _FLOAT, _ALAW, _MULAW}:
        consistent = block_bytes == channels * math.ceil(bits / 8)
        return tag, rate_hz * block_bytes if consistent else 0
    return tag, bytes_per_s


def _read_aiff(source: ByteSource) -> PcmHeader:
    declared_s: float | None = None
    bytes_per_s = 0.0
    compressed = source.peek(8, 4) == b"AIFC"
    for chunk in _chunks(source, ">"):
        if chunk.name == b"COMM":
            fields = struct.unpack(">HIHHQ", source.peek(chunk.start, 18))
            channels, num_frames, bits, exponent, mantissa = fields
            rate_hz = math.ldexp(mantissa, (exponent & 0x7FFF) - 16383 - 63)
            declared_s = num_frames / rate_hz if rate_hz >= 1 and num_frames else None
            bytes_per_s = rate_hz * channels * math.ceil(bits / 8)
        elif chunk.name == b"SSND" and declared_s and bytes_per_s and not compressed:
            available_bytes = max(source.num_bytes - chunk.start - 8, 0)
            return PcmHeader(True, declared_s, available_bytes / bytes_per_s)
    return PcmHeader(plain=True)


def _chunks(source: ByteSource, byte_order: str) -> Iterator[_Chunk]:
    offset = 12
    for _ in range(_MAX_CHUNKS):
        header = source.peek(offset, 8)
        if len(header) < 8:
            return
        name, num_bytes = struct.unpack(byte_order + "4sI", header)
        yield _Chunk(name, offset + 8, num_bytes)
        offset += 8 + num_bytes + num_bytes % 2


def _w64_chunks(source: ByteSource) -> Iterator[_Chunk]:
    offset = 40
    for _ in range(_MAX_CHUNKS):
        header = source.peek(offset, 24)
        if len(header) < 24:
            return
        name, num_bytes = header[:4], struct.unpack("<Q", header[16:])[0]
        yield _Chunk(name, offset + 24, max(num_bytes - 24, 0))
        offset += max((num_bytes + 7) // 8 * 8, 24)
