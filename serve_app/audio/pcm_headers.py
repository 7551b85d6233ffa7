"""Reads the headers of uncompressed files: the sample format and the position of the samples.

Programs that write to a pipe cannot fill in the length; others write a wrong one or omit a pad
byte. The sample format is known nevertheless, so samples are read to the end of the file, with
a notice for the caller.

Sources: the RIFF/WAVE chunk layout (Microsoft, Multimedia Programming
Interface), RF64 is EBU Tech 3306, Sony Wave64, AIFF and AIFF-C (Apple).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.pcm import ByteOrder, Encoding, PcmFormat, to_float
from serve_app.core.errors import CorruptAudio

# Studio programs write a few dozen. An empty chunk has 8 bytes.
_MAX_CHUNKS = 1000
_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_INTEGERS: dict[int, Encoding] = {1: "u8", 2: "s16", 3: "s24", 4: "s32"}
# Sizes from here on are placeholders of writers that cannot seek back: sox and espeak-ng write
# 0x7FFFF000 plus a header, arecord 0x7FFFFF00, FFmpeg 0xFFFFFFFF.
_UNKNOWN_SIZE = 0x7FFF_0000
_UNKNOWN_SIZE_64 = 0x7FFF_FFFF_FFFF_0000
_KNOWN_CHUNKS = {
    b"fmt ", b"data", b"fact", b"LIST", b"list", b"bext", b"cue ", b"smpl", b"JUNK", b"junk",
    b"PEAK", b"id3 ", b"ID3 ", b"iXML", b"axml", b"chna", b"ds64", b"PAD ", b"plst", b"inst",
    b"minf", b"elm1", b"regn", b"umid", b"DISP", b"afsp", b"FLLR", b"levl", b"cart", b"RIFF",
}  # fmt: skip
_SEARCHED_BYTES = 1 << 18
_MAX_SEARCHES = 8
_AIFC_ENCODINGS: dict[bytes, tuple[Encoding | None, ByteOrder]] = {
    b"sowt": (None, "<"), b"twos": (None, ">"), b"NONE": (None, ">"), b"raw ": ("u8", ">"),
    b"in24": ("s24", ">"), b"in32": ("s32", ">"), b"fl32": ("f32", ">"), b"FL32": ("f32", ">"),
    b"fl64": ("f64", ">"), b"FL64": ("f64", ">"), b"alaw": ("alaw", ">"), b"ALAW": ("alaw", ">"),
    b"ulaw": ("ulaw", ">"), b"ULAW": ("ulaw", ">"), b"23ni": ("s32", "<"), b"42ni": ("s24", "<"),
}  # fmt: skip

SIZE_TOO_SMALL = (
    "The header of the file declares less audio than the file holds; all of it was read."
)
BYTES_IGNORED = "The bytes after the audio of the file are not audio; they were ignored."


@dataclass(frozen=True, slots=True)
class PcmHeader:
    """The sample format, and the audio that is declared and present.

    Attributes:
        pcm: how samples are stored; None for a codec that FFmpeg decodes.
        start: offset of the first sample or packet.
        num_bytes: bytes of audio that the file holds from there.
        declared_s: length that the header declares, None without one.
        available_s: length of the audio in the file, None if the codec is unknown.
        codec_format: the body of a WAVE file's `fmt ` chunk, little-endian.
        notices: for the caller.
        next_start: offset of a file that was appended, None without one.
    """

    pcm: PcmFormat | None
    start: int = 0
    num_bytes: int = 0
    declared_s: float | None = None
    available_s: float | None = None
    codec_format: bytes = b""
    notices: tuple[str, ...] = ()
    next_start: int | None = None


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: bytes
    start: int
    num_bytes: int


def read_pcm_header(source: ByteSource, container: str) -> PcmHeader | None:
    """Reads a "wav", "rf64", "w64" or "aiff" header; None if it holds no audio.

    Raises:
        CorruptAudio: it has more chunks than any program writes.
    """
    try:
        if container == "aiff":
            return _read_aiff(source)
        return _read_wave(source, container)
    except (struct.error, ArithmeticError):
        return None


def check_first_chunks(beginning: ByteSource, container: str) -> None:
    """Rejects a file whose first bytes hold more chunks than any program writes.

    Chunks that are damaged or extend beyond those bytes end the check.

    Raises:
        CorruptAudio: it has too many chunks.
    """
    big = container == "aiff" or beginning.peek(0, 4) == b"RIFX"
    chunks = (
        _w64_chunks(beginning)
        if container == "w64"
        else _riff_chunks(beginning, ">" if big else "<", searches=0)
    )
    for chunk in chunks:
        if chunk.name in {b"data", b"SSND"} or chunk.start + chunk.num_bytes > beginning.num_bytes:
            return


def wave_prefix(header: PcmHeader) -> bytes:
    """Returns a plain WAVE header for the audio that `header` describes."""
    body = header.codec_format
    num_bytes = min(header.num_bytes, 0xFFFF_FFFF)
    chunks = b"fmt " + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    chunks += b"data" + struct.pack("<I", num_bytes)
    riff_bytes = min(4 + len(chunks) + num_bytes, 0xFFFF_FFFF)
    return b"RIFF" + struct.pack("<I", riff_bytes) + b"WAVE" + chunks


def _read_wave(source: ByteSource, container: str) -> PcmHeader | None:
    order: ByteOrder = ">" if source.peek(0, 4) == b"RIFX" else "<"
    chunks = _w64_chunks(source) if container == "w64" else _riff_chunks(source, order)
    body = b""
    large_num_bytes = 0
    for chunk in chunks:
        if chunk.name == b"ds64":
            large_num_bytes = struct.unpack("<Q", source.peek(chunk.start + 8, 8))[0]
        elif chunk.name == b"fmt ":
            # FFmpeg's decoders need no more than the first kilobyte.
            body = _little_endian(source.peek(chunk.start, min(chunk.num_bytes, 1024)), order)
        elif chunk.name == b"data" and len(body) >= 14:
            num_bytes = chunk.num_bytes
            unknown = _UNKNOWN_SIZE_64 if container == "w64" else _UNKNOWN_SIZE
            if container == "rf64" and num_bytes == 0xFFFF_FFFF:
                num_bytes, unknown = large_num_bytes, _UNKNOWN_SIZE_64
            known = None if num_bytes >= unknown else num_bytes
            return _located(source, container, order, body, chunk.start, known)
    return None


def _located(
    source: ByteSource,
    container: str,
    order: ByteOrder,
    body: bytes,
    start: int,
    declared_bytes: int | None,
) -> PcmHeader:
    """Returns the header of samples at `start`, after checking what follows them."""
    pcm, bytes_per_s = _read_format(body, order)
    present_bytes = max(source.num_bytes - start, 0)
    notices: tuple[str, ...] = ()
    next_start: int | None = None
    num_bytes = present_bytes
    if declared_bytes is not None and declared_bytes < present_bytes:
        after = start + declared_bytes + (declared_bytes % 2 if container != "w64" else 0)
        if container == "w64" and declared_bytes:
            num_bytes = declared_bytes
        elif declared_bytes and _is_followed_by_chunks(source, after, order):
            num_bytes = declared_bytes
            next_start = _joined_file(source, after, order)
        elif (
            not declared_bytes
            or pcm is None
            or _looks_like_samples(source, start, declared_bytes, pcm)
        ):
            # Writers to a pipe leave a length of 0.
            notices = (SIZE_TOO_SMALL,) if declared_bytes else ()
            declared_bytes = None
        else:
            num_bytes = declared_bytes
            notices = (BYTES_IGNORED,) if present_bytes - declared_bytes > 256 else ()
    declared_s = available_s = None
    if bytes_per_s:
        available_s = num_bytes / bytes_per_s
        declared_s = declared_bytes / bytes_per_s if declared_bytes else None
    return PcmHeader(pcm, start, num_bytes, declared_s, available_s, body, notices, next_start)


def _read_format(body: bytes, order: ByteOrder) -> tuple[PcmFormat | None, int]:
    """Returns the sample format, None if compressed, and the bytes per second."""
    tag, channels, rate_hz, bytes_per_s, block_bytes = struct.unpack("<HHIIH", body[:14])
    bits = struct.unpack("<H", body[14:16])[0] if len(body) >= 16 else 0
    if tag == _EXTENSIBLE and len(body) >= 26:
        tag = struct.unpack("<H", body[24:26])[0]
    if tag not in {_PCM, _FLOAT, _ALAW, _MULAW} or not channels or not rate_hz:
        return None, bytes_per_s
    sample_bytes = math.ceil(bits / 8)
    if block_bytes % channels == 0 and 0 < block_bytes // channels <= 8:
        sample_bytes = max(sample_bytes, block_bytes // channels)
    encoding: Encoding | None
    if tag in {_ALAW, _MULAW}:
        encoding = "alaw" if tag == _ALAW else "ulaw"
    elif tag == _FLOAT:
        encoding = {4: "f32", 8: "f64"}.get(sample_bytes)  # type: ignore[assignment]
    else:
        encoding = _INTEGERS.get(sample_bytes)
    if encoding is None:
        return None, bytes_per_s
    pcm = PcmFormat(encoding, order, rate_hz, channels)
    return pcm, pcm.bytes_per_s


def _little_endian(body: bytes, order: ByteOrder) -> bytes:
    """Returns a `fmt ` chunk's body as a little-endian file would have it."""
    layout = "HHIIHH" if len(body) >= 16 else "HHIIH"
    num_bytes = struct.calcsize("<" + layout)
    if order == "<" or len(body) < num_bytes:
        return body
    rest = body[num_bytes:]
    if len(rest) >= 10:
        rest = struct.pack("<HHIH", *struct.unpack(">HHIH", rest[:10])) + rest[10:]
    return struct.pack("<" + layout, *struct.unpack(">" + layout, body[:num_bytes])) + rest


def _is_followed_by_chunks(source: ByteSource, offset: int, order: ByteOrder) -> bool:
    """True if chunks, a tag, a few stray bytes or nothing follow the samples."""
    for _ in range(_MAX_CHUNKS):
        header = source.peek(offset, 8)
        if len(header) < 8 or header[:3] == b"TAG":
            return True
        name, num_bytes = struct.unpack(order + "4sI", header)
        if name in _KNOWN_CHUNKS:
            return True
        if not _is_name(name) or offset + 8 + num_bytes > source.num_bytes:
            return False
        offset += 8 + num_bytes + num_bytes % 2
    return True


def _joined_file(source: ByteSource, offset: int, order: ByteOrder) -> int | None:
    """Returns the offset of another WAVE file among the chunks after the samples."""
    for _ in range(_MAX_CHUNKS):
        header = source.peek(offset, 12)
        if len(header) < 12:
            return None
        if header[:4] == b"RIFF" and header[8:] == b"WAVE":
            return offset
        if not _is_name(header[:4]):
            return None
        num_bytes = struct.unpack(order + "I", header[4:8])[0]
        offset += 8 + num_bytes + num_bytes % 2
    return None


def _looks_like_samples(
    source: ByteSource, start: int, declared_bytes: int, pcm: PcmFormat
) -> bool:
    """True if adjacent samples are similar, as in audio but not in other data."""
    offset = start + declared_bytes // pcm.bytes_per_frame * pcm.bytes_per_frame
    frames = min((source.num_bytes - offset) // pcm.bytes_per_frame, 1 << 14)
    if frames < 16:
        return False
    samples = to_float(source.peek(offset, frames * pcm.bytes_per_frame), pcm)[0]
    with np.errstate(over="ignore", invalid="ignore"):
        level = float(np.abs(samples).mean(dtype=np.float64))
        step = float(np.abs(np.diff(samples)).mean(dtype=np.float64))
    return math.isfinite(level) and level < 1.0 and step <= level


def _read_aiff(source: ByteSource) -> PcmHeader | None:
    compressed = source.peek(8, 4) == b"AIFC"
    pcm: PcmFormat | None = None
    num_frames = -1
    for chunk in _riff_chunks(source, ">"):
        if chunk.name == b"COMM":
            fields = struct.unpack(">HIHHQ", source.peek(chunk.start, 18))
            channels, num_frames, bits, exponent, mantissa = fields
            rate_hz = round(math.ldexp(mantissa, (exponent & 0x7FFF) - 16383 - 63))
            kind = source.peek(chunk.start + 18, 4) if compressed else b"NONE"
            encoding, order = _AIFC_ENCODINGS.get(kind, (None, ">"))
            if kind in _AIFC_ENCODINGS and encoding is None:
                integers: dict[int, Encoding] = {**_INTEGERS, 1: "s8"}
                encoding = integers.get(math.ceil(bits / 8))
            if encoding is not None and channels and rate_hz:
                pcm = PcmFormat(encoding, order, rate_hz, channels)
        elif chunk.name == b"SSND" and num_frames >= 0:
            offset = struct.unpack(">I", source.peek(chunk.start, 4))[0]
            start = min(chunk.start + 8 + offset, source.num_bytes)
            if pcm is None:
                return PcmHeader(None, start)
            return _located_aiff(source, pcm, num_frames, start, chunk)
    return None


def _located_aiff(
    source: ByteSource, pcm: PcmFormat, num_frames: int, start: int, chunk: _Chunk
) -> PcmHeader:
    present_bytes = max(source.num_bytes - start, 0)
    declared_bytes = num_frames * pcm.bytes_per_frame
    unknown = not num_frames and chunk.num_bytes > 8 and present_bytes > 0
    if unknown or num_frames >= _UNKNOWN_SIZE:
        num_bytes, declared_s = present_bytes, None
    else:
        num_bytes = min(declared_bytes, present_bytes)
        declared_s = declared_bytes / pcm.bytes_per_s if num_frames else None
    return PcmHeader(pcm, start, num_bytes, declared_s, num_bytes / pcm.bytes_per_s)


def _riff_chunks(
    source: ByteSource, order: ByteOrder, searches: int = _MAX_SEARCHES
) -> Iterator[_Chunk]:
    """Yields the chunks; resynchronizes after a wrong length or a missing pad byte.

    Raises:
        CorruptAudio: there are too many.
    """
    offset = 12
    num_searches = 0
    for _ in range(_MAX_CHUNKS):
        header = source.peek(offset, 8)
        if len(header) < 8:
            return
        name, num_bytes = struct.unpack(order + "4sI", header)
        following = offset + 8 + num_bytes
        lost = not _is_name(name) or (
            name not in {b"data", b"SSND"} and following > source.num_bytes
        )
        if lost:
            num_searches += 1
            if num_searches > searches:
                return
            found = _search(source, offset, b"SSND" if order == ">" else b"data")
            if found is None:
                return
            offset = found
            continue
        yield _Chunk(name, offset + 8, num_bytes)
        if num_bytes % 2:
            padded, bare = source.peek(following + 1, 4), source.peek(following, 4)
            following += padded in _KNOWN_CHUNKS or bare not in _KNOWN_CHUNKS
        offset = following
    raise _too_many_chunks()


def _search(source: ByteSource, offset: int, name: bytes) -> int | None:
    """Returns the offset of the next chunk of this name, None if there is none nearby."""
    if name == b"SSND" and source.peek(0, 4) == b"RIFX":
        name = b"data"
    found = source.peek(offset + 1, _SEARCHED_BYTES).find(name)
    return None if found < 0 else offset + 1 + found


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def _w64_chunks(source: ByteSource) -> Iterator[_Chunk]:
    offset = 40
    for _ in range(_MAX_CHUNKS):
        header = source.peek(offset, 24)
        if len(header) < 24:
            return
        name, num_bytes = header[:4], struct.unpack("<Q", header[16:])[0]
        yield _Chunk(name, offset + 24, max(num_bytes - 24, 0))
        offset += max((num_bytes + 7) // 8 * 8, 24)
    raise _too_many_chunks()


def _too_many_chunks() -> CorruptAudio:
    return CorruptAudio(f"it has more than {_MAX_CHUNKS} chunks before its audio")
