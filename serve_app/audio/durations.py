"""Estimates the length of a recording from its headers alone.

Plain Python on a bounded number of bytes, without a decoder: cheap enough for every upload, and
safe with hostile bytes. Headers may be wrong; only decoding gives the real length.

Sources: FLAC (RFC 9639, 8.2), Ogg (RFC 3533, 6) with Opus (RFC 7845, 5.1), Vorbis I (4.2.2)
and Speex headers, MPEG audio ISO/IEC 11172-3 (2.4.2.3), ADTS ISO/IEC 13818-7 (6.2), AMR (RFC
4867, 5), Matroska (RFC 9559, 5.1.2), Sun's .au header (Audio File Formats FAQ), Apple Core
Audio Format 1.0 (desc, data and pakt chunks), AVI RIFF (Microsoft, AVISTREAMHEADER), Advanced
Systems Format 01.20.03 (3.2 File Properties Object), Adobe FLV 10.1 (E.3, E.4, E.5
onMetaData), ISO/IEC 13818-1 (2.4.3.2 transport packets, 2.4.3.6 PES packets).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from serve_app.audio.bytesource import AudioSource, ByteSource
from serve_app.audio.containers import (
    HEAD_BYTES,
    adts_num_bytes,
    mpeg_num_bytes,
    sniff,
    sniff_source,
)
from serve_app.audio.ffmpeg_container import duration_s as matroska_s
from serve_app.audio.ffmpeg_container import first_cluster_s, last_cluster_s
from serve_app.audio.mp4 import read_fragments_s, read_mp4_duration_s
from serve_app.audio.pcm_headers import read_pcm_header
from serve_app.core.errors import AudioError

_HEAD_BYTES = 64 * 1024
_TAIL_BYTES = 1 << 20
_MAX_CHUNKS = 256
_AU_SAMPLE_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_AU_G72X_BITS = {23: 4, 24: 8, 25: 3, 26: 5}
_TS_PACKET_BYTES = 188
_TS_CLOCK_HZ = 90_000
_FLV_METADATA_BYTES = 4096
# One byte in 256 looks like the start of a tag. More in a tail of a million bytes mean that the
# file was crafted.
_MAX_FLV_CANDIDATES = 4096
# A name of 8 characters and the marker of a number.
_FLV_DURATION = b"\x00\x08duration\x00"
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_TICKS_PER_S = 10_000_000


def au_s(source: ByteSource) -> float | None:
    """Returns the bytes after the header over the bytes per second."""
    start, num_bytes, encoding, rate_hz, channels = struct.unpack(">5I", source.peek(4, 20))
    present_bytes = max(source.num_bytes - start, 0)
    num_bytes = min(num_bytes or present_bytes, present_bytes)
    if encoding in _AU_G72X_BITS:
        return float(num_bytes * 8 / (_AU_G72X_BITS[encoding] * rate_hz * channels))
    return float(num_bytes / (_AU_SAMPLE_BYTES[encoding] * rate_hz * channels))


def caf_s(source: ByteSource) -> float | None:
    """Returns the frames of the packet table, or the bytes over the bytes per second."""
    rate_hz = 0.0
    bytes_per_packet = frames_per_packet = 0
    estimate_s: float | None = None
    offset = 8
    for _ in range(_MAX_CHUNKS):
        header = source.peek(offset, 12)
        if len(header) < 12:
            break
        name, num_bytes = struct.unpack(">4sq", header)
        if name == b"desc":
            rate_hz, _, _, bytes_per_packet, frames_per_packet = struct.unpack(
                ">d4sIII", source.peek(offset + 12, 24)
            )
        elif name == b"pakt" and rate_hz:
            valid_frames = struct.unpack(">q", source.peek(offset + 20, 8))[0]
            if valid_frames > 0:
                return float(valid_frames / rate_hz)
        elif name == b"data" and rate_hz and bytes_per_packet:
            present_bytes = source.num_bytes - offset - 16
            held_bytes = present_bytes if num_bytes < 0 else min(num_bytes, present_bytes)
            estimate_s = held_bytes / bytes_per_packet * frames_per_packet / rate_hz
        if num_bytes < 0:
            break
        offset += 12 + num_bytes
    return estimate_s


def avi_s(source: ByteSource) -> float | None:
    """Returns the length of the longest stream that the headers declare."""
    head = source.peek(0, _HEAD_BYTES)
    longest_s = 0.0
    start = -1
    while (start := head.find(b"strh", start + 1)) >= 0 and start + 44 <= len(head):
        scale, rate, _, length = struct.unpack_from("<4I", head, start + 8 + 20)
        if head[start + 8 : start + 12] == b"auds" and rate and length:
            longest_s = max(longest_s, length * scale / rate)
    return longest_s or None


def asf_s(source: ByteSource) -> float | None:
    """Returns the play duration less the preroll; a broadcast declares none."""
    head = source.peek(0, _HEAD_BYTES)
    start = head.find(_ASF_FILE_PROPERTIES)
    if start < 0:
        return None
    play_ticks, _, preroll_ms, flags = struct.unpack_from("<QQQI", head, start + 64)
    is_broadcast = bool(flags & 1)
    return None if is_broadcast else play_ticks / _ASF_TICKS_PER_S - preroll_ms / 1000


def flv_s(source: ByteSource) -> float | None:
    """Returns the time of the last tag after that of the first one."""
    first_ms = _flv_tag_ms(source, 13)
    end = source.num_bytes
    last_ms: int | None = None
    for _ in range(_MAX_CHUNKS):
        tag_bytes = int.from_bytes(source.peek(end - 4, 4), "big")
        start = end - 4 - tag_bytes
        if tag_bytes < 11 or start < 13:
            break
        # The last tags may have no time.
        last_ms = _flv_tag_ms(source, start)
        if last_ms:
            break
        end = start
    if not last_ms:
        last_ms = _last_flv_tag_ms(source)
    if first_ms is None or not last_ms:
        return None
    return (last_ms - first_ms) / 1000 if last_ms > first_ms else None


def flv_metadata_s(source: ByteSource) -> float | None:
    """Returns the length that onMetaData declares; live recorders declare none, or 0."""
    head = source.peek(0, _FLV_METADATA_BYTES)
    start = head.find(_FLV_DURATION)
    field = head[start + len(_FLV_DURATION) :][:8] if start >= 0 else b""
    duration_s = float(struct.unpack(">d", field)[0]) if len(field) == 8 else 0.0
    return duration_s if math.isfinite(duration_s) and duration_s > 0 else None


def _flv_tag_ms(source: ByteSource, start: int) -> int | None:
    tag = source.peek(start, 11)
    if len(tag) < 11 or tag[0] not in {8, 9, 18} or tag[8:11] != bytes(3):
        return None
    return tag[7] << 24 | int.from_bytes(tag[4:7], "big")


def _last_flv_tag_ms(source: ByteSource) -> int | None:
    """Searches the end of a truncated file for the last audio tag."""
    start = max(source.num_bytes - _TAIL_BYTES, 13)
    tail = source.peek(start, _TAIL_BYTES)
    found = len(tail)
    for _ in range(_MAX_FLV_CANDIDATES):
        found = tail.rfind(b"\x08", 0, found)
        if found < 0:
            return None
        time_ms = _flv_tag_ms(source, start + found)
        num_bytes = int.from_bytes(tail[found + 1 : found + 4], "big")
        follows = tail[found + 11 + num_bytes : found + 15 + num_bytes]
        if time_ms and follows == (num_bytes + 11).to_bytes(4, "big"):
            return time_ms
    return None


def ts_s(source: ByteSource) -> float | None:
    """Returns the time between the first and the last time stamp of an audio stream."""
    start = max(source.num_bytes - _TAIL_BYTES, 0) // _TS_PACKET_BYTES * _TS_PACKET_BYTES
    first = next(_ts_times(source.peek(0, _TAIL_BYTES)), None)
    times = list(_ts_times(source.peek(start, _TAIL_BYTES)))
    if first is None or not times:
        return None
    # 33 bits, which wrap around every 26.5 hours.
    return (times[-1] - first) % (1 << 33) / _TS_CLOCK_HZ or None


def _ts_times(content: bytes) -> Iterator[int]:
    """Yields the presentation times of audio, in ticks."""
    for offset in range(0, len(content) - _TS_PACKET_BYTES + 1, _TS_PACKET_BYTES):
        if content[offset] != 0x47 or not content[offset + 1] & 0x40:
            continue
        adapted = content[offset + 3] >> 4 & 3
        start = offset + 4 + (1 + content[offset + 4] if adapted & 2 else 0)
        pes = content[start : min(start + 14, offset + _TS_PACKET_BYTES)]
        if len(pes) < 14 or pes[:3] != b"\0\0\1" or not (0xC0 <= pes[3] < 0xE0 or pes[3] == 0xBD):
            continue
        if pes[7] & 0x80:
            yield (
                (pes[9] >> 1 & 7) << 30
                | pes[10] << 22
                | (pes[11] >> 1) << 15
                | pes[12] << 7
                | pes[13] >> 1
            )


# Speech codecs hardly ever use less.
_MIN_BITS_PER_S = 6_000
_SAMPLED_BYTES = 16 * 1024
_OGG_PAGE_BYTES = 65_307
_MPEG_RATES_HZ = (44_100, 48_000, 32_000)
_ADTS_RATES_HZ = (
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
)  # fmt: skip
_ADTS_FRAME_SAMPLES = 1024
_AMR_FRAME_S = 0.02
_CLUSTER_S = 2.5
_AMR_NB_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
_AMR_WB_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)


@dataclass(frozen=True, slots=True)
class DurationEstimate:
    """Length of a recording before it is decoded.

    Attributes:
        duration_s: the length, or an upper bound of it.
        declared: whether a header declares it; otherwise it is estimated from the size.
    """

    duration_s: float
    declared: bool


def estimate_duration(source: AudioSource) -> DurationEstimate:
    """Returns the length of a recording according to its headers.

    For streams without a header it is the size over the bit rate of the first frames; for
    unknown content it is the size over the lowest plausible bit rate.

    Raises:
        OSError: the source could not be read.
    """
    content = ByteSource(source)
    container = sniff_source(content)
    duration_s = _declared_s(content, container)
    if duration_s is not None:
        return DurationEstimate(duration_s, declared=True)
    duration_s = _reckoned_s(content, container)
    content.reraise_failure()
    if duration_s is None:
        duration_s = content.num_bytes * 8 / _MIN_BITS_PER_S
    return DurationEstimate(duration_s, declared=False)


def _declared_s(source: ByteSource, container: str | None) -> float | None:
    reader = _DECLARED.get(container or "")
    try:
        found = reader(source) if reader is not None else None
    except (struct.error, ArithmeticError, LookupError, AudioError):
        return None
    return found if found is not None and math.isfinite(found) and found > 0 else None


def _reckoned_s(source: ByteSource, container: str | None) -> float | None:
    if container == "mp3":
        return _frames_s(source, mpeg_num_bytes, _mpeg_frame_s, 0)
    if container == "aac":
        return _frames_s(source, adts_num_bytes, _adts_frame_s, 0)
    if container in {"mpegts", "mp4", "webm", "matroska", "flv", "avi"}:
        return _timed_s(source, container)
    if container == "amr":
        wide = source.peek(0, 9) == b"#!AMR-WB\n"
        table = _AMR_WB_BYTES if wide else _AMR_NB_BYTES
        return _frames_s(
            source, lambda head: table[head[0] >> 3 & 15], lambda _: _AMR_FRAME_S, 9 if wide else 6
        )
    return None


def _timed_s(source: ByteSource, container: str) -> float | None:
    """Estimates the length from the times within the file."""
    try:
        if container == "mpegts":
            return ts_s(source)
        if container == "mp4":
            return read_fragments_s(source)
        if container == "flv":
            return flv_s(source)
        if container == "avi":
            return avi_s(source)
        first_s, last_s = first_cluster_s(source), last_cluster_s(source)
    except (struct.error, ArithmeticError, LookupError, AudioError):
        return None
    if first_s is None or last_s is None or last_s < first_s:
        return None
    # A cluster is up to five seconds long; this adds the last one.
    return last_s - first_s + _CLUSTER_S


def _wave_s(source: ByteSource) -> float | None:
    container = sniff(source.peek(0, HEAD_BYTES)) or ""
    header = read_pcm_header(source, container)
    if header is None:
        return None
    # Samples that the file lacks do not count.
    lengths = [one for one in (header.declared_s, header.available_s) if one is not None]
    return min(lengths, default=None)


def _flac_s(head: bytes) -> float | None:
    """Total samples over the rate, both of STREAMINFO; 0 samples means unknown."""
    start = head.find(b"fLaC")
    fields = int.from_bytes(head[start + 18 : start + 26], "big")
    rate_hz, num_samples = fields >> 44, fields & ((1 << 36) - 1)
    return num_samples / rate_hz if start >= 0 and rate_hz and num_samples else None


def _ogg_s(source: ByteSource) -> float | None:
    """The last page's position over the rate of the first page's codec."""
    head = source.peek(0, 512)
    tail = source.peek(max(source.num_bytes - 2 * _OGG_PAGE_BYTES, 0), 2 * _OGG_PAGE_BYTES)
    last = tail.rfind(b"OggS")
    position = int(struct.unpack_from("<q", tail, last + 6)[0])
    if (start := head.find(b"OpusHead")) >= 0:
        return (position - int(struct.unpack_from("<H", head, start + 10)[0])) / 48_000
    if (start := head.find(b"\x01vorbis")) >= 0:
        return position / int(struct.unpack_from("<I", head, start + 12)[0])
    if (start := head.find(b"Speex   ")) >= 0:
        return position / int(struct.unpack_from("<I", head, start + 36)[0])
    if (start := head.find(b"fLaC")) >= 0:
        return position / (int.from_bytes(head[start + 18 : start + 21], "big") >> 4)
    return None


def _frames_s(
    source: ByteSource,
    num_bytes_of: Callable[[bytes], int],
    seconds_of: Callable[[bytes], float],
    start: int,
) -> float | None:
    """Extrapolates the length of all frames from the first ones."""
    head = source.peek(start, _SAMPLED_BYTES)
    offset = num_frame_bytes = 0
    seconds = 0.0
    while len(frame := head[offset : offset + 7]) == 7:
        num_bytes = num_bytes_of(frame)
        if not num_bytes:
            # Only formats whose frames start with this byte have bytes between frames.
            offset = head.find(b"\xff", offset + 1)
            if offset < 0:
                break
            continue
        num_frame_bytes += num_bytes
        seconds += seconds_of(frame)
        offset += num_bytes
    return source.num_bytes * seconds / num_frame_bytes if num_frame_bytes else None


def _mpeg_frame_s(header: bytes) -> float:
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate_hz = _MPEG_RATES_HZ[header[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        return 384 / rate_hz
    return (576 if layer == 3 and version != 3 else 1152) / rate_hz


def _adts_frame_s(header: bytes) -> float:
    return _ADTS_FRAME_SAMPLES / _ADTS_RATES_HZ[header[2] >> 2 & 15]


_DECLARED: dict[str, Callable[[ByteSource], float | None]] = {
    **dict.fromkeys(("wav", "rf64", "w64", "aiff"), _wave_s),
    **dict.fromkeys(("webm", "matroska"), matroska_s),
    "flac": lambda source: _flac_s(source.peek(0, 64)),
    "mp4": read_mp4_duration_s,
    "ogg": _ogg_s,
    "au": au_s,
    "caf": caf_s,
    "asf": asf_s,
}
