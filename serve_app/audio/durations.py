"""How long a recording will turn out to be, from its headers alone.

Plain Python on a few kilobytes, no decoder: cheap enough for every upload, and safe
where hostile bytes must not reach a decoder. Headers may lie; whoever decodes
learns the truth.

Sources: FLAC format (RFC 9639, 8.2), Ogg (RFC 3533, 6) with Opus (RFC 7845, 5.1),
Vorbis I (4.2.2) and Speex headers, MPEG audio ISO/IEC 11172-3 (2.4.2.3), ADTS ISO/IEC
13818-7 (6.2), AMR (RFC 4867, 5), Matroska's Info element (RFC 9559, 5.1.2).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.audio.bytesource import AudioSource, ByteSource
from serve_app.audio.container_lengths import asf_s, au_s, avi_s, caf_s, flv_s, ts_s
from serve_app.audio.containers import (
    HEAD_BYTES,
    adts_num_bytes,
    mpeg_num_bytes,
    sniff,
    sniff_source,
)
from serve_app.audio.matroska import duration_s as matroska_s
from serve_app.audio.matroska import first_cluster_s, last_cluster_s
from serve_app.audio.mp4 import read_fragments_s, read_mp4_duration_s
from serve_app.audio.pcm_headers import read_pcm_header
from serve_app.core.errors import AudioError

# Speech is hardly ever coded with less.
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
        duration_s: the length, or a bound of it.
        declared: whether a header says so; otherwise it is reckoned from the size.
    """

    duration_s: float
    declared: bool


def estimate_duration(source: AudioSource) -> DurationEstimate:
    """Returns how long the recording is, as far as its headers tell.

    Of streams without a header it is the size over the bit rate of the first frames;
    of what is not understood it is the size over the least plausible bit rate.

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
    """Reckons from the times within the file."""
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
    # A cluster is up to five seconds long, and the last one counts, too.
    return last_s - first_s + _CLUSTER_S


def _wave_s(source: ByteSource) -> float | None:
    container = sniff(source.peek(0, HEAD_BYTES)) or ""
    header = read_pcm_header(source, container)
    if header is None:
        return None
    # Samples that are not there take no time.
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
    """Reckons from the first frames how long all of them last."""
    head = source.peek(start, _SAMPLED_BYTES)
    offset = num_frame_bytes = 0
    seconds = 0.0
    while len(frame := head[offset : offset + 7]) == 7:
        num_bytes = num_bytes_of(frame)
        if not num_bytes:
            offset += 1
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
