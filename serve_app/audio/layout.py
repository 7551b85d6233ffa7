"""The format of a recording as its header declares it, and the accepted limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from serve_app.core.errors import AudioTooLong, UnsupportedAudioLayout

FloatSamples: TypeAlias = npt.NDArray[np.float32]
"""Samples, shape [channels, n], full scale at 1.0."""


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """Limits of accepted recordings.

    Attributes:
        max_duration_s: longest recording; checked against the declared length
            first and the decoded length while decoding.
        min_duration_s: shortest recording.
        block_s: length of the blocks that the decoder yields.
        max_channels: most channels of a recording whose channels are mixed down to one.
        max_separate_channels: most channels of one whose channels are recognized separately.
        min_rate_hz: lowest sample rate; a lower one cannot carry speech.
        max_rate_hz: highest sample rate.
    """

    max_duration_s: float = 5 * 3600.0
    min_duration_s: float = 0.1
    block_s: float = 5.0
    max_channels: int = 32
    max_separate_channels: int = 2
    min_rate_hz: int = 8_000
    max_rate_hz: int = 192_000

    def check_layout(self, sample_rate_hz: int, channels: int) -> None:
        """Raises UnsupportedAudioLayout outside of the accepted rates and channels."""
        if not self.min_rate_hz <= sample_rate_hz <= self.max_rate_hz:
            raise UnsupportedAudioLayout(
                f"a sample rate of {sample_rate_hz} Hz is not supported; "
                f"accepted: {self.min_rate_hz} to {self.max_rate_hz} Hz"
            )
        if not 1 <= channels <= self.max_channels:
            raise UnsupportedAudioLayout(
                f"{channels} channels are not supported; accepted: 1 to {self.max_channels}"
            )

    def check_separate(self, channels: int) -> None:
        """Raises UnsupportedAudioLayout if they are too many to recognize separately."""
        if channels > self.max_separate_channels:
            raise UnsupportedAudioLayout(
                f"channels=separate accepts at most {self.max_separate_channels} channels (setting "
                f"audio.max_separate_channels); the recording has {channels}"
            )

    def check_declared(self, declared_s: float | None) -> None:
        """Raises AudioTooLong if the header already declares too much."""
        if declared_s is not None and declared_s > self.max_duration_s:
            raise AudioTooLong(declared_s, self.max_duration_s)


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The format that the header declares.

    Attributes:
        container: "wav", "rf64", "w64", "aiff", "flac", "ogg", "mp3", "mp4",
            "aac", "amr", "webm", "matroska", "au", "caf", "asf", "avi", "flv"
            or "mpegts".
        codec: name of the codec in lower case, e.g. "pcm_16" or "opus".
        sample_rate_hz: as stored.
        channels: as stored.
        declared_s: length that the header declares, None where it declares
            none or only an estimate.
    """

    container: str
    codec: str
    sample_rate_hz: int
    channels: int
    declared_s: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Decoded samples at the rate of the file, of the channels that are recognized.

    `filled` marks silence that was inserted where the file has no audio.
    """

    samples: FloatSamples
    rate_hz: int
    filled: bool = False

    @property
    def num_samples(self) -> int:
        """Samples of each channel."""
        return int(self.samples.shape[1])


IDLE = Frame(np.zeros((1, 0), np.float32), 16_000)
"""An empty frame: the work so far yielded no audio; the caller may pause."""


def missing_s(decoded_s: float, declared_s: float | None) -> float:
    """Returns how much of the declared length is missing; up to 0.25 s or 1% count as 0."""
    if declared_s is None or declared_s - decoded_s <= max(0.25, 0.01 * declared_s):
        return 0.0
    return declared_s - decoded_s
