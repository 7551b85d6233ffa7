"""Frames of AMR and ADTS files, found again after damage.

FFmpeg takes the first thing that looks like a frame for one, however long it claims to be,
and passes over the rest without a word.

Source: RFC 4867, 5.1 (magic), 5.3 (frame header) and 3GPP TS 26.101, annex A (lengths);
ISO/IEC 13818-7, 6.2 (ADTS).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.containers import adts_num_bytes
from serve_app.audio.framing import TAG_HEADER_BYTES, tag_num_bytes

AMR_NB_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
AMR_WB_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)
AMR_WB_MAGIC = b"#!AMR-WB\n"
_NB_MAGIC_BYTES = 6
# Bits of an AMR header that are always 0, and the one that is 1 in a frame of good quality.
_FIXED_BITS, _GOOD = 0x87, 0x04
_HEADER_BYTES = 7
# In step, the next header is enough: a change of it would be noticed there. Else so many in
# a row are no accident.
_RUN_IN_STEP, _RUN_FOUND = 2, 3
_SEARCHED_AT_ONCE = 1000
# Bit rates vary: how many frames stood between two others is told by those around them.
_NUM_NEIGHBORS = 64


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """A frame with its header; b"" at the end.

    Attributes:
        content: its bytes.
        num_lost_bytes: those before it that are no frames.
        num_lost_frames: how many frames they were, going by those around them.
    """

    content: bytes
    num_lost_bytes: int = 0
    num_lost_frames: int = 0


def stream_frames(source: ByteSource, container: str) -> Iterator[StreamFrame | None]:
    """Yields the frames of an "amr" or "aac" file, and None now and then while it searches."""
    start, length_of = 0, adts_num_bytes
    if container == "amr":
        wide = source.peek(0, len(AMR_WB_MAGIC)) == AMR_WB_MAGIC
        start = len(AMR_WB_MAGIC) if wide else _NB_MAGIC_BYTES
        length_of = _amr_wb_num_bytes if wide else _amr_nb_num_bytes
    return _frames(source, start, length_of)


def _frames(
    source: ByteSource, offset: int, length_of: Callable[[bytes], int]
) -> Iterator[StreamFrame | None]:
    num_lost = 0
    lengths: deque[int] = deque(maxlen=_NUM_NEIGHBORS)
    while offset < source.num_bytes:
        needed = _RUN_FOUND if num_lost else _RUN_IN_STEP
        num_bytes = _run_num_bytes(source, offset, length_of, needed)
        if num_bytes:
            num_frames = 0
            if num_lost:
                around = [*lengths, *_following_lengths(source, offset, length_of)]
                num_frames = round(num_lost * len(around) / sum(around))
            yield StreamFrame(source.peek(offset, num_bytes), num_lost, num_frames)
            lengths.append(num_bytes)
            offset, num_lost = offset + num_bytes, 0
            continue
        tag_bytes = tag_num_bytes(source.peek(offset, TAG_HEADER_BYTES))
        offset += tag_bytes or 1
        num_lost += 0 if tag_bytes else 1
        if num_lost % _SEARCHED_AT_ONCE == 0:
            yield None
    if num_lost:
        num_frames = round(num_lost * len(lengths) / sum(lengths)) if lengths else 0
        yield StreamFrame(b"", num_lost, num_frames)


def _following_lengths(
    source: ByteSource, offset: int, length_of: Callable[[bytes], int]
) -> Iterator[int]:
    """Yields the lengths of the frames from here on, as far as they follow each other."""
    for _ in range(_NUM_NEIGHBORS):
        header = source.peek(offset, _HEADER_BYTES)
        num_bytes = length_of(header) if header else 0
        if not num_bytes:
            return
        yield num_bytes
        offset += num_bytes


def _run_num_bytes(
    source: ByteSource, offset: int, length_of: Callable[[bytes], int], needed: int
) -> int:
    """Returns the length of a frame that others follow, or the end of the file; 0 for none."""
    first = 0
    for _ in range(needed):
        header = source.peek(offset, _HEADER_BYTES)
        if not header or (first and header[:3] in {b"ID3", b"TAG"}):
            return first
        num_bytes = length_of(header)
        if not num_bytes:
            # The last frame may be cut off.
            return first if len(header) < _HEADER_BYTES else 0
        first = first or num_bytes
        offset += num_bytes
    return first


def _amr_nb_num_bytes(header: bytes) -> int:
    kind = header[0] >> 3 & 15
    is_header = header[0] & _FIXED_BITS == _GOOD and not 9 <= kind <= 14
    return AMR_NB_BYTES[kind] if is_header else 0


def _amr_wb_num_bytes(header: bytes) -> int:
    kind = header[0] >> 3 & 15
    is_header = header[0] & _FIXED_BITS == _GOOD and not 10 <= kind <= 13
    return AMR_WB_BYTES[kind] if is_header else 0
