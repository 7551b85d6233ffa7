"""Everything that is not plain samples, by FFmpeg.

A packet that cannot be decoded is silence of its length, and decoding goes on with the
next one: whatever can be heard is heard, at its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet

from serve_app.audio.av_container import (
    decoder_of,
    open_container,
    pick_stream,
    plain_name,
    stated_s,
)
from serve_app.audio.av_frames import channels_of
from serve_app.audio.bytesource import ByteSource
from serve_app.audio.damage import DamageReport
from serve_app.audio.demuxers import CUT_ANYWHERE, DECLARES_LENGTH, DEMUXERS, STATES_LENGTH, TIMED
from serve_app.audio.downmix import Downmixer
from serve_app.audio.finite import FiniteSamples
from serve_app.audio.framing import Reframer
from serve_app.audio.layout import IDLE, AudioInfo, AudioLimits, Block
from serve_app.audio.matroska import first_cluster_s
from serve_app.audio.timeline import Timeline
from serve_app.core.errors import UnsupportedAudioLayout

# A demuxer that fails so often without a packet in between will not recover.
_MAX_DEMUX_FAILURES = 64
# Bytes between two packets that no container needs for its own purposes.
_LEAST_SKIPPED_BYTES = 256


class AvReader:
    """Reads one audio stream of a file in blocks.

    Encoder delay and padding are left out as the container says, so that times
    agree with those of a player.

    Args:
        source: the file.
        container: what it was sniffed as, a key of `DEMUXERS`.
        limits: what is accepted.
        report: is told what is damaged.
        fragmented: an MP4 without a total length.
        base_s: audio that came before this file, if it was joined on.
        begin_call: is called before FFmpeg is.

    Raises:
        av.FFmpegError: FFmpeg does not read it.
        AudioError: it holds no audio, or its layout or length is not acceptable.
    """

    def __init__(
        self,
        source: ByteSource,
        container: str,
        limits: AudioLimits,
        report: DamageReport,
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
            self._stream, notice = pick_stream(self._container, source, demuxer)
            if notice is not None:
                report.notice(notice)
            declared_s = stated_s(self._container, self._stream)
            declared = container in STATES_LENGTH and not fragmented
            self.declares_length = container in DECLARES_LENGTH and not fragmented
            codec = self._codec = decoder_of(self._stream)
            self.info = AudioInfo(
                container,
                plain_name(codec.name),
                codec.sample_rate,
                codec.layout.nb_channels,
                declared_s if declared else None,
            )
            limits.check_layout(self.info.sample_rate_hz, self.info.channels)
            limits.check_declared(self.info.declared_s)
        except BaseException:
            self._container.close()
            raise
        zero_s = (self._container.start_time or 0) / av.time_base
        if container in {"matroska", "webm"}:
            # FFmpeg takes it from the streams whose decoders it may open: the audio alone.
            cluster_s = first_cluster_s(source)
            zero_s = zero_s if cluster_s is None else min(zero_s, cluster_s)
        cut_anywhere = fragmented or container in CUT_ANYWHERE
        self._timeline = Timeline(container, zero_s, base_s, limits, report, cut_anywhere)
        self._reframer = Reframer(container)
        alone = len(self._container.streams) == 1 and container not in {"mp3", "aac"}
        self._gaps = _SkippedBytes(alone)
        self._downmixer = Downmixer()
        self._finite = FiniteSamples(report, codec.name)

    def blocks(self) -> Iterator[Block]:
        """Yields the samples in order, silence where the file has a gap or damage.

        Raises:
            CorruptAudio: its samples are no numbers.
            AudioTooLong: a gap is longer than any recording may be.
        """
        for packet in self._packets():
            if packet is None:
                yield IDLE
                continue
            frames = self._decode(packet)
            for frame in frames:
                yield from self._placed(frame)
            if not frames:
                yield IDLE
        for frame in self._flush():
            yield from self._placed(frame)
        self._timeline.end()
        self._finite.check_end()
        if self._downmixer.has_cancelled:
            self._report.notice(self._downmixer.NOTICE)

    def close(self) -> None:
        self._container.close()

    def _packets(self) -> Iterator[Packet[AudioStream] | None]:
        """Yields the packets that are not empty, None where the demuxer stumbled."""
        num_failures = 0
        while True:
            packets = self._container.demux(self._stream)
            while True:
                self._begin_call()
                try:
                    packet = next(packets)
                except StopIteration:
                    return
                except av.FFmpegError:
                    break
                # The packets that PyAV puts at the end are empty, and others may be.
                if packet.size:
                    num_failures = 0
                    yield packet
                else:
                    yield None
            num_failures += 1
            self._timeline.suspect()
            if num_failures > _MAX_DEMUX_FAILURES:
                return
            yield None

    def _decode(self, packet: Packet[AudioStream]) -> list[AudioFrame]:
        """Returns the frames of a packet; the timeline is told if there are none."""
        skipped_s = self._gaps.skipped_s(packet)
        if skipped_s and self._name not in TIMED:
            self._timeline.lost(skipped_s)
        elif skipped_s:
            self._timeline.skipped(skipped_s)
        if packet.is_corrupt:
            self._timeline.suspect()
        framed = self._reframer.reframe(packet)
        if framed.num_lost_bytes:
            self._timeline.lost(self._gaps.duration_of(framed.num_lost_bytes))
        if framed.packet is None:
            return []
        try:
            frames = self._codec.decode(framed.packet)
        except av.EOFError:
            return []
        except av.FFmpegError:
            self._timeline.lost(self._timeline.last_frame_s or _duration_s(packet))
            return []
        return frames

    def _flush(self) -> list[AudioFrame]:
        try:
            return self._codec.decode(None)
        except av.FFmpegError:
            return []

    def _placed(self, frame: AudioFrame) -> Iterator[Block]:
        """Yields a frame and the silence before it."""
        if not frame.samples:
            return
        rate_hz = frame.sample_rate
        try:
            self._limits.check_layout(rate_hz, frame.layout.nb_channels)
        except UnsupportedAudioLayout:
            self._timeline.lost(frame.samples / max(rate_hz, 1))
            return
        silence_s = self._timeline.silence_before(frame.time)
        num_silent = round(silence_s * rate_hz)
        for start in range(0, num_silent, rate_hz):
            silence = np.zeros(min(rate_hz, num_silent - start), np.float32)
            yield Block(silence, rate_hz, filled=True)
        mono = self._downmixer.mix(channels_of(frame), rate_hz)
        mono = self._finite.only(mono, rate_hz, self._timeline.position_s)
        yield Block(mono, rate_hz)
        self._timeline.add(frame.samples / rate_hz)
        self._gaps.decoded(frame.samples / rate_hz)


class _SkippedBytes:
    """Looks at the bytes between packets, which a demuxer passed over without a word.

    Args:
        alone: whether all packets are of the one stream that is read.
    """

    def __init__(self, alone: bool) -> None:
        self._alone = alone
        self._end: int | None = None
        self._num_bytes = 0
        self._seconds = 0.0

    def decoded(self, duration_s: float) -> None:
        self._seconds += duration_s

    def duration_of(self, num_bytes: int) -> float:
        """Returns how much audio so many bytes are, going by those before."""
        return num_bytes * self._seconds / self._num_bytes if self._num_bytes else 0.0

    def skipped_s(self, packet: Packet[AudioStream]) -> float:
        """Returns how much audio the bytes before a packet may have held."""
        position, num_skipped = packet.pos, 0
        if position is not None and position >= 0:
            if self._alone and self._end is not None:
                num_skipped = position - self._end
            self._end = position + packet.size
        is_much = num_skipped >= max(_LEAST_SKIPPED_BYTES, packet.size)
        skipped_s = self.duration_of(num_skipped) if is_much else 0.0
        self._num_bytes += packet.size
        return skipped_s


def _duration_s(packet: Packet[AudioStream]) -> float:
    if packet.duration is None or packet.time_base is None:
        return 0.0
    return max(float(packet.duration * packet.time_base), 0.0)
