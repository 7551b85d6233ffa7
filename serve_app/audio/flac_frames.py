"""Splits a packet that holds several FLAC frames.

FFmpeg's parser puts a damaged frame and its intact neighbors into one packet. The decoder
stops at the damaged frame, and the rest of the packet would be lost.

Source: RFC 9639, 9.1 (frame header).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SYNC = (b"\xff\xf8", b"\xff\xf9")
# In intact audio about 30 places in a million bytes look like a header. A crafted file may be
# full of them, and each one costs a checksum.
_MAX_CANDIDATES = 256
_SHORTEST_HEADER_BYTES = 6
# Sync and codes, the longest number, block size, sample rate and checksum.
_LONGEST_HEADER_BYTES = 4 + 7 + 2 + 2 + 1
_BLOCK_BYTES = {6: 1, 7: 2}
_RATE_BYTES = {12: 1, 13: 2, 14: 2}
_RESERVED_RATE, _LAST_CHANNELS, _RESERVED_DEPTH = 15, 10, 3
# Bits that are constant within a stream: blocking strategy, sample rate and sample depth.
_KIND_MASK = 0x0001_0F0E
_NUMBERED_BY_SAMPLE = 0x0001_0000


@dataclass(frozen=True, slots=True)
class FlacFrame:
    """A frame.

    Attributes:
        content: its bytes.
        first_sample: number of its first sample in the stream; None if its header is damaged.
    """

    content: bytes
    first_sample: int | None


@dataclass(frozen=True, slots=True)
class _Header:
    """The header of a frame.

    Attributes:
        start: offset in the packet.
        kind: the bits that are constant within a stream.
        number: of the frame, or of its first sample.
        num_samples: length of the frame.
    """

    start: int
    kind: int
    number: int
    num_samples: int


def frames_of(packet: bytes) -> list[FlacFrame]:
    """Returns the frames of a packet; their bytes joined are the packet.

    All have an intact header except for the first, which may have none. The data behind the
    headers is not checked.
    """
    headers: list[_Header] = []
    for start in _candidates(packet):
        found = _header(packet, start)
        if found is not None and (not headers or _follows(found, headers[-1])):
            headers.append(found)
    if not headers:
        return [FlacFrame(packet, None)]
    # All frames but a stream's last one have the same length, or are numbered by sample.
    usual = max(header.num_samples for header in headers)
    ends = [*(header.start for header in headers[1:]), len(packet)]
    frames = [FlacFrame(packet[: headers[0].start], None)] if headers[0].start else []
    for header, end in zip(headers, ends, strict=True):
        first_sample = header.number * (1 if header.kind & _NUMBERED_BY_SAMPLE else usual)
        frames.append(FlacFrame(packet[header.start : end], first_sample))
    return frames


def _candidates(packet: bytes) -> list[int]:
    """Returns the offsets where frames may start, up to a limit."""
    starts: list[int] = []
    for sync in _SYNC:
        start = -1
        for _ in range(_MAX_CANDIDATES):
            start = packet.find(sync, start + 1)
            if start < 0:
                break
            starts.append(start)
    return sorted(starts)


def _follows(later: _Header, earlier: _Header) -> bool:
    return later.kind == earlier.kind and later.number > earlier.number


def _header(packet: bytes, start: int) -> _Header | None:
    """Returns the header at `start`, None if there is none or its checksum is wrong."""
    head = packet[start : start + _LONGEST_HEADER_BYTES]
    if len(head) < _SHORTEST_HEADER_BYTES:
        return None
    (codes,) = struct.unpack(">I", head[:4])
    block, rate = codes >> 12 & 0xF, codes >> 8 & 0xF
    channels, depth, reserved = codes >> 4 & 0xF, codes >> 1 & 0x7, codes & 1
    if not block or rate == _RESERVED_RATE or reserved:
        return None
    if channels > _LAST_CHANNELS or depth == _RESERVED_DEPTH:
        return None
    number, num_bytes = _coded_number(head[4:11])
    if not num_bytes:
        return None
    block_end = 4 + num_bytes + _BLOCK_BYTES.get(block, 0)
    end = block_end + _RATE_BYTES.get(rate, 0)
    if end >= len(head) or _crc8(head[:end]) != head[end]:
        return None
    num_samples = _num_samples(block, head[4 + num_bytes : block_end])
    return _Header(start, codes & _KIND_MASK, number, num_samples)


def _num_samples(code: int, stated: bytes) -> int:
    """Returns the length of a frame, which its header stores in extra bytes or as a code."""
    if stated:
        return int.from_bytes(stated, "big") + 1
    if code == 1:
        return 192
    return 576 << code - 2 if code < 6 else 256 << code - 8


def _coded_number(coded: bytes) -> tuple[int, int]:
    """Returns a number coded like UTF-8 and its length in bytes, 0 if it is invalid."""
    first = coded[0]
    num_bytes = 8 - (first ^ 0xFF).bit_length() or 1
    if num_bytes == 1:
        return (first, 1) if first < 0x80 else (0, 0)
    if first == 0xFF or first < 0xC0:
        return 0, 0
    number = first & (0x7F >> num_bytes)
    for byte in coded[1:num_bytes]:
        if byte >> 6 != 0b10:
            return 0, 0
        number = number << 6 | byte & 0x3F
    return number, num_bytes


def _crc8(content: bytes) -> int:
    """Returns the checksum of a frame header: polynomial x^8 + x^2 + x + 1, from 0."""
    checksum = 0
    for byte in content:
        checksum ^= byte
        for _ in range(8):
            checksum = (checksum << 1 ^ 0x07) & 0xFF if checksum & 0x80 else checksum << 1
    return checksum
