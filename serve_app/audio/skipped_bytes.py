"""Bytes between the packets of a file, and how much audio they may have held."""

from __future__ import annotations

from av.audio.stream import AudioStream
from av.packet import Packet

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.framing import TAG_HEADER_BYTES, tag_num_bytes

# Between two packets no container needs more for its own purposes.
_LEAST_SKIPPED_BYTES = 256
_MUCH_LARGER = 2.0
# The audio of a packet against that of one which a decoder trims for the encoder's delay.
_MUCH_LONGER = 2.0


class SkippedBytes:
    """Looks at the bytes between packets, which a demuxer passed over without a word.

    Args:
        source: the file.
        alone: whether all packets are of the one stream that is read.
        least_bytes: fewer between two packets are nothing; 0 to go by the packets' size.
    """

    def __init__(self, source: ByteSource, alone: bool, least_bytes: int = 0) -> None:
        self._source = source
        self._least_bytes = least_bytes
        self.alone = alone
        self.first_position = 0
        self.end = 0
        """One past the last packet."""
        self._position = -1
        self._num_packets = 0
        self._num_decoded = 0
        self._num_bytes = 0
        self._seconds = 0.0
        self._longest_s = 0.0

    def bytes_per_s(self, frame_s: float) -> float:
        """Returns the rate so far; at the beginning that of the first packets."""
        seconds = self._seconds or frame_s * self._num_decoded
        return self._num_bytes / seconds if seconds else 0.0

    def duration_of(self, num_bytes: int) -> float:
        """Returns how much audio so many bytes are, going by those before."""
        return num_bytes * self._seconds / self._num_bytes if self._num_bytes else 0.0

    def skipped_s(self, packet: Packet[AudioStream]) -> float:
        """Returns how much audio the bytes before a packet may have held."""
        position, num_skipped = packet.pos, 0
        if position is not None and position >= 0:
            if not self._num_packets:
                self.first_position = position
            elif position == self._position:
                # One of several in a page of Ogg or a packet of MPEG-TS.
                position = self.end
            elif self.alone:
                num_skipped = position - self.end
                if num_skipped >= _LEAST_SKIPPED_BYTES:
                    num_skipped -= tag_num_bytes(self._source.peek(self.end, TAG_HEADER_BYTES))
            self._position = packet.pos or 0
            self.end = position + packet.size
        self._num_packets += 1
        is_much = num_skipped >= (self._least_bytes or max(_LEAST_SKIPPED_BYTES, packet.size))
        return self.duration_of(num_skipped) if is_much else 0.0

    def add(self, num_bytes: int, duration_s: float) -> None:
        """Of packets of this size so much audio has come."""
        if duration_s > _MUCH_LONGER * self._longest_s:
            # Of those before only a part was audio: they say nothing of the rate.
            self._num_decoded = self._num_bytes = 0
            self._seconds = 0.0
        self._longest_s = max(self._longest_s, duration_s)
        self._num_bytes += num_bytes
        self._num_decoded += 1
        self._seconds += duration_s

    def excess_s(self, num_bytes: int) -> float:
        """Returns how much audio a packet should hold that is far larger than those before."""
        usual_bytes = self._num_bytes / max(self._num_decoded, 1)
        return self.duration_of(num_bytes) if num_bytes > _MUCH_LARGER * usual_bytes else 0.0
