"""Recovers frames and packets where FFmpeg's demuxers and parsers lose them.

AMR and ADTS: FFmpeg accepts the first bytes that look like a frame and skips the others
silently, so these files are split into frames here. MPEG audio: FFmpeg's parser puts bytes
that precede a frame into its packet, which then fails to decode; `Reframer` removes them.
`SkippedBytes` estimates how much audio the bytes between two packets held.

Sources: RFC 4867, 5.1 (magic), 5.3 (frame header) and 3GPP TS 26.101, annex A (lengths);
ISO/IEC 13818-7, 6.2 (ADTS).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.packet import Packet

from serve_app.audio.bytesource import ByteSource
from serve_app.audio.containers import adts_num_bytes, id3_num_bytes, mpeg_num_bytes
from serve_app.audio.flac_frames import frames_of

AMR_NB_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
AMR_WB_BYTES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)
AMR_WB_MAGIC = b"#!AMR-WB\n"
_NB_MAGIC_BYTES = 6
# Bits of an AMR header that are always 0, and the bit that marks good quality.
_FIXED_BITS, _GOOD = 0x87, 0x04
_HEADER_BYTES = 7
# Frames needed in a row: in sync, the next header is enough. After a search, three are not a
# coincidence.
_RUN_IN_STEP, _RUN_FOUND = 2, 3
_SEARCHED_BYTES = 1 << 16
# An ADTS frame is no longer than its 13 bits can say, an AMR frame no longer than 61 bytes.
_MAX_RUN_BYTES = 2 * 0x1FFF + _HEADER_BYTES
# Bit rates vary: the number of frames lost is estimated from the lengths around them.
_NUM_NEIGHBORS = 64


_TAG = re.compile(rb"TAG|ID3")
# Tags whose length `tag_num_bytes` can read.
_WHOLE_TAG = re.compile(rb"TAG|ID3(?=[\x00-\xff]{3}[\x00-\x7f]{4})")
_LengthsOf: TypeAlias = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """A frame with its header; b"" at the end.

    Attributes:
        content: its bytes.
        num_lost_bytes: bytes before it that are not frames.
        num_lost_frames: estimated number of frames in them.
    """

    content: bytes
    num_lost_bytes: int = 0
    num_lost_frames: int = 0


def stream_frames(source: ByteSource, container: str) -> Iterator[StreamFrame | None]:
    """Yields the frames of an "amr" or "aac" file, and None regularly while it searches."""
    if container == "aac":
        return _frames(source, 0, adts_num_bytes, _adts_lengths)
    if source.peek(0, len(AMR_WB_MAGIC)) == AMR_WB_MAGIC:
        table = _length_table(_amr_wb_num_bytes)
        return _frames(source, len(AMR_WB_MAGIC), _amr_wb_num_bytes, lambda read: table[read])
    table = _length_table(_amr_nb_num_bytes)
    return _frames(source, _NB_MAGIC_BYTES, _amr_nb_num_bytes, lambda read: table[read])


def _frames(
    source: ByteSource, offset: int, length_of: Callable[[bytes], int], lengths_of: _LengthsOf
) -> Iterator[StreamFrame | None]:
    num_lost = 0
    lengths: deque[int] = deque(maxlen=_NUM_NEIGHBORS)
    search = _RunSearch(source, lengths_of)
    while offset < source.num_bytes:
        if num_lost:
            found = search.next_candidate(offset)
            num_lost, offset = num_lost + found - offset, found
        needed = _RUN_FOUND if num_lost else _RUN_IN_STEP
        num_bytes = _run_num_bytes(source, offset, length_of, needed)
        if num_bytes:
            num_frames = 0
            if num_lost:
                around = [*lengths, *_following_lengths(source, offset, length_of)]
                num_frames = round(num_lost * len(around) / sum(around))
            yield StreamFrame(source.peek(offset, num_bytes), num_lost, num_frames)
            lengths.append(num_bytes)
            offset, num_lost = offset + num_bytes, 0
            continue
        if offset < source.num_bytes:
            tag_bytes = tag_num_bytes(source.peek(offset, TAG_HEADER_BYTES))
            offset += tag_bytes or 1
            num_lost += 0 if tag_bytes else 1
        yield None
    if num_lost:
        num_frames = round(num_lost * len(lengths) / sum(lengths)) if lengths else 0
        yield StreamFrame(b"", num_lost, num_frames)


class _RunSearch:
    """Finds where a run of frames or a tag may start, many bytes at a time.

    Args:
        source: the file.
        lengths_of: returns for each byte the length of the frame that starts there, 0 for none.
    """

    def __init__(self, source: ByteSource, lengths_of: _LengthsOf) -> None:
        self._source = source
        self._lengths_of = lengths_of
        self._end = 0
        self._candidates: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def next_candidate(self, offset: int) -> int:
        """Returns the first candidate at or after offset, or where to continue the search."""
        if offset >= self._end:
            self._read(offset)
        index = int(np.searchsorted(self._candidates, offset))
        return int(self._candidates[index]) if index < len(self._candidates) else self._end

    def _read(self, start: int) -> None:
        content = self._source.peek(start, _SEARCHED_BYTES + _MAX_RUN_BYTES)
        self._end = min(start + _SEARCHED_BYTES, self._source.num_bytes)
        num_bytes = len(content)
        # The end of the content ends a run, as a tag or a truncated header does.
        lengths = np.zeros(num_bytes + 1, np.int64)
        lengths[:-1] = self._lengths_of(np.frombuffer(content, np.uint8))
        ends = np.zeros(num_bytes + 1, np.bool_)
        ends[num_bytes] = True
        if start + num_bytes >= self._source.num_bytes:
            ends[-_HEADER_BYTES:] |= lengths[-_HEADER_BYTES:] == 0
        ends[[match.start() for match in _TAG.finditer(content)]] = True
        first = np.flatnonzero(lengths[: self._end - start])
        second = np.minimum(first + lengths[first], num_bytes)
        third = np.minimum(second + lengths[second], num_bytes)
        follows = (lengths[third] > 0) | ends[third]
        runs = first[ends[second] | ((lengths[second] > 0) & follows)]
        tags = [match.start() for match in _WHOLE_TAG.finditer(content)]
        places = np.union1d(runs, np.array(tags, np.int64))
        self._candidates = places[places < self._end - start] + start


def _following_lengths(
    source: ByteSource, offset: int, length_of: Callable[[bytes], int]
) -> Iterator[int]:
    """Yields the lengths of consecutive frames from here on."""
    for _ in range(_NUM_NEIGHBORS):
        header = source.peek(offset, _HEADER_BYTES)
        num_bytes = length_of(header) if header else 0
        if not num_bytes:
            return
        yield num_bytes
        offset += num_bytes


def _run_num_bytes(
    source: ByteSource, offset: int, length_of: Callable[[bytes], int], needed: int
) -> int:
    """Returns the length of a frame followed by others or the end of the file; 0 for none."""
    first = 0
    for _ in range(needed):
        header = source.peek(offset, _HEADER_BYTES)
        if not header or (first and header[:3] in {b"ID3", b"TAG"}):
            return first
        num_bytes = length_of(header)
        if not num_bytes:
            # The last frame may be cut off.
            return first if len(header) < _HEADER_BYTES else 0
        first = first or num_bytes
        offset += num_bytes
    return first


def _amr_nb_num_bytes(header: bytes) -> int:
    kind = header[0] >> 3 & 15
    is_header = header[0] & _FIXED_BITS == _GOOD and not 9 <= kind <= 14
    return AMR_NB_BYTES[kind] if is_header else 0


def _amr_wb_num_bytes(header: bytes) -> int:
    kind = header[0] >> 3 & 15
    is_header = header[0] & _FIXED_BITS == _GOOD and not 10 <= kind <= 13
    return AMR_WB_BYTES[kind] if is_header else 0


def _length_table(length_of: Callable[[bytes], int]) -> npt.NDArray[np.int64]:
    """Returns the length of a frame by its first byte."""
    return np.array([length_of(bytes((first,))) for first in range(256)], np.int64)


def _adts_lengths(content: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Returns `adts_num_bytes` for each byte of the content."""
    lengths = np.zeros(len(content), np.int64)
    starts = np.flatnonzero(content[: 1 - _HEADER_BYTES] == 0xFF)
    starts = starts[content[starts + 1] & 0xF6 == 0xF0]
    starts = starts[content[starts + 2] >> 2 & 0xF <= 12]
    third, fourth, fifth = (content[starts + at].astype(np.int64) for at in (3, 4, 5))
    num_bytes = (third & 3) << 11 | fourth << 3 | fifth >> 5
    lengths[starts] = np.where(num_bytes > _HEADER_BYTES, num_bytes, 0)
    return lengths


TAG_HEADER_BYTES = 138
"""Bytes that `tag_num_bytes` needs."""
# No frame is longer.
_LONGEST_FRAME_BYTES = 8192
_ID3V1_BYTES = 128


@dataclass(frozen=True, slots=True)
class Framed:
    """The frame of a packet, None without one, and the number of useless bytes before it."""

    packet: Packet[AudioStream] | None
    num_lost_bytes: int = 0


class Reframer:
    """Removes bytes from packets that are not part of a frame.

    Args:
        container: "mp3"; packets of other containers are left alone.
    """

    def __init__(self, container: str) -> None:
        self._is_mpeg = container == "mp3"
        self._tag_end = 0
        self._kind = b""

    def reframe(self, packet: Packet[AudioStream]) -> Framed:
        """Returns the packet, or the intact frame in it; tags do not count as lost bytes."""
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
        # Random bytes may look like a header, but hardly like one of the same kind.
        alike = [one for one in starts if _kind_of(content[one:]) == self._kind]
        start = (alike or starts)[-1]
        self._kind = _kind_of(content[start:])
        return Framed(_copy(packet, content[start:]), start - tag_bytes)


def _frame_starts(content: bytes, first: int) -> list[int]:
    """Returns the offsets of possible frames that end with the packet."""
    starts: list[int] = []
    start = first - 1
    while (start := content.find(b"\xff", start + 1)) >= 0:
        if mpeg_num_bytes(content[start : start + _HEADER_BYTES]) == len(content) - start:
            starts.append(start)
    return starts


def _kind_of(frame: bytes) -> bytes:
    """Returns the constant part of a stream's headers: codec, version and rate."""
    return bytes((frame[1], frame[2] & 0x0C)) if len(frame) > 2 else b""


def tag_num_bytes(content: bytes) -> int:
    """Returns the length of the tags at the beginning; they may extend beyond the packet."""
    num_bytes = _ID3V1_BYTES if content[:3] == b"TAG" else 0
    return num_bytes + id3_num_bytes(content[num_bytes : num_bytes + 10])


def without_side_data(packet: Packet[AudioStream]) -> Packet[AudioStream]:
    """Returns a packet of the same content and times."""
    return _copy(packet, bytes(packet))


def split_flac(packet: Packet[AudioStream]) -> list[Packet[AudioStream]]:
    """Returns one packet per FLAC frame, each with its own time."""
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


# No container has more overhead than this between two packets.
_LEAST_SKIPPED_BYTES = 256
_MUCH_LARGER = 2.0
# Relates a packet's audio to that of a packet which the decoder trims for the encoder's delay.
_MUCH_LONGER = 2.0


class SkippedBytes:
    """Estimates how much audio the bytes held that a demuxer skipped between packets.

    Args:
        source: the file.
        alone: whether all packets belong to the stream that is read.
        least_bytes: fewer between two packets are ignored; 0 for a limit by packet size.
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
        """Returns the bit rate so far, in bytes; at first, that of the first packets."""
        seconds = self._seconds or frame_s * self._num_decoded
        return self._num_bytes / seconds if seconds else 0.0

    def duration_of(self, num_bytes: int) -> float:
        """Returns the estimated length of the audio in this many bytes."""
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
        """Records how much audio packets of this size yielded."""
        if duration_s > _MUCH_LONGER * self._longest_s:
            # Earlier packets were trimmed: they do not show the bit rate.
            self._num_decoded = self._num_bytes = 0
            self._seconds = 0.0
        self._longest_s = max(self._longest_s, duration_s)
        self._num_bytes += num_bytes
        self._num_decoded += 1
        self._seconds += duration_s

    def excess_s(self, num_bytes: int) -> float:
        """Returns the estimated audio of an unusually large packet, 0 for a usual one."""
        usual_bytes = self._num_bytes / max(self._num_decoded, 1)
        return self.duration_of(num_bytes) if num_bytes > _MUCH_LARGER * usual_bytes else 0.0
