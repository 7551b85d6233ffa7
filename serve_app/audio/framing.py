"""Frames of MPEG audio in streams that are damaged or were joined.

FFmpeg's parser puts everything that stands before a frame, however long, into the same
packet, whose decoding then fails although the frame is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from av.audio.stream import AudioStream
from av.packet import Packet

from serve_app.audio.containers import id3_num_bytes, mpeg_num_bytes
from serve_app.audio.flac_frames import frames_of

TAG_HEADER_BYTES = 138
"""What `tag_num_bytes` has to see."""

_HEADER_BYTES = 7
# No frame is longer.
_LONGEST_FRAME_BYTES = 8192
_ID3V1_BYTES = 128


@dataclass(frozen=True, slots=True)
class Framed:
    """The frame of a packet, None if it holds none, and how many bytes of no use stood before."""

    packet: Packet[AudioStream] | None
    num_lost_bytes: int = 0


class Reframer:
    """Takes away from packets what is no frame.

    Args:
        container: "mp3"; nothing is done to the packets of others.
    """

    def __init__(self, container: str) -> None:
        self._is_mpeg = container == "mp3"
        self._tag_end = 0
        self._kind = b""

    def reframe(self, packet: Packet[AudioStream]) -> Framed:
        """Returns the packet, or what is sound of it; tags are not lost bytes."""
        if not self._is_mpeg:
            return Framed(packet)
        content = bytes(packet)
        position = packet.pos or 0
        if self._tag_end > position:
            if self._tag_end >= position + len(content):
                return Framed(None)
            tag_bytes = self._tag_end - position
        else:
            tag_bytes = tag_num_bytes(content)
            self._tag_end = position + tag_bytes
            if tag_bytes >= len(content):
                return Framed(None)
        if not tag_bytes and mpeg_num_bytes(content[:_HEADER_BYTES]) == len(content):
            self._kind = _kind_of(content)
            return Framed(packet)
        starts = _frame_starts(content, max(tag_bytes, len(content) - _LONGEST_FRAME_BYTES))
        if not starts:
            return Framed(packet)
        # What looks like a header may be one by accident, but hardly one of the same kind.
        alike = [one for one in starts if _kind_of(content[one:]) == self._kind]
        start = (alike or starts)[-1]
        self._kind = _kind_of(content[start:])
        return Framed(_copy(packet, content[start:]), start - tag_bytes)


def _frame_starts(content: bytes, first: int) -> list[int]:
    """Returns where frames may begin that end with the packet."""
    starts: list[int] = []
    start = first - 1
    while (start := content.find(b"\xff", start + 1)) >= 0:
        if mpeg_num_bytes(content[start : start + _HEADER_BYTES]) == len(content) - start:
            starts.append(start)
    return starts


def _kind_of(frame: bytes) -> bytes:
    """Returns what the headers of one stream have in common: codec, version and rate."""
    return bytes((frame[1], frame[2] & 0x0C)) if len(frame) > 2 else b""


def tag_num_bytes(content: bytes) -> int:
    """Returns the length of the tags that stand first; they may go on behind the packet."""
    num_bytes = _ID3V1_BYTES if content[:3] == b"TAG" else 0
    return num_bytes + id3_num_bytes(content[num_bytes : num_bytes + 10])


def without_side_data(packet: Packet[AudioStream]) -> Packet[AudioStream]:
    """Returns a packet of the same content and times."""
    return _copy(packet, bytes(packet))


def split_flac(packet: Packet[AudioStream]) -> list[Packet[AudioStream]]:
    """Returns a packet for each frame of a FLAC file, each with its own time."""
    frames = frames_of(bytes(packet))
    if len(frames) == 1:
        return [packet]
    parts: list[Packet[AudioStream]] = []
    for frame in frames:
        part = _copy(packet, frame.content)
        # FFmpeg counts the time of such a file in samples.
        part.pts = part.dts = frame.first_sample
        parts.append(part)
    return parts


def _copy(packet: Packet[AudioStream], content: bytes) -> Packet[AudioStream]:
    copy = cast("Packet[AudioStream]", Packet(content))
    copy.stream = packet.stream
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    copy.duration = packet.duration
    return copy
