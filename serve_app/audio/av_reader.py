"""Everything that libsndfile does not read, by FFmpeg.

The bytes are hostile. FFmpeg gets one demuxer by name, a list of audio decoders
(pictures and video are never decoded), and no way to open anything else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import NoReturn

import av
import av.logging
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.plane import AudioPlane
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.demuxers import (
    CUT_ANYWHERE,
    DECLARES_LENGTH,
    DECODERS,
    DEMUXERS,
    HAS_GAPS,
    LOSES_FRAMES,
    STATES_LENGTH,
)
from serve_app.audio.layout import AudioInfo, AudioLimits, Block, FloatMono, mix_down
from serve_app.core.errors import AudioTooLong, CorruptAudio, InvalidSamples, UnknownAudioFormat

_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}
# FFmpeg's own AMR decoders refuse the frames that phones send while nobody speaks.
_WITH_PAUSES = {"amrnb": "libopencore_amrnb", "amrwb": "libopencore_amrwb"}
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31}
_PLAIN_NAMES = {
    "mp3float": "mp3",
    "mp2float": "mp2",
    "mp1float": "mp1",
    "libopus": "opus",
    "libopencore_amrnb": "amrnb",
    "libopencore_amrwb": "amrwb",
}
# Opus in WebM rounds times to 1 ms and codecs have delays of some 50 ms.
_GAP_S = 0.1
# A longer jump in a stream that has no gaps is another recording joined on.
_MAX_LOST_S = 60.0
_MAX_FAILURES_IN_A_ROW = 16
_MAX_PACKETS_WITHOUT_SAMPLES = 20_000

av.logging.set_libav_level(av.logging.PANIC)


class AvReader:
    """Reads the first audio stream of a file in blocks.

    Encoder delay and padding are left out as the container says, so that times
    agree with those of a player.

    Args:
        source: the file.
        container: what it was sniffed as, a key of `DEMUXERS`.
        limits: what is accepted.
        fragmented: an MP4 without a total length.

    Raises:
        av.FFmpegError: FFmpeg does not read it.
        AudioError: it holds no audio, or its layout or length is not acceptable.
    """

    def __init__(
        self, source: ByteSource, container: str, limits: AudioLimits, fragmented: bool = False
    ) -> None:
        self._limits = limits
        self._name = container
        self._container = _open(source, DEMUXERS[container])
        try:
            self._stream = _first_audio_stream(self._container)
            declared_s = self._declared_s() if container in STATES_LENGTH else None
            self.declares_length = container in DECLARES_LENGTH and not fragmented
            codec = self._codec = _decoder_of(self._stream)
            self.info = AudioInfo(
                container,
                _plain_name(codec.name),
                codec.sample_rate,
                codec.layout.nb_channels,
                declared_s if not fragmented else None,
            )
            limits.check_layout(self.info.sample_rate_hz, self.info.channels)
            limits.check_declared(self.info.declared_s)
        except BaseException:
            self._container.close()
            raise
        self._zero_s = (self._container.start_time or 0) / av.time_base
        self._expected_s = 0.0
        self._num_failures = 0
        self._decoded_any = False

    @property
    def ends_damaged(self) -> bool:
        """True if the last packets could not be decoded and that is not to be expected."""
        cut_is_usual = self._decoded_any and self._name in CUT_ANYWHERE
        return self._num_failures > 0 and not cut_is_usual

    def blocks(self) -> Iterator[Block]:
        """Yields the samples in order, silence where the container has a gap.

        Raises:
            CorruptAudio: a packet in the middle cannot be decoded.
            InvalidSamples: a sample is NaN or infinite.
            UnsupportedAudioLayout: the layout changes to one that is not accepted.
        """
        num_idle_packets = 0
        for packet in self._packets():
            num_idle_packets += 1
            for frame in self._decode(packet):
                if not frame.samples:
                    continue
                num_idle_packets = 0
                self._limits.check_layout(frame.sample_rate, frame.layout.nb_channels)
                yield from self._gap_before(frame)
                yield Block(self._mono(frame), frame.sample_rate)
                self._expected_s += frame.samples / frame.sample_rate
            if num_idle_packets > _MAX_PACKETS_WITHOUT_SAMPLES:
                raise CorruptAudio("its packets hold no samples")

    def close(self) -> None:
        self._container.close()

    def _packets(self) -> Iterator[Packet[AudioStream]]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                # What follows cannot be reached: as if the file ended here.
                self._num_failures += 1
                return
            yield packet

    def _decode(self, packet: Packet[AudioStream]) -> list[AudioFrame]:
        try:
            frames = self._codec.decode(packet if packet.size else None)
        except av.EOFError:
            return []
        except av.FFmpegError as error:
            self._num_failures += 1
            if self._num_failures > _MAX_FAILURES_IN_A_ROW:
                raise CorruptAudio(f"{self.info.codec} data cannot be decoded") from error
            return []
        if self._num_failures and frames and packet.size:
            if self._decoded_any or self._name not in CUT_ANYWHERE:
                raise CorruptAudio(
                    f"{self.info.codec} data cannot be decoded near {self._expected_s:.2f} s"
                )
            self._num_failures = 0
        self._decoded_any |= bool(frames)
        return frames

    def _gap_before(self, frame: AudioFrame) -> Iterator[Block]:
        if self._name not in HAS_GAPS | LOSES_FRAMES.keys() or frame.time is None:
            return
        time_s = frame.time - self._zero_s
        gap_s = time_s - self._expected_s
        if LOSES_FRAMES.get(self._name, math.inf) < gap_s < _MAX_LOST_S:
            raise CorruptAudio(f"data is missing or wrong near {self._expected_s:.2f} s")
        if gap_s > self._limits.max_duration_s and self._name in HAS_GAPS:
            raise AudioTooLong(time_s, self._limits.max_duration_s)
        if abs(gap_s) > _GAP_S:
            # A step back (joined recordings) is a new origin, not a gap.
            self._expected_s = time_s
        if self._name not in HAS_GAPS:
            return
        rate_hz = frame.sample_rate
        num_silent = round(gap_s * rate_hz) if gap_s > _GAP_S else 0
        for start in range(0, num_silent, rate_hz):
            yield Block(np.zeros(min(rate_hz, num_silent - start), np.float32), rate_hz)

    def _mono(self, frame: AudioFrame) -> FloatMono:
        mono = mix_down(_channels(frame), channel_axis=0)
        finite = np.isfinite(mono)
        if not finite.all():
            if not self.info.codec.startswith("pcm_"):
                raise CorruptAudio(f"{self.info.codec} data decodes to no finite samples")
            raise InvalidSamples(self._expected_s + int(np.argmin(finite)) / frame.sample_rate)
        return mono

    def _declared_s(self) -> float | None:
        stream = self._stream
        if not stream.duration or stream.duration < 0 or not stream.time_base:
            duration = self._container.duration or 0
            return duration / av.time_base if duration > 0 else None
        return float(stream.duration * stream.time_base)


def _open(source: ByteSource, demuxer: str) -> InputContainer:
    return av.open(
        source,
        "r",
        format=demuxer,
        metadata_errors="replace",
        io_open=_refuse_to_open,
        container_options={
            "format_whitelist": demuxer,
            "protocol_whitelist": "none",
            "codec_whitelist": ",".join(sorted(DECODERS)),
            "max_streams": "64",
        },
    )


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("audio files may not refer to other files")


def _first_audio_stream(container: InputContainer) -> AudioStream:
    for stream in container.streams:
        if stream.type != "audio":
            stream.discard = Discard.all
    if not container.streams.audio:
        raise UnknownAudioFormat("it holds no audio stream")
    stream = container.streams.audio[0]
    for other in container.streams.audio[1:]:
        other.discard = Discard.all
    codec = stream.codec_context
    if codec is None or codec.name not in DECODERS:
        raise UnknownAudioFormat("its audio codec is not supported")
    return stream


def _decoder_of(stream: AudioStream) -> AudioCodecContext:
    codec = stream.codec_context
    if codec.name in _WITH_PAUSES:
        with contextlib.suppress(av.FFmpegError, ValueError):
            other = av.CodecContext.create(_WITH_PAUSES[codec.name], "r")
            if isinstance(other, AudioCodecContext):
                other.sample_rate, other.layout = codec.sample_rate, codec.layout
                return other
    # One thread a decoder: the replicas are what runs in parallel.
    codec.thread_count = 1
    if codec.name == "flac":
        codec.options = {"err_detect": "crccheck+explode"}
    return codec


def _channels(frame: AudioFrame) -> npt.NDArray[np.float32]:
    """Returns the samples, shape [channels, n], full scale at 1.0.

    PyAV's `AudioFrame.planes`, and `to_ndarray` with it, counts the planes by
    reading pointers up to a null (18.1, av/audio/frame.py). With eight planar
    channels or more there is none, and the process crashes. So the planes are
    taken by their number.
    """
    planar = frame.format.is_planar
    kind = frame.format.name.removesuffix("p") if planar else frame.format.name
    channels = frame.layout.nb_channels
    num_planes, interleaved = (channels, 1) if planar else (1, channels)
    planes = [
        np.frombuffer(
            memoryview(AudioPlane(frame, plane)), _DTYPES[kind], frame.samples * interleaved
        )
        for plane in range(num_planes)
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        samples = np.stack(planes).astype(np.float32)
    if kind == "u8":
        samples -= 128.0
    samples /= np.float32(_FULL_SCALE.get(kind, 1.0))
    return samples if planar else samples.reshape(-1, channels).T


def _plain_name(decoder: str) -> str:
    return _PLAIN_NAMES.get(decoder, decoder)
