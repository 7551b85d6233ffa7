"""The beginning of a WAVE file in a stream of raw samples.

Clients of FunASR send raw samples. Some send a whole file, whose header would be heard as a
click, and whose sample rate counts.

Source: the RIFF/WAVE chunk layout (Microsoft, Multimedia Programming Interface).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from serve_app.core.errors import UnsupportedAudioLayout

MAX_HEADER_BYTES = 64 * 1024
_PCM, _EXTENSIBLE = 1, 0xFFFE
# From here on a size is the placeholder of a writer that cannot seek back.
_UNKNOWN_SIZE = 0x7FFF_0000


@dataclass(frozen=True, slots=True)
class WaveStart:
    """Where samples begin.

    Attributes:
        rate_hz: their rate.
        start: offset of the first one.
        num_bytes: how many bytes of them there are; None if the file does not tell.
    """

    rate_hz: int
    start: int
    num_bytes: int | None


def may_be_wave(data: bytes) -> bool:
    """Whether the first bytes of a stream are those of a WAVE file, as far as they go."""
    return data[:4] == b"RIFF"[: len(data)] and data[8:12] == b"WAVE"[: max(len(data) - 8, 0)]


def read_wave_start(data: bytes) -> WaveStart | None:
    """Reads the header at the beginning of a stream; None if more of it is needed.

    Raises:
        UnsupportedAudioLayout: the samples are not 16-bit PCM of one channel, or there is no
            end of the header.
    """
    offset, rate_hz = 12, 0
    while offset + 8 <= len(data):
        name, num_bytes = struct.unpack_from("<4sI", data, offset)
        offset += 8
        if name == b"data":
            if not rate_hz:
                break
            return WaveStart(rate_hz, offset, num_bytes if 0 < num_bytes < _UNKNOWN_SIZE else None)
        if name == b"fmt " and offset + 16 <= len(data):
            tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", data, offset)
            if tag not in (_PCM, _EXTENSIBLE) or channels != 1 or bits != 16:
                raise UnsupportedAudioLayout("the WAVE file must be 16-bit PCM of one channel")
        offset += num_bytes + num_bytes % 2
    if len(data) >= MAX_HEADER_BYTES or offset >= MAX_HEADER_BYTES:
        raise UnsupportedAudioLayout("the WAVE file has no samples where they are expected")
    return None
