"""Uncompressed files.

Nothing but the header decides what is read, so that the work is that of copying samples.
"""

from __future__ import annotations

from collections.abc import Iterator

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.damage import DamageReport
from serve_app.audio.downmix import Downmixer
from serve_app.audio.finite import FiniteSamples
from serve_app.audio.layout import AudioInfo, AudioLimits, Block
from serve_app.audio.pcm import PcmFormat, to_float
from serve_app.audio.pcm_headers import PcmHeader
from serve_app.core.errors import TruncatedAudio

_BLOCK_BYTES = 1 << 18
_CODEC_NAMES = {
    "u8": "pcm_u8", "s8": "pcm_s8", "s16": "pcm_16", "s24": "pcm_24", "s32": "pcm_32",
    "f32": "float", "f64": "double",
}  # fmt: skip


class PcmReader:
    """Reads "wav", "rf64", "w64" and "aiff" in blocks.

    Args:
        source: the file.
        container: what it was sniffed as.
        header: where its samples are.
        pcm: how they are stored.
        limits: what is accepted.
        report: is told what is damaged.
        base_s: audio that came before this file, if it was joined on.

    Raises:
        AudioError: its layout or length is not acceptable.
    """

    def __init__(
        self,
        source: ByteSource,
        container: str,
        header: PcmHeader,
        pcm: PcmFormat,
        limits: AudioLimits,
        report: DamageReport,
        base_s: float = 0.0,
    ) -> None:
        limits.check_layout(pcm.rate_hz, pcm.channels)
        self._source = source
        self._header = header
        self._pcm = pcm
        self._report = report
        self._finite = FiniteSamples(report, "pcm_")
        self.base_s = base_s
        available_s = header.available_s or 0.0
        limits.check_declared(available_s)
        # A length that could not be accepted anyway was never filled in.
        believed = header.declared_s is not None and header.declared_s <= limits.max_duration_s
        declared_s = header.declared_s if believed else None
        if declared_s and not header.num_bytes:
            raise TruncatedAudio(0.0, declared_s)
        self.declares_length = declared_s is not None
        self.info = AudioInfo(
            container,
            _CODEC_NAMES.get(pcm.encoding, pcm.encoding),
            pcm.rate_hz,
            pcm.channels,
            declared_s,
        )

    def blocks(self) -> Iterator[Block]:
        """Yields the samples in order.

        Raises:
            InvalidSamples: no sample is a number.
        """
        pcm, start = self._pcm, self._header.start
        end = start + self._header.num_bytes // pcm.bytes_per_frame * pcm.bytes_per_frame
        block_bytes = max(_BLOCK_BYTES // pcm.bytes_per_frame, 1) * pcm.bytes_per_frame
        downmixer = Downmixer()
        at_s = self.base_s
        for offset in range(start, end, block_bytes):
            content = self._source.peek(offset, min(block_bytes, end - offset))
            content = content[: len(content) // pcm.bytes_per_frame * pcm.bytes_per_frame]
            if not content:
                return
            samples = downmixer.mix(to_float(content, pcm), pcm.rate_hz)
            samples = self._finite.only(samples, pcm.rate_hz, at_s)
            at_s += len(samples) / pcm.rate_hz
            yield Block(samples, pcm.rate_hz)
        self._finite.check_end()
        if downmixer.has_cancelled:
            self._report.notice(downmixer.NOTICE)

    def close(self) -> None:
        """Has nothing to close."""
