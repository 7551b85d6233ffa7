"""Readers: decode a file into frames of samples, with FFmpeg or, if uncompressed, directly.

A packet that cannot be decoded becomes silence of its length, and decoding goes on with the
next one, so that the rest keeps its times. For uncompressed files the header alone decides
what is read, and the work is that of copying samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.channels import ChannelMapping
from serve_app.audio.containers import (
    CUT_ANYWHERE,
    DECLARES_LENGTH,
    DEMUXERS,
    STATES_LENGTH,
    TIMED,
    WITHOUT_PADDING,
)
from serve_app.audio.damage import DamageReport
from serve_app.audio.durations import flv_metadata_s
from serve_app.audio.ffmpeg_container import (
    channels_of,
    first_cluster_s,
    new_lenient_decoder_of,
    open_container,
    pick_track,
    plain_name,
    stated_s,
)
from serve_app.audio.ffmpeg_container import duration_s as matroska_s
from serve_app.audio.frame_sync import (
    Reframer,
    SkippedBytes,
    split_flac,
    stream_frames,
    without_side_data,
)
from serve_app.audio.layout import IDLE, AudioInfo, AudioLimits, Frame, missing_s
from serve_app.audio.pcm import FiniteSamples, PcmFormat, to_float
from serve_app.audio.pcm_headers import PcmHeader
from serve_app.audio.steady_decoder import Outcome, SteadyDecoder
from serve_app.audio.timeline import NO_LOSS, Loss, Timeline
from serve_app.core.errors import TruncatedAudio, UnsupportedAudioLayout

# A demuxer that fails this often without a packet in between will not recover.
_MAX_DEMUX_FAILURES = 64
_LEAST_UNPADDED_BYTES = 64
# Containers whose recordings start at zero unless their beginning is lost.
_BEGINS_AT_ZERO = {"ogg", "webm", "matroska"}
_LATE_S = 0.25
_MAX_LATE_S = 60.0
_SHARE_OF_BYTES = 0.3
_USUAL_HEADER_BYTES = 1024
# A decoder setup between packets has about 2 to 20 bytes.
_LONGEST_SETUP_BYTES = 64
# Indexes and padding at the end of a file.
_USUAL_TAIL_BYTES = 1024
# A damaged frame of FLAC is used if it is not much louder than those before.
_LOUDER = 4.0
_QUIET_POWER = 1e-5


class AvReader:
    """Reads one audio stream of a file in frames.

    Encoder delay and padding are left out as the container says, so that times
    agree with those of a player.

    Args:
        source: the file.
        container: a key of `DEMUXERS`.
        limits: of accepted recordings.
        report: receives damage and notices.
        mapping: turns the channels of the file into those that are recognized.
        fragmented: whether it is an MP4 file without a total length.
        base_s: length of the audio before this file, if it was appended to another.
        begin_call: called before each call of FFmpeg.

    Raises:
        av.FFmpegError: FFmpeg cannot read it.
        AudioError: it holds no audio, or its layout or length is not acceptable.
    """

    def __init__(
        self,
        source: ByteSource,
        container: str,
        limits: AudioLimits,
        report: DamageReport,
        mapping: ChannelMapping,
        fragmented: bool = False,
        base_s: float = 0.0,
        begin_call: Callable[[], None] = lambda: None,
    ) -> None:
        self._limits = limits
        self._report = report
        self._name = container
        self.base_s = base_s
        self._begin_call = begin_call
        demuxer = DEMUXERS[container]
        self._container = open_container(source, demuxer)
        try:
            track = pick_track(self._container, source, demuxer, limits)
            self._stream = track.stream
            if track.notice is not None:
                report.notice(track.notice)
            declared_s = stated_s(self._container, self._stream)
            declared = container in STATES_LENGTH and not fragmented
            self.declares_length = container in DECLARES_LENGTH and not fragmented
            self._decoder = SteadyDecoder(self._stream)
            codec = self._decoder.codec
            self.info = AudioInfo(
                container,
                plain_name(codec.name),
                codec.sample_rate,
                codec.layout.nb_channels,
                declared_s if declared else None,
            )
            limits.check_layout(self.info.sample_rate_hz, self.info.channels)
            limits.check_declared(self.info.declared_s)
            mapping.begin(self.info.channels)
        except BaseException:
            self._container.close()
            raise
        zero_s = (self._container.start_time or 0) / av.time_base
        if container in {"matroska", "webm"}:
            # FFmpeg takes the start from the audio streams alone, whose decoders it may open.
            cluster_s = first_cluster_s(source)
            zero_s = zero_s if cluster_s is None else min(zero_s, cluster_s)
        cut_anywhere = fragmented or container in CUT_ANYWHERE
        self._timeline = Timeline(container, zero_s, base_s, limits, report, cut_anywhere)
        self._reframer = Reframer(container)
        # FFmpeg's parser of MPEG audio skips nothing; see `Reframer`.
        least_bytes = _LEAST_UNPADDED_BYTES if container in WITHOUT_PADDING else 0
        self._gaps = SkippedBytes(source, track.alone and container != "mp3", least_bytes)
        stated_end_s = declared_s if fragmented else _stated_end_s(source, container, track.alone)
        # Damaged headers state absurd lengths.
        plausible = stated_end_s is not None and stated_end_s <= limits.max_duration_s
        self._stated_end_s = stated_end_s if plausible else None
        self._mapping = mapping
        self._source = source
        self._loss = NO_LOSS
        self._has_begun = False
        self._power = 0.0
        self._lenient = (
            new_lenient_decoder_of(self._stream, codec.extradata) if codec.name == "flac" else None
        )
        self._finite = FiniteSamples(report, codec.name)

    def frames(self) -> Iterator[Frame]:
        """Yields the samples in order, silence where the file has a gap or damage.

        Raises:
            CorruptAudio: no sample is finite.
            AudioTooLong: a gap is longer than any recording may be.
        """
        held: _Arrival | None = None
        for arrival in self._arrivals():
            if arrival is None:
                yield IDLE
                continue
            if held is not None:
                yield from self._placed(held, arrival)
            held = arrival
        if held is not None:
            yield from self._placed(held, None)
        self._timeline.end(self._loss_at_end(), missing_s(self._timeline.end_s, self._stated_end_s))
        self._finite.check_end()

    def close(self) -> None:
        self._container.close()

    def _arrivals(self) -> Iterator[_Arrival | None]:
        """Yields the frames, and None after work that yielded none."""
        for packet in self._packets():
            has_frames = False
            for frame in self._decode(packet) if packet is not None else ():
                has_frames = True
                yield from self._arrived(frame)
            if not has_frames:
                yield None
        for frame in self._certain(self._decoder.flush()):
            yield from self._arrived(frame)

    def _arrived(self, frame: AudioFrame) -> Iterator[_Arrival]:
        if not frame.samples:
            return
        try:
            self._limits.check_layout(frame.sample_rate, frame.layout.nb_channels)
        except UnsupportedAudioLayout:
            self._loss = self._loss.with_lost(frame.samples / max(frame.sample_rate, 1))
            return
        loss, self._loss = self._loss, NO_LOSS
        yield _Arrival(frame, loss)

    def _packets(self) -> Iterator[Packet[AudioStream] | None]:
        """Yields the packets that are not empty, and None after a failure of the demuxer."""
        if self._name in {"amr", "aac"}:
            yield from self._framed_packets()
            return
        num_failures = 0
        while True:
            packets = self._container.demux(self._stream)
            while True:
                self._begin_call()
                try:
                    packet = next(packets)
                except (StopIteration, IndexError):
                    # At the end, PyAV (18.1) looks up streams that appeared during reading,
                    # such as those of damaged tags, in its list of known streams.
                    return
                except av.FFmpegError:
                    break
                # The packets that PyAV adds at the end are empty, and others may be.
                if packet.size:
                    num_failures = 0
                    yield packet
                else:
                    yield None
            num_failures += 1
            self._loss = self._loss.with_suspicion()
            if num_failures > _MAX_DEMUX_FAILURES:
                return
            yield None

    def _framed_packets(self) -> Iterator[Packet[AudioStream] | None]:
        """Yields the packets of a stream whose frames FFmpeg's demuxer loses after damage."""
        for frame in stream_frames(self._source, self._name):
            if frame is None:
                yield None
                continue
            if frame.num_lost_bytes:
                frame_s = 0.02 if self._name == "amr" else 1024 / self.info.sample_rate_hz
                frame_s = self._timeline.last_frame_s or frame_s
                self._loss = self._loss.with_lost(frame.num_lost_frames * frame_s)
            if frame.content:
                packet = cast("Packet[AudioStream]", Packet(frame.content))
                packet.stream = self._stream
                yield packet

    def _decode(self, packet: Packet[AudioStream]) -> Iterator[AudioFrame]:
        """Yields the frames of a packet; records losses before each frame first."""
        skipped_s = self._gaps.skipped_s(packet)
        if skipped_s and self._name not in TIMED:
            self._loss = self._loss.with_lost(skipped_s)
        elif skipped_s:
            self._loss = self._loss.with_skipped(skipped_s)
        if packet.is_corrupt:
            self._loss = self._loss.with_suspicion()
        framed = self._reframer.reframe(self._sound(packet))
        if framed.num_lost_bytes:
            lost_s = self._gaps.duration_of(framed.num_lost_bytes)
            self._loss = self._loss.with_lost(lost_s)
        if framed.packet is None:
            return
        parts = split_flac(framed.packet) if self._name == "flac" else [framed.packet]
        for part in parts:
            self._begin_call()
            yield from self._decoded(part)

    def _decoded(self, packet: Packet[AudioStream]) -> list[AudioFrame]:
        try:
            outcome = self._decoder.decode(packet)
        except av.FFmpegError:
            lost_s = self._timeline.last_frame_s or _duration_s(packet)
            if self._name not in TIMED:
                # A wrong header may have merged many packets into one.
                lost_s = max(lost_s, self._gaps.excess_s(packet.size))
            self._loss = self._loss.with_lost(lost_s)
            return self._rescued(packet)
        return self._certain(outcome)

    def _certain(self, outcome: Outcome) -> list[AudioFrame]:
        """Returns the confirmed frames and records rejected ones as lost."""
        if outcome.rejected_s:
            lost_s = outcome.rejected_s
            if self._name not in TIMED:
                # The declared length of a rejected frame is wrong, too.
                lost_s = self._gaps.duration_of(outcome.num_rejected_bytes) or lost_s
            self._loss = self._loss.with_lost(lost_s)
        if outcome.num_bytes:
            frames_s = (frame.samples / max(frame.sample_rate, 1) for frame in outcome.frames)
            self._gaps.add(outcome.num_bytes, sum(frames_s))
        return outcome.frames

    def _sound(self, packet: Packet[AudioStream]) -> Packet[AudioStream]:
        """Returns the packet without an implausible decoder setup, which is damaged audio."""
        if not packet.has_sidedata("new_extradata"):
            return packet
        if packet.get_sidedata("new_extradata").data_size <= _LONGEST_SETUP_BYTES:
            return packet
        self._loss = self._loss.with_suspicion()
        return without_side_data(packet)

    def _rescued(self, packet: Packet[AudioStream]) -> list[AudioFrame]:
        """Decodes a FLAC frame whose checksum is wrong: most of it may be right."""
        if self._lenient is None:
            return []
        try:
            frames = self._lenient.decode(packet)
        except av.FFmpegError:
            return []
        usual = _LOUDER * max(self._power, _QUIET_POWER)
        return [frame for frame in frames if _power(frame) <= usual]

    def _placed(self, arrival: _Arrival, following: _Arrival | None) -> Iterator[Frame]:
        """Yields a frame and the silence before it."""
        frame, loss = arrival.frame, arrival.loss
        rate_hz = frame.sample_rate
        duration_s = frame.samples / rate_hz
        if self._begins_late(frame):
            loss = loss.with_suspicion()
        time_s = frame.time
        next_s = math.inf if following is None else following.frame.time
        if self._timeline.is_wrong(time_s, duration_s, next_s):
            time_s, loss = None, loss.with_suspicion()
        silence_s = self._timeline.silence_before(time_s, loss)
        num_silent = round(silence_s * rate_hz)
        for start in range(0, num_silent, rate_hz):
            shape = (self._mapping.num_channels, min(rate_hz, num_silent - start))
            yield Frame(np.zeros(shape, np.float32), rate_hz, filled=True)
        samples = self._mapping.apply(channels_of(frame), rate_hz)
        samples = self._finite.only(samples, rate_hz, self._timeline.position_s)
        if self._lenient is not None:
            self._power = max(self._power, float(np.square(samples).mean(dtype=np.float64)))
        yield Frame(samples, rate_hz)
        self._timeline.add(duration_s)

    def _begins_late(self, frame: AudioFrame) -> bool:
        """True, once, if the bytes before the first packet were audio that is lost."""
        if self._has_begun:
            return False
        self._has_begun = True
        start_s = (self._container.start_time or 0) / av.time_base
        if self._name not in _BEGINS_AT_ZERO or not _LATE_S < start_s < _MAX_LATE_S:
            return False
        num_bytes = self._gaps.first_position - _USUAL_HEADER_BYTES
        rate = self._gaps.bytes_per_s(frame.samples / frame.sample_rate)
        if not self._gaps.alone or num_bytes <= _SHARE_OF_BYTES * start_s * rate:
            return False
        self._timeline.begin_late(start_s)
        return True

    def _loss_at_end(self) -> Loss:
        """Adds the bytes after the last packet, if there are more than usual."""
        num_bytes = self._source.num_bytes - self._gaps.end
        if not self._gaps.alone or self.declares_length or num_bytes < _USUAL_TAIL_BYTES:
            return self._loss
        if self._name not in TIMED:
            return self._loss
        return self._loss.with_skipped(self._gaps.duration_of(num_bytes))


def _stated_end_s(source: ByteSource, container: str, alone: bool) -> float | None:
    """Returns where audio ends according to a header for the whole file, None without one."""
    if not alone:
        return None
    if container in {"webm", "matroska"}:
        return matroska_s(source)
    return flv_metadata_s(source) if container == "flv" else None


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A frame and what went wrong before it."""

    frame: AudioFrame
    loss: Loss


def _power(frame: AudioFrame) -> float:
    samples = channels_of(frame)
    return float(np.square(samples).mean(dtype=np.float64)) if samples.size else 0.0


def _duration_s(packet: Packet[AudioStream]) -> float:
    if packet.duration is None or packet.time_base is None:
        return 0.0
    return max(float(packet.duration * packet.time_base), 0.0)


_BLOCK_BYTES = 1 << 18
_CODEC_NAMES = {
    "u8": "pcm_u8", "s8": "pcm_s8", "s16": "pcm_16", "s24": "pcm_24", "s32": "pcm_32",
    "f32": "float", "f64": "double",
}  # fmt: skip


class PcmReader:
    """Reads "wav", "rf64", "w64" and "aiff" files in frames.

    Args:
        source: the file.
        container: one of these names.
        header: where its samples are.
        pcm: how they are stored.
        limits: of accepted recordings.
        report: receives damage and notices.
        mapping: turns the channels of the file into those that are recognized.
        base_s: length of the audio before this file, if it was appended to another.

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
        mapping: ChannelMapping,
        base_s: float = 0.0,
    ) -> None:
        limits.check_layout(pcm.rate_hz, pcm.channels)
        mapping.begin(pcm.channels)
        self._mapping = mapping
        self._source = source
        self._header = header
        self._pcm = pcm
        self._report = report
        self._finite = FiniteSamples(report, "pcm_")
        self.base_s = base_s
        available_s = header.available_s or 0.0
        limits.check_declared(available_s)
        # A declared length beyond the limit is a placeholder.
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

    def frames(self) -> Iterator[Frame]:
        """Yields the samples in order.

        Raises:
            InvalidSamples: no sample is finite.
        """
        pcm, start = self._pcm, self._header.start
        end = start + self._header.num_bytes // pcm.bytes_per_frame * pcm.bytes_per_frame
        block_bytes = max(_BLOCK_BYTES // pcm.bytes_per_frame, 1) * pcm.bytes_per_frame
        at_s = self.base_s
        for offset in range(start, end, block_bytes):
            content = self._source.peek(offset, min(block_bytes, end - offset))
            content = content[: len(content) // pcm.bytes_per_frame * pcm.bytes_per_frame]
            if not content:
                return
            samples = self._mapping.apply(to_float(content, pcm), pcm.rate_hz)
            samples = self._finite.only(samples, pcm.rate_hz, at_s)
            at_s += samples.shape[1] / pcm.rate_hz
            yield Frame(samples, pcm.rate_hz)
        self._finite.check_end()

    def close(self) -> None:
        """Does nothing; the caller closes the source."""
