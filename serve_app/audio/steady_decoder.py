"""A decoder that keeps its channel layout when a packet is damaged.

A damaged packet may look like one with another sample rate or other channels. Some of
FFmpeg's decoders, such as AAC's, keep such a layout for all packets that follow, whose audio
is then lost.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TypeAlias

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet

from serve_app.audio.ffmpeg_container import decoder_of, new_decoder_of

# After this many failures in a row the decoder's state may be the cause.
_FAILURES_BEFORE_RESTART = 3

_Layout: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of decoding a packet, and of the previous one if that was held back.

    Attributes:
        frames: the confirmed frames.
        num_bytes: of the packets that they came from.
        rejected_s: length of the audio in packets that turned out to be damaged.
        num_rejected_bytes: of those packets.
    """

    frames: list[AudioFrame]
    num_bytes: int = 0
    rejected_s: float = 0.0
    num_rejected_bytes: int = 0


class SteadyDecoder:
    """Decodes the packets of one track.

    If the sample rate or the number of channels changes, frames are held back until a new
    decoder, started at the next packet, confirms the change.

    Args:
        stream: the track.
    """

    def __init__(self, stream: AudioStream) -> None:
        self._stream = stream
        self._codec = decoder_of(stream)
        self._extradata = stream.codec_context.extradata
        self._usual: _Layout | None = None
        self._held_back: list[AudioFrame] = []
        self._num_held_back_bytes = 0
        self._num_failures = 0

    @property
    def codec(self) -> AudioCodecContext:
        return self._codec

    def decode(self, packet: Packet[AudioStream]) -> Outcome:
        """Decodes a packet.

        Raises:
            av.FFmpegError: it cannot be decoded.
        """
        if packet.has_sidedata("new_extradata"):
            self._extradata = bytes(packet.get_sidedata("new_extradata"))
        try:
            frames = self._codec.decode(packet)
        except av.EOFError:
            return Outcome([])
        except av.FFmpegError:
            self._num_failures += 1
            restarts = self._num_failures == _FAILURES_BEFORE_RESTART or bool(self._held_back)
            frames = self._restarted(packet) if restarts else []
            if not frames:
                raise
        self._num_failures = 0
        return self._settled(frames, packet)

    def flush(self) -> Outcome:
        """Returns what the decoder still holds at the end."""
        try:
            frames = self._codec.decode(None)
        except av.FFmpegError:
            frames = []
        certain = [frame for frame in frames if _layout_of(frame) == self._usual]
        rejected_s, num_rejected_bytes = self._reject()
        return Outcome(certain, 0, rejected_s, num_rejected_bytes)

    def _settled(self, frames: list[AudioFrame], packet: Packet[AudioStream]) -> Outcome:
        if not frames:
            return Outcome([], packet.size)
        if self._held_back and _layout_of(frames[0]) == _layout_of(self._held_back[0]):
            # Either the track has changed, or the decoder's state is wrong.
            frames = self._restarted(packet) or frames
            if _layout_of(frames[0]) != self._usual:
                return self._confirmed(frames, packet)
        rejected_s, num_rejected_bytes = self._reject()
        layout = _layout_of(frames[0])
        if self._usual is not None and layout != self._usual:
            self._held_back, self._num_held_back_bytes = frames, packet.size
            return Outcome([], 0, rejected_s, num_rejected_bytes)
        self._usual = layout
        return Outcome(frames, packet.size, rejected_s, num_rejected_bytes)

    def _confirmed(self, frames: list[AudioFrame], packet: Packet[AudioStream]) -> Outcome:
        outcome = Outcome(self._held_back + frames, self._num_held_back_bytes + packet.size)
        self._usual = _layout_of(frames[0])
        self._held_back = []
        return outcome

    def _reject(self) -> tuple[float, int]:
        """Drops the frames that were held back; returns their length in s and bytes."""
        doubted, self._held_back = self._held_back, []
        if not doubted:
            return 0.0, 0
        seconds = sum(frame.samples / max(frame.sample_rate, 1) for frame in doubted)
        return seconds, self._num_held_back_bytes

    def _restarted(self, packet: Packet[AudioStream]) -> list[AudioFrame]:
        """Decodes with a new decoder, which is kept if it finds the previous layout."""
        codec = new_decoder_of(self._stream, self._extradata)
        frames: list[AudioFrame] = []
        if codec is not None:
            with contextlib.suppress(av.FFmpegError):
                frames = codec.decode(packet)
        if codec is None or not frames or _layout_of(frames[0]) != self._usual:
            return []
        self._codec = codec
        return frames


def _layout_of(frame: AudioFrame) -> _Layout:
    return frame.sample_rate, frame.layout.nb_channels
