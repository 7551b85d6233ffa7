"""What FFmpeg does not tell of a Matroska or WebM file.

Source: RFC 9559, 5.1.3 (Cluster, Timestamp) and 5.1.2 (Info: TimestampScale, Duration).
"""

from __future__ import annotations

import struct

from serve_app.audio.bytesource import ByteSource

_CLUSTER = b"\x1f\x43\xb6\x75"
_TIMESTAMP = 0xE7
_SCALE = b"\x2a\xd7\xb1"
_HEAD_BYTES = 16 * 1024
_SEARCHED_BYTES = 1 << 20
_DEFAULT_SCALE_NS = 1_000_000


def first_cluster_s(source: ByteSource) -> float | None:
    """Returns the time of the first cluster, where any stream of the file may begin."""
    return _cluster_s(source.peek(0, _SEARCHED_BYTES), scale_ns(source), last=False)


def last_cluster_s(source: ByteSource) -> float | None:
    """Returns the time of the last cluster, about where the file ends."""
    start = max(source.num_bytes - _SEARCHED_BYTES, 0)
    return _cluster_s(source.peek(start, _SEARCHED_BYTES), scale_ns(source), last=True)


def duration_s(source: ByteSource) -> float | None:
    """Returns the declared length; live recorders leave it out."""
    head = source.peek(0, _HEAD_BYTES)
    for size, layout in ((0x88, ">d"), (0x84, ">f")):
        start = head.find(bytes((0x44, 0x89, size)))
        if 0 <= start <= len(head) - 11:
            return float(struct.unpack_from(layout, head, start + 3)[0]) * scale_ns(source) / 1e9
    return None


def scale_ns(source: ByteSource) -> int:
    """Returns the length of a tick."""
    head = source.peek(0, _HEAD_BYTES)
    start = head.find(_SCALE)
    if not 0 <= start <= len(head) - 8:
        return _DEFAULT_SCALE_NS
    num_bytes = head[start + 3] & 0x0F
    return int.from_bytes(head[start + 4 : start + 4 + num_bytes], "big") or _DEFAULT_SCALE_NS


def _cluster_s(content: bytes, tick_ns: int, *, last: bool) -> float | None:
    start = content.rfind(_CLUSTER) if last else content.find(_CLUSTER)
    if start < 0:
        return None
    # The cluster's own size, of 1 to 8 bytes; a checksum may stand before the time.
    offset = start + 4 + _vint_bytes(content[start + 4 : start + 5])
    if content[offset : offset + 2] == b"\xbf\x84":
        offset += 6
    if content[offset : offset + 1] != bytes((_TIMESTAMP,)):
        return None
    num_bytes = content[offset + 1] & 0x7F if len(content) > offset + 1 else 0
    if not 1 <= num_bytes <= 8:
        return None
    return int.from_bytes(content[offset + 2 : offset + 2 + num_bytes], "big") * tick_ns / 1e9


def _vint_bytes(first: bytes) -> int:
    return 9 - first[0].bit_length() if first and first[0] else 8
