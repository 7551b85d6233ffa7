"""Turns the bytes of a session into samples, as a stream."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serve_app.audio.layout import Frame
from serve_app.audio.resampling import PcmResampler
from serve_app.core.errors import UnsupportedAudioLayout
from serve_app.core.records import Pcm
from serve_app.live.records import AudioFormat

MIN_RATE_HZ = 8_000
MAX_RATE_HZ = 48_000

_SAMPLE_BYTES = {"pcm16": 2, "mulaw": 1, "alaw": 1}
_FULL_SCALE = 32768.0


class AudioInput:
    """Decodes and resamples one session's audio; a sample may be divided between two pushes.

    At 16 kHz, 16-bit samples pass through unchanged.

    Args:
        audio: how the bytes are to be read.

    Raises:
        UnsupportedAudioLayout: the rate is not supported.
    """

    def __init__(self, audio: AudioFormat) -> None:
        if not MIN_RATE_HZ <= audio.rate_hz <= MAX_RATE_HZ:
            raise UnsupportedAudioLayout(
                f"a sample rate of {audio.rate_hz} Hz is not supported; "
                f"accepted: {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz"
            )
        self._audio = audio
        self._resampler = PcmResampler()
        self._divided = b""

    def push(self, data: bytes) -> Pcm:
        """Returns the samples that are ready, shape [n]; the filter holds the last few ms back."""
        if self._audio.encoding == "pcm16":
            data = self._divided + data
            num_whole = len(data) // 2 * 2
            self._divided = data[num_whole:]
            samples: Pcm = np.frombuffer(data[:num_whole], "<i2").astype(np.int16)
        else:
            table = MULAW if self._audio.encoding == "mulaw" else ALAW
            samples = table[np.frombuffer(data, np.uint8)]
        scaled = samples[np.newaxis].astype(np.float32) / _FULL_SCALE
        ready: Pcm = self._resampler.push(Frame(scaled, self._audio.rate_hz))[0]
        return ready

    def flush(self) -> Pcm:
        """Returns what the filter holds back; later samples start anew."""
        held: Pcm = self._resampler.finish()[0]
        return held


def num_bytes_of(audio: AudioFormat, duration_ms: int) -> int:
    """Returns the bytes of so much audio, whole samples."""
    return audio.rate_hz * duration_ms // 1000 * _SAMPLE_BYTES[audio.encoding]


def duration_ms_of(audio: AudioFormat, num_bytes: int) -> int:
    """Returns how long so many bytes of audio last, rounded down."""
    return num_bytes // _SAMPLE_BYTES[audio.encoding] * 1000 // audio.rate_hz


def _mulaw_samples() -> Pcm:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_samples() -> Pcm:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent = (code & 0x70) >> 4
    mantissa = (code & 0x0F) << 4
    magnitude = np.where(
        exponent == 0, mantissa + 8, (mantissa + 0x108) << np.maximum(exponent - 1, 0)
    )
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


# Source: ITU-T G.711 (11/1988), tables 1 and 2, scaled to 16 bits.
MULAW: npt.NDArray[np.int16] = _mulaw_samples()
ALAW: npt.NDArray[np.int16] = _alaw_samples()
