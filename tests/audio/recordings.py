"""Small recordings in every container, made by the encoders that the wheels carry."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TypeAlias

import av
import numpy as np
import numpy.typing as npt
import soundfile
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

Signal: TypeAlias = npt.NDArray[np.float32]
"""Shape [n] or [n, channels], full scale at 1.0."""

# name -> (muxer, encoder, rate that the encoder takes or 0 for any)
COMPRESSED = {
    "flac": ("flac", "flac", 0),
    "ogg": ("ogg", "libopus", 48_000),
    "mp3": ("mp3", "libmp3lame", 0),
    "mp4": ("ipod", "aac", 0),
    "aac": ("adts", "aac", 0),
    "amr": ("amr", "libopencore_amrnb", 8_000),
    "webm": ("webm", "libopus", 48_000),
    "matroska": ("matroska", "flac", 0),
    "au": ("au", "pcm_s16be", 0),
    "caf": ("caf", "pcm_s16le", 0),
    "asf": ("asf", "wmav2", 0),
    "avi": ("avi", "libmp3lame", 0),
    "flv": ("flv", "aac", 0),
    "mpegts": ("mpegts", "aac", 0),
}
_PCM_FORMATS = {"wav": "WAV", "rf64": "RF64", "w64": "W64", "aiff": "AIFF"}
_FRAME_SAMPLES = 1000


def sine(seconds: float, rate_hz: int, channels: int = 1, pitch_hz: float = 440.0) -> Signal:
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz
    mono = (0.4 * np.sin(2 * np.pi * pitch_hz * times_s)).astype(np.float32)
    return np.repeat(mono[:, None], channels, axis=1) if channels > 1 else mono


def clicks(seconds: float, rate_hz: int, at_s: float) -> Signal:
    """Silence with a short burst of 1 kHz whose loudest point is at at_s."""
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz - at_s
    burst = np.exp(-((times_s / 0.004) ** 2)) * np.cos(2 * np.pi * 1000 * times_s)
    return (0.8 * burst).astype(np.float32)


def encode(name: str, signal: Signal, rate_hz: int, codec: str | None = None) -> bytes:
    """Returns a file of the named container, e.g. "wav" or "webm"."""
    if name in _PCM_FORMATS and (codec is None or codec.isupper()):
        file = io.BytesIO()
        soundfile.write(file, signal, rate_hz, format=_PCM_FORMATS[name], subtype=codec)
        return file.getvalue()
    muxer, usual_codec, _ = COMPRESSED.get(name, (name, "", 0))
    return mux(muxer, codec or usual_codec, signal, rate_hz)


def mux(
    muxer: str,
    codec: str,
    signal: Signal,
    rate_hz: int,
    *,
    video: bool = False,
    options: dict[str, str] | None = None,
    pause_s: float = 0.0,
) -> bytes:
    """Encodes with FFmpeg.

    With `video`, a picture a second stands beside the audio; a pause leaves out
    the time stamps of so many seconds half-way.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=muxer, options=options or {}) as container:
        pictures = _add_video(container.add_stream("mpeg4", rate=1)) if video else None
        channels = 1 if signal.ndim == 1 else signal.shape[1]
        layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
        stream = container.add_stream(codec, rate=rate_hz)
        if not isinstance(stream, AudioStream):
            raise TypeError(f"{codec} is no audio codec")
        stream.layout = layout
        stream.bit_rate = 12_200 if codec == "libopencore_amrnb" else 64_000
        resampler = av.AudioResampler(stream.format.name, layout, rate_hz)
        for start in range(0, len(signal), _FRAME_SAMPLES):
            for frame in resampler.resample(_frame(signal, start, layout, rate_hz)):
                for packet in stream.encode(frame):
                    if packet.pts is not None and start >= len(signal) // 2:
                        packet.pts = packet.dts = packet.pts + round(pause_s * rate_hz)
                    container.mux(packet)
            if pictures is not None and start % rate_hz < _FRAME_SAMPLES:
                picture = VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
                container.mux(pictures.encode(picture))
        for frame in resampler.resample(None):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if pictures is not None:
            container.mux(pictures.encode(None))
    return file.getvalue()


def video_only(seconds: int = 1) -> bytes:
    """An MP4 without an audio stream."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = _add_video(container.add_stream("mpeg4", rate=10))
        for _ in range(10 * seconds):
            picture = VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return file.getvalue()


def silent_amr(num_frames: int) -> bytes:
    """An AMR-NB file by hand: frame type 15, "no data", which decodes to 20 ms each.

    Source: RFC 4867, 5.1 (magic) and 5.3 (frame header: 4 bits type, 1 quality).
    """
    return b"#!AMR\n" + bytes([15 << 3 | 1 << 2]) * num_frames


def _frame(signal: Signal, start: int, layout: str, rate_hz: int) -> AudioFrame:
    samples = np.ascontiguousarray(signal[start : start + _FRAME_SAMPLES].reshape(1, -1))
    frame = AudioFrame.from_ndarray(samples, format="flt", layout=layout)
    frame.sample_rate = rate_hz
    frame.pts = start
    frame.time_base = Fraction(1, rate_hz)
    return frame


def _add_video(stream: object) -> VideoStream:
    if not isinstance(stream, VideoStream):
        raise TypeError("no video stream")
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    return stream
