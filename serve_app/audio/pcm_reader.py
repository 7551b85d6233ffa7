"""Uncompressed files, read by libsndfile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soundfile

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.headers import PcmHeader
from serve_app.audio.layout import AudioInfo, AudioLimits, Block, check_complete, mix_down
from serve_app.core.errors import InvalidSamples

_BLOCK_SAMPLES = 1 << 17


class PcmReader:
    """Reads "wav", "rf64", "w64" and "aiff" in blocks.

    Args:
        source: the file.
        container: what it was sniffed as.
        header: its lengths.
        limits: what is accepted.

    Raises:
        soundfile.SoundFileError: libsndfile does not read it.
        AudioError: its layout or length is not acceptable.
    """

    def __init__(
        self, source: ByteSource, container: str, header: PcmHeader, limits: AudioLimits
    ) -> None:
        self._file = soundfile.SoundFile(source)
        rate_hz, channels = int(self._file.samplerate), int(self._file.channels)
        self.info = AudioInfo(
            container, str(self._file.subtype).lower(), rate_hz, channels, header.declared_s
        )
        limits.check_layout(rate_hz, channels)
        limits.check_declared(header.declared_s)
        if header.available_s is not None:
            check_complete(header.available_s, header.declared_s)

    @property
    def ends_damaged(self) -> bool:
        return False

    def blocks(self) -> Iterator[Block]:
        """Yields the samples in order.

        Raises:
            InvalidSamples: a sample is NaN or infinite.
        """
        rate_hz, channels = self.info.sample_rate_hz, self.info.channels
        buffer = np.empty((_BLOCK_SAMPLES // channels, channels), np.float32)
        num_read = 0
        while len(frames := self._file.read(dtype="float32", out=buffer)):
            samples = mix_down(frames, channel_axis=1)
            finite = np.isfinite(samples)
            if not finite.all():
                raise InvalidSamples((num_read + int(np.argmin(finite))) / rate_hz)
            num_read += len(samples)
            yield Block(samples, rate_hz)

    def close(self) -> None:
        self._file.close()
