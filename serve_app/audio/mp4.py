"""Checks the boxes of an MP4 file before FFmpeg expands them.

FFmpeg keeps an index entry for every sample that the tables declare, and a table can declare
billions in a few bytes. The declared numbers are added up here first, so that a small file
cannot make FFmpeg allocate gigabytes.

Source: ISO/IEC 14496-12 (8.6.1.2 time to sample, 8.7.3 sample sizes, 8.7.4
sample to chunk, 8.8.8 track runs, 8.2.2 movie header).
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from serve_app.audio.bytesource import ByteSource
from serve_app.core.errors import CorruptAudio

_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"edts"}
_MAX_BOXES = 200_000
_BOXES_AT_ONCE = 1000
_MAX_BOXES_BEFORE_HEADER = 2000
_SEARCHED_BYTES = 1 << 20
_FRAGMENT_S = 2.0
# Editors write dozens of edits. FFmpeg scans its index for each.
_MAX_EDITS = 2000
# Five hours in frames of 10 ms are 1.8 million; an entry takes some 36 bytes.
_MAX_INDEX_ENTRIES = 2_500_000
# FFmpeg's packets of uncompressed audio, which has no entry per sample.
_PCM_PACKET_SAMPLES = 1024
_MAX_CHUNK_SHARE = 64


@dataclass(frozen=True, slots=True)
class Mp4Layout:
    """Whether the index is spread over fragments, so that no total length is declared."""

    fragmented: bool


@dataclass(frozen=True, slots=True)
class _Box:
    name: bytes
    start: int
    end: int


@dataclass(slots=True)
class _Track:
    """What the tables of one track declare."""

    num_samples: int = 0
    constant_size: bool = False
    one_tick_each: bool = False
    num_chunks: int = 0
    max_chunk_samples: int = 0

    @property
    def num_index_entries(self) -> int:
        if self.constant_size and self.one_tick_each:
            return self.num_chunks * (self.max_chunk_samples // _PCM_PACKET_SAMPLES + 1)
        return self.num_samples


def read_mp4_layout(source: ByteSource) -> Mp4Layout:
    """Walks the boxes; see `walk_mp4_layout`."""
    steps = walk_mp4_layout(source)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            layout: Mp4Layout = end.value
            return layout


def walk_mp4_layout(source: ByteSource) -> Generator[None, None, Mp4Layout]:
    """Walks the boxes, with regular pauses, since there may be many.

    Raises:
        CorruptAudio: the index is missing, compressed, or declares more samples
            than a recording can have.
    """
    has_index = fragmented = False
    num_fragment_samples = 0
    tracks = [_Track()]
    for number, box in enumerate(_walk(source, _MAX_BOXES)):
        if number % _BOXES_AT_ONCE == _BOXES_AT_ONCE - 1:
            yield
        if box.name == b"cmov":
            raise CorruptAudio("its index is compressed")
        has_index |= box.name == b"moov"
        fragmented |= box.name in {b"moof", b"mvex"}
        if box.name == b"trak":
            tracks.append(_Track())
        elif box.name == b"trun":
            num_fragment_samples += _count_at(source, box, 4)
        else:
            _read_table(source, box, tracks[-1])
    num_entries = num_fragment_samples + sum(track.num_index_entries for track in tracks)
    if num_entries > _MAX_INDEX_ENTRIES:
        raise CorruptAudio(f"its index declares {num_entries} packets")
    if not has_index and not fragmented:
        raise CorruptAudio("its index (moov) is missing; the file may be cut off")
    return Mp4Layout(fragmented)


def read_mp4_duration_s(source: ByteSource) -> float | None:
    """Returns the length that the movie header declares, None without one.

    Raises:
        CorruptAudio: the file has more boxes than a recording can have.
    """
    for box in _walk(source, _MAX_BOXES_BEFORE_HEADER):
        if box.name == b"mvhd":
            wide = source.peek(box.start, 1) == b"\x01"
            ticks_per_s = _count_at(source, box, 20 if wide else 12)
            field = source.peek(box.start + (24 if wide else 16), 8 if wide else 4)
            ticks = int.from_bytes(field, "big")
            unknown = ticks == (1 << 8 * len(field)) - 1
            return ticks / ticks_per_s if ticks_per_s and ticks and not unknown else None
    return None


def read_fragments_s(source: ByteSource) -> float | None:
    """Returns the time of the last fragment of a fragmented file, None without any.

    The last one's own length is left out, and fragments are seconds long.

    Raises:
        CorruptAudio: the file has more boxes than a recording can have.
    """
    ticks_per_s: list[int] = []
    for box in _walk(source, _MAX_BOXES_BEFORE_HEADER):
        if box.name == b"mdhd":
            wide = source.peek(box.start, 1) == b"\x01"
            ticks_per_s.append(_count_at(source, box, 20 if wide else 12))
        elif box.name == b"moof":
            break
    tail_start = max(source.num_bytes - _SEARCHED_BYTES, 0)
    tail = source.peek(tail_start, _SEARCHED_BYTES)
    start = tail.rfind(b"tfdt")
    if start < 0 or not ticks_per_s or not ticks_per_s[0]:
        return None
    wide = tail[start + 4 : start + 5] == b"\x01"
    ticks = int.from_bytes(tail[start + 8 : start + (16 if wide else 12)], "big")
    return ticks / ticks_per_s[0] + _FRAGMENT_S


def _read_table(source: ByteSource, box: _Box, track: _Track) -> None:
    if box.name in {b"stsz", b"stz2"}:
        track.constant_size = box.name == b"stsz" and _count_at(source, box, 4) > 0
        track.num_samples = max(track.num_samples, _count_at(source, box, 8))
    elif box.name == b"stts":
        track.one_tick_each = _count_at(source, box, 4) == 1 == _count_at(source, box, 12)
    elif box.name in {b"stco", b"co64"}:
        # FFmpeg allocates by the count alone, before it reads an entry.
        declared = _count_at(source, box, 4)
        if declared > (box.end - box.start) // 4:
            raise CorruptAudio("its chunk table is longer than its box")
        track.num_chunks = max(track.num_chunks, declared)
    elif box.name == b"elst" and _count_at(source, box, 4) > _MAX_EDITS:
        raise CorruptAudio("its edit list is longer than any editor writes")
    elif box.name == b"stsc":
        rows = source.peek(box.start + 8, (box.end - box.start - 8) // 12 * 12)
        runs = np.frombuffer(rows[: len(rows) // 12 * 12], dtype=">u4").reshape(-1, 3)
        track.max_chunk_samples = int(runs[:, 1].max()) if len(runs) else 0
        # A chunk lies in one piece; a cut-off file may hold a part of it.
        if track.max_chunk_samples > _MAX_CHUNK_SHARE * source.num_bytes:
            raise CorruptAudio("its index declares chunks that no file could hold")


def _count_at(source: ByteSource, box: _Box, offset: int) -> int:
    return int.from_bytes(source.peek(box.start + offset, 4), "big")


def _walk(source: ByteSource, max_boxes: int) -> Iterator[_Box]:
    """Yields the boxes in file order, parents before what they hold."""
    ends = [source.num_bytes]
    offset = 0
    for _ in range(max_boxes):
        while ends and offset + 8 > ends[-1]:
            offset = ends.pop()
        if not ends:
            return
        num_bytes, name = struct.unpack(">I4s", source.peek(offset, 8))
        header_bytes = 8
        if num_bytes == 1:
            num_bytes, header_bytes = int.from_bytes(source.peek(offset + 8, 8), "big"), 16
        elif num_bytes == 0:
            num_bytes = ends[-1] - offset
        box = _Box(name, offset + header_bytes, min(offset + max(num_bytes, 8), ends[-1]))
        yield box
        if name in _PARENTS:
            ends.append(box.end)
            offset = box.start
        else:
            offset = max(box.end, box.start)
    raise CorruptAudio("it has too many boxes")
