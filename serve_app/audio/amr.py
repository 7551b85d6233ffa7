"""Frames of AMR files, found again after damage.

Source: RFC 4867, 5.1 (magic), 5.3 (frame header) and 3GPP TS 26.101, annex A (lengths).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from serve_app.audio.bytesource import ByteSource

AMR_FRAME_S = 0.02
AMR_NB_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
AMR_WB_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)
AMR_WB_MAGIC = b"#!AMR-WB\n"
_NB_MAGIC_BYTES = 6
# Bits of a header that are always 0, and the one that is 1 in a frame of good quality.
_FIXED_BITS, _GOOD = 0x87, 0x04
# So many headers in a row are no accident.
_RUN_FRAMES = 3
_SEARCHED_AT_ONCE = 1000
_PEEKED_BYTES = _RUN_FRAMES * 64


@dataclass(frozen=True, slots=True)
class AmrFrame:
    """A frame with its header, and the audio that was lost before it; at the end, b""."""

    content: bytes
    lost_s: float = 0.0


def amr_frames(source: ByteSource) -> Iterator[AmrFrame | None]:
    """Yields the frames of a file, and None now and then while it searches for one."""
    wide = source.peek(0, len(AMR_WB_MAGIC)) == AMR_WB_MAGIC
    lengths = AMR_WB_BYTES if wide else AMR_NB_BYTES
    offset = len(AMR_WB_MAGIC) if wide else _NB_MAGIC_BYTES
    lost_from: int | None = None
    usual_bytes = max(lengths)
    while offset < source.num_bytes:
        content = source.peek(offset, _PEEKED_BYTES)
        # In step, the next header is enough: a change of it would be noticed there.
        needed = 2 if lost_from is None else _RUN_FRAMES
        if not _has_run(content, lengths, wide, needed):
            lost_from = offset if lost_from is None else lost_from
            offset += 1
            if (offset - lost_from) % _SEARCHED_AT_ONCE == 0:
                yield None
            continue
        num_bytes = lengths[content[0] >> 3 & 15]
        lost_bytes = 0 if lost_from is None else offset - lost_from
        lost_from = None
        yield AmrFrame(content[:num_bytes], round(lost_bytes / usual_bytes) * AMR_FRAME_S)
        usual_bytes = max(num_bytes, 1)
        offset += num_bytes
    if lost_from is not None:
        yield AmrFrame(b"", (source.num_bytes - lost_from) / usual_bytes * AMR_FRAME_S)


def _has_run(content: bytes, lengths: tuple[int, ...], wide: bool, needed: int) -> bool:
    """True if so many frames follow each other, or the file ends with the last of them."""
    offset = 0
    for _ in range(needed):
        if offset >= len(content):
            return offset == len(content)
        header = content[offset]
        kind = header >> 3 & 15
        if header & _FIXED_BITS != _GOOD or (kind in {10, 11, 12, 13} if wide else 9 <= kind <= 14):
            return False
        offset += lengths[kind]
    return offset <= len(content) or len(content) == _PEEKED_BYTES
