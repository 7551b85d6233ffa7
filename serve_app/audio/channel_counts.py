"""Reads the number of channels of a recording from its header, where that is simple.

Plain Python on a bounded number of bytes, as in `durations`.

Sources: FLAC (RFC 9639, 8.2), Opus (RFC 7845, 5.1), Vorbis I (4.2.2) and Speex headers, MPEG
audio ISO/IEC 11172-3 (2.4.2.3, mode), Sun's .au header (Audio File Formats FAQ), Apple Core
Audio Format 1.0 (desc chunk), WAVEFORMATEX (Microsoft).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from serve_app.audio.bytesource import AudioSource, ByteSource
from serve_app.audio.containers import mpeg_num_bytes, sniff_source
from serve_app.audio.pcm_headers import read_pcm_header
from serve_app.core.errors import AudioError

_HEAD_BYTES = 512
_MPEG_MONO = 3


def declared_channels(source: AudioSource) -> int | None:
    """Returns the number of channels; None where only a decoder can tell.

    Raises:
        OSError: the source could not be read.
    """
    content = ByteSource(source)
    container = sniff_source(content)
    content.reraise_failure()
    read = _READERS.get(container or "")
    try:
        found = read(content, container or "") if read is not None else None
    except (struct.error, LookupError, AudioError):
        found = None
    content.reraise_failure()
    return found or None


def _wave_channels(source: ByteSource, container: str) -> int | None:
    header = read_pcm_header(source, container)
    if header is None:
        return None
    if header.pcm is not None:
        return header.pcm.channels
    return int(struct.unpack_from("<H", header.codec_format, 2)[0])


def _flac_channels(source: ByteSource, _: str) -> int | None:
    head = source.peek(0, _HEAD_BYTES)
    start = head.find(b"fLaC")
    return (head[start + 20] >> 1 & 7) + 1 if start >= 0 else None


def _ogg_channels(source: ByteSource, _: str) -> int | None:
    head = source.peek(0, _HEAD_BYTES)
    if (start := head.find(b"OpusHead")) >= 0:
        return head[start + 9]
    if (start := head.find(b"\x01vorbis")) >= 0:
        return head[start + 11]
    if (start := head.find(b"Speex   ")) >= 0:
        return int(struct.unpack_from("<I", head, start + 48)[0])
    return _flac_channels(source, _)


def _mpeg_channels(source: ByteSource, _: str) -> int | None:
    header = source.peek(0, 4)
    if not mpeg_num_bytes(header):
        return None
    return 1 if header[3] >> 6 == _MPEG_MONO else 2


def _au_channels(source: ByteSource, _: str) -> int | None:
    return int(struct.unpack(">I", source.peek(20, 4))[0])


def _caf_channels(source: ByteSource, _: str) -> int | None:
    # The format comes first: name and size of its chunk, and 24 bytes before the number.
    head = source.peek(8, 12 + 32)
    return int(struct.unpack_from(">I", head, 12 + 24)[0]) if head[:4] == b"desc" else None


_READERS: dict[str, Callable[[ByteSource, str], int | None]] = {
    **dict.fromkeys(("wav", "rf64", "w64", "aiff"), _wave_channels),
    "flac": _flac_channels,
    "ogg": _ogg_channels,
    "mp3": _mpeg_channels,
    "amr": lambda source, _: 1,
    "au": _au_channels,
    "caf": _caf_channels,
}
