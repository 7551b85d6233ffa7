"""What FFmpeg makes of a damaged file if it is simply told to go on."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame

_MAX_FAILURES = 64


def decode_leniently(file: bytes) -> npt.NDArray[np.float32]:
    """Returns all that can be decoded of the first audio stream, one after another, at 16 kHz."""
    resampler = av.AudioResampler("flt", "mono", 16_000)
    parts = [np.zeros(0, np.float32)]
    with (
        contextlib.suppress(av.FFmpegError, ValueError, IndexError),
        av.open(io.BytesIO(file), "r", metadata_errors="ignore") as container,
    ):
        for frame in _frames(container):
            with contextlib.suppress(av.FFmpegError, ValueError):
                frame.pts = None
                parts += [one.to_ndarray()[0] for one in resampler.resample(frame)]
    return np.concatenate(parts)


def _frames(container: av.container.InputContainer) -> Iterator[AudioFrame]:
    stream = container.streams.audio[0]
    failures = 0
    while failures < _MAX_FAILURES:
        try:
            for packet in container.demux(stream):
                with contextlib.suppress(av.FFmpegError):
                    yield from stream.codec_context.decode(packet)
            return
        except av.FFmpegError:
            failures += 1
