"""The search for frames after damage finds what a byte-by-byte search would find."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.audio.bytesource import ByteSource
from serve_app.audio.containers import adts_num_bytes
from serve_app.audio.frame_sync import (
    AMR_NB_BYTES,
    AMR_WB_BYTES,
    AMR_WB_MAGIC,
    stream_frames,
    tag_num_bytes,
)
from serve_app.audio.opening import check_beginning
from serve_app.core.errors import CorruptAudio
from tests.audio import recordings

_MAGICS = {"nb": b"#!AMR\n", "wb": AMR_WB_MAGIC, "aac": b""}


def amr_length(header: bytes, table: tuple[int, ...], reserved: range) -> int:
    kind = header[0] >> 3 & 15
    return table[kind] if header[0] & 0x87 == 4 and kind not in reserved else 0


_LENGTHS: dict[str, Callable[[bytes], int]] = {
    "nb": lambda header: amr_length(header, AMR_NB_BYTES, range(9, 15)),
    "wb": lambda header: amr_length(header, AMR_WB_BYTES, range(10, 14)),
    "aac": adts_num_bytes,
}


def run_length(content: bytes, at: int, length_of: Callable[[bytes], int], needed: int) -> int:
    first = 0
    for _ in range(needed):
        header = content[at : at + 7]
        if not header or (first and header[:3] in {b"ID3", b"TAG"}):
            return first
        if not length_of(header):
            return first if len(header) < 7 else 0
        first = first or length_of(header)
        at += length_of(header)
    return first


def frames_byte_by_byte(content: bytes, kind: str) -> Iterator[tuple[bytes, int]]:
    length_of, at, num_lost = _LENGTHS[kind], len(_MAGICS[kind]), 0
    while at < len(content):
        num_bytes = run_length(content, at, length_of, 3 if num_lost else 2)
        if num_bytes:
            yield content[at : at + num_bytes], num_lost
            at, num_lost = at + num_bytes, 0
            continue
        tag_bytes = tag_num_bytes(content[at : at + 138])
        at += tag_bytes or 1
        num_lost += 0 if tag_bytes else 1
    if num_lost:
        yield b"", num_lost


def adts_frame(num_bytes: int, filling: int) -> bytes:
    header = bytes((0xFF, 0xF1, 0x60, 0x40 | num_bytes >> 11, num_bytes >> 3 & 0xFF))
    return header + bytes(((num_bytes & 7) << 5 | 0x1F, 0xFC)) + bytes([filling]) * (num_bytes - 7)


def pieces(kind: str, rng: np.random.Generator) -> Iterator[bytes]:
    """Frames, rubbish that looks like frames, tags and cut-off frames, in any order."""
    tables = {"nb": AMR_NB_BYTES, "wb": AMR_WB_BYTES}
    for choice in rng.integers(0, 6, 60):
        number = int(rng.integers(0, 8))
        if kind == "aac":
            frame = adts_frame(int(rng.integers(8, 8192 if choice else 40)), number)
        else:
            frame = bytes((number << 3 | 4,)) + bytes(tables[kind][number] - 1)
        yield (
            frame * 4,
            frame,
            frame[: len(frame) // 2],
            rng.integers(0, 256, int(rng.integers(1, 9000)), np.uint8).tobytes(),
            rng.choice(np.array([4, 0xFF, 0xF1, 0x60, 0x1F], np.uint8), 5000).tobytes(),
            (b"TAG" + bytes(125), b"ID3\4\0\0\0\0\0\5hello", b"ID3\xff" * 3, b"TA")[number % 4],
        )[choice]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", sorted(_MAGICS))
def test_the_frames_are_those_of_a_search_byte_by_byte(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = _MAGICS[kind] + b"".join(pieces(kind, rng))
    content = content[: len(content) - int(rng.integers(0, 20))]
    container = "aac" if kind == "aac" else "amr"

    found = [frame for frame in stream_frames(ByteSource(content), container) if frame is not None]

    expected = list(frames_byte_by_byte(content, kind))
    assert [(frame.content, frame.num_lost_bytes) for frame in found] == expected


class CountedFile(io.BytesIO):
    num_reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.num_reads += 1
        return super().read(size)


@pytest.mark.parametrize("kind", sorted(_MAGICS))
def test_bytes_without_frames_are_searched_in_few_steps(kind: str) -> None:
    # The frame that each header declares, of odd length, ends where no header stands.
    junk = {"aac": b"\xff\xf1", "nb": b"\x04\0", "wb": b"\x14\0"}[kind] * 1_200_000
    file = CountedFile(_MAGICS[kind] + junk)

    steps = list(stream_frames(ByteSource(file), "aac" if kind == "aac" else "amr"))

    assert len(steps) < 200
    assert file.num_reads < 1000


@pytest.mark.parametrize(
    "junk", [b"JUNK\0\0\0\0", b"LIST\4\0\0\0odml"], ids=["chunks", "empty lists"]
)
def test_chunks_before_the_packets_of_an_avi_file_are_counted(junk: bytes) -> None:
    file = recordings.encode("avi", recordings.sine(1.0, 16_000), 16_000)
    start = file.index(b"movi") - 8
    counted = CountedFile(file[:start] + junk * 100_000 + file[start:])

    with pytest.raises(CorruptAudio, match="chunks"):
        AudioDecoder(counted, AudioLimits())

    assert counted.num_reads < 3000
    with pytest.raises(CorruptAudio, match="chunks"):
        check_beginning(counted.getvalue()[: 512 * 1024])


def test_padding_before_the_packets_of_an_avi_file_is_skipped() -> None:
    file = recordings.encode("avi", recordings.sine(1.0, 16_000), 16_000)
    start = file.index(b"movi") - 8
    padding = b"JUNK" + struct.pack("<I", 100_000) + bytes(100_000)

    with AudioDecoder(file[:start] + padding + file[start:], AudioLimits()) as decoder:
        assert sum(len(block) for block in decoder.blocks()) > 0.9 * 16_000
